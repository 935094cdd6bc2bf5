// Greedy output does not depend on company: alone, among seven neighbours that come and go, with a prefix
// reused, in chunks of any size, after a cancelled neighbour, after being pushed out of memory and read
// again. The model is demo-context, whose every token depends on all before it, so a wrong cell, position or
// mask shows.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Engine } from '../../../../../src/engine/seam/engine.ts';
import { openDemo, run, tokensOf } from '../../../../fixtures/engine/demo-engine.ts';

const LENGTHS = [1, 2, 17, 40, 130, 300, 511, 600];
const WRITTEN = 24;

function askLong(on: Engine, i: number) {
  return run(on, {
    prompt: { kind: 'tokens', tokens: tokensOf(50 + i, 600, on.info.vocabSize) },
    maxTokens: WRITTEN,
    logprobs: 0,
    cacheScope: `tight ${i}`,
  });
}

describe('greedy identity', () => {
  let engine: Engine;
  let prompts: number[][];
  let alone: (readonly string[])[];
  const opened: Engine[] = [];
  const open = async (...args: Parameters<typeof openDemo>): Promise<Engine> => {
    const next = await openDemo(...args);
    opened.push(next);
    return next;
  };
  const write = async (on: Engine, i: number, scope: string): Promise<readonly string[]> => {
    const { tokens } = await run(on, {
      prompt: { kind: 'tokens', tokens: prompts[i] ?? [] },
      maxTokens: WRITTEN,
      logprobs: 0,
      cacheScope: scope,
    });
    return tokens;
  };

  beforeAll(async () => {
    engine = await open('demo-context', { slots: 8 }, { reusePrefixes: false });
    prompts = LENGTHS.map((length, i) => tokensOf(i + 1, length, engine.info.vocabSize));
    alone = [];
    for (let i = 0; i < prompts.length; i += 1) alone.push(await write(engine, i, 'alone'));
  });
  afterAll(async () => {
    for (const each of opened) await each.close();
  });

  /** A neighbour that joins, writes for a while and ends or is cancelled. */
  const noise = async (seed: number): Promise<void> => {
    const controller = new AbortController();
    let seen = 0;
    try {
      for await (const event of engine.generate(
        {
          prompt: {
            kind: 'tokens',
            tokens: tokensOf(1000 + seed, 1 + ((seed * 37) % 400), engine.info.vocabSize),
          },
          sampling: {
            temperature: 1,
            topP: 1,
            topK: 0,
            minP: 0,
            presencePenalty: 0,
            frequencyPenalty: 0,
            repeatPenalty: 1,
            seed,
          },
          n: 1,
          stop: [],
          maxTokens: 5 + ((seed * 13) % 40),
          cacheScope: `noise ${seed}`,
        },
        controller.signal,
      )) {
        if (event.kind === 'delta') seen += 1;
        if (seed % 3 === 0 && seen > seed % 7) controller.abort();
      }
    } catch (error) {
      if (!controller.signal.aborted) throw error;
    }
  };

  test('the model is worth asking: outputs are full, and differ with any one token of the prompt', async () => {
    expect(alone.map((tokens) => tokens.length)).toEqual(LENGTHS.map(() => WRITTEN));
    expect(new Set(alone.map(String)).size).toBe(LENGTHS.length);
    const changed = [...(prompts[4] ?? [])];
    changed[3] = changed[3] === 20 ? 21 : 20;
    const { tokens } = await run(engine, {
      prompt: { kind: 'tokens', tokens: changed },
      maxTokens: WRITTEN,
      logprobs: 0,
    });
    expect(tokens).not.toEqual(alone[4]);
  });

  test('in a batch of eight', async () => {
    const together = await Promise.all(prompts.map((_, i) => write(engine, i, 'batch')));
    expect(together).toEqual(alone);
  });

  test('with neighbours joining, leaving and being cancelled', async () => {
    const background = Array.from({ length: 24 }, (_, seed) => noise(seed));
    for (let i = 0; i < prompts.length; i += 1)
      expect(await write(engine, i, `joining ${i}`)).toEqual(alone[i]);
    await Promise.all(background);
  });

  test.each([1, 7, 64, 200])('prompts read in chunks of %i', async (maxChunk) => {
    const chunked = await open('demo-context', { slots: 8 }, { maxChunk, reusePrefixes: false });
    const together = await Promise.all(prompts.map((_, i) => write(chunked, i, 'chunks')));
    expect(together).toEqual(alone);
    await chunked.close();
  });

  test('with prefixes reused: whole, in part, from an idle slot and from a busy one', async () => {
    const reusing = await open('demo-context', { slots: 4 });
    const ask = (tokens: readonly number[], on: Engine = reusing) =>
      run(on, { prompt: { kind: 'tokens', tokens }, maxTokens: WRITTEN, logprobs: 0, cacheScope: 'reuse' });
    for (const i of [3, 5, 7]) {
      const prompt = prompts[i] ?? [];
      expect((await ask(prompt)).tokens).toEqual(alone[i]);
      const again = await ask(prompt);
      expect(again.tokens).toEqual(alone[i]);
      expect(again.cachedTokens).toBe(prompt.length - 1);
      const branched = [...prompt.slice(0, prompt.length >> 1), ...tokensOf(77, 9, engine.info.vocabSize)];
      const fresh = await ask(branched, engine);
      const [one, two, three] = await Promise.all([ask(branched), ask(prompt), ask(branched)]);
      expect(one.tokens).toEqual(fresh.tokens);
      expect(two.tokens).toEqual(alone[i]);
      expect(three.tokens).toEqual(fresh.tokens);
      expect(one.cachedTokens).toBe(prompt.length >> 1);
    }
    await reusing.close();
  });

  test('several choices of one request share the prompt and write the same', async () => {
    const { texts, promptTokens } = await run(engine, {
      prompt: { kind: 'tokens', tokens: prompts[5] ?? [] },
      maxTokens: WRITTEN,
      n: 11,
    });
    expect(promptTokens).toBe(LENGTHS[5]);
    expect(texts).toHaveLength(11);
    expect(new Set(texts).size).toBe(1);
    const { text } = await run(engine, {
      prompt: { kind: 'tokens', tokens: prompts[5] ?? [] },
      maxTokens: WRITTEN,
    });
    expect(texts[0]).toBe(text);
  });

  test('when the memory is too small for all: pushed out, read again, the same', async () => {
    // One slot's worth of cells for eight: 2048 + 256, while eight prompts of 600 want more than twice that.
    const tight = await open('demo-context', { slots: 8 }, { maxCells: 2048, reusePrefixes: true });
    const wanted = [];
    for (let i = 0; i < 6; i += 1) wanted.push((await askLong(engine, i)).tokens);
    const got = await Promise.all(wanted.map((_, i) => askLong(tight, i)));
    expect(got.map((each) => each.tokens)).toEqual(wanted);
    await tight.close();
  });
});
