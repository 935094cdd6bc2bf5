// Deterministic CBOR (RFC 8949 §4.2.1) for everything that is hashed: claims, model manifests, the
// certificate's document. A bounded reader and a writer, and what is read must be byte-equal to what is
// written of it: that refuses unsorted or duplicate keys, non-minimal integers and anything else with two
// spellings. Also refused: negative numbers, floats, tags, undefined, indefinite lengths, trailing bytes,
// nesting over 8, integers over 2^53-1. The server compares what it writes with cbor-x
// (src/attester/cbor-cross-check.ts), which is too large for a page.

import { equalBytes, fromUtf8, utf8, viewOf } from './bytes.ts';
import { type AttestationError, malformed } from '../transcript/errors.ts';

/**
 * A value of canonical CBOR (RFC 8949 §4.2.1) as used here: safe integers, text, byte strings, arrays,
 * maps, true, false and null.
 */
export type Cbor = number | string | boolean | null | Uint8Array | readonly Cbor[] | CborMap;
/**
 * A CBOR map; its keys are integers or text, written in the bytewise order of their
 * encodings (RFC 8949 §4.2.1).
 */
export type CborMap = ReadonlyMap<number | string, Cbor>;

const MAX_DEPTH = 8;
const MAX_BYTES = 1024 * 1024;
/**
 * As in json.ts: far over what any real input has. A map is one byte when it is empty, and
 * some two hundred in memory.
 */
const MAX_VALUES = 16_384;

/**
 * Canonical bytes of `value`. Map keys are sorted by their encoded bytes. Throws TypeError on what the
 * format has no place for.
 * @example const bytes = encodeCbor(new Map([[1, 'assay/claims/v1']]));
 */
export function encodeCbor(value: Cbor): Uint8Array {
  const writer = new Writer();
  writeItem(writer, value, 0);
  return writer.bytes();
}

/**
 * One canonical item, exactly filling `bytes`; anything else throws `malformed_cbor` (or `input_too_large`).
 * @example const value = decodeCbor(bytes, 'claims', 4096);
 */
export function decodeCbor(bytes: Uint8Array, name = 'cbor item', maxBytes = MAX_BYTES): Cbor {
  if (bytes.length > maxBytes) {
    throw malformed('input_too_large', `${name} is ${bytes.length} bytes, at most ${maxBytes} are read`);
  }
  const reader: Reader = { bytes, view: viewOf(bytes), at: 0, name, values: 0 };
  const value = readItem(reader, 0);
  if (reader.at !== bytes.length) throw bad(reader, `has ${bytes.length - reader.at} bytes after its end`);
  if (!equalBytes(encodeCbor(value), bytes)) throw bad(reader, 'is not byte-equal to its canonical encoding');
  return value;
}

interface Reader {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly name: string;
  at: number;
  values: number;
}

function bad(reader: Reader, what: string): AttestationError {
  return malformed('malformed_cbor', `${reader.name} ${what} (offset ${reader.at})`);
}

function readItem(reader: Reader, depth: number): Cbor {
  if (depth > MAX_DEPTH) throw bad(reader, `nests deeper than ${MAX_DEPTH}`);
  reader.values += 1;
  if (reader.values > MAX_VALUES) throw bad(reader, `has more than ${MAX_VALUES} values`);
  const initial = reader.bytes[reader.at];
  if (initial === undefined) throw bad(reader, 'ends early');
  const major = initial >> 5;
  if (major === 7) return readSimple(reader, initial);
  reader.at += 1;
  const argument = readArgument(reader, initial & 31);
  switch (major) {
    case 0:
      return argument;
    case 2:
      return take(reader, argument).slice();
    case 3:
      return readText(reader, argument);
    case 4:
      return readArray(reader, argument, depth);
    case 5:
      return readMap(reader, argument, depth);
    default:
      throw bad(reader, major === 1 ? 'has a negative integer' : 'has a tag');
  }
}

function readSimple(reader: Reader, initial: number): boolean | null {
  reader.at += 1;
  if (initial === 0xf4) return false;
  if (initial === 0xf5) return true;
  if (initial === 0xf6) return null;
  throw bad(reader, 'has a float, undefined or an unknown simple value');
}

/** The argument of a head, refusing the longer spellings of a value and indefinite lengths. */
function readArgument(reader: Reader, low: number): number {
  if (low < 24) return low;
  if (low > 27) throw bad(reader, 'has an indefinite or reserved length');
  const size = 1 << (low - 24);
  if (reader.at + size > reader.bytes.length) throw bad(reader, 'ends early');
  const value = readBigEndian(reader, size);
  // Below this, half as many bytes, or the head itself, would have held the value.
  const minimum = size === 1 ? 24 : 2 ** (4 * size);
  if (value < minimum) throw bad(reader, 'has an integer that is not in its shortest form');
  if (!Number.isSafeInteger(value)) throw bad(reader, 'has an integer over 2^53-1');
  reader.at += size;
  return value;
}

function readBigEndian({ view, at }: Reader, size: number): number {
  if (size === 1) return view.getUint8(at);
  if (size === 2) return view.getUint16(at);
  return size === 4 ? view.getUint32(at) : Number(view.getBigUint64(at));
}

function take(reader: Reader, length: number): Uint8Array {
  if (length > reader.bytes.length - reader.at) throw bad(reader, 'ends early');
  const part = reader.bytes.subarray(reader.at, reader.at + length);
  reader.at += length;
  return part;
}

