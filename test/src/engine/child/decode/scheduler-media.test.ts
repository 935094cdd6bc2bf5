// Prompts with runs of vectors on a context that remembers every call: a decode has tokens or vectors, the
// others go on while vectors are computed, and what is cancelled is given back.

import { describe, expect, test } from 'vitest';
import type { MediaSpan } from '../../../../../src/engine/child/decode/media-span.ts';
import { deferred } from '../../../../fixtures/deferred.ts';
import { start } from '../../../../fixtures/engine/fake-context.ts';

/** A run of vectors of one number each; the prompt has `id` in their place. */
function run(from: number, length: number, id: number, value = 5) {
  const asked: number[] = [];
  const span: MediaSpan = {
    start: from,
    length,
    encode: async () => {
      asked.push(asked.length);
      return new Float32Array(length).fill(value);
    },
  };
  return { span, asked, tokens: Array.from({ length }, () => -id) };
}

describe('vectors in a prompt', () => {
  test('are read in steps of their own, in order, between the tokens', async () => {
    const { ask, context } = start();
    const { span, tokens } = run(2, 3, 1);
    await ask({ id: 1, prompt: [1, 2, ...tokens, 3], media: [span], maxTokens: 1 });
    expect(context.steps.map((step) => step.map((entry) => entry.token))).toEqual([[1, 2], [5, 5, 5], [3]]);
    expect(context.steps.flat().map((entry) => entry.position)).toEqual([0, 1, 2, 3, 4, 5]);
  });

  test('may be the end of a prompt, and the first token comes from their last', async () => {
    const { ask } = start();
    const { span, tokens } = run(1, 2, 1);
    expect(await ask({ id: 1, prompt: [1, ...tokens], media: [span], maxTokens: 1 })).toEqual([[11]]);
  });

  test('a run longer than a step is cut, and computed once', async () => {
    const { ask, context } = start({ maxChunk: 4 });
    const { span, tokens, asked } = run(1, 10, 1);
    await ask({ id: 1, prompt: [1, ...tokens, 2], media: [span], maxTokens: 1 });
    expect(context.steps.map((step) => step.length)).toEqual([1, 4, 4, 2, 1]);
    expect(asked).toHaveLength(1);
  });

  test('equal runs of one scope are shared and not computed, others are', async () => {
    const { ask, context } = start();
    const prompt = (id: number) => {
      const made = run(1, 3, id);
      return { ...made, prompt: [1, ...made.tokens, 2], media: [made.span] };
    };
    await ask({ id: 1, ...prompt(7), maxTokens: 1 });
    const [same, other, foreign] = [prompt(7), prompt(8), prompt(7)];
    await ask({ id: 2, ...same, maxTokens: 1 });
    await ask({ id: 3, ...other, maxTokens: 1 });
    await ask({ id: 4, ...foreign, scope: 'b', maxTokens: 1 });
    expect([same, other, foreign].map(({ asked }) => asked.length)).toEqual([0, 1, 1]);
    expect(context.steps.at(-1)).toHaveLength(1);
  });

  test('the others go on writing while vectors are computed', async () => {
    const { ask, context } = start();
    const computed = deferred();
    const { tokens } = run(1, 2, 1);
    const encode = async () => computed.promise.then(() => new Float32Array([5, 5]));
    const span = { start: 1, length: 2, encode };
    const sees = ask({ id: 1, prompt: [1, ...tokens, 2], media: [span], maxTokens: 1 });
    await ask({ id: 2, scope: 'b', prompt: [1, 2], maxTokens: 20 });
    expect(context.steps.length).toBeGreaterThanOrEqual(20);
    computed.resolve();
    expect(await sees).toHaveLength(1);
  });

  test('writers get every other step while long runs are read', async () => {
    const { ask, context } = start({ maxChunk: 1 });
    const { span, tokens } = run(1, 20, 1);
    await Promise.all([
      ask({ id: 2, scope: 'b', prompt: [3], maxTokens: 60 }),
      ask({ id: 1, prompt: [1, ...tokens, 2], media: [span], maxTokens: 1 }),
    ]);
    const vectors = context.steps.flatMap((step, i) => (step.some((entry) => entry.token === 5 && entry.sequence === 1) ? [i] : [])); // prettier-ignore
    expect(vectors).toHaveLength(20);
    for (const [i, step] of vectors.entries()) if (i > 0) expect(step - vectors[i - 1]!).toBe(2);
  });

  test('one that fails ends its request, gives its images back, and no other', async () => {
    const { ask, scheduler } = start();
    let released = 0;
    const span = { start: 1, length: 1, encode: () => Promise.reject(new Error('no')) };
    const failing = ask({ id: 1, prompt: [1, -1, 2], media: [span], release: () => (released += 1) });
    const other = ask({ id: 2, scope: 'b', prompt: [1, 2], maxTokens: 5 });
    await expect(failing).rejects.toMatchObject({ code: 'engine_failed' });
    expect((await other)[0]).toHaveLength(5);
    expect(scheduler.holds(1)).toBe(false);
    expect(released).toBe(1);
  });

  test('a cancel while vectors are computed leaves at once', async () => {
    const { scheduler, ask } = start();
    const [gone, asked] = [deferred(), deferred()];
    const span = {
      start: 1,
      length: 1,
      encode: () => {
        asked.resolve();
        return new Promise<Float32Array>(() => undefined);
      },
    };
    void ask({ id: 1, prompt: [1, -1, 2], media: [span], release: gone.resolve });
    await asked.promise;
    scheduler.cancel(1);
    await gone.promise;
    expect(scheduler.holds(1)).toBe(false);
  });
});
