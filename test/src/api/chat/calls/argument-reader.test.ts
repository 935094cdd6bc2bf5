// A value whose type only its end tells: it is the same however it is cut, and reading it takes a look at its
// text a few times, not once for each piece.

import * as fc from 'fast-check';
import { expect, test, vi } from 'vitest';
import { TypedText } from '../../../../../src/api/chat/calls/argument-reader.ts';
import type { ValueTypes } from '../../../../../src/grammar/schema-view.ts';
import { splitText } from '../../../../fixtures/engine/tool-formats.ts';

const END = '</parameter>';
const EITHER: ValueTypes = new Set(['string', 'object'] as const);

function read(types: ValueTypes, pieces: readonly string[]): readonly [json: string, rest: string] {
  const reader = new TypedText(END, types);
  let [json, rest] = ['', ''];
  for (const piece of pieces)
    if (reader.done) rest += piece;
    else json += reader.read(piece);
  return [json, reader.rest + rest];
}

test.each<[text: string, types: ValueTypes, json: string]>([
  ['{"a": [1]}', EITHER, '{"a": [1]}'],
  ['{not json', EITHER, '"{not json"'],
  ['words', EITHER, '"words"'],
  ['{"a": "<b>"}', new Set(['object'] as const), '{"a": "<b>"}'],
  ['12', new Set(['string', 'number'] as const), '12'],
  ['12 a', new Set(['string', 'number'] as const), '"12 a"'],
  ['{a', new Set(['string', 'object', 'null'] as const), '"{a"'],
])('%j, whole and in pieces', (text, types, json) => {
  for (const pieces of [[`${text}${END} behind`], [...`${text}${END} behind`]])
    expect(read(types, pieces)).toEqual([json, `${END} behind`]);
});

test('property: a long text that may be an object is the same wherever it is cut', () => {
  const text = `{"a": "${'word </para '.repeat(200)}"}`;
  fc.assert(
    fc.property(fc.boolean(), fc.array(fc.nat(text.length + 20), { maxLength: 200 }), (isObject, cuts) => {
      const given = isObject ? text : text.slice(0, -1);
      const json = isObject ? given : JSON.stringify(given);
      expect(read(EITHER, splitText(`${given}${END}x`, cuts))).toEqual([json, `${END}x`]);
    }),
  );
});

test('reading it is linear: the text is put together a few times', () => {
  const reader = new TypedText(END, EITHER);
  const joins = vi.spyOn(Array.prototype, 'join');
  try {
    reader.read('{"a": "');
    for (let i = 0; i < 20_000; i++) expect(reader.read('word ')).toBe('');
    const joined = joins.mock.results.filter(({ value }) => String(value).startsWith('{"a": "'));
    expect(joined.length).toBeLessThan(100);
  } finally {
    joins.mockRestore();
  }
  expect(reader.read(`"}${END}`)).toBe(`{"a": "${'word '.repeat(20_000)}"}`);
});
