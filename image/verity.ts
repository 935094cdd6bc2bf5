// The dm-verity hash tree over an image (linux Documentation/admin-guide/device-mapper/verity.rst): format 1,
// SHA-256, 4096-byte data and hash blocks, a fixed salt, no superblock. The guest opens it with these very
// parameters as constants; only the root hash and the number of blocks come from the measured command line.

import { createHash } from 'node:crypto';
import { VERITY_SALT } from '@assay/attestation/launch';
import { badInput } from './errors.ts';
import { BLOCK_BYTES } from './erofs.ts';

const DIGEST_BYTES = 32;

export interface VerityTree {
  /** Hex. */
  readonly rootHash: string;
  /** Data blocks. The tree starts at the block after them. */
  readonly blocks: number;
  /** Levels from the top down, whole blocks. */
  readonly tree: Uint8Array;
}

export interface VerityHasher {
  update(bytes: Uint8Array): void;
  /** Throws unless whole blocks were given. */
  finish(): VerityTree;
}

/** Hashes an image as it is written; holds 32 bytes per 4096. */
export function verityHasher(salt: string = VERITY_SALT): VerityHasher {
  const saltBytes = Buffer.from(salt, 'hex');
  const digests: Uint8Array[] = [];
  let rest: Uint8Array = new Uint8Array(0);
  return {
    update(bytes) {
      const data = rest.length === 0 ? bytes : Buffer.concat([rest, bytes]);
      const whole = data.length - (data.length % BLOCK_BYTES);
      for (let at = 0; at < whole; at += BLOCK_BYTES)
        digests.push(hashBlock(saltBytes, data.subarray(at, at + BLOCK_BYTES)));
      rest = data.slice(whole);
    },
    finish() {
      // The kernel's tree over a single block has no level at all: not a case we need.
      if (rest.length > 0 || digests.length < 2)
        throw badInput('an image for dm-verity has whole blocks, and at least two');
      const levels: Uint8Array[] = [];
      let level = digests;
      do {
        const blocks = nodesOf(level);
        levels.unshift(blocks);
        level = [];
        for (let at = 0; at < blocks.length; at += BLOCK_BYTES)
          level.push(hashBlock(saltBytes, blocks.subarray(at, at + BLOCK_BYTES)));
      } while (level.length > 1);
      return {
        rootHash: Buffer.from(level[0] ?? new Uint8Array(0)).toString('hex'),
        blocks: digests.length,
        tree: Buffer.concat(levels),
      };
    },
  };
}

function nodesOf(digests: readonly Uint8Array[]): Uint8Array {
  const nodes = Buffer.alloc(Math.ceil((digests.length * DIGEST_BYTES) / BLOCK_BYTES) * BLOCK_BYTES);
  digests.forEach((digest, index) => nodes.set(digest, index * DIGEST_BYTES));
  return nodes;
}

function hashBlock(salt: Uint8Array, block: Uint8Array): Uint8Array {
  return createHash('sha256').update(salt).update(block).digest();
}
