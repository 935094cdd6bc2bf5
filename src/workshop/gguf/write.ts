// Writes a file of the workshop: a new one, in pieces, from ranges of files that were read. A file that is
// not finished is removed. Refuses to replace a file that is there.

import { open, rm, type FileHandle } from 'node:fs/promises';
import { storageError } from '../../base/durable-files.ts';
import { invalidGguf, type ByteSource } from '../../models/gguf/bytes.ts';

const CHUNK_BYTES = 4 * 1024 * 1024;

export interface Writing {
  readonly signal: AbortSignal;
  /** Bytes written so far, of this file. */
  readonly onBytes?: ((bytes: number) => void) | undefined;
}

/** A new file, in order. */
export class FileWriter {
  readonly #file: FileHandle;
  readonly #writing: Writing;
  #at = 0;

  constructor(file: FileHandle, writing: Writing) {
    this.#file = file;
    this.#writing = writing;
  }

  get size(): number {
    return this.#at;
  }

  async bytes(bytes: Uint8Array): Promise<void> {
    this.#writing.signal.throwIfAborted();
    for (let done = 0; done < bytes.length;) {
      const { bytesWritten } = await this.#file.write(bytes, done, bytes.length - done, this.#at);
      done += bytesWritten;
      this.#at += bytesWritten;
    }
    this.#writing.onBytes?.(this.#at);
  }

  async copy(source: ByteSource, from: number, to: number): Promise<void> {
    for (let at = from; at < to;) {
      const bytes = await source.read(at, Math.min(CHUNK_BYTES, to - at));
      if (bytes.length === 0) throw invalidGguf('the file became shorter while it was read');
      await this.bytes(bytes);
      at += bytes.length;
    }
  }

  async padTo(alignment: number): Promise<void> {
    const missing = (alignment - (this.#at % alignment)) % alignment;
    if (missing > 0) await this.bytes(new Uint8Array(missing));
  }
}

/** Durable when it resolves; 507 storage_full. */
export async function writeFileAt(
  path: string,
  writing: Writing,
  write: (writer: FileWriter) => Promise<void>,
): Promise<number> {
  const file = await open(path, 'wx', 0o644);
  try {
    const writer = new FileWriter(file, writing);
    await write(writer);
    await file.sync();
    return writer.size;
  } catch (error) {
    await rm(path, { force: true });
    throw storageError(error, 'the file that is written');
  } finally {
    await file.close();
  }
}
