// A sealed stream of bytes: chunks of 64 KiB, each sealed under its index and whether it is the last (the
// STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár, 2015). Chunks cannot be cut, swapped,
// doubled or taken from another object. It is written beside its place and renamed when it is whole.

import { constants } from 'node:fs';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { storageError, syncFolder, temporaryPath } from '../../base/durable-files.ts';
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

export const CHUNK_BYTES = 64 * 1024;
const SEALED_CHUNK_BYTES = CHUNK_BYTES + TAG_BYTES;

/** Bytes on the disk of a content of `bytes` bytes. */
export function sealedSize(bytes: number): number {
  return HEADER_BYTES + bytes + TAG_BYTES * Math.max(1, Math.ceil(bytes / CHUNK_BYTES));
}

interface ContentPlace {
  readonly path: string;
  readonly temporary: string;
  readonly handle: FileHandle;
  readonly key: MasterKey;
  readonly id: string;
}

export class ContentWriter {
  readonly #path: string;
  readonly #temporary: string;
  readonly #handle: FileHandle;
  readonly #header: Buffer;
  readonly #key: Buffer;
  readonly #chunk = Buffer.alloc(CHUNK_BYTES);
  #filled = 0;
  #index = 0;
  #bytes = 0;

  private constructor(at: ContentPlace) {
    this.#path = at.path;
    this.#temporary = at.temporary;
    this.#handle = at.handle;
    this.#header = newHeader();
    this.#key = at.key.objectKey(this.#header, { kind: 'content', id: at.id }, 'chunks');
  }

  static async create(path: string, key: MasterKey, id: string): Promise<ContentWriter> {
    const temporary = temporaryPath(dirname(path));
    const handle = await open(temporary, 'wx', 0o600).catch((error: unknown) => {
      throw storageError(error, path);
    });
    const writer = new ContentWriter({ path, temporary, handle, key, id });
    try {
      await writer.#put(writer.#header);
    } catch (error) {
      await writer.abandon();
      throw error;
    }
    return writer;
  }

  /** Bytes of the content so far. */
  get bytes(): number {
    return this.#bytes;
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) {
      // A full chunk waits: only the end of the content tells whether it is the last.
      if (this.#filled === CHUNK_BYTES) await this.#flush(false);
      const piece = bytes.subarray(at, at + CHUNK_BYTES - this.#filled);
      this.#chunk.set(piece, this.#filled);
      this.#filled += piece.length;
      at += piece.length;
    }
    this.#bytes += bytes.length;
  }

  /** Puts the content in its place, as one step, durably. */
  async finish(): Promise<void> {
    try {
      await this.#flush(true);
      await this.#handle.sync();
      await this.#handle.close();
      await rename(this.#temporary, this.#path);
    } catch (error) {
      await this.abandon();
      throw storageError(error, this.#path);
    }
    await syncFolder(dirname(this.#path));
  }

  /** Removes what was written. Idempotent. */
  async abandon(): Promise<void> {
    await this.#handle.close().catch(() => undefined);
    await rm(this.#temporary, { force: true });
  }

  async #flush(last: boolean): Promise<void> {
    const piece = { key: this.#key, nonce: nonceOf(this.#index, last), aad: this.#header };
    await this.#put(sealPiece(piece, this.#chunk.subarray(0, this.#filled)));
    this.#index += 1;
    this.#filled = 0;
  }

  async #put(bytes: Uint8Array): Promise<void> {
    try {
      await this.#handle.writeFile(bytes);
    } catch (error) {
      throw storageError(error, this.#path);
    }
  }
}

/** The content, chunk by chunk; each is given only after it was authenticated. Throws SealedError. */
export async function* readContent(path: string, key: MasterKey, id: string): AsyncGenerator<Buffer, void> {
  const handle = await openSealed(path, constants.O_RDONLY);
  try {
    const { size } = await handle.stat();
    const header = await readExactly(handle, HEADER_BYTES, 0);
    checkHeader(header);
    const objectKey = key.objectKey(header, { kind: 'content', id }, 'chunks');
    const chunks = Math.max(1, Math.ceil((size - HEADER_BYTES) / SEALED_CHUNK_BYTES));
    for (let i = 0; i < chunks; i++) {
      const at = HEADER_BYTES + i * SEALED_CHUNK_BYTES;
      const sealed = await readExactly(handle, Math.min(SEALED_CHUNK_BYTES, size - at), at);
      yield openPiece({ key: objectKey, nonce: nonceOf(i, i === chunks - 1), aad: header }, sealed);
    }
  } finally {
    await handle.close();
  }
}

/** The key is the object's own, so an index is never used twice under it. */
function nonceOf(index: number, last: boolean): Buffer {
  if (index > 0xffff_ffff) throw new RangeError('a content has too many chunks');
  const nonce = Buffer.alloc(NONCE_BYTES);
  nonce.writeUInt32BE(index, 7);
  nonce[11] = last ? 1 : 0;
  return nonce;
}

async function readExactly(handle: FileHandle, bytes: number, at: number): Promise<Buffer> {
  const buffer = Buffer.alloc(Math.max(0, bytes));
  let filled = 0;
  while (filled < buffer.length) {
    const { bytesRead } = await handle.read(buffer, filled, buffer.length - filled, at + filled);
    if (bytesRead === 0) throw new SealedError('cut');
    filled += bytesRead;
  }
  return buffer;
}
