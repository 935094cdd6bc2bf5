// Measures a model file: SHA-256 over the very bytes the engine will map (docs/protocol.md, P3). `memory`:
// copied once into an unnamed tmpfs file (O_TMPFILE) and hashed on the way; the engine gets that file,
// read-only, by descriptor, so no process or host outside the guest's memory can change it. `disk`: hashed in
// place, and the open file's identity is compared before and after; for development only, and marked so
// wherever the digest is shown. Refuses: anything but a regular file, a size that changes under the read, a
// digest other than the pinned one.

import { createHash, type Hash } from 'node:crypto';
import { constants } from 'node:fs';
import { open, statfs, type FileHandle } from 'node:fs/promises';
import { DiskRoom, NoRoom, type Reservation } from '../base/disk-room.ts';
import { isFull } from '../base/durable-files.ts';
import { ApiError } from '../base/errors.ts';
import type { Residency, FileIdentity } from './model.ts';

/**
 * Large enough for full disk and copy speed, small enough that hashing a chunk takes the event loop
 * less than a millisecond.
 */
const CHUNK_BYTES = 4 * 1024 * 1024;
/** Linux, include/uapi/asm-generic/fcntl.h: __O_TMPFILE | O_DIRECTORY. Node has no constant for it. */
const O_TMPFILE = 0o20_200_000;

export interface MeasureOptions {
  readonly signal: AbortSignal;
  /** Called with 0…1. */
  readonly onProgress?: ((fraction: number) => void) | undefined;
}

export interface Measured {
  /** Lower-case hex. */
  readonly sha256: string;
  readonly size: number;
  readonly identity: FileIdentity;
}

export interface StagingPlace {
  /** A tmpfs folder; `/dev/shm`. */
  readonly stagingFolder: string;
  /** For messages. */
  readonly name: string;
}

export interface StageOptions extends MeasureOptions, StagingPlace {
  readonly residency: Residency;
  /**
   * The digest the bytes must have: pinned in the configuration, or the one the model was registered with.
   */
  readonly sha256: string;
  /** For `disk`: the identity at the last digest; an unchanged file is not hashed again. */
  readonly known?: FileIdentity | undefined;
}

/** Measured bytes for an engine. Held open until `close`; the engine's own mapping stays valid after it. */
export interface ReadyFile {
  readonly file: FileHandle;
  /** Its descriptor, to be inherited by the engine. */
  readonly fd: number;
  /** Of a file used in place: its identity at its last digest. */
  readonly identity?: FileIdentity | undefined;
  /**
   * To be called once the engine has read the file. For `disk`, throws if the file changed since it was
   * hashed.
   */
  check(): Promise<void>;
  /** Idempotent. */
  close(): Promise<void>;
}

export interface StagedFile extends ReadyFile {
  readonly sha256: string;
  readonly size: number;
  readonly residency: Residency;
}

/** Hashes a file in place. 400 file_not_found when it is not a readable regular file. */
export async function measureFile(path: string, options: MeasureOptions): Promise<Measured> {
  const file = await openRegular(path);
  try {
    return await measure(file, options);
  } finally {
    await file.close();
  }
}

/** Hashes an open file from its beginning. 500 model_file_changed when it changes meanwhile. */
export async function measure(file: FileHandle, options: MeasureOptions): Promise<Measured> {
  const before = await identityOf(file);
  const hash = createHash('sha256');
  const size = await pump({ source: file, size: Number(before.size), hash }, options);
  const after = await identityOf(file);
  if (!sameFile(before, after)) throw changed('the model file');
  return { sha256: hash.digest('hex'), size, identity: after };
}

/** Stages and measures a file for an engine. 500 model_digest_mismatch names both digests. */
export async function stageFile(path: string, options: StageOptions): Promise<StagedFile> {
  // dm-verity checks every block against a measured root on each read; hashing once more
  // would only be as strong.
  return options.residency === 'memory' ? stageInMemory(path, options) : stageInPlace(path, options);
}

