// Parameters of the chat route that cannot be honoured are refused with a code and their name, before any
// work is done.

import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type ApiServer, type ErrorAnswer, post, startApi } from '../../../fixtures/http/api-server.ts';
import { askedOf, CHAT } from '../../../fixtures/http/asked.ts';

let api: ApiServer;
beforeAll(async () => void (api = await startApi()));
afterAll(() => api.close());
beforeEach(() => void (api.engine.requests.length = 0));

const { refusal } = askedOf(() => api);

describe('chat: refused', () => {
  test.each<[string, object, string, string]>([
    ['store true', { store: true }, 'unsupported_parameter', 'store'],
    ['service_tier flex', { service_tier: 'flex' }, 'invalid_value', 'service_tier'],
    ['audio', { audio: { voice: 'x', format: 'wav' } }, 'unsupported_parameter', 'audio'],
    ['modalities audio', { modalities: ['audio'] }, 'invalid_value', 'modalities[0]'],
    ['functions', { functions: [{ name: 'f' }] }, 'unsupported_parameter', 'functions'],
    ['function_call', { function_call: { name: 'f' } }, 'unsupported_parameter', 'function_call'],
    ['prediction', { prediction: { type: 'content', content: 'x' } }, 'unsupported_parameter', 'prediction'],
    ['reasoning_effort', { reasoning_effort: 'low' }, 'unsupported_parameter', 'reasoning_effort'],
    ['verbosity', { verbosity: 'low' }, 'unsupported_parameter', 'verbosity'],
    ['web_search_options', { web_search_options: {} }, 'unsupported_parameter', 'web_search_options'],
    ['something unknown', { tempreature: 1 }, 'unknown_parameter', 'tempreature'],
    ['temperature above 2', { temperature: 2.1 }, 'decimal_above_max_value', 'temperature'],
    ['temperature below 0', { temperature: -0.1 }, 'decimal_below_min_value', 'temperature'],
    ['temperature as text', { temperature: '1' }, 'invalid_type', 'temperature'],
    ['top_p above 1', { top_p: 1.5 }, 'decimal_above_max_value', 'top_p'],
    ['top_k below 0', { top_k: -2 }, 'integer_below_min_value', 'top_k'],
    ['top_k with a fraction', { top_k: 1.5 }, 'invalid_type', 'top_k'],
    ['min_p above 1', { min_p: 2 }, 'decimal_above_max_value', 'min_p'],
    ['max_tokens below -1', { max_tokens: -2 }, 'integer_below_min_value', 'max_tokens'],
    [
      'two different limits',
      { max_tokens: 1, max_completion_tokens: 2 },
      'invalid_value',
      'max_completion_tokens',
    ],
    ['seventeen stops', { stop: Array.from({ length: 17 }, () => 'a') }, 'array_above_max_length', 'stop'],
    ['a stop of nothing', { stop: [null] }, 'invalid_type', 'stop[0]'],
    ['stop of a number', { stop: 1 }, 'invalid_type', 'stop'],
    ['seed with a fraction', { seed: 1.5 }, 'invalid_type', 'seed'],
    ['presence_penalty above 2', { presence_penalty: 3 }, 'decimal_above_max_value', 'presence_penalty'],
    ['frequency_penalty below -2', { frequency_penalty: -3 }, 'decimal_below_min_value', 'frequency_penalty'],
    ['repeat_penalty 0', { repeat_penalty: 0 }, 'decimal_below_min_value', 'repeat_penalty'],
    ['logit_bias out of range', { logit_bias: { '1': 101 } }, 'invalid_value', 'logit_bias.1'],
    ['logit_bias of no token', { logit_bias: { word: 1 } }, 'invalid_value', 'logit_bias'],
  ])('%s', async (_name, given, code, param) => {
    expect(await refusal({ ...CHAT, ...given })).toMatchObject({ code, param });
  });
});

