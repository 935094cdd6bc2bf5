// Fetches one file of known size and SHA-256 into a partial file, continuing where an earlier attempt (of
// this process or a killed one) stopped. Bytes are kept as progress only with proof of their origin: a strong
// validator (RFC 9110 §8.8.1, §13.1.5), which the continued response must carry as well (§15.3.7.3), and the
// first bytes of such a file. All room is reserved before the first byte is written.

import { createHash, type Hash } from 'node:crypto';
import { constants } from 'node:fs';
import { open, statfs, type FileHandle } from 'node:fs/promises';
import { isFull, storageError, storageFull } from '../../base/durable-files.ts';
import { NoRoom, type DiskRoom, type Reservation } from '../../base/disk-room.ts';
import { ApiError } from '../../base/errors.ts';
import { fileKindOf, type FileKind } from './file-kind.ts';
import { HubBusy, refuseStatus, type HubFile } from './hub.ts';
import type { Web, WebResponse } from './http.ts';
import { retrying, type RetryOptions } from './retry.ts';

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

/** Never promised to pulls: room for the audit log, states of pulls and locks. */
export const KEPT_BYTES = 2 * 1024 * 1024;

export interface DownloadOptions extends RetryOptions {
  readonly web: Web;
  readonly file: HubFile;
  readonly token?: string | undefined;
  readonly folder: string;
  readonly partPath: string;
  readonly disk: Disk;
  /** The folder's file system, shared with the other pulls. */
  readonly room: Pick<DiskRoom, 'reserve' | 'isKept'>;
  /** ETag the partial file was begun with. */
  readonly etag: string | undefined;
  /** Called, and awaited, before bytes under another ETag are written. */
  readonly onEtag: (etag: string | undefined) => Promise<void>;
  readonly onResume: (offset: number) => void;
  readonly onProgress: (completed: number) => void;
}

const SYNC_EVERY_BYTES = 64 * 1024 * 1024;
/** Less than the room kept free, so that other writers of the same disk are noticed in time. */
const LOOK_EVERY_BYTES = KEPT_BYTES / 2;

/**
 * Leaves a complete, fsynced file whose digest was checked. On `digest_mismatch` it empties the
 * file, and the error says so.
 */
export async function downloadFile(options: DownloadOptions): Promise<void> {
  const { file, folder } = options;
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
  const part = new Part(await open(options.partPath, flags, 0o600), options);
  let reserved: Reservation | undefined;
  try {
    await part.recover();
    if (part.size > 0) options.onResume(part.size);
    reserved = await options.room.reserve(file.size - part.size).catch((error: unknown) => {
      throw error instanceof NoRoom ? noDiskRoom(folder, file.size - part.size, error.available) : error;
    });
    part.onSize = (size) => reserved?.update(file.size - size);
    const attempt = async (): Promise<void> => {
      if (part.size < file.size) await fetchRest(part, options);
    };
    await retrying(options, () => part.size, attempt);
    await part.complete();
  } catch (error) {
    // The caller must get the first error, even when the disk refuses this as well.
    await part.giveUp(isFull(error)).catch(() => undefined);
    throw isFull(error) ? storageError(error, folder) : error;
  } finally {
    reserved?.release();
    await part.close();
  }
}

/** The partial file, its digest so far, and the validator its bytes belong to. */
class Part {
  size = 0;
  etag: string | undefined;
  onSize: (size: number) => void = () => undefined;
  #hash: Hash;
  readonly #kind: FileKind;
  #unsynced = 0;
  #unlooked = 0;
  readonly #handle: FileHandle;
  readonly #options: DownloadOptions;

  constructor(handle: FileHandle, options: DownloadOptions) {
    this.#handle = handle;
    this.#options = options;
    this.#hash = hashFor(options.file);
    this.#kind = fileKindOf(options.file.file);
    this.etag = isStrong(options.etag) ? options.etag : undefined;
  }

