// The Merkle tree that lets one hardware report answer many nonces: RFC 9162 §2.1.1 (tree hash),
// §2.1.3.1 (inclusion paths), §2.1.3.2 (verification). Leaf = SHA-256(0x00 ‖ claims), node =
// SHA-256(0x01 ‖ left ‖ right). A tree of one leaf is that leaf. Trees over 65536 leaves and paths of
// any other length than the size gives are refused.

import { sha256 } from '@noble/hashes/sha2.js';
import { concatBytes, equalBytes } from '../encoding/bytes.ts';

/** A batch is never larger; a document that says it is, is refused before any hashing. */
export const MAX_TREE_SIZE = 65_536;

const LEAF = Uint8Array.of(0);
const NODE = Uint8Array.of(1);

/**
 * SHA-256(0x00 ‖ entry): 32 bytes.
 * @example const leaf = leafHash(document.claims);
 */
export function leafHash(entry: Uint8Array): Uint8Array {
  return sha256(concatBytes(LEAF, entry));
}

/** SHA-256(0x01 ‖ left ‖ right): 32 bytes. */
export function nodeHash(left: Uint8Array, right: Uint8Array): Uint8Array {
  return sha256(concatBytes(NODE, left, right));
}

/**
 * Where a leaf is in a tree: its index, the number of leaves, and the sibling hashes up to
 * the root, nearest first.
 */
export interface Inclusion {
  readonly index: number;
  readonly size: number;
  readonly path: readonly Uint8Array[];
}

/** The root that `leaf` gives along the path; undefined when index, size and path do not fit together. */
export function rootFromPath(leaf: Uint8Array, { index, size, path }: Inclusion): Uint8Array | undefined {
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

/**
 * True when the path proves that `leaf` (a leaf hash) is entry `index` of the tree of
 * `size` leaves with this root.
 * @example const included = verifyInclusion(leafHash(document.claims), document.inclusion, root);
 */
export function verifyInclusion(leaf: Uint8Array, inclusion: Inclusion, root: Uint8Array): boolean {
  const computed = rootFromPath(leaf, inclusion);
  return computed !== undefined && equalBytes(computed, root);
}
