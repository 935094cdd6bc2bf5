// The bytes of a line's body, byte for byte (docs/receipts.md [R18]).

import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { bodyBytes } from '../../../../src/api/batches/body-bytes.ts';

function of(line: string): string {
  return bodyBytes(Buffer.from(line)).toString();
}

test.each([
  ['{"body":{"a":1}}', '{"a":1}'],
  [' { "custom_id" : "x" , "body" :  { "a" : [ 1 , "}" ] }  , "url":"/v1"}', '{ "a" : [ 1 , "}" ] }'],
  ['{"body":{"a":"\\"}"},"b":1}', '{"a":"\\"}"}'],
  ['{"body":{"first":1},"body":{"last":2}}', '{"last":2}'],
  ['{"b\\u006fdy":{"a":1}}', '{"a":1}'],
  ['{"x":{"body":1},"body":{}}', '{}'],
  ['{"x":"body","y":null,"body":{},"z":-1.5e3}', '{}'],
  ['{"a":1}', ''],
])('[R18] %s', (line, body) => expect(of(line)).toBe(body));

test('[R18] is the value that a parser finds, whatever stands around it', () => {
  fc.assert(
    fc.property(
      fc.dictionary(fc.string(), fc.jsonValue()),
      fc.jsonValue(),
      fc.nat(8),
      (others, body, indent) => {
        const { body: _, ...rest } = others;
        const line = JSON.stringify({ ...rest, body, zzz: others }, null, indent).replaceAll('\n', '\t');
        expect(JSON.parse(of(line))).toEqual(JSON.parse(JSON.stringify(body)));
      },
    ),
  );
});
