// Picks a token from raw logits, and computes log-probabilities of the raw distribution (OpenAI's
// definition). Order: bias and penalties, temperature, top-k, top-p, min-p, then one draw. top-k 0 and top-p
// 1 mean the whole vocabulary. The same seed, parameters and logits give the same token. Costs one or two
// passes over the vocabulary, never a full sort.

import type { Sampling } from '../../seam/engine.ts';
import { expOf } from './exp.ts';

/** Tells whether the grammar lets a token come next; a batch because asking costs a native call. */
export type TokenFilter = (tokens: readonly number[]) => boolean[];

export interface Sampler {
  /** A token; −1 when `filter` refuses all tokens that are not banned (−∞). `logits` is unchanged when this returns. */
  pick(logits: Float32Array, filter?: TokenFilter): number;
  /** Counts a token for the penalties: every prompt token once at the start, then each chosen one. */
  accept(token: number): void;
}

export interface InspectedSampler extends Sampler {
  /** The result of `look` while `logits` are as `pick` sees them, with biases and penalties. */
  adjusted<T>(logits: Float32Array, look: () => T): T;
}

export interface Alternative {
  readonly token: number;
  readonly logprob: number;
}

const PENALTY_WINDOW = 4096;

export function createSampler(
  sampling: Sampling,
  random: () => number,
  prompt: readonly number[] = [],
): InspectedSampler {
  const penalties = sampling.presencePenalty !== 0 || sampling.frequencyPenalty !== 0;
  const repeat = sampling.repeatPenalty !== 1;
  // OpenAI counts only what was generated; the repeat penalty of llama.cpp also counts the prompt.
  const generated = new Map<number, number>();
  const seen = new Set<number>(repeat ? prompt.slice(-PENALTY_WINDOW) : []);
  const bias: ReadonlyMap<number, number> = sampling.logitBias ?? new Map();
  // Logits changed by bias and penalties, to be put back: they touch a few tokens, and a copy of the logits
  // would touch them all.
  const changed: number[] = [];
  const before: number[] = [];

  const set = (logits: Float32Array, token: number, to: (logit: number) => number): void => {
    const logit = logits[token];
    if (logit === undefined) return;
    changed.push(token);
    before.push(logit);
    logits[token] = to(logit);
  };
  const adjust = (logits: Float32Array): void => {
    if (repeat) {
      const { repeatPenalty } = sampling;
      for (const token of seen)
        set(logits, token, (logit) => (logit > 0 ? logit / repeatPenalty : logit * repeatPenalty));
    }
    if (penalties) {
      for (const [token, count] of generated)
        set(logits, token, (logit) => logit - count * sampling.frequencyPenalty - sampling.presencePenalty);
    }
    // −100 is documented as a ban, so it must be one even over a logit of 200.
    for (const [token, value] of bias)
      set(logits, token, (logit) => (value <= -100 ? -Infinity : logit + value));
  };
  const restore = (logits: Float32Array): void => {
    // Backwards: a token may have been changed more than once.
    for (let i = changed.length - 1; i >= 0; i -= 1) logits[changed[i]!] = before[i]!;
    changed.length = 0;
    before.length = 0;
  };

  return {
    pick(logits, filter) {
      adjust(logits);
      try {
        const first = draw(logits, sampling, random);
        if (filter === undefined || first === -1 || filter([first])[0] === true) return first;
        return pickFiltered(logits, sampling, random, filter);
      } finally {
        restore(logits);
      }
    },
    adjusted(logits, look) {
      adjust(logits);
      try {
        return look();
      } finally {
        restore(logits);
      }
    },
    accept(token) {
      if (penalties) generated.set(token, (generated.get(token) ?? 0) + 1);
      if (repeat) seen.add(token);
    },
  };
}

/** One draw without a filter. */
function draw(logits: Float32Array, sampling: Sampling, random: () => number): number {
  if (sampling.temperature <= 0) return argmax(logits);
  const max = maximum(logits);
  if (max === -Infinity || Number.isNaN(max)) return -1;
  const candidates = select(logits, max, sampling);
  return candidates === null
    ? drawAll({ logits, max, temperature: sampling.temperature }, random())
    : drawFrom(candidates, random());
}

/**
 * The distribution restricted to what the filter allows: masks first, then truncates and draws. Only reached
 * when the free draw was refused, which with a free draw accepted first gives the same distribution as
 * masking from the start.
 */