function readText(reader: Reader, length: number): string {
  const part = take(reader, length);
  try {
    return fromUtf8(part);
  } catch {
    throw bad(reader, 'has text that is not utf-8');
  }
}

function readArray(reader: Reader, length: number, depth: number): Cbor[] {
  // Every element takes at least one byte, so a lying length stops before anything is allocated for it.
  if (length > reader.bytes.length - reader.at) throw bad(reader, 'ends early');
  const items: Cbor[] = [];
  for (let i = 0; i < length; i++) items.push(readItem(reader, depth + 1));
  return items;
}

function readMap(reader: Reader, length: number, depth: number): CborMap {
  if (length > (reader.bytes.length - reader.at) / 2) throw bad(reader, 'ends early');
  const map = new Map<number | string, Cbor>();
  for (let i = 0; i < length; i++) {
    const key = readItem(reader, depth + 1);
    if (typeof key !== 'number' && typeof key !== 'string')
      throw bad(reader, 'has a map key that is neither integer nor text');
    if (map.has(key)) throw bad(reader, `has the key ${JSON.stringify(key).slice(0, 64)} twice`);
    map.set(key, readItem(reader, depth + 1));
  }
  return map;
}

const MAJOR = { unsigned: 0x00, bytes: 0x40, text: 0x60, array: 0x80, map: 0xa0 } as const;

/** One buffer that grows: a part of its own for each item took longer than what is in it. */
class Writer {
  #buffer = new Uint8Array(256);
  #at = 0;

  bytes(): Uint8Array {
    return this.#buffer.slice(0, this.#at);
  }

  put(bytes: Uint8Array): void {
    this.#room(bytes.length);
    this.#buffer.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  /** The head of an item: its major type and the shortest spelling of its argument. */
  head(major: number, argument: number): void {
    this.#room(9);
    if (argument < 24) {
      this.byte(major | argument);
      return;
    }
    // Eight bytes, or the fewest of one, two and four that hold it: the low bits are 24 to 27.
    const index = [0x100, 0x1_0000, 0x1_0000_0000].findIndex((bound) => argument < bound);
    const log = index < 0 ? 3 : index;
    const size = 1 << log;
    this.byte(major | (24 + log));
    this.#at += size;
    for (let i = 1, rest = argument; i <= size; i++, rest = Math.floor(rest / 256))
      this.#buffer[this.#at - i] = rest % 256;
  }

  byte(value: number): void {
    this.#room(1);
    this.#buffer[this.#at++] = value;
  }

  #room(count: number): void {
    const needed = this.#at + count;
    if (needed <= this.#buffer.length) return;
    const larger = new Uint8Array(Math.max(needed, 2 * this.#buffer.length));
    larger.set(this.#buffer);
    this.#buffer = larger;
  }
}

function writeItem(writer: Writer, value: Cbor, depth: number): void {
  if (depth > MAX_DEPTH) throw new TypeError(`cbor value nests deeper than ${MAX_DEPTH}`);
  if (typeof value === 'number') {
    if (!Number.isSafeInteger(value) || value < 0)
      throw new TypeError(`cbor number ${value} is not an unsigned integer`);
    writer.head(MAJOR.unsigned, value);
  } else if (typeof value === 'string') {
    if (/\p{Surrogate}/u.test(value)) throw new TypeError('cbor text has a lone surrogate');
    const text = utf8(value);
    writer.head(MAJOR.text, text.length);
    writer.put(text);
  } else if (value === null) writer.byte(0xf6);
  else if (typeof value === 'boolean') writer.byte(value ? 0xf5 : 0xf4);
  else if (value instanceof Uint8Array) {
    writer.head(MAJOR.bytes, value.length);
    writer.put(value);
  } else if (Array.isArray(value)) {
    writer.head(MAJOR.array, value.length);
    // Not forEach: an element that is missing is undefined, and has no place.
    for (const item of value as readonly Cbor[]) writeItem(writer, item, depth + 1);
  } else if (value instanceof Map) writeMap(writer, value as CborMap, depth);
  else throw new TypeError('cbor value of a type the format has no place for');
}

function writeMap(writer: Writer, map: CborMap, depth: number): void {
  writer.head(MAJOR.map, map.size);
  if (hasAscendingNumbers(map)) {
    for (const [key, item] of map) {
      writeItem(writer, key, depth);
      writeItem(writer, item, depth + 1);
    }
    return;
  }
  const entries = [...map].map(([key, item]) => {
    if (typeof key !== 'number' && typeof key !== 'string')
      throw new TypeError('cbor map key that is neither integer nor text');
    return [encodeCbor(key), item] as const;
  });
  for (const [key, item] of entries.sort(([a], [b]) => compareBytes(a, b))) {
    writer.put(key);
    writeItem(writer, item, depth + 1);
  }
}

/** The shortest spellings of unsigned integers sort as the integers do, so these are in order already. */
function hasAscendingNumbers(map: CborMap): boolean {
  let before = -1;
  for (const key of map.keys()) {
    if (typeof key !== 'number' || !(key > before)) return false;
    before = key;
  }
  return true;
}

/** Bytewise lexicographic order (RFC 8949 §4.2.1). */
export function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const shared = Math.min(a.length, b.length);
  for (let i = 0; i < shared; i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}