/**
 * Whether `size` bytes fit into the staging folder now; null when it is not there (not Linux, not mounted).
 */
export async function stagingRoom(
  stagingFolder: string,
): Promise<{ readonly free: number; readonly total: number } | null> {
  try {
    const stats = await statfs(stagingFolder);
    return { free: stats.bavail * stats.bsize, total: stats.blocks * stats.bsize };
  } catch {
    return null;
  }
}

export function sameFile(a: FileIdentity, b: FileIdentity): boolean {
  return (
    a.dev === b.dev &&
    a.ino === b.ino &&
    a.size === b.size &&
    a.mtimeNs === b.mtimeNs &&
    a.ctimeNs === b.ctimeNs
  );
}

async function stageInMemory(path: string, options: StageOptions): Promise<StagedFile> {
  const source = await openRegular(path);
  let target: FileHandle | undefined;
  try {
    const before = await identityOf(source);
    const size = Number(before.size);
    const reserved = await reserveStaging(options, size);
    const hash = createHash('sha256');
    try {
      target = await openUnnamed(options, size);
      const onProgress = (fraction: number): void => {
        reserved.update(Math.ceil(size * (1 - fraction)));
        options.onProgress?.(fraction);
      };
      await pump({ source, size, hash, target }, { signal: options.signal, onProgress });
    } catch (error) {
      // Another process filled the folder meanwhile.
      throw isFull(error) ? noRoom(options, size, 0, error) : error;
    } finally {
      reserved.release();
    }
    const sha256 = hash.digest('hex');
    if (sha256 !== options.sha256) throw mismatch(options, sha256);
    const reader = await open(`/proc/self/fd/${target.fd}`, constants.O_RDONLY);
    return staged(reader, { sha256, size, residency: 'memory' }, () => Promise.resolve());
  } finally {
    await source.close();
    await target?.close();
  }
}

/** Loads that stage at the same time share one free space. By folder. */
const STAGING_ROOMS = new Map<string, DiskRoom>();

export async function reserveStaging(options: StagingPlace, size: number): Promise<Reservation> {
  const { stagingFolder } = options;
  const freeBytes = async (): Promise<number> => (await stagingRoom(stagingFolder))?.free ?? 0;
  const room = STAGING_ROOMS.get(stagingFolder) ?? new DiskRoom({ freeBytes, keep: 0 });
  STAGING_ROOMS.set(stagingFolder, room);
  try {
    return await room.reserve(size);
  } catch (error) {
    throw error instanceof NoRoom ? noRoom(options, size, error.available) : error;
  }
}

async function stageInPlace(path: string, options: StageOptions): Promise<StagedFile> {
  const file = await openRegular(path);
  try {
    const before = await identityOf(file);
    const size = Number(before.size);
    if (options.known === undefined || !sameFile(options.known, before)) {
      const hash = createHash('sha256');
      await pump({ source: file, size, hash }, options);
      const sha256 = hash.digest('hex');
      if (sha256 !== options.sha256) throw mismatch(options, sha256);
    }
    const { sha256, residency } = options;
    return staged(file, { sha256, size, residency, identity: before }, async () => {
      if (!sameFile(before, await identityOf(file))) throw changed(options.name);
    });
  } catch (error) {
    await file.close();
    throw error;
  }
}

export function staged<A>(file: FileHandle, about: A, check: () => Promise<void>): A & ReadyFile {
  let closing: Promise<void> | undefined;
  const close = (): Promise<void> => (closing ??= file.close());
  return { ...about, file, fd: file.fd, check, close };
}

/** O_NONBLOCK so that opening a FIFO does not hang; the type is checked on the descriptor, not the name. */
export async function openRegular(path: string): Promise<FileHandle> {
  let file: FileHandle;
  try {
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code ?? 'unknown error';
    throw new ApiError('file_not_found', `the model file cannot be opened (${reason})`, {
      param: 'path',
      cause: error,
    });
  }
  const stats = await file.stat();
  if (stats.isFile()) return file;
  await file.close();
  throw new ApiError('file_not_found', 'the model path is not a regular file', { param: 'path' });
}

