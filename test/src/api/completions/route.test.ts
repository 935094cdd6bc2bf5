// /v1/completions: what a stream says of its tokens is what the whole answer says of them.

import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import type { StreamEvent } from '../../../../src/api/generation/stream.ts';
import type { GenerateEvent } from '../../../../src/engine/seam/engine.ts';
import { collectCompletion, streamCompletion } from '../../../../src/api/completions/answer.ts';
import { completionRequest, planCompletion } from '../../../../src/api/completions/wire.ts';

interface Chunk {
  readonly choices: readonly {
    readonly index: number;
    readonly text: string;
    readonly logprobs: Logprobs | null;
  }[];
}
interface Logprobs {
  readonly tokens: readonly string[];
  readonly token_logprobs: readonly (number | null)[];
  readonly text_offset: readonly number[];
}

const ANSWER = { id: 'cmpl-1', created: 0, model: 'demo', fingerprint: 'fp' };
const COUNTS = { promptTokens: 0, cachedTokens: 0, completionTokens: 0, reasoningTokens: 0 };
const BOS = '<s>';

async function* replay(events: readonly GenerateEvent[]): AsyncGenerator<GenerateEvent> {
  yield* events;
}

function plan(n: number) {
  return planCompletion(
    completionRequest.read({ model: 'demo', prompt: 'x', n, echo: true, logprobs: 0 }, ''),
    {},
    '',
  );
}

async function streamed(events: readonly GenerateEvent[], n: number): Promise<readonly Logprobs[]> {
  const all = Array.from({ length: n }, () => ({
    tokens: [] as string[],
    token_logprobs: [] as (number | null)[],
    text_offset: [] as number[],
  }));
  const take = (json: string): void => {
    for (const { index, logprobs } of (JSON.parse(json) as Chunk).choices) {
      all[index]?.tokens.push(...(logprobs?.tokens ?? []));
      all[index]?.token_logprobs.push(...(logprobs?.token_logprobs ?? []));
      all[index]?.text_offset.push(...(logprobs?.text_offset ?? []));
    }
  };
  const sink = { send: ({ data }: StreamEvent) => take(data), flush: () => Promise.resolve() };
  await streamCompletion(replay(events), {
    plan: plan(n),
    answer: ANSWER,
    counts: COUNTS,
    includeUsage: false,
    sink,
    bos: BOS,
  });
  return all;
}

async function whole(events: readonly GenerateEvent[], n: number): Promise<readonly Logprobs[]> {
  const { choices } = (await collectCompletion(replay(events), {
    plan: plan(n),
    answer: ANSWER,
    counts: COUNTS,
    bos: BOS,
  })) as Chunk;
  return choices.map(({ logprobs }) => {
    const { tokens, token_logprobs, text_offset } = logprobs as Logprobs;
    return { tokens, token_logprobs, text_offset };
  });
}

function entry(token: string, logprob = -1) {
  return { token, logprob, bytes: [...Buffer.from(token)], top: [] };
}

/** As the scheduler echoes: log probabilities of the prompt, its text, then the answer with both. */
function echoed(
  index: number,
  prompt: readonly string[],
  written: readonly (readonly string[])[],
): GenerateEvent[] {
  return [
    {
      kind: 'delta',
      index,
      text: '',
      logprobs: [entry(BOS, NaN), ...prompt.slice(0, 1).map((token) => entry(token))],
    },
    { kind: 'delta', index, text: '', logprobs: prompt.slice(1).map((token) => entry(token)) },
    { kind: 'delta', index, text: prompt.join('') },
    ...written.map((tokens): GenerateEvent => ({
      kind: 'delta',
      index,
      text: tokens.join(''),
      logprobs: tokens.map((token) => entry(token)),
    })),
    { kind: 'finish', index, reason: 'stop', completionTokens: written.flat().length },
  ];
}

test('with echo, offsets count the prompt once and its begin token not at all', async () => {
  const events: GenerateEvent[] = [
    { kind: 'start', promptTokens: 3, cachedTokens: 0 },
    ...echoed(0, ['Once', ' upon'], [[' a'], [], [' time', '.']]),
  ];
  const expected = {
    tokens: ['Once', ' upon', ' a', ' time', '.'],
    token_logprobs: [-1, -1, -1, -1, -1],
    text_offset: [0, 4, 9, 11, 16],
  };
  expect(await whole(events, 1)).toEqual([expected]);
  expect(await streamed(events, 1)).toEqual([expected]);
});

test('however an answer is cut into events, its stream says the same', async () => {
  const tokens = fc.array(fc.string({ maxLength: 4 }), { minLength: 1, maxLength: 5 });
  const parts = fc.tuple(
    tokens,
    fc.array(fc.array(fc.string({ maxLength: 4 }), { maxLength: 3 }), { maxLength: 5 }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(parts, { minLength: 1, maxLength: 3 }), async (choices) => {
      const events = choices.flatMap(([prompt, written], index) => echoed(index, prompt, written));
      expect(await streamed(events, choices.length)).toEqual(await whole(events, choices.length));
    }),
  );
});
