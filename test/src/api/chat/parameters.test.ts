// Every parameter of the chat route (and of the other inference routes): honoured, or refused with a code and its name.
// "Honoured" here means that it reaches the engine as what it says; what the engine makes of it is the engine's tests.

import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { GenerateRequest } from '../../../../src/engine/seam/engine.ts';
import {
  type ApiServer,
  type ErrorAnswer,
  events,
  post,
  startApi,
} from '../../../fixtures/http/api-server.ts';
import { accepts, parseGbnf } from '../../../fixtures/grammar/gbnf.ts';

let api: ApiServer;
beforeAll(async () => void (api = await startApi()));
afterAll(() => api.close());
beforeEach(() => void (api.engine.requests.length = 0));

const CHAT = { model: 'demo', messages: [{ role: 'user', content: 'Hi' }] };

async function seenBy(body: object, path = '/v1/chat/completions'): Promise<GenerateRequest> {
  const response = await post(api, path, body);
  expect(await response.json()).not.toHaveProperty('error');
  expect(response.status).toBe(200);
  return api.engine.requests.at(-1) as GenerateRequest;
}

async function refusal(
  body: unknown,
  path = '/v1/chat/completions',
): Promise<{ code: string; param: string | null; message: string }> {
  const response = await post(api, path, body);
  const { error } = (await response.json()) as ErrorAnswer;
  expect(response.status).toBe(400);
  expect(error.type).toBe('invalid_request_error');
  expect(api.engine.requests).toHaveLength(0);
  return error;
}

