// POST /v1/responses as SDKs use it.

import OpenAI from 'openai';
import { zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import { afterEach, describe, expect, test } from 'vitest';
import { ApiError } from '../../../../src/base/errors.ts';
import { detectReasoning } from '../../../../src/engine/seam/reasoning.ts';
import {
  apiKey,
  type ApiServer,
  type ApiServerOptions,
  post,
  startApi,
} from '../../../fixtures/http/api-server.ts';
import { RESPONSE } from '../../../fixtures/http/responses.ts';
import { latch, untilAborted } from '../../../fixtures/latch.ts';

const LOOSE = { type: 'array', items: { type: 'string' }, uniqueItems: true };

let api: ApiServer;
async function start(options: ApiServerOptions = {}, key = 'unused'): Promise<OpenAI> {
  api = await startApi(options);
  return new OpenAI({ baseURL: `${api.url}/v1`, apiKey: key, maxRetries: 0 });
}
afterEach(() => api.close());

describe('OpenAI SDK', () => {
  test('create', async () => {
    const client = await start();
    const answer = await client.responses.create({ ...RESPONSE, instructions: 'Be brief.' });
    expect(answer.output_text).toBe('Hello, world!');
    expect(answer).toMatchObject({ status: 'completed', store: false, instructions: 'Be brief.' });
    expect(answer.usage).toMatchObject({
      output_tokens: 4,
      total_tokens: (answer.usage?.input_tokens ?? 0) + 4,
    });
    expect(answer.id).toMatch(/^resp_[0-9a-f]{32}$/);
  });

  test('stream', async () => {
    const client = await start();
    const stream = client.responses.stream(RESPONSE);
    let text = '';
    stream.on('response.output_text.delta', ({ delta }) => (text += delta));
    const last = await stream.finalResponse();
    expect(text).toBe('Hello, world!');
    expect(last).toMatchObject({ status: 'completed', output: [{ content: [{ text }] }] });
  });

  test('parse', async () => {
    const client = await start({ engine: { script: () => ['{"name":', ' "Ada"', '}'] } });
    const format = zodTextFormat(z.object({ name: z.string() }), 'person');
    const answer = await client.responses.parse({ ...RESPONSE, text: { format } });
    expect(answer.output_parsed).toEqual({ name: 'Ada' });
    expect(api.engine.requests[0]?.grammar?.gbnf).toContain('name');
  });

  test('an error within a stream is thrown with its code', async () => {
    const error = new ApiError('engine_crashed', 'the engine ended unexpectedly', { retryAfterSeconds: 1 });
    const client = await start({ engine: { failAt: { position: 2, error } } });
    const stream = await client.responses.create({ ...RESPONSE, stream: true });
    const read = async (): Promise<void> => {
      for await (const event of stream) void event;
    };
    await expect(read()).rejects.toMatchObject({ code: 'engine_crashed', type: 'service_unavailable_error' });
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
    const stream = await client.responses.create({ ...RESPONSE, stream: true });
    await third.opened;
    stream.controller.abort();
    const [record] = await api.ended();
    expect(record).toMatchObject({ route: '/v1/responses', aborted: true });
    await api.models.idle();
    expect(api.engine.aborted).toEqual(['decode']);
  });
});

test.each([
  ['an answer that was stored', { previous_response_id: 'resp_1' }],
  ['a conversation', { conversation: 'conv_1' }],
  ['to be stored', { store: true }],
  ['the background', { background: true }],
  ['a prompt that was stored', { prompt: { id: 'p' } }],
  ['a prompt that is cut', { truncation: 'auto' }],
  ['a changed conversation', { context_management: [{ type: 'compaction' }] }],
])('asking for %s is refused', async (_, body) => {
  await start();
  const response = await post(api, '/v1/responses', { ...RESPONSE, ...body });
  const [param] = Object.keys(body);
  expect([response.status, await response.json()]).toMatchObject([
    400,
    { error: { code: 'unsupported_parameter', param } },
  ]);
  expect(api.engine.requests).toHaveLength(0);
});

test.each([
  {
    store: false,
    background: false,
    previous_response_id: null,
    truncation: 'disabled',
    service_tier: 'auto',
  },
  { include: ['file_search_call.results', 'web_search_call.action.sources'], max_tool_calls: 5 },
  { client_metadata: { a: 'b' }, prompt_cache_retention: 'in-memory', tools: [], tool_choice: 'auto' },
  { text: { format: { type: 'text' }, verbosity: 'medium' }, reasoning: { effort: 'none', summary: 'auto' } },
])('%j asks for nothing', async (body) => {
  await start();
  await post(api, '/v1/responses', RESPONSE);
  const response = await post(api, '/v1/responses', { ...RESPONSE, ...body });
  expect(response.status).toBe(200);
  const [plain, given] = api.engine.requests;
  const variables = { enable_thinking: false, thinking: false };
  expect(given).toEqual('reasoning' in body ? { ...plain, prompt: { ...plain?.prompt, templateVariables: variables } } : plain); // prettier-ignore
});

test('sampling, length, format and effort reach the engine; what was asked comes back', async () => {
  await start({ engine: { reasoning: detectReasoning('<think></think>') } });
  const body = { temperature: 0.5, top_p: 0.9, seed: 7, max_output_tokens: 9, reasoning: { effort: 'low' }, metadata: { a: 'b' }, prompt_cache_key: 'k', text: { format: { type: 'json_schema', name: 'x', strict: false, schema: LOOSE } } }; // prettier-ignore
  const response = await post(api, '/v1/responses', { ...RESPONSE, ...body });
  expect(response.headers.get('x-assay-loosened')).toBe('text.format#/uniqueItems');
  const { seed: _, ...repeated } = body;
  expect(await response.json()).toMatchObject(repeated);
  expect(api.engine.requests[0]).toMatchObject({
    sampling: { temperature: 0.5, topP: 0.9, seed: 7 },
    maxTokens: 9,
    prompt: { templateVariables: { reasoning_effort: 'low', enable_thinking: true } },
  });
});

test.each([
  [
    'a strict schema',
    { text: { format: { type: 'json_schema', name: 'x', schema: LOOSE } } },
    'invalid_schema',
    'text.format.schema.uniqueItems',
  ],
  ['an effort', { reasoning: { effort: 'high' } }, 'unsupported_parameter', 'reasoning.effort'],
  ['an unknown field', { inputs: 'x' }, 'unknown_parameter', 'inputs'],
  [
    'padding without a stream',
    { stream_options: { include_obfuscation: true } },
    'invalid_value',
    'stream_options',
  ],
  ['metadata that are no strings', { metadata: { a: 1 } }, 'invalid_value', 'metadata'],
  ['a text that is too long for the context', { input: 'x'.repeat(9000) }, 'context_length_exceeded', null],
])('%s is refused where it cannot be had', async (_, body, code, param) => {
  // prettier-ignore
  await start();
  const response = await post(api, '/v1/responses', { ...RESPONSE, ...body });
  expect([response.status, await response.json()]).toMatchObject([400, { error: { code, param, type: 'invalid_request_error' } }]); // prettier-ignore
});

describe('reasoning that the client keeps', () => {
  const script = (): readonly string[] => ['<think>', 'Secret', '</think>', 'Yes', '.'];
  const engine = { reasoning: detectReasoning('<think></think>'), script };
  const include = ['reasoning.encrypted_content'];
  const keys = [apiKey('one'), apiKey('two')];
  const config = { auth: { required: true, keys, adminEnabled: true } };
  const as = (key: string): RequestInit => ({ headers: { authorization: `Bearer ${key}` } });

  async function sealed(): Promise<{ readonly output: readonly Record<string, unknown>[] }> {
    const response = await post(api, '/v1/responses', { ...RESPONSE, include }, as('one'));
    return (await response.json()) as { readonly output: readonly Record<string, unknown>[] };
  }
  const again = async (item: object, key: string, model = 'demo'): Promise<Response> =>
    post(api, '/v1/responses', { model, input: [{ role: 'user', content: 'Hi' }, item, { role: 'user', content: 'So?' }] }, as(key)); // prettier-ignore

  test('is opened for the same key and model, whatever else the item says', async () => {
    await start({ engine, config });
    const { output } = await sealed();
    expect(output).toMatchObject([
      {
        type: 'reasoning',
        content: [{ type: 'reasoning_text', text: 'Secret' }],
        encrypted_content: expect.any(String) as string,
      },
      { type: 'message' },
    ]);
    const item = { ...output[0], content: undefined };
    expect((await again(item, 'one')).status).toBe(200);
    expect(api.engine.requests.at(-1)?.prompt).toMatchObject({
      messages: [{ role: 'user' }, { role: 'assistant', reasoning: 'Secret' }, { role: 'user' }],
    });
  });

  test('is not opened for another key, another model, or changed', async () => {
    await start({ engines: { demo: engine, other: engine }, config });
    const [item] = (await sealed()).output;
    const text = String(item?.['encrypted_content']);
    const changed = text.slice(0, 30) + (text[30] === 'A' ? 'B' : 'A') + text.slice(31);
    const rows: readonly [sealed: string, key: string, model: string][] = [
      [text, 'two', 'demo'],
      [text, 'one', 'other'],
      [changed, 'one', 'demo'],
      ['gAAAAAB', 'one', 'demo'],
    ];
    for (const [encrypted_content, key, model] of rows)
      expect(await (await again({ ...item, encrypted_content }, key, model)).json()).toMatchObject({
        error: { code: 'invalid_encrypted_content', param: 'input[1].encrypted_content' },
      });
    expect((await again({ ...item }, 'one')).status).toBe(200);
  });

  test('is not sealed unless it is asked for', async () => {
    await start({ engine, config });
    const response = await post(api, '/v1/responses', RESPONSE, as('one'));
    expect(await response.text()).not.toContain('encrypted_content');
  });
});
