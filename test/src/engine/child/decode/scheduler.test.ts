// The scheduler on a context that remembers every call: what is decoded together, in which order, and what a
// cancel, a pause or a full memory does — by the step, without clocks.

import { describe, expect, test } from 'vitest';
import { start, expected } from '../../../../fixtures/engine/fake-context.ts';

describe('batching', () => {
  test('all live sequences decode in one batch, one token each', async () => {
    const { ask, context } = start();
    const results = await Promise.all(
      [0, 1, 2, 3].map((id) => ask({ id, scope: `s${id}`, prompt: [id + 1, 2, 3], maxTokens: 10 })),
    );
    results.forEach((tokens, id) => expect(tokens[0]).toEqual(expected([id + 1, 2, 3], 10)));
    // One step reads all four prompts and gives each its first token, nine more write the rest.
    expect(context.steps).toHaveLength(10);
    for (const step of context.steps.slice(1))
      expect(step.map((entry) => entry.sequence).toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3]);
  });

  test('a long prompt is read in chunks while others go on writing in every step', async () => {
    const { ask, context, events } = start({ maxChunk: 8 });
    let late: Promise<number[][]> | undefined;
    const prompt = Array.from({ length: 100 }, (_, i) => i % 7);
    const first = ask({
      id: 1,
      maxTokens: 40,
      emit: (event) =>
        void (
          event.kind === 'delta' &&
          late === undefined &&
          (late = ask({ id: 2, scope: 'b', prompt, maxTokens: 3 }))
        ),
    });
    expect(await first).toEqual([expected([1, 2, 3], 40)]);
    expect(await late).toEqual([expected(prompt, 3)]);
    const reading = context.steps.filter(
      (step) => step.some((entry) => entry.sequence === 1) && step.length > 2,
    );
    expect(reading.length).toBe(13);
    for (const step of reading) {
      expect(step.filter((entry) => entry.sequence === 0)).toHaveLength(1);
      expect(step.length).toBeLessThanOrEqual(1 + 8);
    }
    expect(events.filter(([id, event]) => id === 2 && event.kind === 'start')).toHaveLength(1);
  });

  test.each([
    ['in one step when they are short: together from then on', 9, [28]],
    ['in polite chunks while they are long', 60, [17]],
  ])('more who read than write are read %s', async (_, length, sizes) => {
    // A token takes a millisecond.
    let clock = 0;
    const { ask, context } = start({ stallMs: 16, now: () => clock });
    context.onDecode = (step) => (clock += step.length);
    const late: Promise<number[][]>[] = [];
    const first = ask({
      id: 1,
      maxTokens: 12,
      emit: (event) => {
        if (event.kind === 'delta' && late.length === 0)
          for (const id of [2, 3, 4])
            late.push(ask({ id, scope: `s${id}`, prompt: Array.from({ length }, () => id), maxTokens: 1 }));
      },
    });
    expect(await first).toEqual([expected([1, 2, 3], 12)]);
    await Promise.all(late);
    // The first step reads the first prompt.
    const steps = context.steps.slice(1).filter((step) => step.length > 1);
    expect(steps.slice(0, sizes.length).map((step) => step.length)).toEqual(sizes);
  });

  test('a short prompt does not wait for a long one that came first', async () => {
    const { ask, context } = start({ maxChunk: 8 });
    const long = ask({ id: 1, prompt: Array.from({ length: 400 }, () => 1), maxTokens: 1 });
    const short = ask({ id: 2, scope: 'b', prompt: [1, 2, 3, 4], maxTokens: 1 });
    await short;
    expect(context.steps.length).toBeLessThan(4);
    await long;
  });

  test.each([
    ['take turns where two together take longer than two alone', 5, true],
    ['share a batch where that is faster', 1.2, false],
  ])('writers %s', async (_, together, turns) => {
    let clock = 0;
    const { ask, context } = start({ pacing: true, now: () => clock });
    context.onDecode = (step) => {
      clock += step.length === 1 ? 1 : together;
    };
    const results = await Promise.all(
      [0, 1].map((id) => ask({ id, scope: `s${id}`, prompt: [id + 1, 2], maxTokens: 200 })),
    );
    results.forEach((tokens, id) => expect(tokens[0]).toEqual(expected([id + 1, 2], 200)));
    const late = context.steps.slice(-100);
    const single = late.filter((step) => step.length === 1);
    expect(single.length > 90).toBe(turns);
    // In turns means in turns: no request is two tokens ahead.
    const twice = single.slice(1, 90).filter((step, i) => step[0]?.sequence === single[i]?.[0]?.sequence);
    expect(turns ? twice : []).toEqual([]);
  });

  test('never more tokens or outputs than the context takes', async () => {
    const { ask, context } = start({ slots: 12 });
    await Promise.all(
      Array.from({ length: 12 }, (_, id) =>
        ask({ id, scope: `s${id}`, prompt: Array.from({ length: 5 + id * 3 }, () => id), maxTokens: 6 }),
      ),
    );
    for (const step of context.steps) {
      expect(step.length).toBeLessThanOrEqual(32);
      expect(step.filter((entry) => entry.output).length).toBeLessThanOrEqual(8);
    }
  });
});

