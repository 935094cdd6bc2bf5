// Clients that speak the Responses API, on real engines, as their documentation has them: the helpers of the
// OpenAI SDK, the Vercel AI SDK's default, LangChain.js with useResponsesApi, and the OpenAI Agents SDK.

import { createOpenAI, type OpenAIProvider } from '@ai-sdk/openai';
import { type BaseMessage, HumanMessage } from '@langchain/core/messages';
import { tool as langchainTool } from '@langchain/core/tools';
import { ChatOpenAI } from '@langchain/openai';
import * as ai from 'ai';
import type OpenAI from 'openai';
import { zodResponsesFunction, zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { answerOf, TOOL_RESULT } from '../../scripts/demo-model/text.ts';
import { askAgent, haveAgentsSdk } from '../fixtures/agents/agents-sdk.ts';
import { type DemoApi, startDemoApi } from '../fixtures/http/demo-api.ts';

let demo: DemoApi;
let baseURL: string;
beforeAll(async () => {
  demo = await startDemoApi(['demo-chat', 'demo-context']);
  baseURL = `${demo.api.url}/v1`;
});
afterAll(() => demo.close());

const QUESTION = 'What is attestation?';
const WEATHER_QUESTION = 'How is the weather today?';
const person = z.object({ name: z.string().max(10), age: z.number().int().min(0).max(150) });
const city = z.object({ city: z.string().max(20) });

describe('OpenAI SDK', () => {
  test('create and stream', async () => {
    const asked = { model: 'demo-chat', input: QUESTION, temperature: 0 };
    expect((await demo.client.responses.create(asked)).output_text).toBe(answerOf('attestation'));
    let text = '';
    for await (const event of demo.client.responses.stream(asked))
      if (event.type === 'response.output_text.delta') text += event.delta;
    expect(text).toBe(answerOf('attestation'));
  });

  test.each(['word '.repeat(20_000), '\u{1d7d8}'.repeat(1_000)])(
    'an input that is too long is told by its field (row %#)',
    async (input) => {
      await expect(demo.client.responses.create({ model: 'demo-chat', input })).rejects.toMatchObject({
        status: 400,
        code: 'context_length_exceeded',
        param: 'input',
      });
    },
  );

  test('parse', async () => {
    const answer = await demo.client.responses.parse({
      model: 'demo-context',
      input: 'Someone',
      temperature: 0,
      text: { format: zodTextFormat(person, 'person') },
    });
    expect(person.safeParse(answer.output_parsed).success).toBe(true);
  });

  test('a tool round: what came out goes in again', async () => {
    const tools = [zodResponsesFunction({ name: 'get_weather', parameters: city })];
    const input: OpenAI.Responses.ResponseInput = [{ role: 'user', content: WEATHER_QUESTION }];
    const first = await demo.client.responses.parse({ model: 'demo-chat', input, tools, temperature: 0 });
    const call = first.output.find((item) => item.type === 'function_call');
    expect(call?.arguments).toBe('{"city":"Berlin"}');
    input.push(...(first.output as OpenAI.Responses.ResponseInput));
    input.push({ type: 'function_call_output', call_id: call?.call_id ?? '', output: '{"celsius": 21}' });
    const last = await demo.client.responses.create({ model: 'demo-chat', input, tools, temperature: 0 });
    expect(last.output_text).toBe(TOOL_RESULT.answer);
  });
});

describe('Vercel AI SDK, openai(model)', () => {
  const model = (name: string): ReturnType<OpenAIProvider> =>
    createOpenAI({ baseURL, apiKey: 'unused' })(name);

  test('generateText and streamText', async () => {
    const asked = { model: model('demo-chat'), prompt: QUESTION, temperature: 0, maxRetries: 0 };
    const { text, finishReason, usage } = await ai.generateText(asked);
    expect([text, finishReason]).toEqual([answerOf('attestation'), 'stop']);
    expect(usage.inputTokens).toBeGreaterThan(0);
    expect(await ai.streamText(asked).text).toBe(answerOf('attestation'));
  });

  test('generateObject', async () => {
    const { object } = await ai.generateObject({
      model: model('demo-context'),
      schema: person,
      prompt: 'Someone',
      temperature: 0,
      maxRetries: 0,
    });
    expect(person.safeParse(object).success).toBe(true);
  });

  test.each(['generate', 'stream'])('a tool round (%s)', async (how) => {
    const asked: unknown[] = [];
    const options = {
      model: model('demo-chat'),
      prompt: WEATHER_QUESTION,
      tools: {
        get_weather: ai.tool({
          description: 'Weather of a city.',
          inputSchema: city,
          execute: async (input) => {
            asked.push(input);
            return { celsius: 21 };
          },
        }),
      },
      temperature: 0,
      stopWhen: ai.stepCountIs(3),
      maxRetries: 0,
    };
    const text =
      how === 'generate' ? (await ai.generateText(options)).text : await ai.streamText(options).text;
    expect(asked).toEqual([{ city: 'Berlin' }]);
    expect(text).toBe(TOOL_RESULT.answer);
  });
});

describe('Vercel AI SDK, a second question', () => {
  test.each([
    ['that sends what was said', false],
    ['that refers to what was said, as if it were stored', undefined],
  ])('%s', async (_, store) => {
    const openai = createOpenAI({ baseURL, apiKey: 'unused' })('demo-chat');
    const first = await ai.generateText({ model: openai, prompt: QUESTION, temperature: 0, maxRetries: 0 });
    const messages: ai.ModelMessage[] = [
      { role: 'user', content: QUESTION },
      ...first.response.messages,
      { role: 'user', content: QUESTION },
    ];
    const providerOptions = { openai: store === undefined ? {} : { store } };
    const second = ai.generateText({
      model: openai,
      messages,
      providerOptions,
      temperature: 0,
      maxRetries: 0,
    });
    if (store === undefined)
      await expect(second).rejects.toThrow(/no item is stored by itself.*store: false/);
    else expect((await second).text.length).toBeGreaterThan(0);
  });
});

describe('LangChain.js, useResponsesApi', () => {
  const model = (name: string): ChatOpenAI =>
    new ChatOpenAI({
      model: name,
      apiKey: 'unused',
      configuration: { baseURL },
      temperature: 0,
      maxRetries: 0,
      useResponsesApi: true,
    });

  test('invoke and stream', async () => {
    const answer = await model('demo-chat').invoke(QUESTION);
    expect(answer.text).toBe(answerOf('attestation'));
    expect(answer.usage_metadata).toMatchObject({ input_tokens: expect.any(Number) as number });
    let text = '';
    for await (const chunk of await model('demo-chat').stream(QUESTION)) text += chunk.text;
    expect(text).toBe(answerOf('attestation'));
  });

  test('a tool round', async () => {
    const weather = langchainTool(async () => '{"celsius": 21}', {
      name: 'get_weather',
      description: 'Weather of a city.',
      schema: city,
    });
    const bound = model('demo-chat').bindTools([weather]);
    const messages: BaseMessage[] = [new HumanMessage(WEATHER_QUESTION)];
    const first = await bound.invoke(messages);
    expect(first.tool_calls).toMatchObject([{ name: 'get_weather', args: { city: 'Berlin' } }]);
    messages.push(first);
    for (const call of first.tool_calls ?? []) messages.push(await weather.invoke(call as never));
    expect((await bound.invoke(messages)).text).toBe(TOOL_RESULT.answer);
  });

  test('withStructuredOutput', async () => {
    const structured = model('demo-context').withStructuredOutput(person, {
      method: 'jsonSchema',
      name: 'person',
    });
    expect(person.safeParse(await structured.invoke('Someone')).success).toBe(true);
  });
});

describe.skipIf(!haveAgentsSdk)('OpenAI Agents SDK', () => {
  test.each([false, true])('run: a tool round, stream %s', async (stream) => {
    const result = '{"celsius": 21}';
    const run = await askAgent({ baseURL, model: 'demo-chat', question: WEATHER_QUESTION, result, stream });
    expect(run).toEqual({ asked: [{ city: 'Berlin' }], answer: TOOL_RESULT.answer });
  });
});
