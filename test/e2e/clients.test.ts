// Other clients' flows on real engines: Vercel AI SDK and LangChain.js, each chat, stream, tools, structured
// output and embeddings, as their documentation has them; and the zod helpers of the OpenAI SDK.

import { createOpenAI, type OpenAIProvider } from '@ai-sdk/openai';
import { type BaseMessage, HumanMessage } from '@langchain/core/messages';
import { tool as langchainTool } from '@langchain/core/tools';
import { ChatOpenAI, OpenAIEmbeddings } from '@langchain/openai';
import * as ai from 'ai';
import OpenAI from 'openai';
import { zodFunction, zodResponseFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { answerOf, TOOL_RESULT } from '../../scripts/demo-model/text.ts';
import { type DemoApi, startDemoApi } from '../fixtures/http/demo-api.ts';

let demo: DemoApi;
let baseURL: string;

beforeAll(async () => {
  demo = await startDemoApi();
  baseURL = `${demo.api.url}/v1`;
});
afterAll(() => demo.close());

const QUESTION = 'What is attestation?';
const WEATHER_QUESTION = 'How is the weather today?';
const person = z.object({ name: z.string().max(10), age: z.number().int().min(0).max(150) });

function provider(): OpenAIProvider {
  return createOpenAI({ baseURL, apiKey: 'unused' });
}

describe('Vercel AI SDK', () => {
  test('generateText', async () => {
    const result = await ai.generateText({
      model: provider().chat('demo-chat'),
      prompt: QUESTION,
      temperature: 0,
      maxRetries: 0,
    });
    expect(result.text).toBe(answerOf('attestation'));
    expect(result.finishReason).toBe('stop');
    expect(result.usage.inputTokens).toBeGreaterThan(0);
  });

  test('streamText', async () => {
    const result = ai.streamText({
      model: provider().chat('demo-chat'),
      prompt: QUESTION,
      temperature: 0,
      maxRetries: 0,
    });
    let text = '';
    for await (const part of result.textStream) text += part;
    expect(text).toBe(answerOf('attestation'));
    expect((await result.usage).outputTokens).toBeGreaterThan(0);
  });

  test.each(['generate', 'stream'])('a tool round (%s)', async (how) => {
    const asked: unknown[] = [];
    const tools = {
      get_weather: ai.tool({
        description: 'Weather of a city.',
        inputSchema: z.object({ city: z.string().max(20) }),
        execute: async (input) => {
          asked.push(input);
          return { celsius: 21 };
        },
      }),
    };
    const options = {
      model: provider().chat('demo-chat'),
      prompt: WEATHER_QUESTION,
      tools,
      temperature: 0,
      stopWhen: ai.stepCountIs(3),
      maxRetries: 0,
    };
    const text =
      how === 'generate' ? (await ai.generateText(options)).text : await ai.streamText(options).text;
    expect(asked).toEqual([{ city: 'Berlin' }]);
    expect(text).toBe(TOOL_RESULT.answer);
  });

  test('generateObject', async () => {
    const { object } = await ai.generateObject({
      model: provider().chat('demo-context'),
      schema: person,
      prompt: 'Someone',
      temperature: 0,
      maxRetries: 0,
    });
    expect(person.safeParse(object).success).toBe(true);
  });

  test('embedMany', async () => {
    const { embeddings } = await ai.embedMany({
      model: provider().textEmbeddingModel('demo-embed'),
      values: ['a key', 'a key'],
      maxRetries: 0,
    });
    expect(embeddings).toHaveLength(2);
    expect(ai.cosineSimilarity(embeddings[0] as number[], embeddings[1] as number[])).toBeCloseTo(1, 4);
  });
});

function model(name: string, extra: object = {}): ChatOpenAI {
  return new ChatOpenAI({
    model: name,
    apiKey: 'unused',
    configuration: { baseURL },
    temperature: 0,
    maxRetries: 0,
    ...extra,
  });
}

describe('LangChain.js', () => {
  test('invoke', async () => {
    const answer = await model('demo-chat').invoke(QUESTION);
    expect(answer.content).toBe(answerOf('attestation'));
    expect(answer.usage_metadata).toMatchObject({ input_tokens: expect.any(Number) as number });
  });

  test('stream', async () => {
    let text = '';
    for await (const chunk of await model('demo-chat').stream(QUESTION)) text += chunk.text;
    expect(text).toBe(answerOf('attestation'));
  });

  test('a tool round', async () => {
    const weather = langchainTool(async () => '{"celsius": 21}', {
      name: 'get_weather',
      description: 'Weather of a city.',
      schema: z.object({ city: z.string().max(20) }),
    });
    const bound = model('demo-chat').bindTools([weather]);
    const messages: BaseMessage[] = [new HumanMessage(WEATHER_QUESTION)];
    const first = await bound.invoke(messages);
    expect(first.tool_calls).toMatchObject([{ name: 'get_weather', args: { city: 'Berlin' } }]);
    messages.push(first);
    for (const call of first.tool_calls ?? []) messages.push(await weather.invoke(call as never));
    expect((await bound.invoke(messages)).content).toBe(TOOL_RESULT.answer);
  });

  test.each(['jsonSchema', 'functionCalling'] as const)('withStructuredOutput (%s)', async (method) => {
    const structured = model('demo-context', { maxTokens: 300 }).withStructuredOutput(person, {
      method,
      name: 'person',
    });
    expect(person.safeParse(await structured.invoke('Someone')).success).toBe(true);
  });

  test('embeddings', async () => {
    const embeddings = new OpenAIEmbeddings({
      model: 'demo-embed',
      apiKey: 'unused',
      configuration: { baseURL },
      maxRetries: 0,
    });
    expect((await embeddings.embedQuery('a key')).length).toBeGreaterThan(8);
    expect(await embeddings.embedDocuments(['a', 'b'])).toHaveLength(2);
  });
});

describe('zod helpers of the OpenAI SDK', () => {
  const meeting = z.object({
    id: z.uuid(),
    at: z.iso.datetime(),
    on: z.iso.date(),
    host: z.email().max(60),
    where: z.tuple([z.number().min(-90).max(90), z.number().min(-180).max(180)]),
    votes: z.record(z.enum(['yes', 'no']), z.number().int().min(0).max(9)),
  });
  const texts = z.object({
    // Written with escapes of JSON, of both lengths.
    note: z.string().startsWith('"').endsWith('\\\n').max(12),
    room: z.string().regex(/^[^ -\uffff]{2}[^a-z]{1,3}$/u),
    kind: z.enum(['talk', 'tale', 'ta', '"']),
    address: z.ipv4(),
    key: z.base64().max(16),
  });
  const client = (): OpenAI => new OpenAI({ baseURL, apiKey: 'unused', maxRetries: 0 });
  const messages = [{ role: 'user' as const, content: 'A meeting' }];

  test.each<[string, z.ZodType]>([
    ['a meeting', meeting],
    ['texts', texts],
  ])('zodResponseFormat: the answer parses (%s)', async (_, type) => {
    const completion = await client().chat.completions.parse({
      model: 'demo-context',
      messages,
      temperature: 0,
      max_tokens: 700,
      response_format: zodResponseFormat(type, 'answer'),
    });
    expect(completion.choices[0]?.finish_reason).toBe('stop');
    expect(type.safeParse(completion.choices[0]?.message.parsed).error).toBeUndefined();
  });

  test('zodFunction: the arguments parse', async () => {
    const completion = await client().chat.completions.parse({
      model: 'demo-context',
      messages,
      temperature: 0,
      max_tokens: 700,
      tools: [zodFunction({ name: 'plan', parameters: meeting })],
      tool_choice: 'required',
      parallel_tool_calls: false,
    });
    const [call] = completion.choices[0]?.message.tool_calls ?? [];
    expect(meeting.safeParse(call?.function.parsed_arguments).error).toBeUndefined();
  });
});
