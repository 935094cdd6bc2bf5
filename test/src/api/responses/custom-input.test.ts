// The input of a custom tool, read out of the arguments of a call in any pieces.

import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { customArguments, CustomInput } from '../../../../src/api/responses/custom-input.ts';

function read(source: string, cuts: readonly number[]): { readonly pieces: string; readonly text: string } {
  const input = new CustomInput();
  const places = [...new Set(cuts.map((cut) => cut % (source.length + 1)))].toSorted((a, b) => a - b);
  const ends = [...places, source.length];
  let pieces = '';
  for (const [i, end] of ends.entries()) pieces += input.push(source.slice(ends[i - 1] ?? 0, end));
  pieces += input.end();
  return { pieces, text: input.text };
}

/** With halves of pairs that stand alone. */
const halves = fc.constantFrom('\ud83d', '\ude00', 'a', '"', '\\', 'u').map(String);
const texts = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.string({ unit: halves }),
  fc.string({ unit: 'grapheme' }),
  fc.constant('\\"\n\u{1f600}'),
);
const cuts = fc.array(fc.nat({ max: 200 }), { maxLength: 12 });
/** JSON with every character but ASCII as escapes, as some models write it. */
function escaped(json: string): string {
  return json.replaceAll(/[^ -~]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

test('property: the pieces are the input, wherever the arguments are cut', () => {
  fc.assert(
    fc.property(texts, cuts, fc.boolean(), (text, at, escape) => {
      const source = customArguments(text);
      const written = read(escape ? escaped(source) : source, at);
      expect(written).toEqual({ pieces: text, text });
    }),
  );
});

test('property: what breaks off gives the beginning of the input', () => {
  fc.assert(
    fc.property(texts, cuts, fc.nat({ max: 100 }), (text, at, length) => {
      const { pieces } = read(customArguments(text).slice(0, length), at);
      expect(text.startsWith(pieces)).toBe(true);
    }),
  );
});

test.each([
  ['{ "input" : "a" }', 'a'],
  ['{"input":""}', ''],
  [String.raw`{"input":"\b\f\n\r\t\/\\\""}`, '\b\f\n\r\t/\\"'],
  ['{"other":1,"input":"late"}', 'late'],
  ['{"input":5}', ''],
  ['[]', ''],
  ['', ''],
])('%s', (source, expected) => {
  expect(read(source, [3, 7])).toEqual({ pieces: expected, text: expected });
});
