// Sampling and text assembly without a model: distributions, filters, seeds, stop strings and UTF-8 at every
// cut.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Sampling } from '../../../../../src/engine/seam/engine.ts';
import {
  argmax,
  createSampler,
  logprobs,
  seededRandom,
  top,
} from '../../../../../src/engine/child/decode/sampler.ts';
import { expOf } from '../../../../../src/engine/child/decode/exp.ts';
import { createTextStream } from '../../../../../src/engine/child/decode/text-stream.ts';
import { GREEDY } from '../../../../fixtures/engine/demo-engine.ts';

const logits = Float32Array.from([1, 3, 2, 0, -1, 2.5, -4, 3]);
/** Share of each token over many draws. */
function shares(
  sampling: Partial<Sampling>,
  of = logits,
  filter?: (tokens: readonly number[]) => boolean[],
  draws = 20_000,
): number[] {
  const sampler = createSampler({ ...GREEDY, temperature: 1, ...sampling }, seededRandom(1, 0));
  const counts = Array.from(of, () => 0);
  for (let i = 0; i < draws; i += 1) {
    const token = sampler.pick(of, filter);
    counts[token] = (counts[token] ?? 0) + 1;
  }
  return counts.map((count) => count / draws);
}
function softmax(values: readonly number[], temperature = 1): number[] {
  const weights = values.map((value) => Math.exp(value / temperature));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}
/** Largest difference of two distributions. */
function apart(found: readonly number[], wanted: readonly number[]): number {
  return Math.max(...found.map((share, i) => Math.abs(share - (wanted[i] ?? 0))));
}
const NOISE = 0.015;

function draw(seed: number, choice: number): number[] {
  return Array.from({ length: 5 }, seededRandom(seed, choice));
}

function feed(
  bytes: Uint8Array,
  cuts: readonly number[],
  stops: readonly string[],
): { readonly text: string; readonly stopped: boolean; readonly parts: readonly string[] } {
  const stream = createTextStream(stops);
  const parts: string[] = [];
  let from = 0;
  for (const cut of [...new Set(cuts.map((each) => each % (bytes.length + 1)))]
    .sort((a, b) => a - b)
    .concat(bytes.length)) {
    parts.push(stream.push(bytes.subarray(from, cut)));
    from = cut;
  }
  parts.push(stream.flush());
  return { text: parts.join(''), stopped: stream.stopped, parts };
}

function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

