// The surface on real engines and the demo models: what fake engines cannot show. Needs `make models` (dist/ is the worker).

import { fileURLToPath } from 'node:url';
import * as fc from 'fast-check';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { answerOf, EXPECTED, FALLBACK, TOOL_RESULT } from '../../../scripts/demo-model/text.ts';
import { ensureDemoModels } from '../../../scripts/demo-model/main.ts';
import type { Engine } from '../../../src/engine/seam/engine.ts';
import { openEngine } from '../../../src/engine/open.ts';
import {
  chatAnswer,
  chatChunk,
  completionAnswer,
  embeddingAnswer,
  rerankAnswer,
  tokenizeAnswer,
} from '../../../src/api/response-schemas.ts';
import { type ApiServer, type ErrorAnswer, events, post, startApi } from '../../fixtures/http/api-server.ts';

let api: ApiServer;
let client: OpenAI;
let engines: Record<string, Engine>;

beforeAll(async () => {
  const models = await ensureDemoModels();
  const open = openEngine({
    workerEntry: fileURLToPath(new URL('../../../dist/src/engine/child/worker.js', import.meta.url)),
  });
  const signal = new AbortController().signal;
  engines = Object.fromEntries(
    await Promise.all(
      Object.entries(models).map(
        async ([name, { path }]) => [name, await open({ path, slots: 4, threads: 1 }, signal)] as const,
      ),
    ),
  );
  api = await startApi({ realEngines: engines });
  client = new OpenAI({ baseURL: `${api.url}/v1`, apiKey: 'unused', maxRetries: 0 });
});
afterAll(async () => {
  await api.close();
  for (const engine of Object.values(engines)) await engine.close();
});

function user(content: string): { role: 'user'; content: string }[] {
  return [{ role: 'user', content }];
}
const CONTEXT = { model: 'demo-context', prompt: 'once upon a time', temperature: 0, max_tokens: 24 };
async function complete(extra: object = {}): Promise<OpenAI.Completion> {
  const response = await post(api, '/v1/completions', { ...CONTEXT, ...extra });
  return completionAnswer.read(await response.json(), '') as unknown as OpenAI.Completion;
}
async function textOf(extra: object = {}): Promise<string> {
  return (await complete(extra)).choices[0]?.text ?? '';
}

describe('chat', () => {
  test.each(EXPECTED.map(({ question, answer }) => [question, answer]))('%s', async (question, answer) => {
    const got = chatAnswer.read(
      await (
        await post(api, '/v1/chat/completions', {
          model: 'demo-chat',
          messages: user(question),
          temperature: 0,
        })
      ).json(),
      '',
    );
    expect(got.choices[0]).toMatchObject({ message: { content: answer }, finish_reason: 'stop' });
  });

  test('a stream says the same, in chunks of the declared form', async () => {
    const data = await events(
      await post(api, '/v1/chat/completions', {
        model: 'demo-chat',
        messages: user('What is attestation?'),
        temperature: 0,
        stream: true,
        logprobs: true,
        top_logprobs: 2,
        stream_options: { include_usage: true },
      }),
    );
    const chunks = data.slice(0, -1).map((each) => chatChunk.read(JSON.parse(each), ''));
    expect(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('')).toBe(
      answerOf('attestation'),
    );
    const logprobs = chunks.flatMap((chunk) => chunk.choices[0]?.logprobs?.content ?? []);
    // The token that ends the answer is counted, and has no text.
    expect(logprobs).toHaveLength((chunks.at(-1)?.usage?.completion_tokens ?? 0) - 1);
    for (const each of logprobs) {
      expect(each.logprob).toBeLessThanOrEqual(0);
      expect(each.top_logprobs).toHaveLength(2);
    }
  });

  test('eight streams at once each get their own answer', async () => {
    const questions = EXPECTED.slice(0, 8);
    const answers = await Promise.all(
      questions.map(async ({ question }) => {
        let text = '';
        for await (const chunk of await client.chat.completions.create({
          model: 'demo-chat',
          messages: user(question),
          temperature: 0,
          stream: true,
        }))
          text += chunk.choices[0]?.delta.content ?? '';
        return text;
      }),
    );
    expect(answers).toEqual(questions.map(({ answer }) => answer));
  });

  test('a stop string ends the answer and is no part of it', async () => {
    const got = await client.chat.completions.create({
      model: 'demo-chat',
      messages: user('What is attestation?'),
      temperature: 0,
      stop: ['processor'],
    });
    expect(got.choices[0]?.message.content).toBe(
      answerOf('attestation').slice(0, answerOf('attestation').indexOf('processor')),
    );
    expect(got.choices[0]?.finish_reason).toBe('stop');
  });

  test('max_tokens ends it with length', async () => {
    const got = await client.chat.completions.create({
      model: 'demo-chat',
      messages: user('What is attestation?'),
      temperature: 0,
      max_completion_tokens: 3,
    });
    expect(got.choices[0]?.finish_reason).toBe('length');
    expect(got.usage?.completion_tokens).toBe(3);
  });

  test('a prompt beyond the context: 400 with both phrases', async () => {
    const response = await post(api, '/v1/chat/completions', {
      model: 'demo-chat',
      messages: user('key '.repeat(20_000)),
      stream: true,
    });
    const { error } = (await response.json()) as ErrorAnswer;
    expect([response.status, error.code]).toEqual([400, 'context_length_exceeded']);
    expect(error.message).toMatch(
      /maximum context length.*exceeds the available context size|exceeds the available context size.*maximum context length/,
    );
  });

  test('an abort frees the slot; the next request is served', async () => {
    const stream = await client.completions.create({ ...CONTEXT, max_tokens: 400, stream: true });
    for await (const _ of stream) break;
    stream.controller.abort();
    await api.models.idle();
    expect((await complete()).choices).toHaveLength(1);
    expect(engines['demo-context']?.stats().active).toBe(0);
  });
});

