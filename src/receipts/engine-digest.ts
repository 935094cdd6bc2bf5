// The engine digest of a receipt (docs/receipts.md §1): SHA-256 of canonical CBOR over the release, the
// server's code as installed, the version of Node and every native library a child may map. Taken once, when
// the server starts. The launch measurement fixes all of it already; the receipt says it so that a replay
// knows what to fetch.

import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { type Cbor, encodeCbor } from '@assay/attestation';

export interface EngineSources {
  readonly release: string;
  /** Folders of code: all their `.js`, `.mjs`, `.cjs` and `.ts` files count. */
  readonly code: readonly string[];
  /** Folders of native libraries: all their `.so` (with a version, too), `.dylib` and `.node` files count. */
  readonly libraries: readonly string[];
}

export async function engineDigest({ release, code, libraries }: EngineSources): Promise<Uint8Array> {
  const sources = await hashed(code, /(?<!\.d)\.(?:[cm]?js|ts)$/);
  const natives = await hashed(libraries, /\.(?:so(?:\.\d+)*|dylib|node)$/);
  const value = new Map<number, Cbor>([
    [0, 'assay/engine/v1'],
    [1, release],
    [2, sha256(encodeCbor(sources))],
    [3, process.version],
    [4, natives],
  ]);
  return sha256(encodeCbor(value));
}

/** [path in its folder, SHA-256] of the files below the folders, by folder and path. */
async function hashed(folders: readonly string[], kind: RegExp): Promise<readonly Cbor[]> {
  const found: Cbor[] = [];
  for (const folder of folders) {
    const entries = await readdir(folder, { recursive: true, withFileTypes: true });
    const paths = entries
      .filter((entry) => (entry.isFile() || entry.isSymbolicLink()) && kind.test(entry.name))
      .map((entry) => relative(folder, join(entry.parentPath, entry.name)))
      .filter((path) => !path.includes('node_modules'))
      .toSorted();
    for (const path of paths) found.push([path, await hashOf(join(folder, path))]);
  }
  return found;
}

async function hashOf(path: string): Promise<Uint8Array> {
  const hash = createHash('sha256');
  for await (const piece of createReadStream(path)) hash.update(piece as Buffer);
  return new Uint8Array(hash.digest());
}

function sha256(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHash('sha256').update(bytes).digest());
}