describe('chat: honoured', () => {
  test.each<[string, object, object]>([
    ['temperature', { temperature: 0.3 }, { sampling: { temperature: 0.3 } }],
    ['temperature 0', { temperature: 0 }, { sampling: { temperature: 0 } }],
    ['top_p', { top_p: 0.5 }, { sampling: { topP: 0.5 } }],
    ['top_k', { top_k: 40 }, { sampling: { topK: 40 } }],
    ['min_p', { min_p: 0.05 }, { sampling: { minP: 0.05 } }],
    ['max_tokens', { max_tokens: 3 }, { maxTokens: 3 }],
    ['max_completion_tokens', { max_completion_tokens: 3 }, { maxTokens: 3 }],
    ['stop as a string', { stop: 'x' }, { stop: ['x'] }],
    ['stop as an array', { stop: ['x', 'y'] }, { stop: ['x', 'y'] }],
    ['seed', { seed: 42 }, { sampling: { seed: 42 } }],
    ['seed below zero', { seed: -1 }, { sampling: { seed: 0x7fff_ffff } }],
    ['presence_penalty', { presence_penalty: -1.5 }, { sampling: { presencePenalty: -1.5 } }],
    ['frequency_penalty', { frequency_penalty: 1.5 }, { sampling: { frequencyPenalty: 1.5 } }],
    ['repeat_penalty', { repeat_penalty: 1.1 }, { sampling: { repeatPenalty: 1.1 } }],
    [
      'logit_bias',
      { logit_bias: { '5': -100, '7': 2.5 } },
      {
        sampling: {
          logitBias: new Map([
            [5, -100],
            [7, 2.5],
          ]),
        },
      },
    ],
    ['n', { n: 3 }, { n: 3 }],
    ['logprobs', { logprobs: true }, { logprobs: 0 }],
    ['top_logprobs', { logprobs: true, top_logprobs: 4 }, { logprobs: 4 }],
    ['response_format text', { response_format: { type: 'text' } }, {}],
  ])('%s', async (_name, given, expected) => {
    expect(await seenBy({ ...CHAT, ...given })).toMatchObject(expected);
  });

  test('defaults are OpenAI’s', async () => {
    const request = await seenBy(CHAT);
    expect(request).toMatchObject({
      n: 1,
      stop: [],
      sampling: {
        temperature: 1,
        topP: 1,
        topK: 0,
        minP: 0,
        presencePenalty: 0,
        frequencyPenalty: 0,
        repeatPenalty: 1,
      },
    });
    expect(request).not.toHaveProperty('maxTokens');
    expect(request).not.toHaveProperty('grammar');
    expect(request.sampling).not.toHaveProperty('seed');
  });

  test('null is absent', async () => {
    const nulls = Object.fromEntries(
      [
        'temperature',
        'top_p',
        'top_k',
        'max_tokens',
        'max_completion_tokens',
        'stop',
        'seed',
        'presence_penalty',
        'frequency_penalty',
        'logit_bias',
        'n',
        'logprobs',
        'top_logprobs',
        'response_format',
        'tools',
        'tool_choice',
        'parallel_tool_calls',
        'stream',
        'stream_options',
        'keep_alive',
        'user',
        'metadata',
        'store',
        'service_tier',
        'audio',
        'modalities',
        'prediction',
        'reasoning_effort',
        'verbosity',
        'functions',
        'function_call',
        'web_search_options',
      ].map((name) => [name, null]),
    );
    expect(await seenBy({ ...CHAT, ...nulls })).toMatchObject({ n: 1, sampling: { temperature: 1 } });
  });

  test('a tool without parameters takes none: the model may not invent any', async () => {
    const request = await seenBy({
      ...CHAT,
      tools: [{ type: 'function', function: { name: 'now' } }],
      tool_choice: 'required',
    });
    const grammar = parseGbnf((request.grammar as { gbnf: string }).gbnf);
    const call = (args: string): string => `<tool_call>\n{"name": "now", "arguments": ${args}}\n</tool_call>`;
    expect(accepts(grammar, call('{}'))).toBe(true);
    expect(accepts(grammar, call('{"zone": "UTC"}'))).toBe(false);
    // Nor is the model told of a schema that would allow them.
    expect(request.prompt).toMatchObject({
      tools: [{ parameters: { type: 'object', properties: {}, additionalProperties: false } }],
    });
  });

  test.each(['5m', '30s', '0', '-1', '1h', 0, -1, 300])('keep_alive %s', async (keepAlive) => {
    await seenBy({ ...CHAT, keep_alive: keepAlive });
    expect(api.models.acquired.at(-1)).toEqual({ id: 'demo', keepAlive });
  });

  test('stream and stream_options.include_usage', async () => {
    const data = await events(
      await post(api, '/v1/chat/completions', {
        ...CHAT,
        stream: true,
        stream_options: { include_usage: true },
      }),
    );
    const chunks = data
      .slice(0, -1)
      .map((each) => JSON.parse(each) as { choices: unknown[]; usage: object | null });
    expect(chunks.at(-1)).toMatchObject({
      choices: [],
      usage: { prompt_tokens: 1, completion_tokens: 4, total_tokens: 5 },
    });
    expect(chunks.slice(0, -1).every((chunk) => chunk.usage === null && chunk.choices.length === 1)).toBe(
      true,
    );
  });

  test('without include_usage no chunk has usage or empty choices', async () => {
    const data = await events(await post(api, '/v1/chat/completions', { ...CHAT, stream: true }));
    for (const each of data.slice(0, -1)) expect(JSON.parse(each)).toMatchObject({ choices: [{ index: 0 }] });
    expect(data.join('')).not.toContain('usage');
  });

  test('n > 1 gives that many answers', async () => {
    const answer = (await (await post(api, '/v1/chat/completions', { ...CHAT, n: 3 })).json()) as {
      choices: { index: number }[];
      usage: object;
    };
    expect(answer.choices.map((choice) => choice.index)).toEqual([0, 1, 2]);
    expect(answer.usage).toMatchObject({ completion_tokens: 12 });
  });

  test('logprobs come in OpenAI’s form', async () => {
    const answer = await (
      await post(api, '/v1/chat/completions', { ...CHAT, logprobs: true, top_logprobs: 2, max_tokens: 1 })
    ).json();
    expect(answer).toMatchObject({
      choices: [
        {
          finish_reason: 'length',
          logprobs: {
            content: [
              {
                token: 'Hello',
                logprob: -0.25,
                bytes: [72, 101, 108, 108, 111],
                top_logprobs: [{ token: 'Hello' }, { token: 'alt1' }],
              },
            ],
          },
        },
      ],
    });
  });

  test('messages: roles and parts', async () => {
    const request = await seenBy({
      model: 'demo',
      messages: [
        { role: 'system', content: 'S' },
        { role: 'developer', content: [{ type: 'text', text: 'D' }] },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'one' },
            { type: 'text', text: 'two' },
          ],
          name: 'ann',
        },
        {
          role: 'assistant',
          content: null,
          tool_calls: [{ id: 'c1', type: 'function', function: { name: 'f', arguments: '{"x":1}' } }],
        },
        { role: 'tool', tool_call_id: 'c1', content: 'result' },
        { role: 'assistant', content: [{ type: 'text', text: 'A' }], refusal: null, annotations: [] },
      ],
    });
    expect(request.prompt).toEqual({
      kind: 'chat',
      messages: [
        { role: 'system', content: 'S' },
        { role: 'system', content: 'D' },
        { role: 'user', content: 'one\ntwo', name: 'ann' },
        { role: 'assistant', content: '', toolCalls: [{ id: 'c1', name: 'f', arguments: '{"x":1}' }] },
        { role: 'tool', content: 'result', toolCallId: 'c1' },
        { role: 'assistant', content: 'A' },
      ],
    });
  });

  test('an answer of ours can be handed back as history', async () => {
    const answer = (await (await post(api, '/v1/chat/completions', CHAT)).json()) as {
      choices: { message: object }[];
    };
    const request = await seenBy({
      model: 'demo',
      messages: [...CHAT.messages, answer.choices[0]?.message, { role: 'user', content: 'Go on' }],
    });
    expect(request.prompt).toMatchObject({
      messages: [{ content: 'Hi' }, { role: 'assistant', content: 'Hello, world!' }, { content: 'Go on' }],
    });
  });
});