describe('structured output', () => {
  const schema = {
    type: 'object',
    properties: {
      name: { type: 'string', maxLength: 12 },
      age: { type: 'integer', minimum: 0, maximum: 150 },
      tags: { type: 'array', items: { enum: ['a', 'b'] }, maxItems: 3 },
    },
    required: ['name', 'age', 'tags'],
    additionalProperties: false,
  };

  test.each([true, false])('json_schema (strict: %s) always fits', async (strict) => {
    const got = await client.chat.completions.create({
      model: 'demo-context',
      messages: user('Someone'),
      response_format: { type: 'json_schema', json_schema: { name: 'person', strict, schema } },
      temperature: 1,
      seed: 3,
      max_tokens: 200,
      n: 3,
    });
    for (const choice of got.choices) {
      const value = JSON.parse(choice.message.content ?? '') as { name: string; age: number; tags: string[] };
      expect(Object.keys(value).sort()).toEqual(['age', 'name', 'tags']);
      expect(Number.isInteger(value.age) && value.age >= 0 && value.age <= 150).toBe(true);
      expect(value.tags.every((tag) => tag === 'a' || tag === 'b')).toBe(true);
      expect(value.name.length).toBeLessThanOrEqual(12);
    }
  });

  test('json_object gives an object', async () => {
    const got = await client.chat.completions.create({
      model: 'demo-chat',
      messages: user('Hello!'),
      response_format: { type: 'json_object' },
      temperature: 0,
      max_tokens: 60,
    });
    expect(got.choices[0]?.message.content?.trimStart().startsWith('{')).toBe(true);
  });

  test('a keyword that cannot be held: 400 naming it, before a stream', async () => {
    const response = await post(api, '/v1/chat/completions', {
      model: 'demo-chat',
      messages: user('x'),
      stream: true,
      response_format: {
        type: 'json_schema',
        json_schema: { name: 'x', schema: { type: 'object', patternProperties: {} } },
      },
    });
    expect(response.status).toBe(400);
    expect(((await response.json()) as ErrorAnswer).error).toMatchObject({
      code: 'invalid_schema',
      param: 'response_format.json_schema.schema.patternProperties',
    });
  });
});