function pickFiltered(
  logits: Float32Array,
  sampling: Sampling,
  random: () => number,
  filter: TokenFilter,
): number {
  if (sampling.temperature <= 0) {
    // Look down from the top in growing slices: the allowed token is nearly always near it.
    for (let size = 64; ; size *= 8) {
      const tokens = top(logits, Math.min(size, logits.length)).filter((token) => logits[token]! > -Infinity);
      const allowed = filter(tokens);
      const index = allowed.indexOf(true);
      if (index >= 0) return tokens[index] ?? -1;
      if (size >= logits.length || tokens.length < size) return -1;
    }
  }
  const tokens: number[] = [];
  for (let token = 0; token < logits.length; token += 1)
    if ((logits[token] ?? -Infinity) > -Infinity) tokens.push(token);
  const allowed = filter(tokens);
  const masked = new Float32Array(logits.length).fill(-Infinity);
  for (let i = 0; i < tokens.length; i += 1) {
    const token = tokens[i];
    if (token !== undefined && allowed[i] === true) masked[token] = logits[token] ?? -Infinity;
  }
  return draw(masked, sampling, random);
}

interface Candidates {
  readonly tokens: readonly number[];
  /** Unnormalised, in the order of `tokens`, highest first. */
  readonly weights: readonly number[];
}

/** Applies top-k, top-p and min-p; null when none of them cuts anything. */
function select(logits: Float32Array, max: number, sampling: Sampling): Candidates | null {
  const { temperature, topK, topP, minP } = sampling;
  const limited = topK > 0 && topK < logits.length;
  if (!limited && topP >= 1 && minP <= 0) return null;
  let tokens: number[];
  let total = 0;
  if (limited) tokens = top(logits, topK);
  // Below this no token survives min-p, which is a bound on the ratio to the best weight.
  else if (minP > 0 && topP >= 1) tokens = sorted(logits, above(logits, max + temperature * Math.log(minP)));
  else ({ tokens, total } = nucleus(logits, max, temperature, topP));
  let weights = tokens.map((token) => expOf(((logits[token] ?? -Infinity) - max) / temperature));
  if (topP < 1) {
    if (limited) total = weights.reduce((sum, weight) => sum + weight, 0);
    let cumulative = 0;
    let keep = 0;
    for (const weight of weights) {
      cumulative += weight;
      keep += 1;
      if (cumulative >= topP * total) break;
    }
    tokens = tokens.slice(0, Math.max(keep, 1));
    weights = weights.slice(0, Math.max(keep, 1));
  }
  if (minP > 0) {
    const keep = Math.max(1, weights.filter((weight) => weight >= minP).length);
    tokens = tokens.slice(0, keep);
    weights = weights.slice(0, keep);
  }
  return { tokens, weights };
}

function drawFrom({ tokens, weights }: Candidates, point: number): number {
  let total = 0;
  for (const weight of weights) total += weight;
  let rest = point * total;
  for (let i = 0; i < tokens.length; i += 1) {
    rest -= weights[i] ?? 0;
    if (rest < 0) return tokens[i] ?? -1;
  }
  return tokens[0] ?? -1;
}

const BLOCK_SIZE = 256;
/** Sums of the weights of each block of tokens, between the two halves of one draw. */
let blocks = new Float64Array(0);

/** The weight of a token is e^((logit − max) / temperature). */
interface Distribution {
  readonly logits: Float32Array;
  readonly max: number;
  readonly temperature: number;
}

/** A draw from the whole vocabulary: every weight is computed once, then those of the block the draw falls into once more. */
function drawAll(distribution: Distribution, point: number): number {
  const { logits, max, temperature } = distribution;
  const count = Math.ceil(logits.length / BLOCK_SIZE);
  if (blocks.length < count) blocks = new Float64Array(count);
  let total = 0;
  for (let block = 0; block < count; block += 1) {
    const end = Math.min(logits.length, (block + 1) * BLOCK_SIZE);
    let sum = 0;
    for (let token = block * BLOCK_SIZE; token < end; token += 1)
      sum += expOf((logits[token]! - max) / temperature);
    blocks[block] = sum;
    total += sum;
  }
  let rest = point * total;
  let last = -1;
  for (let block = 0; block < count; block += 1) {
    const sum = blocks[block]!;
    if (sum === 0) continue;
    if (rest >= sum) {
      rest -= sum;
      last = block;
      continue;
    }
    const found = drawBlock(distribution, block, rest);
    if (found >= 0) return found;
    rest = 0; // rounding within the block: the next token that has any weight
  }
  return last < 0 ? -1 : drawBlock(distribution, last, Infinity);
}

/** The token of a block at which `point` is used up, or its last one with any weight; −1 when none has. */
function drawBlock({ logits, max, temperature }: Distribution, block: number, point: number): number {
  const end = Math.min(logits.length, (block + 1) * BLOCK_SIZE);
  let rest = point;
  let last = -1;
  for (let token = block * BLOCK_SIZE; token < end; token += 1) {
    const weight = expOf((logits[token]! - max) / temperature);
    if (weight === 0) continue;
    last = token;
    rest -= weight;
    if (rest < 0) return token;
  }
  return last;
}

