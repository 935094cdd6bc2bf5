// How much a folder holds, as its file system counts it: holes take no room, and a file that was removed
// while it is open is not seen.

import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';

const BLOCK = 512;
/** Entries looked at: more than an output may have, and every one of them is counted as a block at least. */
const MAX_ENTRIES = 65_536;

/** Bytes of all below it; a folder that has more entries than are counted is as good as full. */
export async function bytesBelow(folder: string): Promise<number> {
  let bytes = 0;
  let entries = 0;
  const folders = [folder];
  for (let at = folders.pop(); at !== undefined; at = folders.pop()) {
    const names = await readdir(at, { withFileTypes: true }).catch(() => []);
    entries += names.length;
    if (entries > MAX_ENTRIES) return Number.POSITIVE_INFINITY;
    for (const each of names) {
      const path = join(at, each.name);
      if (each.isDirectory()) folders.push(path);
      const about = await lstat(path).catch(() => undefined);
      bytes += Math.max(BLOCK, (about?.blocks ?? 0) * BLOCK);
    }
  }
  return bytes;
}