export async function openUnnamed(options: StagingPlace, size: number): Promise<FileHandle> {
  try {
    return await open(options.stagingFolder, O_TMPFILE | constants.O_RDWR, 0o400);
  } catch (error) {
    throw noRoom(options, size, 0, error);
  }
}

export async function identityOf(file: FileHandle): Promise<FileIdentity> {
  const { dev, ino, size, mtimeNs, ctimeNs } = await file.stat({ bigint: true });
  return { dev, ino, size, mtimeNs, ctimeNs };
}

export interface Pumped {
  readonly source: FileHandle;
  readonly size: number;
  readonly hash: Hash;
  /** Gets a copy. */
  readonly target?: FileHandle | undefined;
  /** Bytes of the beginning that were read already: they are hashed, and not read again. */
  readonly head?: Uint8Array | undefined;
  /** Of the source `from` to `to` are copied, to `at`; absent: everything, to the same place. */
  readonly section?: { readonly from: number; readonly to: number; readonly at: number } | undefined;
}

/**
 * Reads exactly `size` bytes, hashing and writing each chunk while the next one is read.
 * Returns the number of bytes.
 */
export async function pump(
  { source, size, hash, target, head, section }: Pumped,
  options: MeasureOptions,
): Promise<number> {
  const buffers = [Buffer.allocUnsafeSlow(CHUNK_BYTES), Buffer.allocUnsafeSlow(CHUNK_BYTES)] as const;
  let at = head?.length ?? 0;
  if (head !== undefined) hash.update(head);
  const { from, to, at: base } = section ?? { from: 0, to: Infinity, at: 0 };
  let turn = 0;
  let next = source.read(buffers[0], 0, CHUNK_BYTES, at);
  for (;;) {
    const { bytesRead } = await next;
    if (bytesRead === 0) break;
    options.signal.throwIfAborted();
    const chunk = (turn === 0 ? buffers[0] : buffers[1]).subarray(0, bytesRead);
    const here = at;
    at += bytesRead;
    if (at > size) throw changed('the model file');
    turn ^= 1;
    // Both the write of this chunk and the read of the next run on other threads while this one hashes.
    const first = Math.max(0, from - here);
    const copied = chunk.subarray(first, Math.max(first, to - here));
    const written = target === undefined ? undefined : writeAll(target, copied, here + first - from + base);
    next = source.read(turn === 0 ? buffers[0] : buffers[1], 0, CHUNK_BYTES, at);
    // Awaited at the top of the loop; a failure before that must not count as unhandled.
    next.catch(() => undefined);
    try {
      hash.update(chunk);
      await written;
    } catch (error) {
      await Promise.allSettled([written, next]);
      throw error;
    }
    options.onProgress?.(size === 0 ? 1 : at / size);
  }
  if (at !== size) throw changed('the model file');
  return at;
}

async function writeAll(target: FileHandle, chunk: Buffer, position: number): Promise<void> {
  let done = 0;
  while (done < chunk.length) {
    const { bytesWritten } = await target.write(chunk, done, chunk.length - done, position + done);
    done += bytesWritten;
  }
}

export function mismatch(
  options: { readonly name: string; readonly sha256: string },
  actual: string,
): ApiError {
  return new ApiError(
    'model_digest_mismatch',
    `${options.name} has sha256 ${actual}, expected ${options.sha256}; it is not loaded`,
    {
      shouldRetry: false,
    },
  );
}

function changed(name: string): ApiError {
  return new ApiError('model_file_changed', `${name} changed while it was read; it is not loaded`, {
    shouldRetry: true,
  });
}

export function noRoom(options: StagingPlace, size: number, free: number, cause?: unknown): ApiError {
  return new ApiError(
    'model_load_failed',
    `${options.name} needs ${size} bytes of guest memory in the staging folder, ${free} are free`,
    { status: 503, retryAfterSeconds: 30, cause },
  );
}