describe('sampler', () => {
  test('what is banned is never picked, whatever a filter allows, at any temperature', () => {
    const of = Float32Array.from([1, 2, 3, -Infinity]);
    const bans = new Map([[1, -100], [2, -100]]); // prettier-ignore
    for (const temperature of [0, 1]) {
      for (const size of [4, 1000]) {
        const wide = new Float32Array(size).fill(-Infinity);
        wide.set(of);
        const sampler = createSampler({ ...GREEDY, temperature, logitBias: bans }, seededRandom(1, 0));
        const pick = (...allowed: number[]): number =>
          sampler.pick(wide, (tokens) => tokens.map((token) => allowed.includes(token)));
        expect([pick(1, 2, 3), pick(1), pick(3), pick(0, 1, 2), pick()]).toEqual([-1, -1, -1, 0, -1]);
      }
    }
  });

  test('the whole distribution, at any temperature', () => {
    expect(apart(shares({}), softmax([...logits]))).toBeLessThan(NOISE);
    expect(apart(shares({ temperature: 2 }), softmax([...logits], 2))).toBeLessThan(NOISE);
  });

  test('the whole distribution of a vocabulary of many blocks, whatever is without weight', () => {
    const of = Float32Array.from({ length: 1000 }, (_, i) =>
      i % 250 === 7 ? Math.log(1 + i / 250) : -Infinity,
    );
    const found = shares({}, of);
    const wanted = softmax([...of]);
    expect(found.reduce((sum, share) => sum + share, 0)).toBeCloseTo(1, 12);
    expect(apart(found, wanted)).toBeLessThan(NOISE);
    // The ends of the range of a draw are the first and the last token that can be drawn.
    expect(createSampler({ ...GREEDY, temperature: 1 }, () => 0).pick(of)).toBe(7);
    expect(createSampler({ ...GREEDY, temperature: 1 }, () => 1 - 2 ** -32).pick(of)).toBe(757);
    expect(createSampler({ ...GREEDY, temperature: 1 }, () => 1).pick(of)).toBe(757);
  });

  test('e^x is right to 1e-8', () => {
    fc.assert(
      fc.property(fc.double({ min: -690, max: 0, noNaN: true }), (x) => {
        expect(Math.abs(expOf(x) / Math.exp(x) - 1)).toBeLessThan(1e-8);
      }),
      { numRuns: 2000 },
    );
    expect(
      [expOf(0), expOf(-1e6), expOf(-Infinity), expOf(NaN)].map((value) => Math.round(value * 1e8) / 1e8),
    ).toEqual([1, 0, 0, 0]);
  });

  test('top-k, top-p and min-p cut and renormalise', () => {
    const only = (keep: readonly number[]): number[] =>
      softmax(Array.from(logits, (value, i) => (keep.includes(i) ? value : -Infinity)));
    expect(apart(shares({ topK: 3 }), only([1, 7, 5]))).toBeLessThan(NOISE);
    const p = softmax([...logits]);
    const order = [1, 7, 5, 2, 0, 3, 4, 6];
    for (const topP of [0.1, 0.5, 0.7, 0.9]) {
      let mass = 0;
      const keep: number[] = [];
      for (const token of order) {
        keep.push(token);
        mass += p[token] ?? 0;
        if (mass >= topP) break;
      }
      expect(apart(shares({ topP }), only(keep))).toBeLessThan(NOISE);
      expect(apart(shares({ topP, topK: 8 }), only(keep))).toBeLessThan(NOISE);
    }
    expect(apart(shares({ minP: 0.3 }), only([1, 7, 5, 2]))).toBeLessThan(NOISE);
    expect(apart(shares({ minP: 0.3, topP: 0.6 }), only([1, 7]))).toBeLessThan(NOISE);
  });

  test('a nucleus is exact on large vocabularies too', () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: -30, max: 10, noNaN: true }), { minLength: 2, maxLength: 400 }),
        fc.double({ min: 0.01, max: 0.99, noNaN: true }),
        fc.double({ min: 0.1, max: 2, noNaN: true }),
        (values, topP, temperature) => {
          const of = Float32Array.from(values);
          const max = Math.max(...of);
          const weights = Array.from(of, (value) => Math.exp((value - max) / temperature));
          const total = weights.reduce((sum, weight) => sum + weight, 0);
          const order = Array.from(of.keys()).sort((a, b) => (of[b] ?? 0) - (of[a] ?? 0) || a - b);
          let mass = 0;
          const keep = new Set<number>();
          for (const token of order) {
            keep.add(token);
            mass += weights[token] ?? 0;
            if (mass >= topP * total * (1 + 1e-7)) break;
          }
          const sampler = createSampler({ ...GREEDY, temperature, topP }, seededRandom(values.length, 0));
          for (let i = 0; i < 20; i += 1) expect(keep.has(sampler.pick(of))).toBe(true);
        },
      ),
      { numRuns: 200 },
    );
  });

  test('a filter restricts the distribution, and −1 says nothing is left', () => {
    const allowed = new Set([0, 2, 6]);
    const filter = (tokens: readonly number[]): boolean[] => tokens.map((token) => allowed.has(token));
    expect(
      apart(
        shares({}, logits, filter),
        softmax(Array.from(logits, (value, i) => (allowed.has(i) ? value : -Infinity))),
      ),
    ).toBeLessThan(NOISE);
    expect(createSampler(GREEDY, () => 0).pick(logits, filter)).toBe(2);
    expect(createSampler(GREEDY, () => 0).pick(logits, (tokens) => tokens.map(() => false))).toBe(-1);
    expect(
      createSampler({ ...GREEDY, temperature: 1 }, () => 0).pick(logits, (tokens) => tokens.map(() => false)),
    ).toBe(-1);
    const wide = Float32Array.from({ length: 5000 }, (_, i) => -i);
    expect(createSampler(GREEDY, () => 0).pick(wide, (tokens) => tokens.map((token) => token === 4321))).toBe(
      4321,
    );
  });

  test('−100 bans whatever the logit; penalties count what was written', () => {
    const huge = Float32Array.from([500, 1, 0]);
    expect(createSampler({ ...GREEDY, logitBias: new Map([[0, -100]]) }, () => 0).pick(huge)).toBe(1);
    const flat = Float32Array.from([1, 0.5, 0.15]);
    const frequent = createSampler({ ...GREEDY, frequencyPenalty: 0.3 }, () => 0);
    const written = Array.from({ length: 6 }, () => {
      const token = frequent.pick(flat);
      frequent.accept(token);
      return token;
    });
    expect(written).toEqual([0, 0, 1, 0, 1, 2]);
    const repeating = createSampler({ ...GREEDY, repeatPenalty: 4 }, () => 0, [0]);
    expect(repeating.pick(flat)).toBe(1);
  });

  test('the logits are as they were afterwards, also when the filter fails', () => {
    const of = Float32Array.from(logits);
    const sampling = {
      ...GREEDY,
      temperature: 1,
      presencePenalty: 1,
      frequencyPenalty: 0.5,
      repeatPenalty: 1.3,
    };
    const sampler = createSampler({ ...sampling, logitBias: new Map([[1, -100], [1, 5], [9, 1]]) }, seededRandom(3, 0), [1, 2, 7]); // prettier-ignore
    for (let i = 0; i < 20; i += 1)
      sampler.accept(sampler.pick(of, (tokens) => tokens.map((token) => token !== 1)));
    const broken = (): boolean[] => {
      throw new Error('the grammar failed');
    };
    expect(() => sampler.pick(of, broken)).toThrow('the grammar failed');
    expect(of).toEqual(logits);
  });

  test('garbage in the logits picks nothing or something real, never out of range', () => {
    expect(argmax(Float32Array.from([NaN, NaN]))).toBe(-1);
    expect(argmax(Float32Array.from([NaN, 1]))).toBe(1);
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.float(), fc.constantFrom(NaN, Infinity, -Infinity)), {
          minLength: 1,
          maxLength: 50,
        }),
        fc.double({ min: 0, max: 2, noNaN: true }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.nat(60),
        (values, temperature, topP, topK) => {
          const token = createSampler({ ...GREEDY, temperature, topP, topK }, seededRandom(1, 1)).pick(
            Float32Array.from(values),
          );
          expect(token).toBeGreaterThanOrEqual(-1);
          expect(token).toBeLessThan(values.length);
        },
      ),
    );
  });

  test('top and logprobs', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: -5, max: 5 }), { minLength: 1, maxLength: 80 }),
        fc.nat(90),
        (values, count) => {
          const of = Float32Array.from(values);
          const wanted = values
            .map((_, i) => i)
            .sort((a, b) => (values[b] ?? 0) - (values[a] ?? 0) || a - b)
            .slice(0, count);
          expect(top(of, count)).toEqual(wanted);
        },
      ),
    );
    const { chosen, top: alternatives } = logprobs(logits, 2, 2);
    expect(Math.exp(chosen)).toBeCloseTo(softmax([...logits])[2] ?? 0, 6);
    expect(alternatives.map((each) => each.token)).toEqual([1, 7]);
  });

  test('seeds: reproducible, different by seed and by choice, uniform', () => {
    expect(draw(5, 0)).toEqual(draw(5, 0));
    const all = [draw(5, 0), draw(5, 1), draw(6, 0), draw(2 ** 40 + 5, 0), draw(-5, 0)];
    expect(new Set(all.map(String)).size).toBe(5);
    const random = seededRandom(9, 9);
    const mean = Array.from({ length: 20_000 }, random).reduce((sum, each) => sum + each, 0) / 20_000;
    expect(mean).toBeCloseTo(0.5, 1);
  });
});

