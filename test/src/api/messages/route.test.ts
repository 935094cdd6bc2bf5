// POST /v1/messages and /v1/messages/count_tokens as the SDK uses them.

import Anthropic, { AuthenticationError, BadRequestError, PermissionDeniedError } from '@anthropic-ai/sdk';
import { betaZodTool } from '@anthropic-ai/sdk/helpers/beta/zod';
import { zodOutputFormat } from '@anthropic-ai/sdk/helpers/zod';
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
import { MESSAGE } from '../../../fixtures/http/messages.ts';
import { latch, untilAborted } from '../../../fixtures/latch.ts';

let api: ApiServer;
async function start(options: ApiServerOptions = {}, apiKey = 'unused'): Promise<Anthropic> {
  api = await startApi(options);
  return new Anthropic({ baseURL: api.url, apiKey, maxRetries: 0 });
}
afterEach(() => api.close());

async function told(body: object): Promise<{ readonly status: number; readonly body: unknown }> {
  const response = await post(api, '/v1/messages', { ...MESSAGE, ...body });
  return { status: response.status, body: await response.json() };
}

describe('Anthropic SDK', () => {
  test('create', async () => {
    const client = await start();
    const answer = await client.messages.create({ ...MESSAGE, system: 'Be brief.' });
    expect(answer.content).toEqual([{ type: 'text', text: 'Hello, world!', citations: null }]);
    expect(answer).toMatchObject({ role: 'assistant', model: 'demo', stop_reason: 'end_turn' });
    expect(answer.usage).toMatchObject({ output_tokens: 4, cache_read_input_tokens: 0 });
    expect(answer.id).toMatch(/^msg_[0-9a-f]{32}$/);
    expect(answer._request_id).toMatch(/^req_/);
  });

  test('stream', async () => {
    const client = await start();
    const stream = client.messages.stream(MESSAGE);
    let text = '';
    stream.on('text', (piece) => (text += piece));
    const last = await stream.finalMessage();
    expect([text, await stream.finalText()]).toEqual(['Hello, world!', 'Hello, world!']);
    expect(last).toMatchObject({ stop_reason: 'end_turn', usage: { output_tokens: 4 } });
  });

  test('parse', async () => {
    const client = await start({ engine: { script: () => ['{"name":', ' "Ada"', '}'] } });
    const format = zodOutputFormat(z.object({ name: z.string() }));
    const answer = await client.messages.parse({ ...MESSAGE, output_config: { format } });
    expect(answer.parsed_output).toEqual({ name: 'Ada' });
    expect(api.engine.requests[0]?.grammar?.gbnf).toContain('name');
  });

  test('a tool runner', async () => {
    const call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>';
    const client = await start({
      engine: {
        script: ({ prompt }) =>
          prompt.kind === 'chat' && prompt.messages.some(({ role }) => role === 'tool') ? ['Sunny'] : [call],
      },
    });
    const asked: unknown[] = [];
    const weather = betaZodTool({
      name: 'weather',
      description: 'Weather of a city.',
      inputSchema: z.object({ city: z.string() }),
      run: (input) => {
        asked.push(input);
        return '21 degrees';
      },
    });
    const last = await client.beta.messages.toolRunner({ ...MESSAGE, tools: [weather] });
    expect(asked).toEqual([{ city: 'Paris' }]);
    expect(last.content).toMatchObject([{ type: 'text', text: 'Sunny' }]);
    expect(api.engine.requests.at(-1)?.prompt).toMatchObject({
      messages: [{}, { toolCalls: [{ name: 'weather' }] }, { role: 'tool', content: '21 degrees' }],
    });
  });

  test('errors have its classes and our codes', async () => {
    const config = {
      auth: { required: true, adminEnabled: true, keys: [apiKey('one', { models: ['demo'] })] },
    };
    const client = await start({ config }, 'one');
    const asked = (body: object, key = 'one'): Promise<unknown> =>
      client.withOptions({ apiKey: key }).messages.create({ ...MESSAGE, ...body }).catch((error: unknown) => error); // prettier-ignore
    for (const [error, kind, errorCode] of [
      [await asked({}, 'none'), AuthenticationError, 'invalid_api_key'],
      [await asked({ model: 'other' }), PermissionDeniedError, 'model_not_allowed'],
      [await asked({ max_tokens: 0 }), BadRequestError, 'integer_below_min_value'],
      [await asked({ messages: [{ role: 'user', content: 'x'.repeat(9000) }] }), BadRequestError, 'context_length_exceeded'],
    ] as const) {
      expect(error).toBeInstanceOf(kind);
      expect(error).toMatchObject({ errorCode, requestID: expect.stringMatching(/^req_/) as string });
    } // prettier-ignore
  });

  test('an error within a stream is thrown with its code', async () => {
    const error = new ApiError('engine_crashed', 'the engine ended unexpectedly', { retryAfterSeconds: 1 });
    const client = await start({ engine: { failAt: { position: 2, error } } });
    const failed = client.messages.stream(MESSAGE).finalMessage();
    await expect(failed).rejects.toMatchObject({ errorCode: 'engine_crashed', type: 'overloaded_error' });
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
    const stream = client.messages.stream(MESSAGE);
    await third.opened;
    stream.abort();
    await expect(stream.done()).rejects.toThrow();
    expect(await api.ended()).toMatchObject([{ route: '/v1/messages', aborted: true }]);
    await api.models.idle();
    expect(api.engine.aborted).toEqual(['decode']);
  });

  test('countTokens', async () => {
    const client = await start();
    const { model, messages } = MESSAGE;
    const { input_tokens: tokens } = await client.messages.countTokens({
      model,
      messages,
      system: 'Be brief.',
    });
    // The engine of the test counts bytes.
    expect(tokens).toBe('Be brief.\nHi'.length);
    expect(api.engine.requests).toHaveLength(0);
    expect((await api.ended())[0]).toMatchObject({
      route: '/v1/messages/count_tokens',
      promptTokens: tokens,
    });
  });
});

