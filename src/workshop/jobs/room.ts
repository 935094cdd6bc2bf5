// Room for the outputs of jobs: a job is promised at most three quarters of what is free when it starts, less
// what other running jobs were promised and have not written yet. So no job, and no few of them together,
// takes the last of a disk that others write to as well.

import { statfs } from 'node:fs/promises';
import { storageFull } from '../../base/durable-files.ts';
import type { ApiError } from '../../base/errors.ts';
import { bytesBelow } from '../jail/watch.ts';

const SHARE = 0.75;
/** The kernel's bound of a file's size then falls on a block, as what is counted does. */
const BLOCK = 4096;

export class OutputRoom {
  readonly #freeBytes: () => Promise<number>;
  /** By the folder of the output. */
  readonly #promised = new Map<string, number>();

  constructor(folder: string, freeBytes = () => freeBytesOf(folder)) {
    this.#freeBytes = freeBytes;
  }

  /** At most `wanted` bytes for a job's output folder, until `release`. 507 storage_full where there is none. */
  async promise(output: string, wanted: number): Promise<number> {
    let open = 0;
    for (const [other, bytes] of this.#promised) open += Math.max(0, bytes - (await bytesBelow(other)));
    const free = await this.#freeBytes();
    const bytes = Math.min(wanted, Math.floor((SHARE * (free - open)) / BLOCK) * BLOCK);
    if (bytes <= 0) throw noOutputRoom();
    this.#promised.set(output, bytes);
    return bytes;
  }

  release(output: string): void {
    this.#promised.delete(output);
  }
}

export function noOutputRoom(): ApiError {
  return storageFull('there is no room for the output of the job');
}

async function freeBytesOf(folder: string): Promise<number> {
  const { bavail, bsize } = await statfs(folder);
  return bavail * bsize;
}
