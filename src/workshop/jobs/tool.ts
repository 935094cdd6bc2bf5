// The digest of a program: SHA-256 over the deterministic CBOR `{0: "assay/tool/v1", 1: [[name, sha256],
// …]}`, where the names are paths from the folder all its files have in common, sorted. Anyone with the
// same release makes the same digest, wherever it is installed.

import { createHash } from 'node:crypto';
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { lstat, readdir, realpath } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { encodeCbor } from '@assay/attestation';
import { digestOfFile } from './shown.ts';

const MAX_FILES = 20_000;

/** Of files and of folders, whose files count all; type information and maps of a build do not. */
export async function toolDigest(paths: readonly string[], signal: AbortSignal): Promise<Uint8Array> {
  const entries: [string, Uint8Array][] = [];
  for (const path of paths) {
    const real = await realpath(path);
    for (const name of await namesBelow(real)) {
      entries.push([name, await fileDigest(join(dirname(real), name), signal)]);
      if (entries.length > MAX_FILES) throw new Error('a program of too many files');
    }
  }
  entries.sort(([a], [b]) => (a < b ? -1 : 1));
  const digest = encodeCbor(new Map<number, string | typeof entries>([[0, 'assay/tool/v1'], [1, entries]])); // prettier-ignore
  return new Uint8Array(createHash('sha256').update(digest).digest());
}

const SMALL_BYTES = 512 * 1024;

/**
 * Digests by path, kept while the file is the same (inode, size, times of change): hashing all of them took
 * five seconds of every job.
 */
const KNOWN = new Map<string, { readonly identity: string; readonly sha256: Uint8Array }>();

/** Files of code are many and small: read at once, which takes a tenth of the time. */
async function fileDigest(path: string, signal: AbortSignal): Promise<Uint8Array> {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  let identity: string;
  try {
    const about = fstatSync(fd, { bigint: true });
    identity = [about.dev, about.ino, about.size, about.mtimeNs, about.ctimeNs].join(' ');
    const known = KNOWN.get(path);
    if (known?.identity === identity) return known.sha256;
    if (about.isFile() && about.size <= SMALL_BYTES)
      return remember(path, identity, new Uint8Array(createHash('sha256').update(readFileSync(fd)).digest()));
  } finally {
    closeSync(fd);
  }
  const { measured } = await digestOfFile(path, signal);
  return remember(path, identity, new Uint8Array(Buffer.from(measured.sha256, 'hex')));
}

function remember(path: string, identity: string, sha256: Uint8Array): Uint8Array {
  // Programs are few: more files than this are of other installations.
  if (KNOWN.size >= 4 * MAX_FILES) KNOWN.clear();
  KNOWN.set(path, { identity, sha256 });
  return sha256;
}

/** From the folder above. */
async function namesBelow(path: string): Promise<readonly string[]> {
  const top = basename(path);
  if (!(await lstat(path)).isDirectory()) return [top];
  const found: string[] = [];
  for (const entry of await readdir(path, { withFileTypes: true, recursive: true })) {
    if (!entry.isFile() || /\.(?:d\.ts|map|tsbuildinfo|pyc)$/.test(entry.name)) continue;
    found.push(join(top, entry.parentPath.slice(path.length + 1), entry.name));
  }
  return found;
}
