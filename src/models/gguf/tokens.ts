// Checks a vocabulary while it is read: whether two tokens are equal (llama.cpp asserts that none are), and
// how many of the 256 bytes have a token. A hash table over the bytes themselves, because half a million
// strings would hold up the event loop for too long.

import type { StringVisitor } from './bytes.ts';

export interface TokenSet {
  /** Takes tokens in order, all from one buffer. */
  readonly add: StringVisitor;
  /** Index of the first token that equals an earlier one. */
  firstRepeated(): number | undefined;
  /** Bytes with a token `<0xNN>` or the byte itself, 0…256. */
  byteTokens(): number;
}

/** For at most `count` tokens. */
export function createTokenSet(count: number): TokenSet {
  let slots = 64;
  while (slots < 2 * count) slots *= 2;
  const table = new Int32Array(slots).fill(-1);
  const hashes = new Int32Array(count);
  const starts = new Uint32Array(count);
  const ends = new Uint32Array(count);
  let empty = 0;
  let named = 0;
  const bytesSeen = new Uint8Array(256);
  let repeated: number | undefined;
  return {
    add: (buffer, start, given, index) => {
      // llama.cpp reads tokens as C strings.
      const nul = buffer.subarray(start, given).indexOf(0);
      const end = nul < 0 ? given : start + nul;
      starts[index] = start;
      ends[index] = end;
      if (end === start) {
        empty += 1;
        return;
      }
      // It names empty tokens [EMPTY_<index>]; a token with such a text may collide with one.
      if (buffer[start] === 0x5b && isEmptyName(buffer, start, end)) named += 1;
      noteByte(bytesSeen, buffer, start, end);
      const hash = hashOf(buffer, start, end);
      hashes[index] = hash;
      let slot = hash & (slots - 1);
      for (; table[slot] !== -1; slot = (slot + 1) & (slots - 1)) {
        const other = table[slot]!;
        if (
          hashes[other] === hash &&
          equal(buffer.subarray(starts[other], ends[other]), buffer.subarray(start, end))
        )
          repeated ??= index;
      }
      table[slot] = index;
    },
    firstRepeated: () => repeated ?? (empty > 0 && named > 0 ? 0 : undefined),
    byteTokens: () => bytesSeen.reduce((sum, seen) => sum + seen, 0),
  };
}

/** FNV-1a, with its high bits folded into the low ones that choose the slot. */
function hashOf(buffer: Uint8Array, start: number, end: number): number {
  let hash = 0x811c9dc5;
  for (let i = start; i < end; i++) hash = Math.imul(hash ^ buffer[i]!, 0x01000193);
  return hash ^ (hash >>> 15);
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

function isEmptyName(buffer: Uint8Array, start: number, end: number): boolean {
  return end - start < 20 && /^\[EMPTY_\d+\]$/.test(String.fromCharCode(...buffer.subarray(start, end)));
}

function noteByte(seen: Uint8Array, buffer: Uint8Array, start: number, end: number): void {
  if (end - start === 1) seen[buffer[start]!] = 1;
  if (end - start !== 6 || buffer[start] !== 0x3c) return;
  const named = /^<0x([0-9A-F]{2})>$/.exec(String.fromCharCode(...buffer.subarray(start, end)))?.[1];
  if (named !== undefined) seen[parseInt(named, 16)] = 1;
}
