// The partial files of all pulls: one writer at a time for each, and room on their disk that is promised
// once. Those of pulls that do not run are given back, oldest first, when another needs the room.

import { DiskRoom } from '../../base/disk-room.ts';
import { KEPT_BYTES, type Disk } from './download.ts';
import type { PartRecord, PullRecords } from './state.ts';

export class PartialFiles {
  readonly records: PullRecords;
  readonly room: DiskRoom;
  readonly #freeBytes: () => Promise<number>;
  /** Two names may mean one file. By key. */
  readonly #writers = new Map<string, Promise<unknown>>();

  /** `room`: of the file system, shared with others; absent: these alone write there. */
  constructor(records: PullRecords, disk: Disk, folder: string, room?: DiskRoom) {
    this.records = records;
    this.#freeBytes = () => disk.freeBytes(folder);
    this.room =
      room ??
      new DiskRoom({
        freeBytes: this.#freeBytes,
        keep: KEPT_BYTES,
        giveBack: (missing) => this.#giveBack(missing),
      });
  }

  /** On a disk that is full, partial files must not keep the server from writing what it must. */
  async giveBackAtStart(): Promise<void> {
    const missing = KEPT_BYTES - (await this.#freeBytes());
    if (missing > 0) await this.#giveBack(missing);
  }

  /** One task at a time for each key; it begins when it has all of them. */
  async exclusively<T>(keys: readonly string[], signal: AbortSignal, task: () => Promise<T>): Promise<T> {
    for (;;) {
      const busy = keys.flatMap((key) => this.#writers.get(key) ?? []);
      if (busy.length === 0) break;
      await Promise.all(busy);
      signal.throwIfAborted();
    }
    const result = task();
    const settled = result.then(
      () => undefined,
      () => undefined,
    );
    for (const key of keys) this.#writers.set(key, settled);
    try {
      return await result;
    } finally {
      for (const key of keys) this.#writers.delete(key);
    }
  }

  /** False when a pull writes it meanwhile. */
  async removeIdle(key: string): Promise<boolean> {
    if (this.#writers.has(key)) return false;
    await this.records.removePart(key);
    return true;
  }

  /** Bytes from which the next pull can continue. */
  async kept(parts: readonly PartRecord[]): Promise<number> {
    let bytes = 0;
    for (const { key, etag } of parts) if (etag !== undefined) bytes += await this.records.partSize(key);
    return bytes;
  }

  /** None where all of them together would not be enough. */
  async #giveBack(missing: number): Promise<void> {
    const idle = (await this.records.parts()).filter(({ key }) => !this.#writers.has(key));
    if (idle.reduce((sum, { size }) => sum + size, 0) < missing) return;
    let freed = 0;
    for (const { key, size } of idle) {
      if (freed >= missing) return;
      if (await this.removeIdle(key)) freed += size;
    }
  }
}
