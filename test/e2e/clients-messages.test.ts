// The Anthropic SDK on real engines, as its documentation has it: create, the helpers of streams, a tool
// runner, outputs of a schema, and the count of tokens.

import Anthropic from '@anthropic-ai/sdk';
import { betaZodTool } from '@anthropic-ai/sdk/helpers/beta/zod';
import { zodOutputFormat } from '@anthropic-ai/sdk/helpers/zod';
import { z } from 'zod';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { answerOf, TOOL_RESULT } from '../../scripts/demo-model/text.ts';
import { type DemoApi, startDemoApi } from '../fixtures/http/demo-api.ts';

let demo: DemoApi;
let client: Anthropic;
beforeAll(async () => {
  demo = await startDemoApi(['demo-chat', 'demo-context']);
  client = new Anthropic({ baseURL: demo.api.url, apiKey: 'unused', maxRetries: 0 });
});
afterAll(() => demo.close());

const QUESTION = 'What is attestation?';
const WEATHER_QUESTION = 'How is the weather today?';
/** The SDK leaves lengths and bounds out of the schemas it sends. */
const person = z.object({ name: z.enum(['Ada', 'Grace']), grown: z.boolean() });
function asking(content: string) {
  const messages = [{ role: 'user' as const, content }];
  return { model: 'demo-chat', max_tokens: 400, temperature: 0, messages };
}

test('create and stream', async () => {
  const answer = await client.messages.create(asking(QUESTION));
  expect(answer.content).toMatchObject([{ type: 'text', text: answerOf('attestation') }]);
  expect(answer.stop_reason).toBe('end_turn');
  const stream = client.messages.stream(asking(QUESTION));
  let text = '';
  stream.on('text', (piece) => (text += piece));
  expect((await stream.finalMessage()).content).toMatchObject([{ text: answerOf('attestation') }]);
  expect(text).toBe(answerOf('attestation'));
});

test('a stop sequence is told, and is no part of the answer', async () => {
  const whole = answerOf('attestation');
  const stop = whole.slice(10, 16);
  const answer = await client.messages.create({ ...asking(QUESTION), stop_sequences: ['\u0000', stop] });
  expect(answer).toMatchObject({ stop_reason: 'stop_sequence', stop_sequence: stop });
  expect(answer.content).toMatchObject([{ text: whole.slice(0, whole.indexOf(stop)) }]);
});

test('parse', async () => {
  const answer = await client.messages.parse({
    ...asking('Someone'),
    model: 'demo-context',
    output_config: { format: zodOutputFormat(person) },
  });
  expect(person.safeParse(answer.parsed_output).success).toBe(true);
});

test.each([false, true])('a tool runner, stream %s', async (stream) => {
  const asked: unknown[] = [];
  const weather = betaZodTool({
    name: 'get_weather',
    description: 'Weather of a city.',
    inputSchema: z.object({ city: z.string().max(20) }),
    run: (input) => {
      asked.push(input);
      return '{"celsius": 21}';
    },
  });
  const runner = client.beta.messages.toolRunner({ ...asking(WEATHER_QUESTION), tools: [weather], stream });
  const last = await runner.runUntilDone();
  expect(asked).toEqual([{ city: 'Berlin' }]);
  expect(last.content).toMatchObject([{ type: 'text', text: TOOL_RESULT.answer }]);
});

test('countTokens is the prompt of the same request, with tools, system and a beginning too', async () => {
  const tool = { name: 'f', description: 'F.', input_schema: { type: 'object' as const, properties: {} } };
  const fresh = { ...asking(`${QUESTION} And why?`), max_tokens: 1 };
  for (const more of [
    {},
    { system: 'Be brief.' },
    { tools: [tool] },
    { tools: [tool], tool_choice: { type: 'none' as const } },
    { messages: [...fresh.messages, { role: 'assistant' as const, content: 'Because' }] },
  ]) {
    const { max_tokens: _, temperature: _t, ...counted } = { ...fresh, ...more };
    const { input_tokens: count } = await client.messages.countTokens(counted);
    const { usage } = await client.messages.create({ ...fresh, ...more });
    expect(usage.input_tokens + (usage.cache_read_input_tokens ?? 0)).toBe(count);
  }
});
