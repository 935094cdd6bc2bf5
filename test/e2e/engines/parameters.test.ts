// Parameters of generation on real engines do what they say.

import type OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { tokenizeAnswer } from '../../../src/api/response-schemas.ts';
import { type ApiServer, events, post } from '../../fixtures/http/api-server.ts';
import { type DemoApi, startDemoApi, complete as completeOn, CONTEXT } from '../../fixtures/http/demo-api.ts';

let demo: DemoApi;
let api: ApiServer;
beforeAll(async () => {
  demo = await startDemoApi(['demo-context']);
  ({ api } = demo);
});
afterAll(() => demo.close());

function complete(extra: object = {}): Promise<OpenAI.Completion> {
  return completeOn(api, extra);
}
async function textOf(extra: object = {}): Promise<string> {
  return (await complete(extra)).choices[0]?.text ?? '';
}

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
