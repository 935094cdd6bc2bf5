// Every parameter of the chat route that is honoured reaches the engine as what it says; what the engine
// makes of it is the engine's tests. Those that are refused: wire-refused.test.ts; what other dialects send:
// wire-dialects.test.ts.

import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { accepts, parseGbnf } from '../../../fixtures/grammar/gbnf.ts';
import { type ApiServer, events, post, startApi } from '../../../fixtures/http/api-server.ts';
import { askedOf, CHAT } from '../../../fixtures/http/asked.ts';

let api: ApiServer;
beforeAll(async () => void (api = await startApi()));
afterAll(() => api.close());
beforeEach(() => void (api.engine.requests.length = 0));

const { seenBy } = askedOf(() => api);

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
    expect(request.maxTokens).toBeUndefined();
    expect(request.grammar).toBeUndefined();
    expect(request.sampling.seed).toBeUndefined();
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
});

describe('chat: honoured in the request and in the answer', () => {
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
});

describe('chat: histories', () => {
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