  /** Takes the bytes of an earlier attempt, if they are proven to be the beginning of this file. */
  async recover(): Promise<void> {
    const { file, signal } = this.#options;
    const { size } = await this.#handle.stat();
    if (size === 0) return;
    if (this.etag === undefined || size > file.size) return this.clear();
    const buffer = Buffer.alloc(1024 * 1024);
    // The state of a hash cannot be stored, so the existing bytes are read again.
    for (;;) {
      signal.throwIfAborted();
      const { bytesRead } = await this.#handle.read(buffer, 0, buffer.length, this.size);
      if (bytesRead === 0) return;
      if (this.size === 0 && !this.#kind.begins(buffer.subarray(0, bytesRead))) return this.clear();
      this.#hash.update(buffer.subarray(0, bytesRead));
      this.size += bytesRead;
    }
  }

  /** Drops its bytes, durably before other bytes or another validator are written. */
  async clear(): Promise<void> {
    await this.#handle.truncate(0);
    await this.#handle.sync();
    this.#hash = hashFor(this.#options.file);
    this.#resized(0);
  }

  /** Called before the first byte under this validator. */
  async belongsTo(etag: string | undefined): Promise<void> {
    if (etag === this.etag) return;
    await this.#options.onEtag(etag);
    this.etag = etag;
  }

  async append(chunk: Uint8Array): Promise<void> {
    const { disk, room, folder } = this.#options;
    await disk.write(this.#handle, chunk, this.size);
    this.#hash.update(chunk);
    this.#resized(this.size + chunk.length);
    this.#options.onProgress(this.size);
    this.#unsynced += chunk.length;
    this.#unlooked += chunk.length;
    if (this.#unsynced >= SYNC_EVERY_BYTES) {
      this.#unsynced = 0;
      await this.#handle.datasync();
    }
    if (this.#unlooked < LOOK_EVERY_BYTES) return;
    this.#unlooked = 0;
    if (!(await room.isKept())) throw storageFull(`other writers have filled the disk of ${folder}`);
  }

  /** Throws 502 `digest_mismatch` and empties the file when its bytes are not the promised ones. */
  async complete(): Promise<void> {
    const actual = this.#hash.digest('hex');
    const { kind, hex } = this.#options.file.check;
    if (actual === hex) return this.#handle.sync();
    await this.clear();
    const what = kind === 'git' ? 'git id' : 'sha256';
    throw new ApiError(
      'digest_mismatch',
      `the bytes fetched have ${what} ${actual}, the hub promised ${hex}; they were thrown away`,
      { status: 502, shouldRetry: false },
    );
  }

  /**
   * After a failure: without a validator no bytes are kept; on a full disk, as much is
   * given back as must stay free.
   */
  async giveUp(full: boolean): Promise<void> {
    if (this.etag === undefined) return this.clear();
    if (!full) return;
    const { disk, folder } = this.#options;
    const missing = KEPT_BYTES - (await disk.freeBytes(folder));
    if (missing > 0) await this.#handle.truncate(Math.max(0, this.size - missing));
  }

  close(): Promise<void> {
    return this.#handle.close();
  }

  #resized(size: number): void {
    this.size = size;
    this.onSize(size);
  }
}

async function fetchRest(part: Part, options: DownloadOptions): Promise<void> {
  const { file } = options;
  if (part.etag === undefined && part.size > 0) await part.clear();
  const range = { range: `bytes=${part.size}-`, 'if-range': part.etag ?? '' };
  const response = await options.web.get(file.url, {
    headers: part.size === 0 ? {} : range,
    signal: options.signal,
    token: options.token,
  });
  refuseStatus(response, options.clock.now, 'the file');
  try {
    const kind = fileKindOf(file.file);
    refuseOtherKind(response, kind);
    if (response.status === 416) {
      await part.clear();
      throw new HubBusy('the hub does not have the part that was asked for');
    }
    const etag = response.header('etag');
    const promised = { etag: isStrong(etag) ? etag : undefined, end: file.size };
    if (response.status === 206) promised.end = await endOfRange(response, part, promised.etag, file);
    refuseOtherLength(response, promised.end - (response.status === 206 ? part.size : 0), file);
    await receive(response, part, promised, file);
  } catch (error) {
    response.discard();
    throw error;
  }
  if (part.size < file.size)
    throw new HubBusy(`the hub ended the transfer ${file.size - part.size} bytes early`);
}

/**
 * Exclusive end of a continued range. Anything but the next bytes of the same
 * representation begins the file anew.
 */
async function endOfRange(
  response: WebResponse,
  part: Part,
  etag: string | undefined,
  file: HubFile,
): Promise<number> {
  const range = /^bytes (\d{1,16})-(\d{1,16})\/(\d{1,16}|\*)$/.exec(response.header('content-range') ?? '');
  const [start, last, total] = [Number(range?.[1]), Number(range?.[2]), range?.[3]];
  if (total !== undefined && total !== '*' && Number(total) !== file.size) {
    await part.clear();
    throw otherSize(Number(total), file);
  }
  const continues = part.size === 0 || (etag !== undefined && etag === part.etag);
  if (start === part.size && last >= start && last < file.size && continues) return last + 1;
  await part.clear();
  throw new HubBusy('the hub sends another part than was asked for');
}

interface PromisedBody {
  readonly etag: string | undefined;
  /** Offset in the file behind the body's last byte. */
  readonly end: number;
}

/** Writes the body. Existing bytes are kept until the first bytes of the new body are those of a model. */
async function receive(
  response: WebResponse,
  part: Part,
  { etag, end }: PromisedBody,
  file: HubFile,
): Promise<void> {
  const kind = fileKindOf(file.file);
  let begun = response.status === 206 && part.size > 0;
  let head: Uint8Array = new Uint8Array(0);
  for await (const chunk of response.body) {
    let bytes = chunk;
    if (!begun) {
      head = bytes = head.length === 0 ? chunk : Buffer.concat([head, chunk]);
      if (head.length < Math.min(kind.headBytes, file.size)) continue;
      if (!kind.begins(head)) throw kind.refusal();
      if (part.size > 0) await part.clear();
      await part.belongsTo(etag);
      begun = true;
    }
    if (part.size + bytes.length > end) {
      await part.clear();
      throw otherSize(part.size + bytes.length, file);
    }
    await part.append(bytes);
  }
}

/** Only a strong validator may be compared, sent as If-Range or kept (RFC 9110 §8.8.3, §13.1.5). */
function isStrong(etag: string | undefined): etag is string {
  return etag !== undefined && etag.length <= 256 && /^"[\x21\x23-\x7e]*"$/.test(etag);
}

/** As git names a file's bytes where the hub gives no SHA-256. */
function hashFor({ check, size }: HubFile): Hash {
  return check.kind === 'sha256' ? createHash('sha256') : createHash('sha1').update(`blob ${size}\0`);
}

function refuseOtherKind(response: WebResponse, kind: FileKind): void {
  const encoding = response.header('content-encoding');
  if (encoding !== undefined && encoding !== 'identity')
    throw new ApiError('hub_error', `the hub sends the file in content-encoding ${printable(encoding)}`);
  if (response.status === 416) return;
  if (response.status !== 200 && response.status !== 206)
    throw new ApiError('hub_error', `the hub answers ${response.status}`, { shouldRetry: false });
  const type = response.header('content-type') ?? '';
  if (kind.pages.test(type.trim()))
    throw new ApiError('hub_error', `the hub sends ${printable(type)} where the model should be`, {
      shouldRetry: false,
    });
}

function refuseOtherLength(response: WebResponse, expected: number, file: HubFile): void {
  const length = response.header('content-length');
  if (length !== undefined && Number(length) !== expected)
    throw otherSize(file.size - expected + Number(length), file);
}

function printable(header: string): string {
  return header.slice(0, 40).replaceAll(/[^\x20-\x7e]/g, '?');
}

function otherSize(size: number, file: HubFile): ApiError {
  return new ApiError(
    'upstream_changed',
    `the hub sends a file of ${size} bytes, its API promised ${file.size}`,
    { shouldRetry: false },
  );
}

export function noDiskRoom(folder: string, needed: number, available: number): ApiError {
  return storageFull(
    `the data folder has no room for the ${needed} bytes to come: ${available} are to be had in ${folder}`,
  );
}