describe('queue', () => {
  test('scopes are served in turn: one with many requests does not hold up the other', async () => {
    const { ask, events } = start({ slots: 1 });
    const many = Array.from({ length: 6 }, (_, i) => ask({ id: i, scope: 'greedy', maxTokens: 2 }));
    const few = [
      ask({ id: 100, scope: 'modest', maxTokens: 2 }),
      ask({ id: 101, scope: 'modest', maxTokens: 2 }),
    ];
    await Promise.all([...many, ...few]);
    const order = events.filter(([, event]) => event.kind === 'start').map(([id]) => id);
    expect(order.indexOf(100)).toBeLessThanOrEqual(1);
    expect(order.indexOf(101)).toBeLessThanOrEqual(3);
    expect(order.filter((id) => id < 100)).toEqual([0, 1, 2, 3, 4, 5]);
  });

  test('is bounded', async () => {
    const { ask, scheduler } = start({ slots: 1, maxQueued: 3 });
    const results = await Promise.allSettled(Array.from({ length: 10 }, (_, id) => ask({ id })));
    // Three wait, and one takes the free slot.
    expect(results.filter((result) => result.status === 'rejected')).toHaveLength(6);
    expect(scheduler.stats()).toMatchObject({ queued: 0, active: 0 });
  });

  test('choices that find no slot wait, and write the same', async () => {
    const { ask, context } = start({ slots: 3 });
    const tokens = await ask({ id: 1, n: 7, maxTokens: 4 });
    for (const each of tokens) expect(each).toEqual(expected([1, 2, 3], 4));
    // The prompt was read once.
    expect(context.steps.flat().filter((entry) => entry.position < 2)).toHaveLength(2);
  });
});

describe('memory', () => {
  test('a prefix is shared only inside its scope', async () => {
    const { ask, events } = start();
    const prompt = Array.from({ length: 20 }, (_, i) => i % 5);
    await ask({ id: 1, scope: 'a', prompt });
    await ask({ id: 2, scope: 'b', prompt });
    await ask({ id: 3, scope: 'a', prompt: [...prompt.slice(0, 12), 9, 9] });
    const cached = events.flatMap(([id, event]) =>
      event.kind === 'start' ? [[id, event.cachedTokens]] : [],
    );
    expect(cached).toEqual([
      [1, 0],
      [2, 0],
      [3, 12],
    ]);
  });

  test('full: kept prefixes go first, then the youngest gives way and is read again; all finish, all right', async () => {
    const { ask, scheduler } = start({ slots: 4 }, 70);
    await ask({ id: 0, scope: 'old', prompt: Array.from({ length: 20 }, () => 3), maxTokens: 1 });
    const prompts = [1, 2, 3, 4].map((id) => Array.from({ length: 15 }, (_, i) => (i * id) % 11));
    const results = await Promise.all(
      prompts.map((prompt, id) => ask({ id: id + 1, scope: `s${id}`, prompt, maxTokens: 25 })),
    );
    results.forEach((tokens, i) => expect(tokens).toEqual([expected(prompts[i] ?? [], 25)]));
    expect(scheduler.stats()).toMatchObject({ queued: 0, active: 0 });
  });
});
