// The strict JSON reader: the same values as JSON.parse for what it accepts, and it accepts
// no text with two readings.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseJson, shapeReaders } from '../../../attestation/encoding/json.ts';
import { accepted, codeOf } from '../../fixtures/refusal.ts';

function read(text: string): string {
  return codeOf(() => parseJson(text));
}

describe('strict json', () => {
  test.each([
    ['null', null],
    [' [1,-0,2.5e3,"a\\u00e9\\ud83d\\ude00",true,false,{}] ', [1, -0, 2500, 'aé😀', true, false, {}]],
    ['{"a":{"b":[]},"":1}', { a: { b: [] }, '': 1 }],
    ['["\\\\","\\\\\\"","\\"\\\\","",1]', ['\\', '\\"', '"\\', '', 1]],
    ['"\\"\\\\\\/\\b\\f\\n\\r\\t"', '"\\/\b\f\n\r\t'],
  ])('%s', (text, value) => {
    expect(JSON.stringify(parseJson(text))).toBe(JSON.stringify(value));
  });

  test.each([
    ['{"a":1,"a":1}', 'a key twice'],
    ['{"a":1,"\\u0061":1}', 'a key twice, once escaped'],
    ['{"a":1,}', 'a comma at the end'],
    ['[1,]', 'a comma at the end of a list'],
    ['[1 2]', 'a comma that is missing'],
    ['{a:1}', 'a bare key'],
    ["{'a':1}", 'single quotes'],
    ['{"a" 1}', 'no colon'],
    ['{"a":}', 'no value'],
    ['01', 'a leading zero'],
    ['.5', 'no digit before the point'],
    ['1.', 'no digit after the point'],
    ['+1', 'a plus'],
    ['NaN', 'NaN'],
    ['"\u0001"', 'a control character'],
    ['"\\x41"', 'an unknown escape'],
    ['"\\u12"', 'a cut escape'],
    ['"a', 'a cut string'],
    ['"a\\', 'a string cut at its escape'],
    ['"\\"', 'a string whose only end is escaped'],
    ['"\\\\\\"', 'a string whose only end is escaped, after an escaped backslash'],
    [`"${'\\'.repeat(999_999)}"`, 'very many backslashes'],
    ['[', 'a cut list'],
    ['{"a":1', 'a cut object'],
    ['', 'nothing'],
    ['1 1', 'two values'],
    ['tru', 'a cut word'],
    ['// x\n1', 'a comment'],
    ['\ufeff1', 'a byte-order mark'],
    ['['.repeat(40) + ']'.repeat(40), 'deep nesting'],
    ['['.repeat(500_000), 'very deep nesting'],
    ['{"a":'.repeat(100_000), 'very deep objects'],
  ])('refuses %j: %s', (text) => {
    expect(read(text)).toBe('malformed_json');
  });

  test('refuses what is too large before reading it', () => {
    expect(codeOf(() => parseJson('[]', 'x', 1))).toBe('input_too_large');
  });

  test.each(['{}', '[]', '""', '0', 'null', '[[]]', '{"a":0}'])(
    'refuses twenty thousand of %s, whatever comes after, and no thousand of it',
    (item) => {
      expect(read(`[${`${item},`.repeat(20_000)}`)).toBe('malformed_json');
      expect(() => parseJson(`[${`${item},`.repeat(20_000)}`)).toThrow('more than 16384 values');
      expect(parseJson(`[${`${item},`.repeat(999)}${item}]`)).toHaveLength(1000);
    },
  );

  test('keys of Object.prototype are ordinary keys', () => {
    const value = parseJson('{"__proto__":{"x":1},"constructor":2,"toString":3}') as Record<string, unknown>;
    expect(Object.getPrototypeOf(value)).toBeNull();
    expect(Object.keys(value)).toEqual(['__proto__', 'constructor', 'toString']);
    expect(({} as { x?: number }).x).toBeUndefined();
  });

  test('reads whatever JSON.stringify writes', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 10 }), fc.constantFrom(undefined, 1, '\t'), (value, indent) => {
        const text = JSON.stringify(value, undefined, indent);
        expect(JSON.stringify(parseJson(text))).toBe(JSON.stringify(JSON.parse(text)));
      }),
    );
  });

  test('accepts nothing that JSON.parse refuses, and reads the same when both accept', () => {
    const text = fc.string({
      unit: fc.constantFrom(...'{}[]",:0123456789.eE+-truefalsn\\u \n'),
      maxLength: 40,
    });
    fc.assert(
      fc.property(text, (sample) => {
        const ours = accepted(() => ({ value: parseJson(sample) }));
        expect(ours === undefined || JSON.stringify(ours.value) === JSON.stringify(JSON.parse(sample))).toBe(
          true,
        );
      }),
      { numRuns: 5000 },
    );
  });
});

describe('shape readers', () => {
  const shape = shapeReaders('malformed_policy');

  test('name the nearest known key', () => {
    expect(() => shape.object({ measurments: 1 }, 'policy', [], ['measurements', 'models'])).toThrow(
      expect.objectContaining({ code: 'malformed_policy', hint: 'did you mean measurements?' }),
    );
    // More than a third of a short name is another name.
    for (const key of ['foo', 'wen', 'x'])
      expect(() => shape.object({ [key]: 1 }, 'evidence', [], ['now', 'tee', 'crl', 'vek'])).toThrow(
        expect.objectContaining({ hint: undefined }),
      );
    expect(() => shape.object({ rots: 1 }, 'evidence', [], ['now', 'roots'])).toThrow(
      expect.objectContaining({ hint: 'did you mean roots?' }),
    );
    expect(() => shape.object({ zzzzzzzz: 1 }, 'policy', [], ['models'])).toThrow(
      expect.objectContaining({ hint: undefined }),
    );
  });

  test.each<[string, () => unknown]>([
    ['a list for an object', () => shape.object([], 'x', [])],
    ['null for an object', () => shape.object(null, 'x', [])],
    ['a missing key', () => shape.object({}, 'x', ['a'])],
    ['an inherited key', () => shape.object(Object.create({ a: 1 }), 'x', ['a'])],
    ['a number for a string', () => shape.string(1, 'x')],
    ['a long string', () => shape.string('aaa', 'x', 2)],
    ['a fraction', () => shape.integer(1.5, 'x')],
    ['an integer out of range', () => shape.integer(4, 'x', 0, 3)],
    ['NaN', () => shape.integer(Number.NaN, 'x')],
    ['a word for a boolean', () => shape.boolean('true', 'x')],
    ['an object for a list', () => shape.list({}, 'x', 0, 1)],
    ['an empty list', () => shape.list([], 'x', 1, 1)],
    ['a list too long', () => shape.list([1, 2], 'x', 1, 1)],
    ['an unknown word', () => shape.oneOf('c', 'x', ['a', 'b'])],
  ])('refuse %s', (_, action) => {
    expect(codeOf(action)).toBe('malformed_policy');
  });
});
