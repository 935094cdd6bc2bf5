// How far logits are from those with which the sampler would have picked another token: the least t such that
// a change of each logit by at most t could do it. It is a bound from below: where several tokens stand close
// together all of them count as movable at once. Used where an earlier run is compared with this one.

import type { Sampling } from '../../seam/engine.ts';
import { top } from './sampler.ts';

/** A change beyond it is no rounding. */
const MOST = 64;
const STEPS = 40;

/**
 * `point`: the number in [0, 1) that the sampler drew; `logits` as it saw them, −∞ where a token is banned.
 * Null: by no change.
 */
export function leastChange(
  logits: Float32Array,
  token: number,
  sampling: Sampling,
  point: number,
): number | null {
  const logit = logits[token] ?? -Infinity;
  if (!Number.isFinite(logit)) return null;
  if (sampling.temperature <= 0) return Math.max(0, (maximum(logits) - logit) / 2);
  const reached = (change: number): boolean => reaches(logits, { token, point, change }, sampling);
  if (!reached(MOST)) return null;
  let [low, high] = [0, MOST];
  if (reached(0)) return 0;
  for (let i = 0; i < STEPS; i += 1) {
    const middle = (low + high) / 2;
    if (reached(middle)) high = middle;
    else low = middle;
  }
  return high;
}

interface Wanted {
  readonly token: number;
  readonly point: number;
  readonly change: number;
}

function reaches(logits: Float32Array, wanted: Wanted, sampling: Sampling): boolean {
  const { topK, topP, minP } = sampling;
  const cuts = (topK > 0 && topK < logits.length) || topP < 1 || minP > 0;
  return cuts ? reachesCut(logits, wanted, sampling) : reachesAll(logits, wanted, sampling.temperature);
}

/** A draw from the whole vocabulary goes by the ids of tokens. */
function reachesAll(logits: Float32Array, { token, point, change }: Wanted, temperature: number): boolean {
  const max = maximum(logits);
  let [before, total] = [0, 0];
  for (let i = 0; i < logits.length; i += 1) {
    const weight = Math.exp((logits[i]! - max) / temperature);
    if (i < token) before += weight;
    total += weight;
  }
  const own = Math.exp((logits[token]! - max) / temperature);
  const factor = Math.exp(change / temperature);
  return point >= lowest(before, total, factor) && point <= highest(before + own, total, factor);
}

/** A draw from the likeliest tokens goes by their logits. */
function reachesCut(logits: Float32Array, { token, point, change }: Wanted, sampling: Sampling): boolean {
  const { temperature, topK, topP, minP } = sampling;
  const max = maximum(logits);
  const logit = logits[token]!;
  if (minP > 0 && logit - max + 2 * change < temperature * Math.log(minP)) return false;
  const limited = topK > 0 && topK < logits.length;
  const weightOf = (each: number): number => Math.exp((logits[each]! - max) / temperature);
  const sum = (holds: (logit: number) => boolean): number => {
    let total = 0;
    for (let i = 0; i < logits.length; i += 1) if (holds(logits[i]!)) total += weightOf(i);
    return total;
  };
  if (limited && count(logits, logit + 2 * change) >= topK) return false;
  const factor = Math.exp(change / temperature);
  const first = sum((each) => each > logit + 2 * change);
  const until = sum((each) => each >= logit - 2 * change);
  const { least, most } = kept(top(logits, limited ? topK : logits.length), {
    weightOf,
    factor,
    topP,
    floor: minP > 0 ? minP : 0,
    limited,
  });
  if (
    topP < 1 &&
    lowest(
      first,
      sum(() => true),
      factor,
    ) >= topP &&
    !limited
  )
    return false;
  return point >= lowest(first, most, factor) && point <= highest(until, least, factor);
}

interface Cut {
  readonly weightOf: (token: number) => number;
  readonly factor: number;
  readonly topP: number;
  readonly floor: number;
  readonly limited: boolean;
}

/** The weight of all tokens that are kept, at least and at most. */
function kept(
  tokens: readonly number[],
  { weightOf, factor, topP, floor, limited }: Cut,
): { readonly least: number; readonly most: number } {
  const weights = tokens.map(weightOf);
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const until = (share: (sum: number) => number, lowestWeight: number): number => {
    let sum = 0;
    for (const [i, weight] of weights.entries()) {
      if (i > 0 && weight < lowestWeight) break;
      sum += weight;
      if (topP < 1 && share(sum) >= topP) break;
    }
    return sum;
  };
  const spread = factor * factor;
  const least = until((sum) => highest(sum, total, factor), floor * spread);
  const most = until((sum) => lowest(sum, total, factor), floor / spread);
  // The token at the edge of the k likeliest may be another.
  const edge = limited ? (weights.at(-1) ?? 0) * spread : 0;
  return { least: Math.max(weights[0] ?? 0, least - edge), most: most + edge };
}

/** The smallest share that a part of the weights can have after each is changed by up to `factor`. */
function lowest(part: number, total: number, factor: number): number {
  const rest = Math.max(0, total - part);
  return part <= 0 ? 0 : part / factor / (part / factor + rest * factor);
}

function highest(part: number, total: number, factor: number): number {
  const rest = total - part;
  return rest <= 0 ? 1 : (part * factor) / (part * factor + rest / factor);
}

function count(logits: Float32Array, above: number): number {
  let found = 0;
  for (let i = 0; i < logits.length; i += 1) if (logits[i]! > above) found += 1;
  return found;
}

function maximum(logits: Float32Array): number {
  let max = -Infinity;
  for (let i = 0; i < logits.length; i += 1) if (logits[i]! > max) max = logits[i]!;
  return max;
}
