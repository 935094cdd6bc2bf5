// The heap V8 gives this process, against what the configuration needs of it: found too small at the start,
// it is one line with exit 2, and not V8's report of a crash in the middle of somebody's request.

import { getHeapStatistics } from 'node:v8';
import { ConfigError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { Config } from '../config/read.ts';

const MI_B = 1024 * 1024;
/** For the code of the server and its own state; an idle one takes half of it. */
const OWN_BYTES = 64 * MI_B;

/** Throws ConfigError where one body would not fit; warns where as many as may be held at once would not. */
export function checkHeap(
  { limits }: Config,
  log: Log,
  heapBytes: number = getHeapStatistics().heap_size_limit,
): void {
  const has = Math.floor(heapBytes / MI_B);
  const least = Math.ceil((OWN_BYTES + limits.maxBodyBytes) / MI_B);
  if (has < least)
    throw new ConfigError(
      `the heap of this process may have ${has} MiB, this configuration needs at least ${least} MiB (limits.max_body_bytes is ${limits.maxBodyBytes}): raise it (node's "--max-old-space-size")`,
    );
  if (heapBytes < OWN_BYTES + limits.maxBodyBytesInFlight)
    log.warn({
      msg: 'the heap of this process does not hold limits.max_body_bytes_in_flight: raise it (node\'s "--max-old-space-size") or lower the limit',
      heapBytes,
      maxBodyBytesInFlight: limits.maxBodyBytesInFlight,
    });
}
