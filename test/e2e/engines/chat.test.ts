// Chat on real engines: the answers, streams, stops and limits, and what an abort leaves.

import type OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { answerOf, EXPECTED, FALLBACK } from '../../../scripts/demo-model/text.ts';
import { chatAnswer, chatChunk } from '../../../src/api/response-schemas.ts';
import { type ApiServer, type ErrorAnswer, events, post } from '../../fixtures/http/api-server.ts';
import {
  type DemoApi,
  startDemoApi,
  complete as completeOn,
  CONTEXT,
  user,
} from '../../fixtures/http/demo-api.ts';

let demo: DemoApi;
let api: ApiServer;
let client: OpenAI;
beforeAll(async () => {
  demo = await startDemoApi(['demo-chat', 'demo-context']);
  ({ api, client } = demo);
});
afterAll(() => demo.close());

function complete(extra: object = {}): Promise<OpenAI.Completion> {
  return completeOn(api, extra);
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
    expect(demo.engines['demo-context']?.stats().active).toBe(0);
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
