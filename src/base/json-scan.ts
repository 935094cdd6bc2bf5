// Bounds the values of a JSON text by its bytes: while they arrive, and before JSON.parse builds objects.
// `{}` is 3 bytes of text with its comma and 64 of heap, a key can cost a hidden class; a budget of bytes
// does not see that. Used for request bodies, frames of the engine child and answers of the hub.

import { ApiError } from './errors.ts';

/** Of a request: a JSON schema of ten levels, inside a tool, inside a request, needs about forty. */
const MAX_DEPTH = 100;

/**
 * Weight limit of the values of one request; a number in an array weighs 1. Two million token ids pass, and
 * 40 000 members of objects: several times as many as in the largest conversations with the largest tools.
 * The text of that weight which is slowest to parse holds the event loop about as long as one string of 16
 * MiB does (docs/decisions/growth.md).
 */
export const MAX_WEIGHT = 2 * 1024 * 1024;

/** Heap that a weight of 1 stands for at most: a slot of an array (V8 without compressed pointers). */
const HEAP_BYTES = 8;

/**
 * By the characters outside of strings, so that the weight is at least the heap of their values and in
 * proportion to the time it takes: a key can cost a hidden class or a dictionary, a string a look-up
 * in the table of strings.
 */
const WEIGHTS = new Uint8Array(256);
for (const [characters, weight] of [
  [',', 1],
  // `.5`, `e9` and `-0` are numbers with a heap object of their own.
  ['.eE-', 2],
  ['"', 12],
  ['[{', 9],
  [':', 32],
  // Not zero, so that the scan looks at them.
  [']}', 1],
] as const) {
  for (const character of characters) WEIGHTS[character.charCodeAt(0)] = weight;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
/** A search costs as much as reading a few dozen characters, and most strings are shorter. */
const SHORT_STRING = 32;

/** Follows a JSON text without building objects; for a text that is not JSON its figures mean nothing. */
export interface JsonScan {
  /** The next bytes. Throws `json_too_deep` or `json_too_many_values` at the byte that goes beyond. */
  push(bytes: Uint8Array): void;
  /** The most heap that the values so far can take, beside the characters of their strings. */
  readonly heapBytes: number;
}

export function openJsonScan({ maxWeight = MAX_WEIGHT, maxDepth = MAX_DEPTH } = {}): JsonScan {
  let weight = 0;
  let depth = 0;
  let inString = false;
  let escaped = false;

  /** Index after the quote that closes the string, or the length of the bytes. */
  const skipString = (bytes: Uint8Array, start: number): number => {
    const { length } = bytes;
    let i = escaped ? start + 1 : start;
    for (;;) {
      for (const near = Math.min(i + SHORT_STRING, length); i < near; i++) {
        const c = bytes[i];
        if (c === QUOTE) {
          inString = false;
          return i + 1;
        }
        if (c === BACKSLASH) i += 1;
      }
      escaped = i > length;
      if (i >= length) return length;
      const quote = bytes.indexOf(QUOTE, i);
      const end = quote < 0 ? length : quote;
      let first = end;
      while (first > i && bytes[first - 1] === BACKSLASH) first -= 1;
      escaped = (end - first) % 2 === 1;
      if (quote < 0) return length;
      inString = escaped;
      if (!escaped) return quote + 1;
      escaped = false;
      i = quote + 1;
    }
  };

  return {
    get heapBytes() {
      return weight * HEAP_BYTES;
    },
    push(bytes) {
      const { length } = bytes;
      if (length === 0) return;
      for (let i = inString ? skipString(bytes, 0) : 0; i < length;) {
        const c = bytes[i] ?? 0;
        i += 1;
        const w = WEIGHTS[c] ?? 0;
        if (w === 0) continue;
        weight += w;
        if (weight > maxWeight)
          throw new ApiError('json_too_many_values', 'the request body has more values than are read');
        if (c === QUOTE) {
          inString = true;
          escaped = false;
          i = skipString(bytes, i);
        } else if (c === 0x5b || c === 0x7b) {
          depth += 1;
          if (depth > maxDepth)
            throw new ApiError('json_too_deep', `the request body nests deeper than ${maxDepth} levels`);
        } else if (c === 0x5d || c === 0x7d) {
          depth -= 1;
        }
      }
    },
  };
}
