// Wire structures declared once, as tables of offsets. Decoding, the TypeScript type, the must-be-zero ranges
// and the byte tables in docs/formats.md all derive from the same declaration; the comment that ends a
// field's line is its meaning there, so that a page does not load it. All integers are little-endian.

import { isZero, toHex, viewOf } from './bytes.ts';
import { malformed } from '../transcript/errors.ts';

export type FieldType = 'u8' | 'u16' | 'u32' | 'u64' | 'bytes';

export interface Field<T extends FieldType = FieldType> {
  readonly at: number;
  readonly type: T;
  /** Bytes; given for `bytes` only. */
  readonly size: number;
}

export type Layout = Readonly<Record<string, Field>>;

/** The decoded form of a layout: numbers for u8–u32, bigint for u64, a copy-free sub-view for bytes. */
export type Decoded<L extends Layout> = {
  readonly [K in keyof L]: L[K]['type'] extends 'bytes'
    ? Uint8Array
    : L[K]['type'] extends 'u64'
      ? bigint
      : number;
};

export function u8(at: number): Field<'u8'> {
  return { at, type: 'u8', size: 1 };
}
export function u16(at: number): Field<'u16'> {
  return { at, type: 'u16', size: 2 };
}
export function u32(at: number): Field<'u32'> {
  return { at, type: 'u32', size: 4 };
}
export function u64(at: number): Field<'u64'> {
  return { at, type: 'u64', size: 8 };
}
export function raw(at: number, size: number): Field<'bytes'> {
  return { at, type: 'bytes', size };
}

/**
 * Decodes `bytes` (exact length `size`, else `malformed_length`) by the table. Sub-views
 * share memory with the input.
 */
export function decodeLayout<const L extends Layout>(
  layout: L,
  bytes: Uint8Array,
  size: number,
  name: string,
): Decoded<L> {
  if (bytes.length !== size) {
    throw malformed('malformed_length', `${name} is ${bytes.length} bytes, expected ${size}`, {
      expected: String(size),
      actual: String(bytes.length),
    });
  }
  const view = viewOf(bytes);
  const decoded: Record<string, number | bigint | Uint8Array> = {};
  for (const [key, field] of Object.entries(layout)) decoded[key] = readField(view, bytes, field);
  return decoded as Decoded<L>;
}

function readField(view: DataView, bytes: Uint8Array, field: Field): number | bigint | Uint8Array {
  switch (field.type) {
    case 'u8':
      return view.getUint8(field.at);
    case 'u16':
      return view.getUint16(field.at, true);
    case 'u32':
      return view.getUint32(field.at, true);
    case 'u64':
      return view.getBigUint64(field.at, true);
    case 'bytes':
      return bytes.subarray(field.at, field.at + field.size);
  }
}

/**
 * Writes the values given over a zeroed structure of `size` bytes. Bytes fields must have the declared size.
 */
export function encodeLayout<const L extends Layout>(
  layout: L,
  values: Partial<Decoded<L>>,
  size: number,
): Uint8Array {
  const bytes = new Uint8Array(size);
  for (const [key, field] of Object.entries(layout)) {
    const value = (values as Record<string, number | bigint | Uint8Array | undefined>)[key];
    if (value !== undefined) writeField(bytes, key, field, value);
  }
  return bytes;
}

function writeField(bytes: Uint8Array, key: string, field: Field, value: number | bigint | Uint8Array): void {
  const view = viewOf(bytes);
  if (field.type === 'bytes') {
    if (!(value instanceof Uint8Array) || value.length !== field.size)
      throw new TypeError(`${key} must be ${field.size} bytes`);
    bytes.set(value, field.at);
  } else if (field.type === 'u64') view.setBigUint64(field.at, value as bigint, true);
  else if (field.type === 'u32') view.setUint32(field.at, value as number, true);
  else if (field.type === 'u16') view.setUint16(field.at, value as number, true);
  else view.setUint8(field.at, value as number);
}

/**
 * The byte ranges `[from, to)` no field covers: reserved, and required to be zero where
 * the specification says so.
 */
export function uncovered(layout: Layout, size: number): readonly (readonly [number, number])[] {
  const ranges: [number, number][] = [];
  let at = 0;
  for (const field of Object.values(layout).toSorted((a, b) => a.at - b.at)) {
    if (field.at > at) ranges.push([at, field.at]);
    at = Math.max(at, field.at + field.size);
  }
  if (at < size) ranges.push([at, size]);
  return ranges;
}

/** The first range that is not all zero, as `0x018b..0x01a0 = ff00…`, or undefined. */
export function firstNonZero(
  bytes: Uint8Array,
  ranges: readonly (readonly [number, number])[],
): string | undefined {
  for (const [from, to] of ranges) {
    const part = bytes.subarray(from, to);
    if (!isZero(part))
      return `0x${from.toString(16).padStart(4, '0')}..0x${to.toString(16).padStart(4, '0')} = ${toHex(part.subarray(0, 16))}`;
  }
  return undefined;
}
