// Whether a last message of the assistant is continued, as a request says it.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { askedOf, CHAT } from '../../../fixtures/http/asked.ts';
import { type ApiServer, startApi } from '../../../fixtures/http/api-server.ts';

let api: ApiServer;
beforeAll(async () => void (api = await startApi()));
afterAll(() => api.close());
const { refusal, seenBy } = askedOf(() => api);
const OPEN = { ...CHAT, messages: [...CHAT.messages, { role: 'assistant', content: 'Once' }] };

describe('refused', () => {
  test.each([
    [{ ...CHAT, continue_final_message: true }, 'invalid_value', 'continue_final_message'],
    [{ ...OPEN, add_generation_prompt: false }, 'unsupported_parameter', 'add_generation_prompt'],
    [{ ...CHAT, add_generation_prompt: false }, 'unsupported_parameter', 'add_generation_prompt'],
  ])('%j', async (body, code, param) => {
    expect(await refusal(body)).toMatchObject({ code, param });
  });
});

test.each<[object, boolean | undefined]>([
  [OPEN, undefined],
  [{ ...OPEN, continue_final_message: false }, false],
  [{ ...OPEN, continue_final_message: true }, true],
  [{ ...OPEN, continue_final_message: true, add_generation_prompt: false }, true],
  [{ ...OPEN, add_generation_prompt: true }, undefined],
  [{ ...CHAT, continue_final_message: false, add_generation_prompt: true }, undefined],
])('%j', async (body, prefill) => {
  const { prompt } = await seenBy(body);
  expect(prompt).toMatchObject({ kind: 'chat', prefill });
});
