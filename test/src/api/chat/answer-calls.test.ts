// Ids of the calls in one answer, of a model that writes its own.

import { expect, test } from 'vitest';
import { createToolReader } from '../../../../src/api/chat/calls/reader.ts';
import { collectChat } from '../../../../src/api/chat/answer.ts';
import type { GenerateEvent } from '../../../../src/engine/seam/engine.ts';
import { GREEDY } from '../../../fixtures/engine/demo-engine.ts';
import { toolFormat, writeCalls } from '../../../fixtures/engine/tool-formats.ts';

async function* answered(text: string): AsyncGenerator<GenerateEvent> {
  yield await Promise.resolve({ kind: 'delta', index: 0, text });
  yield { kind: 'finish', index: 0, reason: 'stop', completionTokens: 1 };
}

test('an id that the model writes twice is the first call’s alone', async () => {
  const format = toolFormat('kimi-k2');
  const text = writeCalls(format, [
    ['f', { a: 1 }],
    ['f', { a: 2 }],
  ]).replace('functions.f:1', 'functions.f:0');
  const body = await collectChat(answered(text), {
    plan: {
      messages: [],
      withMessages: () => {
        throw new Error('not asked for');
      },
      prompt: { kind: 'chat', messages: [] },
      n: 1,
      maxTokens: undefined,
      sampling: GREEDY,
      logprobs: false,
      parallel: true,
      reader: () => null,
      request: () => {
        throw new Error('the answer is here already');
      },
    },
    newReader: () => createToolReader(format, [{ name: 'f', parameters: {} }]),
    answer: { id: 'a', created: 1, model: 'm', fingerprint: 'f' },
    counts: { promptTokens: 1, cachedTokens: 0, completionTokens: 1, reasoningTokens: 0 },
    newCallId: () => 'call_new',
  });
  expect(body).toMatchObject({
    choices: [{ message: { tool_calls: [{ id: 'functions.f:0' }, { id: 'call_new' }] } }],
  });
});
