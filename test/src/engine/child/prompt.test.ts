// Prompts that are refused before, and instead of, tokenizing: shown with a model that only
// counts what it is given.

import { describe, expect, test } from 'vitest';
import type { Prompt } from '../../../../src/engine/seam/engine.ts';
import type { LoadedModel } from '../../../../src/engine/child/llama/model.ts';
import { assertMayFit, promptTokens, rankTokens } from '../../../../src/engine/child/prompt.ts';
import type { ChatTemplate } from '../../../../src/engine/child/template/template.ts';
import { GENERIC_TOOL_FORMAT } from '../../../../src/engine/seam/tool-format.ts';
import { assertCountable } from '../../../../src/engine/seam/context-limits.ts';

/** A model of one token a character. */
function countingModel(over: Partial<LoadedModel> = {}): {
  readonly model: LoadedModel;
  readonly asked: string[];
} {
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
    meta: () => 'llama',
    tokenize(text) {
      asked.push(text);
      return Array.from({ length: text.length }, (_, i) => text.charCodeAt(i));
    },
    ...over,
  };
  return { model: model as LoadedModel, asked };
}
function codes(text: string): number[] {
  return Array.from(text, (c) => c.charCodeAt(0));
}

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

  test.each([null, '{query}{document}'])(
    'of any length, without running out of stack (template %s)',
    (rerankTemplate) => {
      const { model } = countingModel({ rerankTemplate });
      const long = 'q'.repeat(1_000_000);
      expect(rankTokens(model, long)('d').length).toBeGreaterThan(1_000_000);
      expect(rankTokens(model, 'q')(long).length).toBeGreaterThan(1_000_000);
    },
  );
});

describe('what cannot fit is refused unread', () => {
  const contextLength = 64;
  // Of 8 bytes a token at most, 512 bytes are 64 tokens: as many as the context has, and
  // none left for an answer.
  const half = 'a'.repeat(256);
  const call = { id: '1', name: 'f', arguments: '{}' };
  const user = { role: 'user', content: 'hi' } as const;
  const chats: [string, Prompt][] = [
    ['contents', { kind: 'chat', messages: [{ role: 'user', content: half }, { role: 'user', content: half }] }],
    ['reasoning', { kind: 'chat', messages: [{ role: 'assistant', content: half, reasoning: half }] }],
    ['names', { kind: 'chat', messages: [{ ...user, name: half + half }] }],
    ['tool call ids', { kind: 'chat', messages: [{ role: 'tool', content: half, toolCallId: half }] }],
    ['arguments of calls', { kind: 'chat', messages: [{ role: 'assistant', content: '', toolCalls: [{ ...call, arguments: half + half }] }] }],
    ['names of calls', { kind: 'chat', messages: [{ role: 'assistant', content: half, toolCalls: [{ ...call, name: half }] }] }],
    ['ids of calls', { kind: 'chat', messages: [{ role: 'assistant', content: half, toolCalls: [{ ...call, id: half }] }] }],
    ['descriptions of tools', { kind: 'chat', messages: [user], tools: [{ name: 'f', description: half + half, parameters: {} }] }],
    ['names of tools', { kind: 'chat', messages: [user], tools: [{ name: half + half, parameters: {} }] }],
    ['parameters of tools', { kind: 'chat', messages: [user], tools: [{ name: 'f', parameters: { enum: [half, half] } }] }],
  ]; // prettier-ignore
  const unread: ChatTemplate = {
    toolFormat: GENERIC_TOOL_FORMAT,
    reasoning: null,
    stops: [],
    prompt: () => {
      throw new Error('it was rendered');
    },
    tokens: () => {
      throw new Error('it was rendered');
    },
  };
  const others: [string, Prompt][] = [
    ['text', { kind: 'text', text: half + half }],
    ['text with its suffix', { kind: 'text', text: half, suffix: half }],
    ['tokens', { kind: 'tokens', tokens: Array.from({ length: contextLength }, () => 300) }],
  ];
  test.each([...chats, ...others])('%s', (_, prompt) => {
    const { model, asked } = countingModel();
    expect(() => promptTokens(model, unread, prompt, contextLength)).toThrow(
      expect.objectContaining({
        code: 'context_length_exceeded',
        param: prompt.kind === 'chat' ? 'messages' : 'prompt',
      }),
    );
    expect(asked).toEqual([]);
  });
  test.each([
    ['bert', 400, 2000, true],
    ['t5', 400, 2000, true],
    ['llama', 400, 2000, false],
    ['gpt2', 400, 2000, false],
    // Letters that cannot fit, and more white space than may be looked through.
    ['bert', 600, 1000, false],
    ['bert', 10, 8 * 512, false],
  ])(
    'white space where the tokenizer drops it is no length: %s, %i letters and %i spaces',
    (tokenizer, letters, spaces, fits) => {
      const { model } = countingModel({ meta: () => tokenizer });
      const check = (): void =>
        assertMayFit(model, ['a'.repeat(letters) + ' '.repeat(spaces)], {
          contextLength,
          param: 'input',
          answer: 0,
        });
      if (fits) expect(check).not.toThrow();
      else expect(check).toThrow(expect.objectContaining({ code: 'context_length_exceeded' }));
    },
  );
  test('one byte less is read', () => {
    const { model, asked } = countingModel();
    const text = 'a'.repeat(511);
    expect(promptTokens(model, unread, { kind: 'text', text }, contextLength).tokens).toHaveLength(511);
    expect(asked).toEqual([text]);
  });
});

test('four contexts of tokens can be counted, and not one more', () => {
  assertCountable(256, 64, 'tokens');
  expect(() => assertCountable(257, 64, 'tokens')).toThrow(
    expect.objectContaining({ status: 400, code: 'context_length_exceeded', param: 'tokens' }),
  );
});
