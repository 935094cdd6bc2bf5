// Every parameter of /v1/completions: honoured, or refused with a code and its name.

import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type ApiServer, events, post, startApi } from '../../../fixtures/http/api-server.ts';
import { askedOf } from '../../../fixtures/http/asked.ts';

let api: ApiServer;
beforeAll(async () => void (api = await startApi()));
afterAll(() => api.close());
beforeEach(() => void (api.engine.requests.length = 0));

const { seenBy, refusal } = askedOf(() => api);

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