/** Tokens holding at least `topP` of the mass, best first: buckets of 1/8 of a temperature unit find the cut in one pass. */
function nucleus(
  logits: Float32Array,
  max: number,
  temperature: number,
  topP: number,
): { tokens: number[]; total: number } {
  const buckets = new Float64Array(512);
  let total = 0;
  for (let token = 0; token < logits.length; token += 1) {
    const distance = (max - logits[token]!) / temperature;
    const weight = expOf(-distance);
    total += weight;
    const bucket = distance * 8;
    if (bucket < 512) buckets[bucket | 0] = buckets[bucket | 0]! + weight;
  }
  let cumulative = 0;
  let last = 0;
  while (last < 511) {
    cumulative += buckets[last]!;
    if (cumulative >= topP * total) break;
    last += 1;
  }
  // One bucket more, so that rounding cannot lose the token at the edge; the caller cuts exactly.
  return { tokens: sorted(logits, above(logits, max - ((last + 2) / 8) * temperature)), total };
}

function above(logits: Float32Array, floor: number): number[] {
  const tokens: number[] = [];
  for (let token = 0; token < logits.length; token += 1) if (logits[token]! >= floor) tokens.push(token);
  return tokens;
}

/** By logit, highest first; equal logits by token id, so that the order is deterministic. */
function sorted(logits: Float32Array, tokens: number[]): number[] {
  return tokens.sort((a, b) => logits[b]! - logits[a]! || a - b);
}

function maximum(logits: Float32Array): number {
  let max = -Infinity;
  for (let i = 0; i < logits.length; i += 1) if (logits[i]! > max) max = logits[i]!;
  return max;
}

/** Lowest id among equals; −1 when everything is −∞ or not a number. */
export function argmax(logits: Float32Array): number {
  let best = -1;
  let max = -Infinity;
  for (let i = 0; i < logits.length; i += 1) {
    if (logits[i]! > max) {
      max = logits[i]!;
      best = i;
    }
  }
  return best;
}

/** The `count` highest tokens, best first; equal logits by token id. */
export function top(logits: Float32Array, count: number): number[] {
  if (count <= 0) return [];
  if (count >= logits.length) return sorted(logits, above(logits, -Infinity));
  // A min-heap of the best so far; most tokens fail the first comparison.
  const heap: number[] = [];
  const worse = (a: number, b: number): boolean => {
    const difference = logits[a]! - logits[b]!;
    return difference < 0 || (difference === 0 && a > b);
  };
  const sink = (): void => {
    let i = 0;
    for (;;) {
      let least = i;
      for (const child of [2 * i + 1, 2 * i + 2])
        if (child < heap.length && worse(heap[child]!, heap[least]!)) least = child;
      if (least === i) return;
      [heap[i], heap[least]] = [heap[least]!, heap[i]!];
      i = least;
    }
  };
  let least = -Infinity;
  for (let token = 0; token < logits.length; token += 1) {
    const logit = logits[token]!;
    if (heap.length < count) {
      if (Number.isNaN(logit)) continue;
      heap.push(token);
      if (heap.length < count) continue;
      heap.sort((a, b) => (worse(a, b) ? -1 : 1));
    } else {
      // A later token of the same logit is the worse one.
      if (!(logit > least)) continue;
      heap[0] = token;
      sink();
    }
    least = logits[heap[0]!]!;
  }
  return sorted(logits, heap);
}

/** log p of `token` and of the `count` likeliest, from the raw logits. */
export function logprobs(
  logits: Float32Array,
  token: number,
  count: number,
): { readonly chosen: number; readonly top: readonly Alternative[] } {
  const max = maximum(logits);
  let total = 0;
  for (let i = 0; i < logits.length; i += 1) total += Math.exp(logits[i]! - max);
  const norm = max + Math.log(total);
  return {
    chosen: (logits[token] ?? -Infinity) - norm,
    top: top(logits, count).map((alternative) => ({
      token: alternative,
      logprob: logits[alternative]! - norm,
    })),
  };
}

/** A small seeded generator (sfc32): 2^128 states, one per (seed, choice); uniform in [0, 1). */
export function seededRandom(seed: number, stream: number): () => number {
  let a = (Math.floor(seed / 4294967296) ^ 0x9e3779b9) | 0;
  let b = seed | 0;
  let c = Math.imul(stream + 1, 0x85ebca6b) | 0;
  let d = 1;
  const next = (): number => {
    const t = (((a + b) | 0) + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + t) | 0;
    return (t >>> 0) / 4294967296;
  };
  for (let i = 0; i < 20; i += 1) next();
  return next;
}
