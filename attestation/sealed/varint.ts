// Variable-length integers of RFC 9000 §16, which Binary HTTP and the chunks of OHTTP use for their lengths.
// Read: any of the four sizes, since lengths need not be minimal; values over 2^53-1 are refused.

import { malformed } from '../transcript/errors.ts';

/**
 * The shortest encoding.
 * @example const length = writeVarint(bytes.length);
 */
export function writeVarint(value: number): Uint8Array {
  if (value < 0x40) return Uint8Array.of(value);
  if (value < 0x4000) return writeVarint2(value);
  if (value < 0x4000_0000)
    return Uint8Array.of(0x80 | (value >>> 24), (value >>> 16) & 255, (value >>> 8) & 255, value & 255);
  const high = Math.floor(value / 0x1_0000_0000);
  const low = value >>> 0;
  return Uint8Array.of(
    0xc0 | (high >>> 24),
    (high >>> 16) & 255,
    (high >>> 8) & 255,
    high & 255,
    low >>> 24,
    (low >>> 16) & 255,
    (low >>> 8) & 255,
    low & 255,
  );
}

/** Two bytes whatever the value, below 16 384: where the size must not depend on it. */
export function writeVarint2(value: number): Uint8Array {
  return Uint8Array.of(0x40 | (value >>> 8), value & 255);
}

/** Bytes of the integer that begins with this byte. */
export function varintSize(first: number): 1 | 2 | 4 | 8 {
  return ([1, 2, 4, 8] as const)[(first >> 6) as 0 | 1 | 2 | 3];
}

/** The integer at `at`, and the offset behind it; undefined when the bytes end before it does. */
export function readVarint(
  bytes: Uint8Array,
  at: number,
): { readonly value: number; readonly next: number } | undefined {
  const first = bytes[at];
  if (first === undefined) return undefined;
  const size = varintSize(first);
  if (at + size > bytes.length) return undefined;
  let value = first & 0x3f;
  for (let i = 1; i < size; i++) value = value * 256 + (bytes[at + i] ?? 0);
  if (!Number.isSafeInteger(value)) throw malformed('sealed_malformed', 'a length is over 2^53-1');
  return { value, next: at + size };
}