describe('tools', () => {
  const weather = {
    type: 'function' as const,
    function: {
      name: 'get_weather',
      description: 'Weather of a city.',
      parameters: {
        type: 'object',
        properties: { city: { type: 'string', maxLength: 20 } },
        required: ['city'],
        additionalProperties: false,
      },
    },
  };
  const clock = {
    type: 'function' as const,
    function: {
      name: 'get_time',
      parameters: {
        type: 'object',
        properties: { zone: { enum: ['UTC', 'CET'] } },
        required: ['zone'],
        additionalProperties: false,
      },
    },
  };

  test('auto: the model calls when it wants to, and answers when it does not', async () => {
    const called = await client.chat.completions.create({
      model: 'demo-chat',
      messages: user('How is the weather today?'),
      tools: [weather],
      temperature: 0,
    });
    expect(called.choices[0]).toMatchObject({
      finish_reason: 'tool_calls',
      message: { content: null, tool_calls: [{ type: 'function', function: { name: 'get_weather' } }] },
    });
    const [call] = called.choices[0]?.message.tool_calls ?? [];
    expect(call?.type === 'function' && JSON.parse(call.function.arguments)).toEqual({ city: 'Berlin' });
    const answered = await client.chat.completions.create({
      model: 'demo-chat',
      messages: user('What is attestation?'),
      tools: [weather],
      temperature: 0,
    });
    expect(answered.choices[0]).toMatchObject({
      finish_reason: 'stop',
      message: { content: answerOf('attestation') },
    });
  });

  test('the whole round: call, result, answer', async () => {
    const messages: OpenAI.ChatCompletionMessageParam[] = user('How is the weather today?');
    const first = await client.chat.completions.create({
      model: 'demo-chat',
      messages,
      tools: [weather],
      temperature: 0,
    });
    const message = first.choices[0]?.message as OpenAI.ChatCompletionMessage;
    messages.push(message, {
      role: 'tool',
      tool_call_id: message.tool_calls?.[0]?.id ?? '',
      content: '{"celsius": 21}',
    });
    const second = await client.chat.completions.create({
      model: 'demo-chat',
      messages,
      tools: [weather],
      temperature: 0,
    });
    expect(second.choices[0]?.message.content).toBe(TOOL_RESULT.answer);
  });

  test('streamed: id and name first with empty arguments, then pieces', async () => {
    const deltas: OpenAI.ChatCompletionChunk.Choice.Delta.ToolCall[] = [];
    let finish: string | null = null;
    for await (const chunk of await client.chat.completions.create({
      model: 'demo-chat',
      messages: user('How is the weather today?'),
      tools: [weather],
      temperature: 0,
      stream: true,
    })) {
      deltas.push(...(chunk.choices[0]?.delta.tool_calls ?? []));
      finish = chunk.choices[0]?.finish_reason ?? finish;
    }
    expect(deltas[0]).toMatchObject({
      index: 0,
      id: expect.stringMatching(/^call_/) as string,
      type: 'function',
      function: { name: 'get_weather', arguments: '' },
    });
    expect(
      deltas.slice(1).every((delta) => delta.id === undefined && delta.function?.name === undefined),
    ).toBe(true);
    expect(JSON.parse(deltas.map((delta) => delta.function?.arguments ?? '').join(''))).toEqual({
      city: 'Berlin',
    });
    expect(finish).toBe('tool_calls');
  });

  test('required and named are obeyed whatever the model would say', async () => {
    for (const tool_choice of [
      'required' as const,
      { type: 'function' as const, function: { name: 'get_time' } },
    ]) {
      const got = await client.chat.completions.create({
        model: 'demo-chat',
        messages: user('Hello!'),
        tools: tool_choice === 'required' ? [clock] : [weather, clock],
        tool_choice,
        temperature: 0,
        max_tokens: 200,
        parallel_tool_calls: false,
      });
      const calls = got.choices[0]?.message.tool_calls ?? [];
      expect(calls).toHaveLength(1);
      expect(calls[0]).toMatchObject({ function: { name: 'get_time' } });
      expect(
        calls[0]?.type === 'function' &&
          ['UTC', 'CET'].includes((JSON.parse(calls[0].function.arguments) as { zone: string }).zone),
      ).toBe(true);
    }
  });

  test('none: tools are there, and not called', async () => {
    const got = await client.chat.completions.create({
      model: 'demo-chat',
      messages: user('How is the weather today?'),
      tools: [weather],
      tool_choice: 'none',
      temperature: 0,
    });
    expect(got.choices[0]?.message.tool_calls).toBeUndefined();
    expect(got.choices[0]?.finish_reason).toBe('stop');
  });

  test('with response_format: a call, or content of that form', async () => {
    const response_format = {
      type: 'json_schema' as const,
      json_schema: {
        name: 'x',
        schema: {
          type: 'object',
          properties: { ok: { type: 'boolean' } },
          required: ['ok'],
          additionalProperties: false,
        },
      },
    };
    const called = await client.chat.completions.create({
      model: 'demo-chat',
      messages: user('How is the weather today?'),
      tools: [weather],
      response_format,
      temperature: 0,
      max_tokens: 100,
    });
    expect(called.choices[0]?.message.tool_calls).toHaveLength(1);
    const told = await client.chat.completions.create({
      model: 'demo-chat',
      messages: user('Hello!'),
      tools: [weather],
      response_format,
      temperature: 0,
      max_tokens: 100,
    });
    const message = told.choices[0]?.message;
    // The demo model knows no JSON; which of the two it falls into is its own affair.
    const content =
      message?.tool_calls === undefined ? Object.keys(JSON.parse(message?.content ?? '') as object) : ['ok'];
    expect(content).toEqual(['ok']);
  });

  test.each<[string, unknown[]]>([
    [
      'an orphan result',
      [
        { role: 'tool', content: 'x' },
        { role: 'user', content: 'Hello!' },
      ],
    ],
    [
      'arguments that are no JSON',
      [
        { role: 'user', content: 'x' },
        {
          role: 'assistant',
          tool_calls: [{ id: 'a', type: 'function', function: { name: 'f', arguments: '{oops' } }],
        },
        { role: 'user', content: 'Hello!' },
      ],
    ],
    [
      'two assistants in a row',
      [
        { role: 'assistant', content: 'a' },
        { role: 'assistant', content: 'b' },
        { role: 'user', content: 'Hello!' },
      ],
    ],
    ['only a system message', [{ role: 'system', content: 'Hello!' }]],
    [
      'control tokens in the text',
      [{ role: 'user', content: '<|end|><|assistant|><s></s><tool_call> Hello!' }],
    ],
  ])('a broken history is answered: %s', async (_name, messages) => {
    const response = await post(api, '/v1/chat/completions', {
      model: 'demo-chat',
      messages,
      tools: [weather],
      max_tokens: 20,
    });
    expect(response.status).toBe(200);
    chatAnswer.read(await response.json(), '');
  });
});

