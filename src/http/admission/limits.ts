// Limits of one caller: requests and tokens per minute (buckets that refill steadily) and requests at once. A
// slot and its token reservation are held until the answer's last byte, not until its first. Tokens are
// reserved from an estimate before the work, taken as they are generated beyond it, and settled with the
// actual number afterwards; a bucket may go below zero, never above its limit.

import { ApiError } from '../../base/errors.ts';
import type { Principal } from './auth.ts';
import type { KeyLimits } from '../deps.ts';

/** Peer addresses remembered at once; the longest idle is forgotten first, which gives it a full bucket. */
const MAX_PEERS = 10_000;

interface Bucket {
  level: number;
  /** Milliseconds at which `level` was current. */
  at: number;
}

interface Caller {
  readonly requests: Bucket;
  readonly tokens: Bucket;
  active: number;
}

/** One admitted request. */
export interface Admission {
  /** x-ratelimit-* headers as they stand now. */
  headers(): Record<string, string>;
  /**
   * Takes tokens out before the work; 429 when there are not `needed` of them. Of the tokens the work may use
   * beyond that (`atMost`) it takes as many as are left.
   */
  reserveTokens(needed: number, atMost?: number): void;
  /** Tokens used so far: those beyond the reservation are taken at once. */
  spend(usedTokens: number): void;
  /** Replaces the reservation with the actual use. Idempotent. */
  settle(usedTokens: number): void;
  /** Gives the concurrency slot back. Idempotent. */
  release(): void;
}

export interface Limiter {
  /** 429 rate_limit_exceeded with Retry-After when the caller is over a limit. */
  admit(principal: Principal): Admission;
  /** x-ratelimit-* headers of a refused caller: refused clients need them most to pace themselves. */
  headers(principal: Principal): Record<string, string>;
}

export function createLimiter(now: () => number): Limiter {
  // Separate, so that many addresses cannot make the server forget a key's use. The number of keys is
  // configured.
  const keys = new Map<string, Caller>();
  const peers = new Map<string, Caller>();

  const callerOf = (principal: Principal): Caller => {
    const callers = principal.name === null ? peers : keys;
    const known = callers.get(principal.bucket);
    if (known !== undefined) {
      callers.delete(principal.bucket);
      callers.set(principal.bucket, known);
      return known;
    }
    if (callers === peers) forgetOldest(peers);
    const fresh: Caller = {
      requests: { level: principal.limits.requestsPerMinute, at: now() },
      tokens: { level: principal.limits.tokensPerMinute, at: now() },
      active: 0,
    };
    callers.set(principal.bucket, fresh);
    return fresh;
  };

  return {
    admit(principal) {
      const { limits } = principal;
      if (limits.requestsPerMinute === 0 && limits.tokensPerMinute === 0 && limits.concurrent === 0)
        return UNLIMITED;
      const caller = callerOf(principal);
      const time = now();
      refill(caller.requests, limits.requestsPerMinute, time);
      refill(caller.tokens, limits.tokensPerMinute, time);
      if (limits.concurrent > 0 && caller.active >= limits.concurrent) {
        throw tooMany(`more than ${limits.concurrent} requests of this caller at once`, 1);
      }
      if (limits.requestsPerMinute > 0) {
        if (caller.requests.level < 1)
          throw tooMany(
            `more than ${limits.requestsPerMinute} requests in a minute`,
            wait(1 - caller.requests.level, limits.requestsPerMinute),
          );
        caller.requests.level -= 1;
      }
      caller.active += 1;
      return admission(caller, limits, now);
    },
    headers: (principal) => headersOf(callerOf(principal), principal.limits, now()),
  };
}

function headersOf(caller: Caller, limits: KeyLimits, time: number): Record<string, string> {
  refill(caller.requests, limits.requestsPerMinute, time);
  refill(caller.tokens, limits.tokensPerMinute, time);
  return {
    ...describe('requests', caller.requests.level, limits.requestsPerMinute),
    ...describe('tokens', caller.tokens.level, limits.tokensPerMinute),
  };
}

function admission(caller: Caller, limits: KeyLimits, now: () => number): Admission {
  let reserved = 0;
  let settled = false;
  let released = false;
  return {
    headers: () => headersOf(caller, limits, now()),
    reserveTokens(estimate, atMost = 0) {
      const limit = limits.tokensPerMinute;
      if (limit === 0) return;
      refill(caller.tokens, limit, now());
      // A request larger than the whole minute is admitted on a full bucket, which then goes below zero.
      const needed = Math.min(Math.max(1, estimate), limit);
      if (caller.tokens.level < needed)
        throw tooMany(`more than ${limit} tokens in a minute`, wait(needed - caller.tokens.level, limit));
      const taken = Math.max(needed, Math.min(atMost, caller.tokens.level));
      caller.tokens.level -= taken;
      reserved += taken;
    },
    spend(usedTokens) {
      if (settled || limits.tokensPerMinute === 0 || usedTokens <= reserved) return;
      caller.tokens.level -= usedTokens - reserved;
      reserved = usedTokens;
    },
    settle(usedTokens) {
      if (settled) return;
      settled = true;
      if (limits.tokensPerMinute > 0)
        caller.tokens.level = Math.min(limits.tokensPerMinute, caller.tokens.level + reserved - usedTokens);
    },
    release() {
      if (released) return;
      released = true;
      caller.active -= 1;
    },
  };
}

const UNLIMITED: Admission = {
  headers: () => ({}),
  reserveTokens: () => undefined,
  spend: () => undefined,
  settle: () => undefined,
  release: () => undefined,
};

function refill(bucket: Bucket, perMinute: number, time: number): void {
  // A clock that jumps back adds no tokens; one that jumps ahead gives a full bucket at most.
  const elapsed = Math.max(0, time - bucket.at);
  bucket.level = Math.min(perMinute, bucket.level + (elapsed * perMinute) / 60_000);
  bucket.at = time;
}

function wait(missing: number, perMinute: number): number {
  return (missing * 60) / perMinute;
}

function tooMany(what: string, retryAfterSeconds: number): ApiError {
  return new ApiError('rate_limit_exceeded', `rate limit reached: ${what}`, { retryAfterSeconds });
}

function describe(of: 'requests' | 'tokens', level: number, limit: number): Record<string, string> {
  if (limit === 0) return {};
  return {
    [`x-ratelimit-limit-${of}`]: String(limit),
    [`x-ratelimit-remaining-${of}`]: String(Math.max(0, Math.floor(level))),
    [`x-ratelimit-reset-${of}`]: duration(wait(limit - level, limit)),
  };
}

/** OpenAI's form: "120ms", "7.5s", "1m30s". */
function duration(seconds: number): string {
  if (seconds < 1) return `${Math.ceil(seconds * 1000)}ms`;
  if (seconds < 60) return `${Math.ceil(seconds * 10) / 10}s`;
  return `${Math.floor(seconds / 60)}m${Math.ceil(seconds % 60)}s`;
}

function forgetOldest(callers: Map<string, Caller>): void {
  if (callers.size < MAX_PEERS) return;
  for (const [bucket, caller] of callers) {
    if (caller.active > 0) continue;
    callers.delete(bucket);
    return;
  }
}