test.each([
  {
    metadata: { user_id: 'u' },
    service_tier: 'auto',
    speed: 'standard',
    cache_control: { type: 'ephemeral' },
  },
  { tools: [], mcp_servers: [], container: null, inference_geo: null, stop_sequences: [] },
  { context_management: { edits: [{ type: 'clear_thinking_20251015', keep: 'all' }] }, betas: ['b'] },
  { thinking: { type: 'adaptive', display: 'summarized' } },
])('%j asks for nothing', async (body) => {
  await start();
  await told({});
  expect(await told(body)).toMatchObject({ status: 200 });
  const [plain, given] = api.engine.requests;
  expect(given).toEqual(plain);
});

test.each([
  ['container', { container: 'c' }],
  ['mcp_servers', { mcp_servers: [{ type: 'url' }] }],
  ['inference_geo', { inference_geo: 'us' }],
  ['speed', { speed: 'fast' }],
  ['thinking', { thinking: { type: 'between_tools' } }],
  ['output_config.task_budget', { output_config: { task_budget: { total: 5 } } }],
  ['context_management.edits[0]', { context_management: { edits: [{ type: 'compact_20260112' }] } }],
  ['context_management.edits[0].keep', { context_management: { edits: [{ type: 'clear_thinking_20251015', keep: { type: 'thinking_turns', value: 1 } }] } }],
])('%s is refused by name', async (param, body) => {
  await start();
  expect(await told(body)).toMatchObject({
    status: 400,
    body: { error: { type: 'invalid_request_error', details: { error_code: 'unsupported_parameter', param } } },
  });
  expect(api.engine.requests).toHaveLength(0);
}); // prettier-ignore

test.each<[object, string, string]>([
  [{ max_tokens: undefined }, 'missing_required_parameter', 'max_tokens'],
  [{ max_token: 5 }, 'unknown_parameter', 'max_token'],
  [{ messages: [] }, 'empty_array', 'messages'],
  [{ stop_sequences: 5 }, 'invalid_type', 'stop_sequences'],
  [{ thinking: { type: 'enabled' } }, 'missing_required_parameter', 'thinking.budget_tokens'],
  [{ stream_options: { include_obfuscation: true } }, 'invalid_value', 'stream_options'],
  [{ thread: { type: 'create' } }, 'thread_unsupported_request', 'thread'],
  [
    { output_config: { format: { type: 'json_schema', schema: { type: 'array', uniqueItems: true } } } },
    'invalid_schema',
    'output_config.format.schema.uniqueItems',
  ],
])('%j is refused: %s', async (body, error_code, param) => {
  await start();
  expect(await told(body)).toMatchObject({
    status: 400,
    body: { error: { details: { error_code, param } } },
  });
});