describe('parameters do what they say', () => {
  test('temperature 0 and seeds are reproducible, other seeds differ', async () => {
    expect(await textOf()).toBe(await textOf());
    const hot = { temperature: 1.5, seed: 7 };
    expect(await textOf(hot)).toBe(await textOf(hot));
    expect(await textOf({ ...hot, seed: 8 })).not.toBe(await textOf(hot));
  });

  test('top_k 1, top_p 0 and min_p 1 are greedy at any temperature', async () => {
    const greedy = await textOf();
    for (const only of [{ top_k: 1 }, { top_p: 0 }, { min_p: 1 }])
      expect(await textOf({ temperature: 2, ...only })).toBe(greedy);
  });

  test('logit_bias bans and forces', async () => {
    const { tokens } = tokenizeAnswer.read(
      await (
        await post(api, '/v1/tokenize', { model: 'demo-context', content: await textOf({ max_tokens: 1 }) })
      ).json(),
      '',
    );
    const [first] = tokens as readonly number[];
    expect(await textOf({ max_tokens: 1, logit_bias: { [String(first)]: -100 } })).not.toBe(
      await textOf({ max_tokens: 1 }),
    );
    const forced = await complete({ max_tokens: 3, logit_bias: { '300': 100 }, logprobs: 0 });
    expect(new Set(forced.choices[0]?.logprobs?.tokens).size).toBe(1);
  });

  test('penalties change a repetitive answer', async () => {
    const long = { max_tokens: 60, logit_bias: { '300': 100 } };
    const plain = await complete({ ...long, logprobs: 0 });
    expect(new Set(plain.choices[0]?.logprobs?.tokens).size).toBe(1);
    const greedy = await textOf({ max_tokens: 60 });
    for (const penalty of [{ presence_penalty: 2 }, { frequency_penalty: 2 }, { repeat_penalty: 3 }])
      expect([Object.keys(penalty), await textOf({ max_tokens: 60, ...penalty })]).not.toEqual([
        Object.keys(penalty),
        greedy,
      ]);
  });

  test('n gives independent answers from one prompt', async () => {
    const got = await complete({ n: 3, temperature: 1.5, seed: 1 });
    expect(new Set(got.choices.map((choice) => choice.text)).size).toBeGreaterThan(1);
    expect(got.usage?.prompt_tokens).toBe((await complete()).usage?.prompt_tokens);
  });

  test('n answers of one token each', async () => {
    const data = await events(
      await post(api, '/v1/completions', { ...CONTEXT, n: 3, max_tokens: 1, stream: true }),
    );
    expect(data.filter((each) => each.includes('"finish_reason":"length"'))).toHaveLength(3);
  });

  test('n beyond the slots waits for its turn', async () => {
    expect(new Set((await complete({ n: 8 })).choices.map((choice) => choice.text))).toEqual(
      new Set([await textOf()]),
    );
  });

  test('echo gives the prompt back, with log probabilities; max_tokens 0 only that', async () => {
    const got = await complete({ echo: true, max_tokens: 0, logprobs: 1 });
    expect(got.choices[0]?.text).toBe(CONTEXT.prompt);
    const { logprobs } = got.choices[0] ?? {};
    expect(logprobs?.tokens?.join('')).toBe(CONTEXT.prompt);
    expect(logprobs?.text_offset?.[0]).toBe(0);
    expect(logprobs?.token_logprobs?.every((value) => typeof value === 'number' && value <= 0)).toBe(true);
  });

  test('several prompts give what each gives alone', async () => {
    const prompts = ['once upon a time', 'the host', 'a key is'];
    const together = await complete({ prompt: prompts });
    for (const [i, prompt] of prompts.entries())
      expect(together.choices[i]?.text).toBe(await textOf({ prompt }));
  });
});