describe('text', () => {
  test('however it is cut: whole characters, nothing lost, nothing of a stop string', () => {
    const letter = fc.constantFrom('a', 'b', 'c', 'é', '日', '😀', '\n');
    const string = fc.string({ unit: letter, maxLength: 30 });
    fc.assert(
      fc.property(
        string,
        fc.array(fc.nat(200), { maxLength: 20 }),
        fc.array(fc.string({ unit: letter, minLength: 1, maxLength: 4 }), { maxLength: 3 }),
        (text, cuts, stops) => {
          const { text: out, stopped, parts } = feed(new TextEncoder().encode(text), cuts, stops);
          // The stop that is complete first ends the text; of those complete at once the one that begins
          // first.
          let wanted = text;
          let found = false;
          for (let end = 1; end <= text.length && !found; end += 1) {
            const at = stops.map((stop) => text.slice(0, end).indexOf(stop)).filter((each) => each >= 0);
            if (at.length > 0) [wanted, found] = [text.slice(0, Math.min(...at)), true];
          }
          for (const part of parts) expect(part).not.toContain('\ufffd');
          expect(stopped).toBe(found);
          // Cut anywhere, several stops may be complete in one piece; then the one that begins first counts.
          expect(text.startsWith(out)).toBe(true);
          expect(out.length).toBeLessThanOrEqual(wanted.length);
          expect(stops.length <= 1 ? out : wanted).toBe(wanted);
        },
      ),
      { numRuns: 1000 },
    );
  });

  test('bytes that are no UTF-8 become U+FFFD', () => {
    expect(feed(Uint8Array.of(0x61, 0xff, 0x62, 0xe6, 0x97), [1, 2, 4], []).text).toBe('a\ufffdb\ufffd');
  });

  test('holds back only what may become a stop string', () => {
    const stream = createTextStream(['STOP']);
    expect(stream.push(bytes('go ST'))).toBe('go ');
    expect(stream.push(bytes('ART ST'))).toBe('START ');
    expect(stream.push(bytes('OP never'))).toBe('');
    expect(stream.stopped).toBe(true);
    expect(stream.push(bytes('more'))).toBe('');
  });
});
