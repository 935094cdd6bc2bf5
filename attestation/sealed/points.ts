// Public keys of X25519 that are of use (RFC 7748 §6.1): with a point of small order as its key, or as
// encapsulated key, the secret is one that everyone knows.

import { equalBytes } from '../encoding/bytes.ts';

/** Bytes of a public key and of an encapsulated key. */
export const KEY_BYTES = 32;

/**
 * The points of small order of Curve25519, little-endian, without the bit that X25519 ignores: 0, 1, -1,
 * two of order 8, and the encodings of 0 and 1 beyond the prime.
 */
const SMALL_ORDER: readonly Uint8Array[] = [
  '0000000000000000000000000000000000000000000000000000000000000000',
  '0100000000000000000000000000000000000000000000000000000000000000',
  'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
  '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
].map((hex) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16)));

/** Whether these are 32 bytes of a public key that is no point of small order. */
export function isUsablePoint(bytes: Uint8Array): boolean {
  if (bytes.length !== KEY_BYTES) return false;
  const masked = Uint8Array.from(bytes);
  masked[31] = (masked[31] ?? 0) & 0x7f;
  return !SMALL_ORDER.some((point) => equalBytes(point, masked));
}
