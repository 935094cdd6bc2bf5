// The least change of logits with which another token is picked, held against the sampler itself.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Sampling } from '../../../../../src/engine/seam/engine.ts';
import { leastChange } from '../../../../../src/engine/child/decode/least-change.ts';
import { createSampler } from '../../../../../src/engine/child/decode/sampler.ts';

const PLAIN: Sampling = {
  temperature: 1,
  topP: 1,
  topK: 0,
  minP: 0,
  presencePenalty: 0,
  frequencyPenalty: 0,
  repeatPenalty: 1,
};

const numbers = fc.array(fc.double({ min: -8, max: 8, noNaN: true }), { minLength: 2, maxLength: 24 });
const cases = fc.record({
  logits: numbers,
  point: fc.double({ min: 0, max: 0.999_999, noNaN: true }),
  temperature: fc.constantFrom(0, 0.5, 1, 1.4),
  topP: fc.constantFrom(1, 0.9, 0.5),
  topK: fc.constantFrom(0, 1, 4),
  minP: fc.constantFrom(0, 0.05),
  noise: fc.array(fc.double({ min: -1, max: 1, noNaN: true }), { minLength: 24, maxLength: 24 }),
  size: fc.constantFrom(1e-3, 0.05, 0.5),
});

function pick(logits: readonly number[], sampling: Sampling, point: number): number {
  return createSampler(sampling, () => point).pick(Float32Array.from(logits));
}

describe('least change', () => {
  test('0 of the token that is picked', () => {
    fc.assert(
      fc.property(cases, ({ logits, point, temperature, topP, topK, minP }) => {
        const sampling = { ...PLAIN, temperature, topP, topK, minP };
        const picked = pick(logits, sampling, point);
        const found = leastChange(Float32Array.from(logits), picked, sampling, point);
        expect(found).not.toBe(null);
        // The sampler's e^x is exact to 1e-8.
        expect(found ?? NaN).toBeLessThan(1e-5);
      }),
    );
  });

  test('what a change of that size picks is within it', () => {
    fc.assert(
      fc.property(cases, ({ logits, point, temperature, topP, topK, minP, noise, size }) => {
        const sampling = { ...PLAIN, temperature, topP, topK, minP };
        const changed = logits.map((logit, i) => logit + size * (noise[i] ?? 0));
        const picked = pick(changed, sampling, point);
        const found = leastChange(Float32Array.from(logits), picked, sampling, point);
        expect(found).not.toBe(null);
        expect(found ?? NaN).toBeLessThanOrEqual(size + 1e-4);
      }),
      { numRuns: 2000 },
    );
  });

  test('greedy: half of the gap; a banned token by none', () => {
    const logits = Float32Array.of(1, 3, 2, -Infinity);
    const greedy = { ...PLAIN, temperature: 0 };
    expect(leastChange(logits, 1, greedy, 0)).toBe(0);
    expect(leastChange(logits, 2, greedy, 0)).toBe(0.5);
    expect(leastChange(logits, 3, greedy, 0)).toBe(null);
    expect(leastChange(logits, 4, greedy, 0)).toBe(null);
  });

  test('a token far from the draw is far', () => {
    const logits = Float32Array.of(10, 0, 0);
    expect(leastChange(logits, 2, PLAIN, 0.2) ?? NaN).toBeGreaterThan(2);
    expect(leastChange(logits, 2, { ...PLAIN, topK: 1 }, 0.2) ?? NaN).toBeGreaterThanOrEqual(5);
  });
});
