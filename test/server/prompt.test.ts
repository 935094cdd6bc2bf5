// What is refused before, and instead of, tokenizing: shown with a model that only counts what it is given.
import { describe, expect, test } from 'vitest';
import type { LoadedModel } from '../../src/inference/llama-model.ts';
import { rankTokens } from '../../src/inference/prompt.ts';

/** A model of one token a character. */
function countingModel(over: Partial<LoadedModel> = {}): { readonly model: LoadedModel; readonly asked: string[] } {
  const asked: string[] = [];
  const model: Partial<LoadedModel> = {
    vocabSize: 256,
    bos: 1,
    eos: 2,
    sep: 3,
    addBos: true,
    addEos: true,
    addSep: true,
    fim: { pre: 4, mid: 5, suf: 6 },
    rerankTemplate: null,
    longestPiece: () => 8,
    tokenize(text) {
      asked.push(text);
      return Array.from({ length: text.length }, (_, i) => text.charCodeAt(i));
    },
    ...over,
  };
  return { model: model as LoadedModel, asked };
}
const codes = (text: string): number[] => Array.from(text, (c) => c.charCodeAt(0));

describe('a query and its documents', () => {
  test('are joined with the special tokens of the model, and the query is read once', () => {
    const { model, asked } = countingModel();
    const join = rankTokens(model, 'qq');
    expect(join('one')).toEqual([1, ...codes('qq'), 2, 3, ...codes('one'), 2]);
    expect(join('two')).toEqual([1, ...codes('qq'), 2, 3, ...codes('two'), 2]);
    expect(asked).toEqual(['qq', 'one', 'two']);
  });

  test('or as its template says', () => {
    const { model, asked } = countingModel({ rerankTemplate: '<q>{query}<d>{document}</d>' });
    const join = rankTokens(model, 'qq');
    expect(join('one')).toEqual(codes('<q>qq<d>one</d>'));
    join('two');
    expect(asked.filter((text) => text === 'qq')).toHaveLength(1);
  });

  test.each([null, '{query}{document}'])('of any length, without running out of stack (template %s)', (rerankTemplate) => {
    const { model } = countingModel({ rerankTemplate });
    const long = 'q'.repeat(1_000_000);
    expect(rankTokens(model, long)('d').length).toBeGreaterThan(1_000_000);
    expect(rankTokens(model, 'q')(long).length).toBeGreaterThan(1_000_000);
  });
});