describe('chat: accepted and ignored', () => {
  test.each<[string, object]>([
    ['user', { user: 'someone' }],
    ['metadata', { metadata: { a: 'b' } }],
    ['store false', { store: false }],
    ['service_tier auto', { service_tier: 'auto' }],
    ['safety_identifier', { safety_identifier: 'x' }],
    ['prompt_cache_key', { prompt_cache_key: 'x' }],
    ['modalities text', { modalities: ['text'] }],
  ])('%s', async (_name, given) => {
    const plain = await seenBy(CHAT);
    expect(await seenBy({ ...CHAT, ...given })).toEqual(plain);
  });
});

describe('chat: refused', () => {
  test.each<[string, object, string, string]>([
    ['store true', { store: true }, 'unsupported_parameter', 'store'],
    ['service_tier flex', { service_tier: 'flex' }, 'invalid_value', 'service_tier'],
    ['audio', { audio: { voice: 'x', format: 'wav' } }, 'unsupported_parameter', 'audio'],
    ['modalities audio', { modalities: ['audio'] }, 'invalid_value', 'modalities[0]'],
    ['functions', { functions: [] }, 'unsupported_parameter', 'functions'],
    ['function_call', { function_call: 'auto' }, 'unsupported_parameter', 'function_call'],
    ['prediction', { prediction: { type: 'content', content: 'x' } }, 'unsupported_parameter', 'prediction'],
    ['reasoning_effort', { reasoning_effort: 'low' }, 'unsupported_parameter', 'reasoning_effort'],
    ['verbosity', { verbosity: 'low' }, 'unsupported_parameter', 'verbosity'],
    ['web_search_options', { web_search_options: {} }, 'unsupported_parameter', 'web_search_options'],
    ['something unknown', { tempreature: 1 }, 'unknown_parameter', 'tempreature'],
    ['temperature above 2', { temperature: 2.1 }, 'decimal_above_max_value', 'temperature'],
    ['temperature below 0', { temperature: -0.1 }, 'decimal_below_min_value', 'temperature'],
    ['temperature as text', { temperature: '1' }, 'invalid_type', 'temperature'],
    ['top_p above 1', { top_p: 1.5 }, 'decimal_above_max_value', 'top_p'],
    ['top_k below 0', { top_k: -1 }, 'integer_below_min_value', 'top_k'],
    ['top_k with a fraction', { top_k: 1.5 }, 'invalid_type', 'top_k'],
    ['min_p above 1', { min_p: 2 }, 'decimal_above_max_value', 'min_p'],
    ['max_tokens 0', { max_tokens: 0 }, 'integer_below_min_value', 'max_tokens'],
    [
      'two different limits',
      { max_tokens: 1, max_completion_tokens: 2 },
      'invalid_value',
      'max_completion_tokens',
    ],
    ['five stops', { stop: ['a', 'b', 'c', 'd', 'e'] }, 'array_above_max_length', 'stop'],
    ['an empty stop', { stop: [''] }, 'empty_string', 'stop[0]'],
    ['stop of a number', { stop: 1 }, 'invalid_type', 'stop'],
    ['seed with a fraction', { seed: 1.5 }, 'invalid_type', 'seed'],
    ['presence_penalty above 2', { presence_penalty: 3 }, 'decimal_above_max_value', 'presence_penalty'],
    ['frequency_penalty below -2', { frequency_penalty: -3 }, 'decimal_below_min_value', 'frequency_penalty'],
    ['repeat_penalty 0', { repeat_penalty: 0 }, 'decimal_below_min_value', 'repeat_penalty'],
    ['logit_bias out of range', { logit_bias: { '1': 101 } }, 'invalid_value', 'logit_bias.1'],
    ['logit_bias of no token', { logit_bias: { word: 1 } }, 'invalid_value', 'logit_bias'],
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
      'an image',
      { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'data:' } }] }] },
      'unsupported_parameter',
      'messages[0].content[0]',
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

