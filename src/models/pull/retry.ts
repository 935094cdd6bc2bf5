// Retries what may succeed later: with growing pauses, or the pause the hub asks for; an attempt that brought
// bytes resets the count of failures.

import type { Clock } from '../../base/clock.ts';
import { codeOf } from '../../base/durable-files.ts';
import { ApiError } from '../../base/errors.ts';
import { HubBusy } from './hub.ts';

export interface RetryOptions {
  readonly clock: Clock;
  /** 0 ≤ x < 1. */
  readonly random: () => number;
  readonly signal: AbortSignal;
  /** Failures in a row before giving up. */
  readonly maxFailures: number;
  readonly firstPauseMs: number;
}

const LONGEST_PAUSE_MS = 60_000;
const LONGEST_ASKED_PAUSE_MS = 15 * 60_000;
/** Errors of this machine's disk, which another attempt would meet again. */
const DISK_ERRORS = ['ENOSPC', 'EDQUOT', 'EIO', 'EROFS'];

/**
 * Runs `attempt` until it succeeds, an ApiError says that it never will, or it failed too often without
 * progress.
 */
export async function retrying<T>(
  options: RetryOptions,
  progress: () => number,
  attempt: () => Promise<T>,
): Promise<T> {
  let failures = 0;
  for (;;) {
    const before = progress();
    try {
      return await attempt();
    } catch (error) {
      options.signal.throwIfAborted();
      if (error instanceof ApiError || DISK_ERRORS.includes(codeOf(error) ?? '')) throw error;
      failures = progress() > before ? 1 : failures + 1;
      if (failures >= options.maxFailures) {
        const why =
          error instanceof HubBusy ? error.message : `the connection fails (${codeOf(error) ?? 'broken'})`;
        throw new ApiError('hub_unavailable', `${why}, ${failures} times in a row`, {
          cause: error,
          retryAfterSeconds: 60,
        });
      }
      const asked = error instanceof HubBusy ? error.retryAfterMs : undefined;
      const pause =
        Math.min(options.firstPauseMs * 2 ** (failures - 1), LONGEST_PAUSE_MS) * (0.5 + options.random() / 2);
      await sleep(Math.max(pause, Math.min(asked ?? 0, LONGEST_ASKED_PAUSE_MS)), options);
    }
  }
}

function sleep(ms: number, { clock, signal }: RetryOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = (): void => {
      cancel();
      reject(signal.reason as Error);
    };
    const cancel = clock.after(ms, () => {
      signal.removeEventListener('abort', stop);
      resolve();
    });
    signal.addEventListener('abort', stop, { once: true });
    if (signal.aborted) stop();
  });
}
