// Requests for different adapters of one model on the scheduler: a step has one adapter, they take turns, and
// no adapter meets keys and values of another (the fake context refuses that).

import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { AdapterTurns } from '../../../../../src/engine/child/decode/adapter-turns.ts';
import { expected, start } from '../../../../fixtures/engine/fake-context.ts';

test('two adapters and the base get every third step each, however many write with one of them', async () => {
  const { ask, context } = start({ slots: 8 });
  const crowd = [1, 2, 3, 4, 5].map((id) => ask({ id, adapter: 1, maxTokens: 30 }));
  const [alone, base] = [ask({ id: 8, adapter: 2, maxTokens: 30 }), ask({ id: 9, maxTokens: 30 })];
  for (const tokens of await Promise.all(crowd)) expect(tokens).toEqual([expected([1, 2, 3], 30, 1)]);
  expect(await alone).toEqual([expected([1, 2, 3], 30, 2)]);
  expect(await base).toEqual([expected([1, 2, 3], 30)]);
  // All begin at once and write as many tokens, so the turns go round to the end.
  expect(context.adapters).toHaveLength(90);
  for (let i = 0; i < 90; i += 3)
    expect(new Set(context.adapters.slice(i, i + 3)), `steps ${i} to ${i + 2}`).toEqual(new Set([0, 1, 2]));
});

test('a turn lasts as long as it may while others wait, and ends early when it has no work', async () => {
  // A step of the fake context takes a millisecond.
  const { ask, context } = start({ slots: 8, adapterTurnMs: 5 });
  const [one, two] = [ask({ id: 1, adapter: 1, maxTokens: 20 }), ask({ id: 2, adapter: 2, maxTokens: 13 })];
  expect(await one).toEqual([expected([1, 2, 3], 20, 1)]);
  expect(await two).toEqual([expected([1, 2, 3], 13, 2)]);
  const turns = context.adapters
    .join('')
    .match(/(\d)\1*/g)
    ?.map((turn) => [Number(turn[0]), turn.length]);
  expect(turns).toEqual([
    [1, 5],
    [2, 5],
    [1, 5],
    [2, 5],
    [1, 5],
    [2, 3],
    [1, 5],
  ]);
});

test('a long prompt for one adapter is read in chunks as polite as beside its own writers', async () => {
  let clock = 0;
  const { ask, context } = start({ stallMs: 16, now: () => clock });
  context.onDecode = (step) => (clock += step.length);
  let late: Promise<number[][]> | undefined;
  const prompt = Array.from({ length: 200 }, (_, i) => i % 7);
  await ask({
    id: 1,
    adapter: 1,
    maxTokens: 60,
    emit: (event) => {
      if (event.kind === 'delta') late ??= ask({ id: 2, adapter: 2, prompt, maxTokens: 1 });
    },
  });
  expect(await late).toEqual([expected(prompt, 1, 2)]);
  const reading = context.steps.filter((_, i) => context.adapters[i] === 2);
  expect(Math.max(...reading.map((step) => step.length))).toBeLessThanOrEqual(17);
});

test('a prefix is shared with requests of the same adapter only', async () => {
  const { ask, events } = start();
  const cached = async (id: number, adapter: number): Promise<number> => {
    await ask({ id, adapter, prompt: [5, 6, 7, 8] });
    const started = events.find(([of, event]) => of === id && event.kind === 'start')?.[1];
    return started?.kind === 'start' ? started.cachedTokens : NaN;
  };
  expect(await cached(1, 0)).toBe(0);
  expect(await cached(2, 1)).toBe(0);
  expect(await cached(3, 2)).toBe(0);
  expect([await cached(4, 0), await cached(5, 1), await cached(6, 2)]).toEqual([3, 3, 3]);
});

test('within one scope a queue of one adapter does not hold up another', async () => {
  const { ask } = start({ slots: 1 });
  const order: number[] = [];
  const asked = Array.from({ length: 12 }, (_, id) =>
    ask({ id, adapter: id < 10 ? 1 : 2, maxTokens: 2 }).then(() => order.push(id)),
  );
  await Promise.all(asked);
  // The two that came last are seated second and fourth.
  expect(order.slice(0, 4)).toEqual([0, 10, 1, 11]);
});

test('any mix of adapters, prompts and little memory gives what each alone would', async () => {
  const jobs = fc.array(
    fc.record({
      adapter: fc.nat(3),
      scope: fc.constantFrom('a', 'b'),
      prompt: fc.array(fc.nat(3), { minLength: 1, maxLength: 12 }),
      n: fc.integer({ min: 1, max: 3 }),
      maxTokens: fc.integer({ min: 1, max: 12 }),
    }),
    { minLength: 1, maxLength: 12 },
  );
  await fc.assert(
    fc.asyncProperty(jobs, fc.constantFrom(undefined, 40), async (all, cells) => {
      const { ask } = start({ slots: 3 }, cells);
      const done = await Promise.all(all.map((job, id) => ask({ id, ...job })));
      for (const [i, { prompt, maxTokens, adapter, n }] of all.entries())
        expect(done[i]).toEqual(Array.from({ length: n }, () => expected(prompt, maxTokens, adapter)));
    }),
    { numRuns: 1000 },
  );
});

test('among those that wait the one served longest ago is next, so none waits longer than the others’ turns', () => {
  fc.assert(
    fc.property(fc.array(fc.uniqueArray(fc.nat(5), { minLength: 1 }), { maxLength: 60 }), (rounds) => {
      const turns = new AdapterTurns();
      const waited = new Map<number, number>();
      for (const waiting of rounds) {
        const chosen = turns.next(waiting);
        expect(waiting).toContain(chosen);
        for (const adapter of waiting) waited.set(adapter, (waited.get(adapter) ?? 0) + 1);
        waited.set(chosen!, 0);
        for (let adapter = 0; adapter < 6; adapter++) if (!waiting.includes(adapter)) waited.set(adapter, 0);
        for (const rounds of waited.values()) expect(rounds).toBeLessThan(6);
      }
    }),
  );
});