describe('completions', () => {
  const text = { model: 'demo', prompt: 'Once' };

  test.each<[string, object, object]>([
    ['a string', {}, { prompt: { kind: 'text', text: 'Once' }, maxTokens: 256 }],
    ['tokens', { prompt: [1, 2, 3] }, { prompt: { kind: 'tokens', tokens: [1, 2, 3] } }],
    ['max_tokens', { max_tokens: 7 }, { maxTokens: 7 }],
    ['max_tokens 0', { max_tokens: 0, echo: true }, { maxTokens: 0, echo: true }],
    ['echo', { echo: true }, { echo: true }],
    ['logprobs', { logprobs: 2 }, { logprobs: 2 }],
    ['best_of as n', { n: 2, best_of: 2 }, { n: 2 }],
    [
      'the sampling',
      { temperature: 0, top_p: 0.9, seed: 1, stop: 'x' },
      { sampling: { temperature: 0, topP: 0.9, seed: 1 }, stop: ['x'] },
    ],
  ])('%s', async (_name, given, expected) => {
    expect(await seenBy({ ...text, ...given }, '/v1/completions')).toMatchObject(expected);
  });

  test('several prompts: choices in order, usage summed', async () => {
    const answer = await (
      await post(api, '/v1/completions', { model: 'demo', prompt: ['a', 'b', 'c'], n: 2, max_tokens: 2 })
    ).json();
    expect(answer).toMatchObject({
      object: 'text_completion',
      choices: [0, 1, 2, 3, 4, 5].map((index) => ({ index, text: 'Hello,', finish_reason: 'length' })),
      usage: { prompt_tokens: 3, completion_tokens: 12, total_tokens: 15 },
    });
  });

  test('several prompts of which one is too long: 400 and no work', async () => {
    expect(
      await refusal({ model: 'demo', prompt: ['a', 'x'.repeat(3000)], stream: true }, '/v1/completions'),
    ).toMatchObject({
      code: 'context_length_exceeded',
    });
  });

  test('a stream', async () => {
    const data = await events(
      await post(api, '/v1/completions', { ...text, stream: true, stream_options: { include_usage: true } }),
    );
    const chunks = data
      .slice(0, -1)
      .map(
        (each) =>
          JSON.parse(each) as { object: string; choices: { text: string; finish_reason: string | null }[] },
      );
    expect(data.at(-1)).toBe('[DONE]');
    expect(chunks.map((chunk) => chunk.choices[0]?.text ?? '').join('')).toBe('Hello, world!');
    expect(chunks.filter((chunk) => chunk.choices[0]?.finish_reason === 'stop')).toHaveLength(1);
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: 4 } });
  });

  test('logprobs in the older form', async () => {
    const answer = await (await post(api, '/v1/completions', { ...text, logprobs: 1, max_tokens: 2 })).json();
    expect(answer).toMatchObject({
      choices: [
        {
          logprobs: {
            tokens: ['Hello', ','],
            token_logprobs: [-0.25, -0.25],
            top_logprobs: [{ Hello: -0.25 }, { ',': -0.25 }],
            text_offset: [0, 5],
          },
        },
      ],
    });
  });

  test.each<[string, object, string, string]>([
    ['suffix without fill-in-the-middle tokens', { suffix: 'end' }, 'unsupported_parameter', 'suffix'],
    ['best_of above n', { best_of: 2 }, 'unsupported_parameter', 'best_of'],
    ['no prompt', { prompt: undefined }, 'missing_required_parameter', 'prompt'],
    ['an empty list', { prompt: [] }, 'empty_array', 'prompt'],
    ['a mixed list', { prompt: ['a', 1] }, 'invalid_type', 'prompt[1]'],
    ['a token below zero', { prompt: [-1] }, 'integer_below_min_value', 'prompt[0]'],
    ['logprobs 6', { logprobs: 6 }, 'integer_above_max_value', 'logprobs'],
    ['messages', { messages: [] }, 'unknown_parameter', 'messages'],
  ])('refused: %s', async (_name, given, code, param) => {
    expect(await refusal({ ...text, ...given }, '/v1/completions')).toMatchObject({ code, param });
  });
});

