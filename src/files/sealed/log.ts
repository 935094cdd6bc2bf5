// An append-only sealed log. A record is its length, a random nonce and an HMAC of both with its index, then
// the sealed bytes. So a changed length cannot pass for a torn end, and no record can be changed, swapped,
// doubled, taken out of the middle or brought from another log. A kill leaves at most a torn last record,
// which is cut when the log is opened. Cutting at the end of a record is a roll-back that a log alone cannot
// see.

import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { codeOf, storageError, storageFull, syncFolder } from '../../base/durable-files.ts';
import { openPiece, sealPiece } from './aead.ts';
import {
  checkHeader,
  HEADER_BYTES,
  type MasterKey,
  newHeader,
  NONCE_BYTES,
  SealedError,
  TAG_BYTES,
} from './format.ts';
import { openSealed } from './regular.ts';

const LENGTH_BYTES = 4;
const MAC_BYTES = 16;
const HEAD_BYTES = LENGTH_BYTES + NONCE_BYTES + MAC_BYTES;
const READ_AHEAD_BYTES = 256 * 1024;
/** A longer record is not one of ours. */
const MAX_RECORD_BYTES = 512 * 1024 * 1024;

interface LogKeys {
  readonly header: Buffer;
  readonly seal: Buffer;
  readonly mac: Buffer;
}

export class SealedLog {
  readonly #path: string;
  readonly #handle: FileHandle;
  readonly #keys: LogKeys;
  #count: number;
  #end: number;
  /** Appends run one after the other. */
  #last: Promise<void> = Promise.resolve();

  private constructor(path: string, handle: FileHandle, at: { keys: LogKeys; count: number; end: number }) {
    this.#path = path;
    this.#handle = handle;
    this.#keys = at.keys;
    this.#count = at.count;
    this.#end = at.end;
  }

