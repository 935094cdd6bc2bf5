// Words of timed tokens: a word begins with a space, and times never run backwards.

import { expect, test } from 'vitest';
import { wordsOf } from '../../../../../src/engine/child/audio/transcriber.ts';

function token(text: string | Buffer, from: number, to: number) {
  return { bytes: Buffer.from(text), times: [from, to] as const };
}

test('tokens are joined to words', () => {
  expect(
    wordsOf([token(' We', 0, 12), token(' wal', 12, 20), token('ked', 20, 40), token('.', 40, 41)]),
  ).toEqual([
    { word: 'We', start: 0, end: 0.12 },
    { word: 'walked.', start: 0.12, end: 0.41 },
  ]);
});

test('a letter in two tokens is whole', () => {
  const letter = Buffer.from('é');
  expect(
    wordsOf([token(' caf', 0, 5), token(letter.subarray(0, 1), 5, 6), token(letter.subarray(1), 6, 9)]),
  ).toEqual([{ word: 'café', start: 0, end: 0.09 }]);
});

test('times before the beginning, and backwards ones, are put right', () => {
  expect(wordsOf([token(' a', -100_726, 10), token(' b', 5, 1)])).toEqual([
    { word: 'a', start: 0, end: 0.1 },
    { word: 'b', start: 0.05, end: 0.05 },
  ]);
});

test('spaces alone are no words', () => {
  expect(wordsOf([token(' ', 0, 1), token(' x', 1, 2)])).toEqual([{ word: 'x', start: 0.01, end: 0.02 }]);
});
