// Fetches one file of known size and SHA-256 into a partial file, going on where an earlier attempt (of this process or one
// that was killed) stopped: HTTP Range with If-Range, from the start again when the ETag changed or ranges are not spoken.
// Failures are tried again with growing pauses; an attempt that brought bytes starts the count anew.

import { createHash } from 'node:crypto';
import type { Hash } from 'node:crypto';
import { constants } from 'node:fs';
import { open, statfs } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import type { Clock } from '../../base/clock.ts';
import { ApiError } from '../../base/errors.ts';
import { HubBusy, refuseStatus } from './hub.ts';
import type { HubFile } from './hub.ts';
import type { Web } from './http.ts';
import { codeOf, storageError } from '../store/files.ts';

/** The two places where a disk can be full, as parameters so that tests can fill it. */
export interface Disk {
  write(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void>;
  /** Bytes this process may still write to the folder's file system. */
  freeBytes(folder: string): Promise<number>;
}

export const realDisk: Disk = {
  write: async (handle, bytes, position) => {
    for (let done = 0; done < bytes.length;)
      done += (await handle.write(bytes, done, bytes.length - done, position + done)).bytesWritten;
  },
  freeBytes: async (folder) => {
    const { bavail, bsize } = await statfs(folder);
    return bavail * bsize;
  },
};

export interface RetryOptions {
  readonly clock: Clock;
  /** 0 ≤ x < 1. */
  readonly random: () => number;
  readonly signal: AbortSignal;
  /** Failures in a row before giving up. */
  readonly maxFailures: number;
  readonly firstPauseMs: number;
}

export interface DownloadOptions extends RetryOptions {
  readonly web: Web;
  readonly file: HubFile;
  readonly token?: string | undefined;
  readonly folder: string;
  readonly partPath: string;
  readonly disk: Disk;
  /** ETag the partial file was begun with. */
  readonly etag: string | undefined;
  /** Called, and awaited, before bytes under another ETag are written. */
  readonly onEtag: (etag: string | undefined) => Promise<void>;
  readonly onResume: (offset: number) => void;
  readonly onProgress: (completed: number) => void;
}

const LONGEST_PAUSE_MS = 60_000;
const LONGEST_ASKED_PAUSE_MS = 15 * 60_000;
const SYNC_EVERY_BYTES = 64 * 1024 * 1024;

/** Leaves a complete, fsynced file whose digest was checked. On `digest_mismatch` the file is emptied, and that is said. */
export async function download(options: DownloadOptions): Promise<void> {
  const { file } = options;
  const handle = await open(
    options.partPath,
    constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW,
    0o600,
  );
  try {
    const part: Part = { handle, hash: createHash('sha256'), size: 0, etag: options.etag };
    if ((await handle.stat()).size > file.size) await handle.truncate(0);
    await rehash(part, options.signal);
    if (part.size > 0) options.onResume(part.size);
    if ((await options.disk.freeBytes(options.folder)) < file.size - part.size) {
      throw new ApiError(
        'storage_full',
        `the data folder has no room for the ${file.size - part.size} bytes to come`,
        {
          shouldRetry: false,
        },
      );
    }
    await retrying(
      options,
      () => part.size,
      async () => {
        if (part.size < file.size) await fetchRest(part, options);
      },
    );
    const actual = part.hash.digest('hex');
    if (actual !== file.sha256) {
      await handle.truncate(0);
      throw new ApiError(
        'digest_mismatch',
        `the bytes fetched have sha256 ${actual}, the hub promised ${file.sha256}; they were thrown away`,
        { status: 502, shouldRetry: false },
      );
    }
    await handle.sync();
  } catch (error) {
    throw storageError(error);
  } finally {
    await handle.close();
  }
}

/** Runs `attempt` until it succeeds, an ApiError says that it never will, or it failed too often without progress. */
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
      if (error instanceof ApiError || ['ENOSPC', 'EDQUOT', 'EIO', 'EROFS'].includes(codeOf(error) ?? ''))
        throw error;
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

interface Part {
  readonly handle: FileHandle;
  hash: Hash;
  size: number;
  etag: string | undefined;
}

/** A hash's state cannot be stored, so what is there is read once more. */
async function rehash(part: Part, signal: AbortSignal): Promise<void> {
  const buffer = Buffer.alloc(1024 * 1024);
  for (;;) {
    signal.throwIfAborted();
    const { bytesRead } = await part.handle.read(buffer, 0, buffer.length, part.size);
    if (bytesRead === 0) return;
    part.hash.update(buffer.subarray(0, bytesRead));
    part.size += bytesRead;
  }
}

async function restart(part: Part): Promise<void> {
  await part.handle.truncate(0);
  part.hash = createHash('sha256');
  part.size = 0;
}

async function fetchRest(part: Part, options: DownloadOptions): Promise<void> {
  const { file } = options;
  const range =
    part.size === 0
      ? {}
      : { range: `bytes=${part.size}-`, ...(part.etag === undefined ? {} : { 'if-range': part.etag }) };
  const response = await options.web.get(file.url, {
    headers: range,
    signal: options.signal,
    ...(options.token === undefined ? {} : { token: options.token }),
  });
  refuseStatus(response, options.clock.now, 'the file');
  try {
    const encoding = response.header('content-encoding');
    if (encoding !== undefined && encoding !== 'identity')
      throw new ApiError('hub_error', `the hub sends the file in content-encoding ${encoding.slice(0, 40)}`);
    // Only a strong validator may be compared or sent as If-Range (RFC 9110 §13.1.5).
    const given = response.header('etag');
    const etag =
      given !== undefined && given.length <= 256 && /^"[\x21\x23-\x7e]*"$/.test(given) ? given : undefined;
    if (response.status === 206) {
      const [, start, total] =
        /^bytes (\d{1,16})-\d{1,16}\/(\d{1,16}|\*)$/.exec(response.header('content-range') ?? '') ?? [];
      if (total !== undefined && total !== '*') refuseOtherSize(Number(total), file);
      if (
        Number(start) !== part.size ||
        (part.etag !== undefined && etag !== undefined && etag !== part.etag)
      ) {
        await restart(part);
        await options.onEtag((part.etag = undefined));
        throw new HubBusy('the hub sends another part than was asked for');
      }
    } else if (response.status === 416) {
      await restart(part);
      throw new HubBusy('the hub does not have the part that was asked for');
    } else {
      const length = response.header('content-length');
      if (length !== undefined) refuseOtherSize(Number(length), file);
      if (part.size > 0) await restart(part);
    }
    if (etag !== part.etag) await options.onEtag((part.etag = etag));
    let unsynced = 0;
    for await (const chunk of response.body) {
      if (part.size + chunk.length > file.size) refuseOtherSize(part.size + chunk.length, file);
      await options.disk.write(part.handle, chunk, part.size);
      part.hash.update(chunk);
      part.size += chunk.length;
      options.onProgress(part.size);
      unsynced += chunk.length;
      if (unsynced >= SYNC_EVERY_BYTES) {
        await part.handle.datasync();
        unsynced = 0;
      }
    }
  } catch (error) {
    response.discard();
    throw error;
  }
  if (part.size < file.size)
    throw new HubBusy(`the hub ended the transfer ${file.size - part.size} bytes early`);
}

function refuseOtherSize(size: number, file: HubFile): void {
  if (size === file.size) return;
  throw new ApiError(
    'upstream_changed',
    `the hub sends a file of ${size} bytes, its API promised ${file.size}`,
    {
      shouldRetry: false,
    },
  );
}