test('sampling, length, stops, budget and effort reach the engine', async () => {
  await start();
  const body = { temperature: 0.5, top_p: 0.9, top_k: 7, seed: 3, max_tokens: 9, stop_sequences: ['x', 'y'], thinking: { type: 'enabled', budget_tokens: 5 }, output_config: { effort: 'max' } }; // prettier-ignore
  expect(await told(body)).toMatchObject({ status: 200 });
  expect(api.engine.requests[0]).toMatchObject({
    sampling: { temperature: 0.5, topP: 0.9, topK: 7, seed: 3 },
    maxTokens: 9,
    stop: ['x', 'y'],
    reasoningBudget: 5,
    prompt: { templateVariables: { reasoning_effort: 'high', enable_thinking: true } },
  });
});

test.each<[string, object, readonly string[], object]>([
  ['the end', {}, ['Hi'], { stop_reason: 'end_turn', stop_sequence: null }],
  ['a stop sequence', { stop_sequences: ['b', 'a'] }, ['xxa'], { stop_reason: 'stop_sequence', stop_sequence: 'a' }],
  ['the limit', { max_tokens: 1 }, ['a', 'b'], { stop_reason: 'max_tokens', stop_sequence: null }],
])('the reason to stop: %s', async (_, body, script, expected) => {
  await start({ engine: { script: () => script } });
  expect((await told(body)).body).toMatchObject(expected);
}); // prettier-ignore

test('a last message of the assistant is continued', async () => {
  await start();
  await told({ messages: [...MESSAGE.messages, { role: 'assistant', content: 'Well' }] });
  const [request] = api.engine.requests;
  expect(request?.prompt).toMatchObject({ messages: [{}, { role: 'assistant', content: 'Well' }] });
  expect(request?.prompt).not.toHaveProperty('prefill', false);
});

describe('reasoning that the client keeps', () => {
  const script = (): readonly string[] => ['<think>', 'Secret', '</think>', 'Yes', '.'];
  const engine = { reasoning: detectReasoning('<think></think>'), script };
  const keys = [apiKey('one'), apiKey('two')];
  const config = { auth: { required: true, keys, adminEnabled: true } };
  const as = (key: string): RequestInit => ({ headers: { 'x-api-key': key } });

  async function thought(display: string): Promise<Record<string, unknown>> {
    const body = { ...MESSAGE, thinking: { type: 'adaptive', display } };
    const answer = (await (await post(api, '/v1/messages', body, as('one'))).json()) as { content: object[] };
    return answer.content[0] as Record<string, unknown>;
  }
  const again = (block: object, key = 'one', model = 'demo'): Promise<Response> =>
    post(api, '/v1/messages', { model, max_tokens: 9, messages: [...MESSAGE.messages, { role: 'assistant', content: [block] }, ...MESSAGE.messages] }, as(key)); // prettier-ignore

  test('is shown, or only sealed, and goes in again either way', async () => {
    await start({ engine, config });
    const shown = await thought('summarized');
    expect(shown).toMatchObject({ type: 'thinking', thinking: 'Secret' });
    const hidden = await thought('omitted');
    expect(hidden).toMatchObject({ type: 'thinking', thinking: '' });
    expect(String(hidden['signature'])).toMatch(/^[\w-]{40,}$/);
    const redacted = { type: 'redacted_thinking', data: hidden['signature'] };
    for (const block of [shown, hidden, { ...shown, thinking: '' }, redacted]) {
      expect((await again(block)).status).toBe(200);
      expect(api.engine.requests.at(-1)?.prompt).toMatchObject({
        messages: [{}, { role: 'assistant', reasoning: 'Secret' }, {}],
      });
    }
  });

  test('is not opened for another key, another model, or changed', async () => {
    await start({ engines: { demo: engine, other: engine }, config });
    const hidden = await thought('omitted');
    const changed = { ...hidden, signature: `${String(hidden['signature']).slice(0, -3)}AAA` };
    for (const [block, key, model] of [
      [hidden, 'two', 'demo'],
      [hidden, 'one', 'other'],
      [changed, 'one', 'demo'],
      [{ type: 'redacted_thinking', data: 'x' }, 'one', 'demo'],
    ] as const)
      expect(await (await again(block, key, model)).json()).toMatchObject({
        error: { details: { error_code: 'invalid_encrypted_content' } },
      });
  });
});
