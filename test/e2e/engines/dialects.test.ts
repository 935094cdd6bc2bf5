// Dialects on real engines: the recorded requests of other clients (where they are), and what a switch for
// thinking, an answer of no tokens and a limit of -1 come to.

import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { EXPECTED } from '../../../scripts/demo-model/text.ts';
import { chatAnswer } from '../../../src/api/response-schemas.ts';
import { responseAnswer } from '../../../src/api/responses/answer-schema.ts';
import { type ApiServer, post } from '../../fixtures/http/api-server.ts';
import { type DemoApi, startDemoApi, user } from '../../fixtures/http/demo-api.ts';
import { haveCases, casePath } from '../../fixtures/shared.ts';

let demo: DemoApi;
let api: ApiServer;
beforeAll(async () => {
  demo = await startDemoApi(['demo-chat']);
  ({ api } = demo);
});
afterAll(() => demo.close());

const QUESTION = 'What is attestation?';
const ANSWER = EXPECTED.find(({ question }) => question === QUESTION)?.answer ?? '';

interface Case {
  readonly case: string;
  readonly name: string;
  readonly body: object;
}
const cases = haveCases
  ? (JSON.parse(readFileSync(casePath('tools.json'), 'utf8')) as readonly Case[]).filter(
      (each) => each.case === 'A9',
    )
  : [];

async function answered(body: object): Promise<ReturnType<typeof chatAnswer.read>> {
  const response = await post(api, '/v1/chat/completions', body);
  const text = await response.text();
  expect([response.status, text]).toEqual([200, text]);
  return chatAnswer.read(JSON.parse(text), '');
}

/** The outcome of each case beyond an answer. */
const SEEN: Readonly<Record<string, (choice: unknown) => void>> = {
  'tool_choice any': (choice) =>
    expect(choice).toMatchObject({
      finish_reason: 'tool_calls',
      message: { tool_calls: [{ function: { name: 't', arguments: '{"k":"only"}' } }] },
    }),
  'five stops': (choice) =>
    expect(choice).toMatchObject({
      finish_reason: 'stop',
      message: { content: ANSWER.slice(0, ANSWER.indexOf('signed')) },
    }),
  'json_object with schema': (choice) =>
    expect(choice).toMatchObject({ finish_reason: 'stop', message: { content: '{"k":"only"}' } }),
};

describe.skipIf(!haveCases)('recorded requests of other clients', () => {
  test.each(cases.map((each) => [each.name, each.body] as const))('%s', async (name, body) => {
    const { choices } = await answered(body);
    SEEN[name]?.(choices[0]);
    // Every one of them whole is the same as in pieces.
    const stream = await post(api, '/v1/chat/completions', { ...body, stream: true });
    expect([stream.status, (await stream.text()).endsWith('data: [DONE]\n\n')]).toEqual([200, true]);
  });

  test('every expectation belongs to a case', () => {
    const names = new Set(cases.map((each) => each.name));
    expect(Object.keys(SEEN).filter((name) => !names.has(name))).toEqual([]);
  });
});

describe('the same by other names', () => {
  const chat = { model: 'demo-chat', messages: user(QUESTION), temperature: 0 };

  test.each<object>([
    { max_tokens: -1 },
    { enable_thinking: false },
    { chat_template_kwargs: { enable_thinking: false, effort: 'low' } },
    { reasoning_effort: 'none', verbosity: 'medium' },
    { stop: [...Array.from({ length: 15 }, (_, i) => `never ${i}`), ''] },
  ])('%j is answered as without it', async (given) => {
    const { choices } = await answered({ ...chat, ...given });
    expect(choices[0]).toMatchObject({ finish_reason: 'stop', message: { content: ANSWER } });
  });

  test('the sixteenth stop string works', async () => {
    const stop = [...Array.from({ length: 15 }, (_, i) => `never ${i}`), 'signed'];
    const { choices } = await answered({ ...chat, stop });
    expect(choices[0]?.message.content).toBe(ANSWER.slice(0, ANSWER.indexOf('signed')));
  });

  test('max_tokens 0 is an answer of no tokens', async () => {
    const { choices, usage } = await answered({ ...chat, max_tokens: 0 });
    expect(choices[0]).toMatchObject({ finish_reason: 'length', message: { content: '' } });
    expect(usage.completion_tokens).toBe(0);
  });
});

describe('a last message of the assistant is continued', () => {
  const said = ANSWER.slice(0, ANSWER.indexOf(' signed'));
  const messages = [...user(QUESTION), { role: 'assistant', content: said }];
  const greedy = { model: 'demo-chat', temperature: 0 };

  test('in a chat', async () => {
    const { choices } = await answered({ ...greedy, messages });
    expect(said + choices[0]?.message.content).toBe(ANSWER);
  });

  test('in responses', async () => {
    const response = await post(api, '/v1/responses', { ...greedy, input: messages });
    const { output } = responseAnswer.read(await response.json(), '');
    expect(output).toMatchObject([{ content: [{ text: ANSWER.slice(said.length) }] }]);
  });

  test('unless it is not to be', async () => {
    const { choices } = await answered({ ...greedy, messages, continue_final_message: false });
    expect(said + choices[0]?.message.content).not.toBe(ANSWER);
  });
});
