// A choice that writes the tokens of an earlier run: each is compared with the token that the sampler picks
// here, and then takes its place, so that one difference does not hide the rest.

import type { RecordedDifference, RecordedReport, Sampling } from '../../seam/engine.ts';
import { leastChange } from './least-change.ts';
import type { InspectedSampler, TokenFilter } from './sampler.ts';

export interface RecordedOptions {
  readonly tokens: readonly number[];
  readonly sampler: InspectedSampler;
  readonly sampling: Sampling;
  /** The numbers that the last pick drew; emptied before each. */
  readonly draws: readonly number[];
  /** Which tokens the grammar lets come next; undefined: all. */
  readonly filter: () => TokenFilter | undefined;
}

export class RecordedTokens {
  readonly #options: RecordedOptions;
  #at = 0;
  #differing = 0;
  #first: RecordedDifference | undefined;
  #farthest: number | null = 0;
  #adrift = false;

  constructor(options: RecordedOptions) {
    this.#options = options;
  }

  /** The token to write where `picked` (−1: none) was picked; undefined: the choice must end. */
  next(picked: number, logits: Float32Array): number | undefined {
    const { tokens } = this.#options;
    const recorded = tokens[this.#at];
    if (recorded === undefined) {
      if (picked >= 0) this.#differ({ recorded: null, picked, gap: null, distance: null });
      return picked < 0 ? picked : undefined;
    }
    if (recorded === picked) {
      this.#at += 1;
      return recorded;
    }
    const filter = this.#options.filter();
    const gap = picked < 0 ? null : finite((logits[picked] ?? NaN) - (logits[recorded] ?? NaN));
    const distance = recorded < logits.length ? this.#distance(recorded, logits, filter) : null;
    this.#differ({ recorded, picked: picked < 0 ? null : picked, gap, distance });
    this.#adrift ||= filter !== undefined;
    const writable = recorded < logits.length && (filter === undefined || filter([recorded])[0] === true);
    if (!writable || picked < 0) return undefined;
    this.#at += 1;
    return recorded;
  }

  report(): RecordedReport {
    const left = this.#options.tokens[this.#at];
    if (left !== undefined && this.#first === undefined)
      this.#differ({ recorded: left, picked: null, gap: null, distance: null });
    return {
      compared: this.#at,
      differing: this.#differing,
      first: this.#first,
      farthest: this.#farthest,
      adrift: this.#adrift,
    };
  }

  #differ(found: Omit<RecordedDifference, 'at'>): void {
    this.#differing += 1;
    this.#first ??= { at: this.#at, ...found };
    const { distance } = found;
    if (distance === null) this.#farthest = null;
    else if (this.#farthest !== null) this.#farthest = Math.max(this.#farthest, distance);
  }

  #distance(token: number, logits: Float32Array, filter: TokenFilter | undefined): number | null {
    const { sampler, sampling, draws } = this.#options;
    return sampler.adjusted(logits, () => {
      const seen = filter === undefined ? logits : masked(logits, filter);
      const points = draws.length === 0 ? [0] : draws;
      const found = points.flatMap((point) => [
        leastChange(seen, token, sampling, point),
        ...(seen === logits ? [] : [leastChange(logits, token, sampling, point)]),
      ]);
      if ((seen[token] ?? -Infinity) === -Infinity) return null;
      const known = found.filter((each) => each !== null);
      return known.length === 0 ? null : Math.min(...known);
    });
  }
}

function masked(logits: Float32Array, filter: TokenFilter): Float32Array {
  const ids = Array.from(logits, (_, token) => token);
  const allowed = filter(ids);
  return logits.map((logit, token) => (allowed[token] === true ? logit : -Infinity));
}

function finite(value: number): number | null {
  return Number.isFinite(value) ? value : null;
}