describe('embeddings', () => {
  const body = { model: 'text-embed', input: 'hello' };
  interface Answer {
    data: { index: number; embedding: number[] | string }[];
    usage: object;
  }
  const embed = async (given: object): Promise<Answer> =>
    (await (await post(api, '/v1/embeddings', { ...body, ...given })).json()) as Answer;

  test('base64 and numbers say the same', async () => {
    const numbers = (await embed({})).data[0]?.embedding as number[];
    const base64 = (await embed({ encoding_format: 'base64' })).data[0]?.embedding as string;
    const bytes = Buffer.from(base64, 'base64');
    const floats = new Float32Array(
      bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength),
    );
    expect(numbers.map(Math.fround)).toEqual([...floats]);
    expect(numbers).toHaveLength(8);
  });

  test('many inputs, tokens, usage', async () => {
    expect(await embed({ input: ['a', 'b'] })).toMatchObject({
      object: 'list',
      data: [{ object: 'embedding', index: 0 }, { index: 1 }],
      usage: { prompt_tokens: 2, total_tokens: 2 },
    });
    expect(await embed({ input: [[1, 2], [3]] })).toMatchObject({ usage: { prompt_tokens: 3 } });
    expect((await embed({ input: [1, 2, 3] })).data).toHaveLength(1);
  });

  test('dimensions: shorter, and of length 1 again', async () => {
    const whole = (await embed({})).data[0]?.embedding as number[];
    const cut = (await embed({ dimensions: 3 })).data[0]?.embedding as number[];
    expect(cut).toHaveLength(3);
    expect(Math.hypot(...cut)).toBeCloseTo(1, 6);
    expect((cut[1] as number) / (cut[0] as number)).toBeCloseTo(
      (whole[1] as number) / (whole[0] as number),
      5,
    );
  });

  test.each<[string, object, string, string]>([
    ['an empty string', { input: '' }, 'empty_string', 'input'],
    ['an empty string among others', { input: ['a', ''] }, 'empty_string', 'input'],
    ['an empty list', { input: [] }, 'empty_array', 'input'],
    ['too many dimensions', { dimensions: 9 }, 'invalid_value', 'dimensions'],
    ['another encoding', { encoding_format: 'hex' }, 'invalid_value', 'encoding_format'],
    ['a chat model', { model: 'demo' }, 'wrong_model_type', 'model'],
  ])('refused: %s', async (_name, given, code, param) => {
    expect(await refusal({ ...body, ...given }, '/v1/embeddings')).toMatchObject({ code, param });
  });
});

