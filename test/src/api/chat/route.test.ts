// POST /v1/chat/completions as SDKs use it.

import OpenAI from 'openai';
import { afterEach, describe, expect, test } from 'vitest';
import {
  type ApiServer,
  type ApiServerOptions,
  events,
  post,
  startApi,
} from '../../../fixtures/http/api-server.ts';
import { latch, untilAborted } from '../../../fixtures/latch.ts';

let api: ApiServer;
async function start(options: ApiServerOptions = {}): Promise<OpenAI> {
  api = await startApi(options);
  return new OpenAI({ baseURL: `${api.url}/v1`, apiKey: 'unused', maxRetries: 0 });
}
afterEach(() => api.close());

const HELLO = { model: 'demo', messages: [{ role: 'user' as const, content: 'Say hello' }] };

describe('OpenAI SDK', () => {
  test('chat', async () => {
    const client = await start();
    const answer = await client.chat.completions.create(HELLO);
    expect(answer.choices[0]?.message.content).toBe('Hello, world!');
    expect(answer.choices[0]?.finish_reason).toBe('stop');
    expect(answer.usage).toMatchObject({ prompt_tokens: 3, completion_tokens: 4, total_tokens: 7 });
    expect(answer.id).toMatch(/^chatcmpl-[0-9a-f]{32}$/);
  });

  test('stream', async () => {
    const client = await start();
    let text = '';
    const finishes: (string | null)[] = [];
    for await (const chunk of await client.chat.completions.create({ ...HELLO, stream: true })) {
      text += chunk.choices[0]?.delta.content ?? '';
      if (chunk.choices[0]?.finish_reason) finishes.push(chunk.choices[0].finish_reason);
    }
    expect(text).toBe('Hello, world!');
    expect(finishes).toEqual(['stop']);
  });

  test('abort ends the work in the engine', async () => {
    const third = latch();
    const client = await start({
      engine: {
        async beforeToken(position, signal) {
          if (position < 2) return;
          third.open();
          await untilAborted(signal);
        },
      },
    });
    const stream = await client.chat.completions.create({ ...HELLO, stream: true });
    await third.opened;
    stream.controller.abort();
    const [record] = await api.ended();
    expect(record).toMatchObject({ aborted: true, completionTokens: 2 });
    await api.models.idle();
    expect(api.engine.aborted).toEqual(['decode']);
  });

  test('models.list and retrieve', async () => {
    const client = await start();
    const ids: string[] = [];
    for await (const model of client.models.list()) ids.push(model.id);
    expect(ids).toEqual(['demo', 'text-embed', 'reranker']);
    expect(await client.models.retrieve('demo')).toMatchObject({
      id: 'demo',
      object: 'model',
      owned_by: 'local',
    });
    await expect(client.models.retrieve('no/such:model')).rejects.toMatchObject({
      status: 404,
      code: 'model_not_found',
    });
  });
});

test('a stream has one role chunk, one finish chunk and one terminal event', async () => {
  await start();
  const response = await post(api, '/v1/chat/completions', { ...HELLO, stream: true });
  expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
  const data = await events(response);
  expect(data.at(-1)).toBe('[DONE]');
  expect(data.filter((each) => each === '[DONE]')).toHaveLength(1);
  const chunks = data
    .slice(0, -1)
    .map(
      (each) => JSON.parse(each) as { choices: { delta: { role?: string }; finish_reason: string | null }[] },
    );
  expect(chunks.filter((chunk) => chunk.choices[0]?.delta.role !== undefined)).toHaveLength(1);
  expect(chunks.filter((chunk) => chunk.choices[0]?.finish_reason !== null)).toHaveLength(1);
});

describe('an object that names no tool of the request', () => {
  const data = '<tool_call>\n{"name": "Ada", "arguments": {"age": 36}}\n</tool_call>';
  const wanted = { ...HELLO, tools: [{ type: 'function', function: { name: 'weather' } }] };

  test('is the content of an answer', async () => {
    await start({ engine: { script: () => Array.from(data) } });
    const answer = (await (await post(api, '/v1/chat/completions', wanted)).json()) as object;
    expect(answer).toMatchObject({ choices: [{ message: { content: data }, finish_reason: 'stop' }] });
    expect(JSON.stringify(answer)).not.toContain('tool_calls');
  });

  test('and of a stream', async () => {
    await start({ engine: { script: () => Array.from(data) } });
    const lines = await events(await post(api, '/v1/chat/completions', { ...wanted, stream: true }));
    const chunks = lines
      .slice(0, -1)
      .map((each) => JSON.parse(each) as { choices: { delta: { content?: string } }[] });
    expect(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('')).toBe(data);
    expect(lines.join('')).not.toContain('tool_calls');
  });
});