  /** Gives every record there is to `onRecord`, cuts a torn end, and appends after it. Throws SealedError. */
  static async open(
    path: string,
    key: MasterKey,
    id: string,
    onRecord: (record: Buffer) => void,
  ): Promise<SealedLog> {
    const handle = await openOrMake(path);
    try {
      const keys = keysOf(await wholeHeader(handle), key, id);
      let [count, end] = [0, HEADER_BYTES];
      for await (const record of recordsOf(handle, keys)) {
        onRecord(record.bytes);
        count += 1;
        end = record.end;
      }
      const { size } = await handle.stat();
      if (size > end) {
        await handle.truncate(end);
        await handle.datasync();
      }
      return new SealedLog(path, handle, { keys, count, end });
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  get count(): number {
    return this.#count;
  }

  /** Resolves when the record is written; it is durable after the next `sync`. */
  append(record: Uint8Array): Promise<void> {
    const appended = this.#last.then(() => this.#append(record));
    this.#last = appended.catch(() => undefined);
    return appended;
  }

  async sync(): Promise<void> {
    await this.#last;
    await this.#handle.datasync();
  }

  async close(): Promise<void> {
    await this.#last;
    await this.#handle.close();
  }

  async #append(record: Uint8Array): Promise<void> {
    const nonce = randomBytes(NONCE_BYTES);
    const head = headOf(this.#keys, { index: this.#count, length: record.length, nonce });
    const sealed = sealPiece({ key: this.#keys.seal, nonce, aad: aadOf(this.#keys, head) }, record);
    const bytes = Buffer.concat([head, sealed]);
    try {
      // At its place, not at the end of the file: a failed write is overwritten by the next.
      for (let at = 0; at < bytes.length;)
        at += (await this.#handle.write(bytes, at, bytes.length - at, this.#end + at)).bytesWritten;
    } catch (error) {
      throw storageError(error, this.#path);
    }
    this.#end += bytes.length;
    this.#count += 1;
  }
}

/** The records of a log that no process appends to; a torn end is left out. Throws SealedError. */
export async function* readSealedLog(path: string, key: MasterKey, id: string): AsyncGenerator<Buffer, void> {
  const handle = await openSealed(path, constants.O_RDONLY);
  try {
    const header = await headerOf(handle);
    if (header === null) return;
    for await (const { bytes } of recordsOf(handle, keysOf(header, key, id))) yield bytes;
  } finally {
    await handle.close();
  }
}

async function openOrMake(path: string): Promise<FileHandle> {
  try {
    return await openSealed(path, constants.O_RDWR);
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
  }
  try {
    const handle = await open(path, 'wx+', 0o600);
    await syncFolder(dirname(path));
    return handle;
  } catch (error) {
    throw storageError(error, path);
  }
}

/** Null while it is not whole: such a log has no record. */
async function headerOf(handle: FileHandle): Promise<Buffer | null> {
  const header = Buffer.alloc(HEADER_BYTES);
  const { bytesRead } = await handle.read(header, 0, HEADER_BYTES, 0);
  return bytesRead < HEADER_BYTES || header.every((byte) => byte === 0) ? null : header;
}

async function wholeHeader(handle: FileHandle): Promise<Buffer> {
  const found = await headerOf(handle);
  if (found !== null) return found;
  const made = newHeader();
  await handle.truncate(0);
  // A full disk may take a part of it: then no record may follow.
  const { bytesWritten } = await handle.write(made, 0, made.length, 0);
  if (bytesWritten < made.length) throw storageFull('there is no room for a log');
  await handle.datasync();
  return made;
}

function keysOf(header: Buffer, key: MasterKey, id: string): LogKeys {
  checkHeader(header);
  const name = { kind: 'log', id } as const;
  return { header, seal: key.objectKey(header, name, 'records'), mac: key.objectKey(header, name, 'heads') };
}

function headOf(
  { mac }: LogKeys,
  { index, length, nonce }: { readonly index: number; readonly length: number; readonly nonce: Uint8Array },
): Buffer {
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUInt32BE(length, 0);
  head.set(nonce, LENGTH_BYTES);
  const place = Buffer.alloc(8);
  place.writeBigUInt64BE(BigInt(index));
  const digest = createHmac('sha256', mac)
    .update(place)
    .update(head.subarray(0, LENGTH_BYTES + NONCE_BYTES));
  head.set(digest.digest().subarray(0, MAC_BYTES), LENGTH_BYTES + NONCE_BYTES);
  return head;
}

function aadOf({ header }: LogKeys, head: Uint8Array): Buffer {
  return Buffer.concat([header, head]);
}

async function* recordsOf(
  handle: FileHandle,
  keys: LogKeys,
): AsyncGenerator<{ readonly bytes: Buffer; readonly end: number }, void> {
  const window = new ReadWindow(handle);
  let end = HEADER_BYTES;
  for (let index = 0; ; index++) {
    const head = await window.read(end, HEAD_BYTES);
    if (head.length < HEAD_BYTES) return;
    const length = head.readUInt32BE(0);
    const nonce = head.subarray(LENGTH_BYTES, LENGTH_BYTES + NONCE_BYTES);
    if (!timingSafeEqual(head, headOf(keys, { index, length, nonce }))) {
      // A power cut may leave a file that was made longer without its bytes.
      if (head.at(-1) === 0 && (await isZeroFrom(window, end + HEAD_BYTES))) return;
      throw new SealedError('changed');
    }
    if (length > MAX_RECORD_BYTES) throw new SealedError('changed');
    const sealed = await window.read(end + HEAD_BYTES, length + TAG_BYTES);
    if (sealed.length < length + TAG_BYTES) return;
    const start = end + HEAD_BYTES;
    end = start + sealed.length;
    let bytes: Buffer;
    try {
      bytes = openPiece({ key: keys.seal, nonce, aad: aadOf(keys, head) }, sealed);
    } catch (error) {
      if (sealed.at(-1) === 0 && (await isLastWithZeros(window, start, sealed))) return;
      throw error;
    }
    yield { bytes, end };
  }
}

/** The same power cut, in the middle of the last record: it ends in a tag of zeros. */
async function isLastWithZeros(window: ReadWindow, start: number, sealed: Buffer): Promise<boolean> {
  const tag = sealed.subarray(sealed.length - TAG_BYTES);
  return tag.every((byte) => byte === 0) && (await isZeroFrom(window, start + sealed.length));
}

async function isZeroFrom(window: ReadWindow, from: number): Promise<boolean> {
  for (let at = from; ;) {
    const bytes = await window.read(at, READ_AHEAD_BYTES);
    if (bytes.some((byte) => byte !== 0)) return false;
    if (bytes.length < READ_AHEAD_BYTES) return true;
    at += bytes.length;
  }
}

/** Reads ahead, so that small records do not take two reads each. */
class ReadWindow {
  readonly #handle: FileHandle;
  #bytes = Buffer.alloc(0);
  #from = 0;

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  /** Fewer bytes than asked for only at the end of the file. A view that the next read may replace. */
  async read(at: number, bytes: number): Promise<Buffer> {
    if (at < this.#from || at + bytes > this.#from + this.#bytes.length) await this.#fill(at, bytes);
    return this.#bytes.subarray(at - this.#from, at - this.#from + bytes);
  }

  async #fill(at: number, bytes: number): Promise<void> {
    const { size } = await this.#handle.stat();
    const wanted = Math.max(0, Math.min(size - at, Math.max(bytes, READ_AHEAD_BYTES)));
    const buffer = Buffer.alloc(wanted);
    let filled = 0;
    while (filled < wanted) {
      const { bytesRead } = await this.#handle.read(buffer, filled, wanted - filled, at + filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    this.#bytes = buffer.subarray(0, filled);
    this.#from = at;
  }
}