describe('rerank', () => {
  const body = {
    model: 'reranker',
    query: 'red apple',
    documents: ['a blue car', 'a red apple', 'one apple'],
  };

  test.each(['/v1/rerank', '/rerank', '/v1/reranking'])('%s sorts by score', async (path) => {
    const answer = (await (await post(api, path, { ...body, return_documents: true })).json()) as {
      results: { index: number; relevance_score: number; document: object }[];
    };
    expect(answer.results.map((result) => result.index)).toEqual([1, 2, 0]);
    expect(answer.results[0]).toMatchObject({ document: { text: 'a red apple' } });
    for (const { relevance_score: score } of answer.results) expect(score > 0 && score < 1).toBe(true);
  });

  test('top_n, documents as objects, no documents back unless asked', async () => {
    const answer = (await (
      await post(api, '/v1/rerank', {
        ...body,
        documents: body.documents.map((text) => ({ text })),
        top_n: 1,
      })
    ).json()) as { results: object[] };
    expect(answer.results).toEqual([
      { index: 1, relevance_score: expect.closeTo(1 / (1 + Math.exp(-1)), 6) as number },
    ]);
  });

  test.each<[string, object, string, string]>([
    ['no documents', { documents: [] }, 'empty_array', 'documents'],
    ['top_n 0', { top_n: 0 }, 'integer_below_min_value', 'top_n'],
    ['a chat model', { model: 'demo' }, 'wrong_model_type', 'model'],
  ])('refused: %s', async (_name, given, code, param) => {
    expect(await refusal({ ...body, ...given }, '/v1/rerank')).toMatchObject({ code, param });
  });
});

describe('tokenize', () => {
  test.each(['content', 'prompt', 'text'])('%s', async (field) => {
    expect(await (await post(api, '/v1/tokenize', { model: 'demo', [field]: 'hi' })).json()).toEqual({
      tokens: [104, 105],
      count: 2,
      max_model_len: 2048,
    });
  });

  test('messages, pieces, and back', async () => {
    expect(
      await (
        await post(api, '/v1/tokenize', { model: 'demo', messages: [{ role: 'user', content: 'hi' }] })
      ).json(),
    ).toMatchObject({
      count: 2,
    });
    expect(
      await (await post(api, '/v1/tokenize', { model: 'demo', content: 'é', with_pieces: true })).json(),
    ).toMatchObject({
      tokens: [
        { id: 195, piece: [195] },
        { id: 169, piece: [169] },
      ],
    });
    expect(await (await post(api, '/v1/detokenize', { model: 'demo', tokens: [104, 105] })).json()).toEqual({
      content: 'hi',
      count: 2,
    });
  });

  test.each<[string, object, string, string]>([
    ['nothing', {}, 'missing_required_parameter', 'content'],
    ['two texts', { content: 'a', text: 'b' }, 'invalid_value', 'content'],
  ])('refused: %s', async (_name, given, code, param) => {
    expect(await refusal({ model: 'demo', ...given }, '/v1/tokenize')).toMatchObject({ code, param });
  });

  test('a token that is not in the vocabulary', async () => {
    expect(await refusal({ model: 'demo', tokens: [1, 256] }, '/v1/detokenize')).toMatchObject({
      code: 'invalid_value',
      param: 'tokens[1]',
    });
  });
});
