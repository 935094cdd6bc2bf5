// A bounded cursor over the first bytes of a GGUF file. Every length is compared with the rest of the
// file before it is used; no allocation takes its size from the file. Reading past the buffer asks the
// caller for a longer one.

import { ApiError } from '../../base/errors.ts';

/** A source with a size and positioned reads; a read may be short only at the end. */
export interface ByteSource {
  readonly size: number;
  read(position: number, length: number): Promise<Uint8Array>;
}

export function invalidGguf(message: string): ApiError {
  return new ApiError('invalid_gguf', `not a usable GGUF file: ${message}`);
}

/** Thrown by a cursor when the buffer ends but the file does not. */
export class MoreBytesNeeded extends Error {
  override readonly name = 'MoreBytesNeeded';
}

/** Called with the place of string `index` in an unchanging buffer, without an object per string. */
export type StringVisitor = (buffer: Uint8Array, start: number, end: number, index: number) => void;

export interface Cursor {
  readonly position: number;
  u8(what: string): number;
  u32(what: string): number;
  /** A u64 that must be a safe integer. */
  u64(what: string): number;
  bytes(length: number, what: string): Uint8Array;
  skip(length: number, what: string): void;
  /** Length-prefixed bytes of at most `maxBytes`. */
  string(maxBytes: number, what: string): Uint8Array;
  /** Reads `count` strings in a row; optimised, because vocabularies have half a million. */
  strings(count: number, maxBytes: number, what: string, visit?: StringVisitor): void;
  /** Refuses `count` items of at least `itemBytes` each when the rest of the file cannot hold them. */
  expect(count: number, itemBytes: number, what: string): void;
}

/**
 * `buffer` is the beginning of a file of `fileSize` bytes, of which a header may use the first `maxBytes`.
 */
export function cursorOver(buffer: Uint8Array, fileSize: number, maxBytes: number): Cursor {
  const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
  let position = 0;
  const take = (length: number, what: string): number => {
    if (length > fileSize - position) throw invalidGguf(`the file ends inside ${what}`);
    if (length > maxBytes - position)
      throw invalidGguf(`the header is longer than ${maxBytes} bytes at ${what}`);
    if (length > buffer.length - position) throw new MoreBytesNeeded();
    const start = position;
    position += length;
    return start;
  };
  const cursor: Cursor = {
    get position() {
      return position;
    },
    u8: (what) => view.getUint8(take(1, what)),
    u32: (what) => view.getUint32(take(4, what), true),
    u64: (what) => {
      const start = take(8, what);
      const high = view.getUint32(start + 4, true);
      if (high > 0x1fffff) throw invalidGguf(`${what} is ${view.getBigUint64(start, true)}`);
      return high * 0x100000000 + view.getUint32(start, true);
    },
    bytes: (length, what) => {
      const start = take(length, what);
      return buffer.subarray(start, start + length);
    },
    skip: (length, what) => void take(length, what),
    string: (maxLength, what) => {
      const length = cursor.u64(`the length of ${what}`);
      if (length > maxLength)
        throw invalidGguf(`${what} has ${length} bytes, at most ${maxLength} are accepted`);
      return cursor.bytes(length, what);
    },
    strings: (count, maxLength, what, visit) => {
      const end = buffer.length;
      for (let i = 0; i < count; i++) {
        const fits = position + 8 <= end && view.getUint32(position + 4, true) === 0;
        const length = fits ? view.getUint32(position, true) : Infinity;
        const start = position + 8;
        if (length > maxLength || start + length > end) {
          // The slow path reports the fault, or asks for a longer buffer.
          cursor.string(maxLength, `${what}[${i}]`);
        } else {
          position = start + length;
        }
        visit?.(buffer, start, position, i);
      }
    },
    expect: (count, itemBytes, what) => {
      const left = Math.min(fileSize, maxBytes) - position;
      if (count > left / itemBytes)
        throw invalidGguf(`${count} ${what} do not fit into the ${left} bytes left`);
    },
  };
  return cursor;
}