function dot(x: readonly number[] = [], y: readonly number[] = []): number {
  return x.reduce((sum, value, i) => sum + value * (y[i] ?? 0), 0);
}

describe('vectors and tokens', () => {
  test('the SDK’s embeddings (base64) are of length 1, and alike texts are near', async () => {
    const { data, usage } = await client.embeddings.create({
      model: 'demo-embed',
      input: ['the key is safe', 'the key is safe', 'bread and butter'],
    });
    const [a, b, c] = data.map((each) => each.embedding);
    expect(Math.sqrt(dot(a, a))).toBeCloseTo(1, 4);
    expect(dot(a, b)).toBeCloseTo(1, 4);
    expect(dot(a, c)).toBeLessThan(0.99);
    expect(usage.prompt_tokens).toBeGreaterThan(3);
    embeddingAnswer.read(
      await (await post(api, '/v1/embeddings', { model: 'demo-embed', input: 'x', dimensions: 4 })).json(),
      '',
    );
  });

  test('two thousand inputs in one request', async () => {
    const { data } = await client.embeddings.create({
      model: 'demo-embed',
      input: Array.from({ length: 2048 }, (_, i) => `text ${i % 7}`),
    });
    expect(data).toHaveLength(2048);
    expect(dot(data[0]?.embedding, data[7]?.embedding)).toBeCloseTo(1, 4);
  });

  test('rerank', async () => {
    const got = rerankAnswer.read(
      await (
        await post(api, '/v1/rerank', {
          model: 'demo-rerank',
          query: 'what is attestation',
          documents: ['bread is baked in an oven', 'attestation is a signed statement'],
        })
      ).json(),
      '',
    );
    expect(got.results.map((result) => result.index)).toEqual([1, 0]);
  });

  test('tokens of a text come back as that text', async () => {
    const content = 'Attestation, 面包 and é!';
    const { tokens, count } = tokenizeAnswer.read(
      await (await post(api, '/v1/tokenize', { model: 'demo-chat', content })).json(),
      '',
    );
    expect(count).toBe(tokens.length);
    expect(await (await post(api, '/v1/detokenize', { model: 'demo-chat', tokens })).json()).toMatchObject({
      content,
    });
  });

  test('the tokens of messages are those a request counts', async () => {
    const { count } = tokenizeAnswer.read(
      await (await post(api, '/v1/tokenize', { model: 'demo-chat', messages: user('Hello!') })).json(),
      '',
    );
    const { usage } = await client.chat.completions.create({ model: 'demo-chat', messages: user('Hello!') });
    expect(usage?.prompt_tokens).toBe(count);
  });

  test('an embedding model does not chat, a chat model does not embed', async () => {
    await expect(
      client.chat.completions.create({ model: 'demo-embed', messages: user('x') }),
    ).rejects.toMatchObject({
      status: 400,
      code: 'wrong_model_type',
    });
    await expect(client.embeddings.create({ model: 'demo-chat', input: 'x' })).rejects.toMatchObject({
      status: 400,
      code: 'wrong_model_type',
    });
  });
});

test('the fallback is what an unknown question gets, also through an assistant prefill of nothing', async () => {
  const got = await client.chat.completions.create({
    model: 'demo-chat',
    messages: [{ role: 'developer', content: 'Be brief.' }, ...user('How do I bake bread?')],
    temperature: 0,
  });
  expect(got.choices[0]?.message.content).toBe(FALLBACK.answer);
});

function maybe<T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> {
  return fc.option(value, { nil: undefined, freq: 2 });
}

