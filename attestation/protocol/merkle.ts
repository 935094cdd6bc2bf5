// The Merkle tree that lets one hardware report answer many nonces: RFC 9162 §2.1.1 (tree hash), §2.1.3.1 (inclusion
// paths), §2.1.3.2 (verification). Leaf = SHA-256(0x00 ‖ claims), node = SHA-256(0x01 ‖ left ‖ right). A tree of one leaf
// is that leaf. Trees over 65536 leaves and paths of any other length than the size gives are refused.

import { sha256 } from '@noble/hashes/sha2.js';
import { concatBytes, equalBytes } from '../encoding/bytes.ts';

/** A batch is never larger; a document that says it is, is refused before any hashing. */
export const MAX_TREE_SIZE = 65_536;

const LEAF = Uint8Array.of(0);
const NODE = Uint8Array.of(1);

/** SHA-256(0x00 ‖ entry): 32 bytes. */
export function leafHash(entry: Uint8Array): Uint8Array {
  return sha256(concatBytes(LEAF, entry));
}

function nodeHash(left: Uint8Array, right: Uint8Array): Uint8Array {
  return sha256(concatBytes(NODE, left, right));
}

/** The root over leaf *hashes*, in order. At least one leaf. */
export function merkleRoot(leaves: readonly Uint8Array[]): Uint8Array {
  const only = leaves[0];
  if (only === undefined || leaves.length > MAX_TREE_SIZE)
    throw new RangeError(`a tree has 1 to ${MAX_TREE_SIZE} leaves, not ${leaves.length}`);
  if (leaves.length === 1) return only;
  const split = largestPowerOfTwoBelow(leaves.length);
  return nodeHash(merkleRoot(leaves.slice(0, split)), merkleRoot(leaves.slice(split)));
}

/** The sibling hashes from leaf `index` up to the root, nearest first. Empty for a tree of one leaf. */
export function inclusionPath(leaves: readonly Uint8Array[], index: number): Uint8Array[] {
  if (!Number.isInteger(index) || index < 0 || index >= leaves.length)
    throw new RangeError(`leaf ${index} is not in a tree of ${leaves.length}`);
  if (leaves.length === 1) return [];
  const split = largestPowerOfTwoBelow(leaves.length);
  const left = leaves.slice(0, split);
  const right = leaves.slice(split);
  return index < split
    ? [...inclusionPath(left, index), merkleRoot(right)]
    : [...inclusionPath(right, index - split), merkleRoot(left)];
}

/** The root that `leaf` at `index` of a tree of `size` leaves gives along `path`; undefined when they do not fit together. */
export function rootFromPath(
  leaf: Uint8Array,
  index: number,
  size: number,
  path: readonly Uint8Array[],
): Uint8Array | undefined {
  if (!Number.isInteger(size) || size < 1 || size > MAX_TREE_SIZE) return undefined;
  if (!Number.isInteger(index) || index < 0 || index >= size) return undefined;
  let fn = index;
  let sn = size - 1;
  let hash = leaf;
  for (const sibling of path) {
    if (sn === 0 || sibling.length !== 32) return undefined;
    if ((fn & 1) === 1 || fn === sn) {
      hash = nodeHash(sibling, hash);
      while ((fn & 1) === 0 && fn !== 0) {
        fn >>= 1;
        sn >>= 1;
      }
    } else hash = nodeHash(hash, sibling);
    fn >>= 1;
    sn >>= 1;
  }
  return sn === 0 ? hash : undefined;
}

/** True when the path proves that `leaf` (a leaf hash) is entry `index` of the tree of `size` leaves with this root. */
export function verifyInclusion(
  leaf: Uint8Array,
  index: number,
  size: number,
  path: readonly Uint8Array[],
  root: Uint8Array,
): boolean {
  const computed = rootFromPath(leaf, index, size, path);
  return computed !== undefined && equalBytes(computed, root);
}

function largestPowerOfTwoBelow(n: number): number {
  let power = 1;
  while (power * 2 < n) power *= 2;
  return power;
}
