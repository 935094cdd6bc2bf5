// Reasoning on the wire: split from the answer, whole and streamed, as the OpenAI SDK reads it; its
// switches; and its way back.

import OpenAI from 'openai';
import { afterEach, describe, expect, test } from 'vitest';
import { detectReasoning } from '../../../../src/engine/seam/reasoning.ts';
import { type ApiServer, events, post, startApi } from '../../../fixtures/http/api-server.ts';

const SCRIPT = ['<think>', '\n', 'Let', ' me', ' END', '\n', '</think>', '\n\n', 'Yes', '!'];
const CHAT = { model: 'demo', messages: [{ role: 'user' as const, content: 'Really?' }] };
const reasoning = detectReasoning('<think></think> message.reasoning_content');

let api: ApiServer;
afterEach(() => api.close());

async function start(script: readonly string[] = SCRIPT): Promise<OpenAI> {
  api = await startApi({ engine: { reasoning, script: () => script } });
  return new OpenAI({ baseURL: `${api.url}/v1`, apiKey: 'unused', maxRetries: 0 });
}

describe('reasoning', () => {
  test('is a field of the message, and its tokens are counted', async () => {
    const client = await start();
    const { choices, usage } = await client.chat.completions.create({ ...CHAT, stop: ['END'] });
    expect(choices[0]?.message).toMatchObject({ content: 'Yes!', reasoning_content: 'Let me END' });
    expect(choices[0]?.finish_reason).toBe('stop');
    expect(usage).toMatchObject({
      completion_tokens: 10,
      completion_tokens_details: { reasoning_tokens: 7 },
    });
  });

  test('is a field of deltas', async () => {
    const client = await start();
    let [thoughts, content] = ['', ''];
    for await (const chunk of await client.chat.completions.create({ ...CHAT, stream: true })) {
      const delta = chunk.choices[0]?.delta as { content?: string; reasoning_content?: string } | undefined;
      if (delta?.reasoning_content !== undefined) expect(content).toBe('');
      thoughts += delta?.reasoning_content ?? '';
      content += delta?.content ?? '';
    }
    expect([thoughts, content]).toEqual(['Let me END', 'Yes!']);
  });

  test('is padded and carries log probabilities like the answer', async () => {
    await start();
    const body = { ...CHAT, stream: true, logprobs: true, stream_options: { include_obfuscation: true } };
    const sent = await events(await post(api, '/v1/chat/completions', body));
    const texts = sent.filter((each) => /"(?:reasoning_)?content":"[^"]/.test(each));
    expect(new Set(texts.map((each) => each.length)).size).toBe(1);
    expect(texts.some((each) => each.includes('reasoning_content'))).toBe(true);
  });

  test('before calls', async () => {
    const client = await start([
      '<think>',
      'Call.',
      '</think>',
      '\n\n<tool_call>',
      '\n{"name": "f", "arguments": {"a": 1}}\n',
      '</tool_call>',
    ]);
    const { choices } = await client.chat.completions.create({
      ...CHAT,
      tools: [
        {
          type: 'function',
          function: { name: 'f', parameters: { type: 'object', properties: { a: { type: 'integer' } } } },
        },
      ],
    });
    expect(choices[0]).toMatchObject({
      finish_reason: 'tool_calls',
      message: {
        content: null,
        reasoning_content: 'Call.',
        tool_calls: [{ function: { name: 'f', arguments: '{"a": 1}' } }],
      },
    });
  });

  test.each(['reasoning_content', 'reasoning'])('%s of a history reaches the engine', async (field) => {
    await start();
    const messages = [
      ...CHAT.messages,
      { role: 'assistant', content: 'Yes', [field]: 'Hm.' },
      ...CHAT.messages,
    ];
    expect((await post(api, '/v1/chat/completions', { ...CHAT, messages })).status).toBe(200);
    expect(api.engine.requests.at(-1)?.prompt).toMatchObject({
      messages: [{}, { content: 'Yes', reasoning: 'Hm.' }, {}],
    });
  });

  test.each([
    [{ thinking: { type: 'enabled', budget_tokens: 9 } }],
    [{ reasoning: { max_tokens: 9 } }],
    [{ thinking_budget: 9, thinking: { type: 'adaptive', budget_tokens: 9 } }],
  ])('the budget by the names of other APIs: %j', async (given) => {
    await start();
    expect((await post(api, '/v1/chat/completions', { ...CHAT, ...given })).status).toBe(200);
    expect(api.engine.requests.at(-1)).toMatchObject({ reasoningBudget: 9 });
  });

  test.each([
    [{ reasoning_effort: 'high' }, { enable_thinking: true, thinking: true, reasoning_effort: 'high' }],
    [{ reasoning_effort: 'minimal' }, { enable_thinking: true, thinking: true, reasoning_effort: 'low' }],
    [{ reasoning_effort: 'none' }, { enable_thinking: false, thinking: false }],
  ])('%j', async (given, templateVariables) => {
    await start();
    expect((await post(api, '/v1/chat/completions', { ...CHAT, ...given, thinking_budget: 7 })).status).toBe(
      200,
    );
    expect(api.engine.requests.at(-1)).toMatchObject({ prompt: { templateVariables }, reasoningBudget: 7 });
  });
});
