// A real engine that reasons, through the API and the OpenAI SDK: the demo model under a template whose
// prompt opens a block. The budget ends it, and the answer after it takes the form asked for.

import OpenAI from 'openai';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { CHAT_TEMPLATE } from '../../../scripts/demo-model/text.ts';
import type { Engine } from '../../../src/engine/seam/engine.ts';
import { openDemo } from '../../fixtures/engine/demo-engine.ts';
import { type ApiServer, startApi } from '../../fixtures/http/api-server.ts';

const THINKS = `${CHAT_TEMPLATE}{%- if enable_thinking is defined and not enable_thinking -%}{{- '<think></think>' -}}{%- else -%}{{- '<think>\\n' -}}{%- endif -%}{# message.reasoning_content #}`;

interface Reasoned {
  readonly reasoning_content?: string;
  readonly content?: string | null;
}

let engine: Engine;
let api: ApiServer;
let client: OpenAI;
beforeAll(async () => {
  engine = await openDemo('demo-chat', { chatTemplate: THINKS });
  api = await startApi({ realEngines: { thinker: engine } });
  client = new OpenAI({ baseURL: `${api.url}/v1`, apiKey: 'unused', maxRetries: 0 });
});
afterAll(async () => {
  await api.close();
  await engine.close();
});

const CHAT = {
  model: 'thinker',
  messages: [{ role: 'user' as const, content: 'What is attestation?' }],
  temperature: 0,
  seed: 1,
  thinking_budget: 6,
};

test('the engine says how it reasons', () => {
  expect(engine.info.reasoning).toMatchObject({ starts: ['<think>'], end: '</think>' });
});

test('a budget ends the block, and the answer follows', async () => {
  const body = { ...CHAT, max_tokens: 40 };
  const { choices, usage } = await client.chat.completions.create(body);
  const message = choices[0]?.message as Reasoned;
  expect(message.reasoning_content).not.toBe('');
  expect(`${message.reasoning_content}${message.content}`).not.toContain('think>');
  const spent = usage?.completion_tokens_details?.reasoning_tokens ?? 0;
  expect(spent).toBeGreaterThanOrEqual(6);
  expect(spent).toBeLessThan(usage?.completion_tokens ?? 0);
  let [thoughts, content] = ['', ''];
  for await (const chunk of await client.chat.completions.create({ ...body, stream: true })) {
    const delta: Reasoned | undefined = chunk.choices[0]?.delta;
    thoughts += delta?.reasoning_content ?? '';
    content += delta?.content ?? '';
  }
  expect([thoughts, content]).toEqual([message.reasoning_content, message.content]);
});

test(
  'wherever a limit cuts, no part of the end of the block is reasoning',
  { timeout: 120_000 },
  async () => {
    const thoughtsAt = async (max_tokens: number): Promise<readonly string[]> => {
      const body = { ...CHAT, max_tokens };
      const { choices } = await client.chat.completions.create(body);
      let streamed = '';
      for await (const chunk of await client.chat.completions.create({ ...body, stream: true })) {
        const delta: Reasoned | undefined = chunk.choices[0]?.delta;
        streamed += delta?.reasoning_content ?? '';
      }
      const message: Reasoned | undefined = choices[0]?.message;
      return [message?.reasoning_content ?? '', streamed];
    };
    const whole = await thoughtsAt(40);
    for (let limit = 7; limit < 16; limit += 1)
      expect([limit, await thoughtsAt(limit)]).toEqual([limit, whole]);
  },
);

test('a form holds for the answer alone', async () => {
  const schema = {
    type: 'object',
    properties: { k: { const: 'only' } },
    required: ['k'],
    additionalProperties: false,
  };
  const { choices } = await client.chat.completions.create({
    ...CHAT,
    response_format: { type: 'json_schema', json_schema: { name: 'x', strict: true, schema } },
  });
  const message = choices[0]?.message as Reasoned;
  expect(JSON.parse(message.content ?? '')).toEqual({ k: 'only' });
  expect(message.reasoning_content).toBeTypeOf('string');
});

test('a forced call comes after the block', async () => {
  const parameters = { type: 'object', properties: { k: { const: 'only' } }, required: ['k'] };
  const { choices } = await client.chat.completions.create({
    ...CHAT,
    tools: [{ type: 'function', function: { name: 't', parameters } }],
    tool_choice: 'required',
  });
  expect(choices[0]).toMatchObject({
    finish_reason: 'tool_calls',
    message: { content: null, tool_calls: [{ function: { name: 't', arguments: '{"k":"only"}' } }] },
  });
  expect(choices[0]?.message).toHaveProperty('reasoning_content');
});

test('switched off there is none', async () => {
  const { choices, usage } = await client.chat.completions.create({
    ...CHAT,
    max_tokens: 20,
    reasoning_effort: 'none' as const,
  });
  expect(choices[0]?.message).not.toHaveProperty('reasoning_content');
  expect(choices[0]?.message.content).not.toBe('');
  expect(usage?.completion_tokens_details?.reasoning_tokens).toBe(0);
});
