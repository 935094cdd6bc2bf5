// Limits the requests of one kind that are answered at once, in all and of one caller. One caller never gets
// all of a shared resource: half of it is kept for the others, as of the memory for bodies. Attestations have
// permits of their own: they are open to everyone, so a stalled TEE full of them must not take the places of
// callers that have a key.

import { overloaded, type ApiError } from '../../base/errors.ts';

/** Gives the permit back. Idempotent. */
export type ReleasePermit = () => void;

export interface Permits {
  /** Takes a permit; throws `full(reason)` when there is none. */
  enter(caller: string): ReleasePermit;
}

/**
 * The share of one caller in a bounded resource, so that a second caller finds room. A bound of 1 has no
 * half.
 */
export function shareOf(total: number): number {
  return Math.max(1, Math.floor(total / 2));
}

/** Counts the units of a resource that each caller holds. */
export class CallerCounts {
  readonly #held = new Map<string, number>();

  of(caller: string): number {
    return this.#held.get(caller) ?? 0;
  }

  add(caller: string, count = 1): ReleasePermit {
    this.#held.set(caller, this.of(caller) + count);
    let released = false;
    return () => {
      if (released) return;
      released = true;
      const rest = this.of(caller) - count;
      if (rest > 0) this.#held.set(caller, rest);
      else this.#held.delete(caller);
    };
  }
}

/** A limit of 0 means no limit. */
export function createPermits(options: {
  readonly inAll: number;
  readonly perCaller: number;
  readonly full: (whose: 'all' | 'caller') => ApiError;
}): Permits {
  const { inAll, perCaller, full } = options;
  const held = new CallerCounts();
  let taken = 0;
  return {
    enter(caller) {
      if (perCaller > 0 && held.of(caller) >= perCaller) throw full('caller');
      if (inAll > 0 && taken >= inAll) throw full('all');
      const release = held.add(caller);
      taken += 1;
      let left = false;
      return () => {
        if (left) return;
        left = true;
        taken -= 1;
        release();
      };
    },
  };
}

export function serverFull(whose: 'all' | 'caller'): ApiError {
  return overloaded(
    'server_overloaded',
    whose === 'caller'
      ? 'the server is answering as many requests of this caller as it may'
      : 'the server is answering as many requests as it may',
  );
}

export function attestationsFull(whose: 'all' | 'caller'): ApiError {
  return overloaded(
    'attestation_rate_limited',
    whose === 'caller'
      ? 'this address has as many attestations under way as it may'
      : 'too many attestations are under way',
  );
}