describe('chat: refused for what it is made of', () => {
  test.each<[string, object, string, string]>([
    ['n 0', { n: 0 }, 'integer_below_min_value', 'n'],
    ['n 9', { n: 9 }, 'integer_above_max_value', 'n'],
    ['top_logprobs without logprobs', { top_logprobs: 2 }, 'invalid_value', 'top_logprobs'],
    [
      'top_logprobs above 20',
      { logprobs: true, top_logprobs: 21 },
      'integer_above_max_value',
      'top_logprobs',
    ],
    [
      'response_format unknown',
      { response_format: { type: 'xml' } },
      'invalid_value',
      'response_format.type',
    ],
    [
      'json_schema without schema',
      { response_format: { type: 'json_schema', json_schema: { name: 'x' } } },
      'missing_required_parameter',
      'response_format.json_schema.schema',
    ],
    [
      'stream_options without stream',
      { stream_options: { include_usage: true } },
      'invalid_value',
      'stream_options',
    ],
    ['stream as text', { stream: 'yes' }, 'invalid_type', 'stream'],
    ['keep_alive of nonsense', { keep_alive: 'soon' }, 'invalid_value', 'keep_alive'],
    ['tool_choice without tools', { tool_choice: 'required' }, 'invalid_value', 'tool_choice'],
    [
      'a tool without a name',
      { tools: [{ type: 'function', function: {} }] },
      'missing_required_parameter',
      'tools[0].function.name',
    ],
    [
      'a custom tool',
      { tools: [{ type: 'custom', custom: { name: 'x' } }] },
      'unsupported_parameter',
      'tools[0]',
    ],
    [
      'two tools of one name',
      {
        tools: [
          { type: 'function', function: { name: 'a' } },
          { type: 'function', function: { name: 'a' } },
        ],
      },
      'invalid_value',
      'tools[1].function.name',
    ],
    [
      'a tool_choice that is not there',
      {
        tools: [{ type: 'function', function: { name: 'a' } }],
        tool_choice: { type: 'function', function: { name: 'b' } },
      },
      'invalid_value',
      'tool_choice.function.name',
    ],
    ['no model', { model: undefined }, 'missing_required_parameter', 'model'],
    ['no messages', { messages: undefined }, 'missing_required_parameter', 'messages'],
    ['empty messages', { messages: [] }, 'empty_array', 'messages'],
    [
      'a role that is none',
      { messages: [{ role: 'king', content: 'x' }] },
      'invalid_value',
      'messages[0].role',
    ],
    [
      'an image that is no data: URI with base64',
      { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'data:' } }] }] },
      'invalid_value',
      'messages[0].content[0].image_url.url',
    ],
    [
      'content of a number',
      { messages: [{ role: 'user', content: 5 }] },
      'invalid_type',
      'messages[0].content',
    ],
  ])('%s', async (_name, given, code, param) => {
    expect(await refusal({ ...CHAT, ...given })).toMatchObject({ code, param });
  });
});

describe('chat: refused, whatever the parameters', () => {
  test('an embedding model', async () => {
    expect(await refusal({ ...CHAT, model: 'text-embed' })).toMatchObject({
      code: 'wrong_model_type',
      param: 'model',
    });
  });

  test('a refusal never repeats what was sent', async () => {
    const secret = 'canary-7f3a';
    for (const body of [
      { ...CHAT, stop: { secret } },
      { ...CHAT, response_format: { type: secret } },
      { ...CHAT, keep_alive: secret },
      { ...CHAT, messages: [{ role: secret }] },
      { ...CHAT, model: secret },
    ]) {
      const response = await post(api, '/v1/chat/completions', body);
      const text = await response.text();
      expect(response.status).toBeGreaterThanOrEqual(400);
      expect(text).not.toContain(secret);
    }
  });
});

test.each<[string, object]>([
  ['/v1/completions', { model: 'demo', prompt: [5, -48_151_623] }],
  ['/v1/completions', { model: 'demo', prompt: [48_151_623.42] }],
  ['/v1/completions', { model: 'demo', prompt: 'x', temperature: 48_151_623 }],
  ['/v1/embeddings', { model: 'text-embed', input: [48_151_623_000] }],
  ['/v1/embeddings', { model: 'text-embed', input: 'x', dimensions: 65_000 }],
  ['/v1/detokenize', { model: 'demo', tokens: [48_151_623_000] }],
  ['/v1/detokenize', { model: 'demo', tokens: [48_151_623] }],
])('a refusal of %s never repeats numbers either: %j', async (path, body) => {
  const response = await post(api, path, body);
  const text = await response.text();
  expect(response.status).toBe(400);
  expect(text).not.toMatch(/48151623|65000/);
});

test('a context that is too long is a 400 with both phrases clients look for, before a stream starts', async () => {
  for (const stream of [true, false]) {
    const response = await post(api, '/v1/chat/completions', {
      model: 'demo',
      messages: [{ role: 'user', content: 'x'.repeat(20_000) }],
      stream,
    });
    const { error } = (await response.json()) as ErrorAnswer;
    expect(response.status).toBe(400);
    expect(error.code).toBe('context_length_exceeded');
    expect(error.message).toContain('maximum context length');
    expect(error.message).toContain('exceeds the available context size');
  }
});