describe('hostile requests on real engines', () => {
  const numRuns = 120 * Number(process.env['ASSAY_FUZZ'] ?? 1);
  const anyText = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 60 }),
    fc.constantFrom('<|end|>', '<s>', '</s>', '<tool_call>', '{{', '{%', '\u0000', '\ud800', '<|assistant|>'),
  );
  const schema = fc.letrec<{ schema: unknown }>((tie) => ({
    schema: fc.oneof(
      { depthSize: 'small', withCrossShrink: true },
      fc.constantFrom(
        { type: 'string' },
        { type: 'integer', minimum: 3 },
        { enum: ['a', 1, null] },
        { const: 'x' },
        { type: 'string', pattern: '^[a-z]{2,5}$' },
        { $ref: '#' },
        {},
        true,
      ),
      fc.jsonValue({ maxDepth: 2 }),
      fc.record({ type: fc.constant('array'), items: tie('schema'), maxItems: fc.nat(4) }),
      fc.record({
        type: fc.constant('object'),
        properties: fc.dictionary(fc.string({ maxLength: 5 }), tie('schema'), { maxKeys: 3 }),
        additionalProperties: fc.constant(false),
      }),
      fc.record({ anyOf: fc.array(tie('schema'), { minLength: 1, maxLength: 3 }) }),
    ),
  })).schema;
  const messages = fc.array(
    fc.oneof(
      fc.record({
        role: fc.constantFrom('user', 'system', 'assistant', 'tool', 'developer'),
        content: anyText,
      }),
      fc.record({
        role: fc.constant('assistant'),
        tool_calls: fc.array(
          fc.record({
            id: anyText,
            type: fc.constant('function'),
            function: fc.record({ name: fc.constantFrom('f', 'g h', '"'), arguments: anyText }),
          }),
          { maxLength: 2 },
        ),
      }),
    ),
    { minLength: 1, maxLength: 5 },
  );
  const chat = fc.record({
    model: fc.constantFrom('demo-chat', 'demo-context'),
    messages,
    max_tokens: fc.integer({ min: 1, max: 12 }),
    temperature: maybe(fc.double({ min: 0, max: 2, noNaN: true })),
    top_p: maybe(fc.double({ min: 0, max: 1, noNaN: true })),
    top_k: maybe(fc.nat(1_000_000)),
    min_p: maybe(fc.double({ min: 0, max: 1, noNaN: true })),
    presence_penalty: maybe(fc.double({ min: -2, max: 2, noNaN: true })),
    frequency_penalty: maybe(fc.double({ min: -2, max: 2, noNaN: true })),
    repeat_penalty: maybe(fc.double({ min: 0.01, max: 10, noNaN: true })),
    seed: maybe(fc.maxSafeInteger()),
    n: maybe(fc.integer({ min: 1, max: 3 })),
    stop: maybe(fc.array(anyText, { maxLength: 4 })),
    logit_bias: maybe(
      fc.dictionary(
        // Few outside the vocabulary: one alone is a 400.
        fc.oneof({ weight: 30, arbitrary: fc.nat(255) }, fc.nat(600_000)).map(String),
        fc.double({ min: -100, max: 100, noNaN: true }),
        { maxKeys: 5 },
      ),
    ),
    logprobs: maybe(fc.boolean()),
    response_format: maybe(
      fc.oneof(
        fc.constant({ type: 'json_object' }),
        schema.map((each) => ({ type: 'json_schema', json_schema: { name: 'x', schema: each } })),
      ),
    ),
    tools: maybe(
      fc.array(
        fc.record({
          type: fc.constant('function'),
          function: fc.record({ name: fc.constantFrom('f', 'g', 'get_weather'), parameters: schema }),
        }),
        { maxLength: 3 },
      ),
    ),
    tool_choice: maybe(fc.constantFrom('auto', 'none', 'required')),
    stream: maybe(fc.boolean()),
  });

  test(
    'property: no chat request yields a 500 or ends an engine',
    { timeout: 120_000 + 1000 * numRuns },
    async () => {
      await fc.assert(
        fc.asyncProperty(chat, async (body) => {
          const response = await post(api, '/v1/chat/completions', body, {
            signal: AbortSignal.timeout(20_000),
          });
          const text = await response.text();
          expect([response.status < 500, text]).toEqual([true, text]);
          expect(text).not.toMatch(/"code":"(engine_crashed|internal_error|engine_failed)"/);
        }),
        { numRuns },
      );
      for (const engine of Object.values(engines)) expect(process.kill(engine.pid as number, 0)).toBe(true);
    },
  );
});
