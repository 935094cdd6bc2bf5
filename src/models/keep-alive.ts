// keep_alive as requests and the configuration write it: how long an idle model stays loaded.

import { ApiError } from '../base/errors.ts';

/**
 * "30s", "5m", "1h", "250ms", seconds as number or text, "0" at once, "-1" or less never.
 * Milliseconds, Infinity for never.
 */
export function parseKeepAlive(value: string | number): number {
  const text = String(value).trim();
  const match = /^(-?\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h)?$/.exec(text);
  if (match === null) {
    throw new ApiError(
      'invalid_keep_alive',
      'keep_alive must be seconds or a duration such as "30s", "5m", "1h", "0" or "-1"',
      {
        param: 'keep_alive',
      },
    );
  }
  const amount = Number(match[1]);
  if (amount < 0) return Number.POSITIVE_INFINITY;
  const unit = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[(match[2] ?? 's') as 'ms' | 's' | 'm' | 'h'];
  // Timers hold 2^31-1 ms; longer counts as never.
  const ms = amount * unit;
  return ms > 2_147_483_647 ? Number.POSITIVE_INFINITY : ms;
}
