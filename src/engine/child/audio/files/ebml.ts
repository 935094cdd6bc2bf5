// Elements of EBML (RFC 8794), which WebM and Matroska are made of: an id, a size, content. Each is read
// within its parent, and no number leaves the range that is exact.

import { noSound } from './refusals.ts';

export interface Element {
  readonly id: number;
  /** Of the content, in the file. */
  readonly start: number;
  /** Undefined: the size is unknown, it ends where its parent does, or where another of its kind begins. */
  readonly end: number | undefined;
}

/** RFC 8794, 11.2.1 and 11.3: these two may stand in any element. */
const [VOID, CRC] = [0xec, 0xbf];

export function isFiller(id: number): boolean {
  return id === VOID || id === CRC;
}

/** `limit`: the end of the parent. */
export function elementAt(bytes: Uint8Array, at: number, limit: number): Element {
  const idLength = lengthAt(bytes, at, limit, 4);
  let id = 0;
  for (let i = 0; i < idLength; i++) id = id * 256 + (bytes[at + i] ?? 0);
  const { value, start } = numberAt(bytes, at + idLength, limit);
  if (value !== undefined && value > limit - start) throw noSound('an element of its EBML is not whole');
  return { id, start, end: value === undefined ? undefined : start + value };
}

/** Elements in known bounds, whose own sizes are known. */
export function* elementsIn(bytes: Uint8Array, start: number, end: number): Generator<Required<Known>> {
  for (let at = start; at < end;) {
    const element = known(elementAt(bytes, at, end));
    yield element;
    at = element.end;
  }
}

export interface Known extends Element {
  readonly end: number;
}

export function known({ id, start, end }: Element): Known {
  if (end === undefined) throw noSound('an element of its EBML has no size');
  return { id, start, end };
}

/**
 * A number of one to eight bytes whose first bit that is set says how many (RFC 8794, 4). Undefined: all bits
 * are set, the size is unknown. `start` is behind it.
 */
export function numberAt(
  bytes: Uint8Array,
  at: number,
  limit: number,
): { readonly value: number | undefined; readonly start: number; readonly length: number } {
  const length = lengthAt(bytes, at, limit, 8);
  let value = (bytes[at] ?? 0) & (0xff >> length);
  let ones = value === 0xff >> length;
  for (let i = 1; i < length; i++) {
    const byte = bytes[at + i] ?? 0;
    ones &&= byte === 0xff;
    value = value * 256 + byte;
  }
  if (!ones && value > Number.MAX_SAFE_INTEGER) throw noSound('a number of its EBML is too large');
  return { value: ones ? undefined : value, start: at + length, length };
}

function lengthAt(bytes: Uint8Array, at: number, limit: number, max: number): number {
  const length = Math.clz32(bytes[at] ?? 0) - 23;
  if (at >= limit || length > max || at + length > limit) throw noSound('an element of its EBML is broken');
  return length;
}

/** An element's content as an unsigned number; without bytes it is 0. */
export function unsignedIn(bytes: Uint8Array, { start, end }: Known): number {
  if (end - start > 8) throw noSound('a number of its EBML is too large');
  let value = 0;
  for (const byte of bytes.subarray(start, end)) value = value * 256 + byte;
  if (value > Number.MAX_SAFE_INTEGER) throw noSound('a number of its EBML is too large');
  return value;
}

/** Strings may be followed by zeros. */
export function textIn(bytes: Uint8Array, { start, end }: Known): string {
  const text = Buffer.from(bytes.subarray(start, Math.min(end, start + 256))).toString('latin1');
  return text.replace(/\0+$/, '');
}
