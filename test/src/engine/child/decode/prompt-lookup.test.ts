// Guesses from the text so far: what is found, when it pays, and that a scheduler writes the same with and
// without — by the step, without clocks.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DraftPolicy, PromptLookup } from '../../../../../src/engine/child/decode/prompt-lookup.ts';
import type { SchedulerOptions } from '../../../../../src/engine/child/decode/scheduler.ts';
import { expected, start, type Running } from '../../../../fixtures/engine/fake-context.ts';

describe('lookup', () => {
  test('the last place of the last tokens is copied on, as far as it goes', () => {
    const lookup = new PromptLookup();
    const tokens = [1, 2, 3, 4, 5, 9, 1, 2, 3];
    expect(lookup.follow(tokens)).toBe(3);
    expect(lookup.guess(tokens, 2)).toEqual([4, 5]);
    tokens.push(4);
    expect(lookup.follow(tokens)).toBe(4);
    expect(lookup.guess(tokens, 3)).toEqual([5, 9, 1]);
    tokens.push(7);
    expect(lookup.follow(tokens)).toBe(0);
    expect(lookup.guess(tokens, 3)).toEqual([]);
  });

  test('a text that repeats itself is guessed beyond its end', () => {
    const lookup = new PromptLookup();
    const tokens = [8, 1, 2, 1, 2, 1, 2];
    expect(lookup.follow(tokens)).toBeGreaterThanOrEqual(3);
    expect(lookup.guess(tokens, 6)).toEqual([1, 2, 1, 2, 1, 2]);
  });

  test('tokens counted as agreeing do agree, and a guess stands behind it', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 80 }), (text) => {
        const lookup = new PromptLookup();
        const tokens: number[] = [];
        for (const token of text) {
          tokens.push(token);
          const run = lookup.follow(tokens);
          const [next] = lookup.guess(tokens, 1);
          if (run === 0) continue;
          const tail = tokens.slice(-run);
          const places = tokens.flatMap((_, at) =>
            at >= run && tail.every((each, i) => tokens[at - run + i] === each) ? [tokens[at]] : [],
          );
          expect(places).toContain(next);
        }
      }),
    );
  });
});

/** Milliseconds of a step with a guess of that length. */
type Cost = (length: number) => number;

/** Milliseconds for so many tokens, each step alone 1 ms; `agrees`: tokens of a guess that are right. */
function spend(tokens: number, cost: Cost, agrees: (step: number, length: number) => number): number {
  const policy = new DraftPolicy();
  let ms = 0;
  let step = 0;
  for (let written = 0; written < tokens; step += 1) {
    const length = policy.length(63, 63);
    if (length === 0) {
      policy.alone(1);
      ms += 1;
      written += 1;
    } else {
      const accepted = Math.min(length, agrees(step, length));
      policy.guessed(length, accepted, cost(length));
      ms += cost(length);
      written += accepted + 1;
    }
  }
  return ms;
}

describe('policy', () => {
  test('guesses that are always right and cheap are made', () => {
    expect(
      spend(
        5000,
        (length) => 1 + length / 4,
        (_, length) => length,
      ),
    ).toBeLessThan(5000 / 3);
  });

  test.each<[string, Cost, (step: number, length: number) => number]>([
    ['are never right', (length) => 1 + length / 4, () => 0],
    ['cost as much as they save', (length) => 1 + length, (_, length) => length],
    ['are right now and then', (length) => 2 + length, (step) => (step % 5 === 0 ? 63 : 0)],
  ])('guesses that %s lose little', (_, cost, agrees) => {
    expect(spend(50_000, cost, agrees)).toBeLessThan(50_000 * 1.02);
  });

  test('no guess comes before a step alone was measured, nor beyond the room', () => {
    const policy = new DraftPolicy();
    expect(policy.length(63, 63)).toBe(0);
    policy.alone(1);
    expect(policy.length(63, 63)).toBeGreaterThan(0);
    expect(policy.length(63, 7)).toBe(4);
    expect(policy.length(3, 63)).toBe(0);
    expect(policy.length(63, 3)).toBe(0);
  });
});

/** A scheduler whose steps cost 1 ms and a tenth per guessed token. */
function drafting(options: Partial<SchedulerOptions> = {}, cells?: number): Running {
  let clock = 0;
  const running = start({ drafting: true, now: () => clock, ...options }, cells);
  running.context.onDecode = (step) => (clock += 1 + (step.length - 1) / 10);
  return running;
}

describe('a scheduler that guesses', () => {
  // A sum of all tokens mod 16 begins to repeat after a while.
  const prompt = [1, 2, 3];

  test('writes the same in fewer steps', async () => {
    const { ask, context } = drafting();
    expect(await ask({ id: 1, prompt, maxTokens: 300 })).toEqual([expected(prompt, 300)]);
    expect(context.steps.length).toBeLessThan(200);
  });

  test('writes the same for any prompt, limit, neighbours and memory', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.record({
            prompt: fc.array(fc.integer({ min: 0, max: 15 }), { minLength: 1, maxLength: 20 }),
            maxTokens: fc.integer({ min: 1, max: 120 }),
          }),
          { minLength: 1, maxLength: 3 },
        ),
        fc.constantFrom(undefined, 200, 150),
        async (requests, cells) => {
          const { ask, context } = drafting({}, cells);
          const written = await Promise.all(
            requests.map((request, id) => ask({ id, scope: `s${id}`, ...request })),
          );
          expect(written).toEqual(requests.map(({ prompt: text, maxTokens }) => [expected(text, maxTokens)]));
          // The memory holds what a kept prefix says: the next request goes on from there.
          expect(await ask({ id: 9, scope: 's0', prompt: requests[0]!.prompt, maxTokens: 40 })).toEqual([
            expected(requests[0]!.prompt, 40),
          ]);
          for (const step of context.steps)
            expect(step.filter((entry) => entry.output).length).toBeLessThanOrEqual(context.maxOutputs);
        },
      ),
      { numRuns: 60 },
    );
  });

  test('never guesses beside another writer or reader', async () => {
    const { ask, context } = drafting();
    await Promise.all([0, 1].map((id) => ask({ id, scope: `s${id}`, prompt: [id + 1, 2], maxTokens: 200 })));
    for (const step of context.steps.slice(1)) {
      const each = [0, 1].map((id) => step.filter((entry) => entry.sequence === id).length);
      expect(Math.min(...each) === 0 || Math.max(...each) === 1).toBe(true);
    }
  });

  test('a memory that cannot forget a tail is read again', async () => {
    const { ask, context } = drafting();
    let refused = 0;
    const { removeTail } = context;
    context.removeTail = (id, from) => {
      if (from === 0) return removeTail(id, from);
      refused += 1;
      removeTail(id, 0);
      return false;
    };
    await ask({ id: 1, scope: 'first', maxTokens: 5 });
    // The text goes on as it did before for one token, and then does not.
    const text = [3, 0, 0, 0, 0, 4, 6, 3, 0, 0, 0];
    expect(await ask({ id: 2, prompt: text, maxTokens: 50 })).toEqual([expected(text, 50)]);
    expect(refused).toBeGreaterThan(0);
  });
});
