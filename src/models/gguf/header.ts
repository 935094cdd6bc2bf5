// The parts of a GGUF header as in the file: metadata and tensor table, format rules only (ggml docs/gguf.md
// and the refusals of gguf_init_from_file). check.ts decides whether llama.cpp can use the model.

import { cursorOver, invalidGguf, MoreBytesNeeded } from './bytes.ts';
import type { ByteSource, Cursor } from './bytes.ts';
import { createTokenSet } from './tokens.ts';
import type { TokenSet } from './tokens.ts';
import { TENSOR_TYPES, valueType } from './tables.ts';
import type { TensorType, ValueTypeName } from './tables.ts';

const MAX_HEADER_BYTES = 256 * 1024 * 1024;
const MAX_KEYS = 65_536;
const MAX_TENSORS = 65_536;
const MAX_KEY_BYTES = 1024;
const MAX_STRING_BYTES = 16 * 1024 * 1024;
/** ggml's GGML_MAX_NAME counts the final NUL. */
const MAX_TENSOR_NAME_BYTES = 63;
const MAX_DIMENSIONS = 4;
/** Ten times the largest vocabulary there is. */
const MAX_TOKENS = 1 << 22;
/** Arrays of up to this many numbers are kept (per-layer settings); of longer ones only the count. */
const MAX_KEPT_NUMBERS = 1024;
const FIRST_READ_BYTES = 1024 * 1024;
const DEFAULT_ALIGNMENT = 32;

export type MetadataValue =
  | { readonly type: Exclude<ValueTypeName, 'string' | 'array' | 'bool'>; readonly value: number }
  | { readonly type: 'bool'; readonly value: boolean }
  | { readonly type: 'string'; readonly value: string }
  | {
      readonly type: 'array';
      readonly of: Exclude<ValueTypeName, 'array'>;
      readonly count: number;
      /** Numbers, when there are at most 1024 of them. */
      readonly numbers?: readonly number[] | undefined;
      /** For arrays of strings: the index of the first element that occurred before, if any. */
      readonly firstRepeated?: number | undefined;
      /** Of a vocabulary: the number of the 256 bytes with a token `<0xNN>` or the byte itself. */
      readonly byteTokens?: number | undefined;
    };

export interface TensorEntry {
  readonly name: string;
  readonly type: TensorType;
  /** Always four numbers, all at least 1. */
  readonly shape: readonly [number, number, number, number];
  readonly elements: number;
  /** Relative to the data section. */
  readonly offset: number;
  readonly bytes: number;
}

export interface GgufHeader {
  readonly version: number;
  readonly metadata: ReadonlyMap<string, MetadataValue>;
  readonly tensors: readonly TensorEntry[];
  readonly alignment: number;
  /** Where the data section starts, and its size with padding. */
  readonly dataOffset: number;
  readonly dataBytes: number;
  readonly fileSize: number;
  /** The beginning of the file as far as it was read, at least to the end of the tensor table. */
  readonly head: Uint8Array;
  /** Where each key with its value begins and ends in it. */
  readonly spans: ReadonlyMap<string, readonly [start: number, end: number]>;
}

/** Reads the first MiB of the file, and only if the header is longer 32 MiB, then up to 256. */
export async function readHeader(source: ByteSource): Promise<GgufHeader> {
  for (
    let length = Math.min(FIRST_READ_BYTES, source.size);
    ;
    length = Math.min(length * 32, source.size, MAX_HEADER_BYTES)
  ) {
    const buffer = await source.read(0, length);
    if (buffer.length < length) throw invalidGguf(`the file has ${buffer.length} of ${source.size} bytes`);
    try {
      return { ...parseHeader(cursorOver(buffer, source.size, MAX_HEADER_BYTES), source.size), head: buffer };
    } catch (error) {
      if (!(error instanceof MoreBytesNeeded)) throw error;
    }
  }
}

/** Name of the type with most bytes; of at least one tensor. */
export function typeOfMost(tensors: readonly TensorEntry[]): string {
  const bytes = new Map<string, number>();
  for (const { type, bytes: size } of tensors) bytes.set(type.name, (bytes.get(type.name) ?? 0) + size);
  return [...bytes].toSorted(([, a], [, b]) => b - a)[0]![0];
}

function parseHeader(cursor: Cursor, fileSize: number): Omit<GgufHeader, 'head'> {
  const magic = cursor.bytes(4, 'the magic number');
  if (String.fromCharCode(...magic) !== 'GGUF')
    throw invalidGguf(`it starts with ${hex(magic)}, expected 47475546 ("GGUF")`);
  const version = cursor.u32('the version');
  if ((version & 0xffff) === 0 && version !== 0) throw invalidGguf('it is big-endian');
  if (version !== 2 && version !== 3) throw invalidGguf(`version ${version}, expected 2 or 3`);
  const tensorCount = cursor.u64('the number of tensors');
  if (tensorCount > MAX_TENSORS)
    throw invalidGguf(`${tensorCount} tensors, at most ${MAX_TENSORS} are accepted`);
  const keyCount = cursor.u64('the number of metadata keys');
  if (keyCount > MAX_KEYS) throw invalidGguf(`${keyCount} metadata keys, at most ${MAX_KEYS} are accepted`);

  cursor.expect(keyCount, 13, 'metadata keys');
  const metadata = new Map<string, MetadataValue>();
  const spans = new Map<string, readonly [number, number]>();
  for (let i = 0; i < keyCount; i++) {
    const start = cursor.position;
    const key = ascii(cursor.string(MAX_KEY_BYTES, `metadata key ${i}`), `metadata key ${i}`);
    if (metadata.has(key)) throw invalidGguf(`metadata key ${key} occurs twice`);
    metadata.set(key, parseValue(cursor, key));
    spans.set(key, [start, cursor.position]);
  }
  const alignment = alignmentOf(metadata);

  cursor.expect(tensorCount, 32, 'tensors');
  const tensors: TensorEntry[] = [];
  const names = new Set<string>();
  let dataBytes = 0;
  for (let i = 0; i < tensorCount; i++) {
    const tensor = parseTensor(cursor, i);
    if (names.has(tensor.name)) throw invalidGguf(`tensor ${tensor.name} occurs twice`);
    names.add(tensor.name);
    // llama.cpp requires tensors one after another, so that none overlaps or is misaligned.
    if (tensor.offset !== dataBytes)
      throw invalidGguf(`tensor ${tensor.name} is at offset ${tensor.offset}, expected ${dataBytes}`);
    dataBytes += Math.ceil(tensor.bytes / alignment) * alignment;
    if (dataBytes > fileSize + alignment)
      throw invalidGguf(`tensor ${tensor.name} ends at ${dataBytes}, beyond the file of ${fileSize} bytes`);
    tensors.push(tensor);
  }
  const dataOffset = Math.ceil(cursor.position / alignment) * alignment;
  const last = tensors.at(-1);
  const needed = last === undefined ? cursor.position : dataOffset + last.offset + last.bytes;
  if (needed > fileSize)
    throw invalidGguf(`truncated: tensors need ${needed} bytes, the file has ${fileSize}`);
  return { version, metadata, tensors, alignment, dataOffset, dataBytes, fileSize, spans };
}

function parseValue(cursor: Cursor, key: string): MetadataValue {
  const type = typeNamed(cursor.u32(`the type of ${key}`), key);
  if (type.name === 'array') return parseArray(cursor, key);
  if (type.name === 'string') return { type: 'string', value: utf8(cursor.string(MAX_STRING_BYTES, key)) };
  const value = scalar(cursor, type.name, key);
  return type.name === 'bool' ? { type: 'bool', value: value !== 0 } : { type: type.name, value };
}

function parseArray(cursor: Cursor, key: string): MetadataValue {
  const of = typeNamed(cursor.u32(`the element type of ${key}`), key);
  if (of.name === 'array') throw invalidGguf(`${key} is an array of arrays`);
  const count = cursor.u64(`the length of ${key}`);
  cursor.expect(count, of.bytes ?? 8, `elements of ${key}`);
  if (of.name === 'string') {
    const tokens = key === 'tokenizer.ggml.tokens' ? tokenSet(count) : undefined;
    cursor.strings(count, MAX_STRING_BYTES, key, tokens?.add);
    return {
      type: 'array',
      of: 'string',
      count,
      firstRepeated: tokens?.firstRepeated(),
      byteTokens: tokens?.byteTokens(),
    };
  }
  if (count > MAX_KEPT_NUMBERS) {
    cursor.skip(count * of.bytes!, key);
    return { type: 'array', of: of.name, count };
  }
  const numbers: number[] = [];
  for (let i = 0; i < count; i++) numbers.push(scalar(cursor, of.name, `${key}[${i}]`));
  return { type: 'array', of: of.name, count, numbers };
}

function tokenSet(count: number): TokenSet {
  if (count > MAX_TOKENS)
    throw invalidGguf(`tokenizer.ggml.tokens has ${count} elements, at most ${MAX_TOKENS} are accepted`);
  return createTokenSet(count);
}

function typeNamed(
  id: number,
  key: string,
): { readonly name: ValueTypeName; readonly bytes: number | undefined } {
  const type = valueType(id);
  if (type === undefined) throw invalidGguf(`${key} has the unknown value type ${id}`);
  return type;
}

/** 64-bit integers come out as the nearest double; no relevant value is that large. */
function scalar(cursor: Cursor, type: Exclude<ValueTypeName, 'string' | 'array'>, what: string): number {
  const read = (length: number): DataView => {
    const bytes = cursor.bytes(length, what);
    return new DataView(bytes.buffer, bytes.byteOffset, length);
  };
  switch (type) {
    case 'u8':
    case 'bool':
      return cursor.u8(what);
    case 'i8':
      return read(1).getInt8(0);
    case 'u16':
      return read(2).getUint16(0, true);
    case 'i16':
      return read(2).getInt16(0, true);
    case 'u32':
      return cursor.u32(what);
    case 'i32':
      return read(4).getInt32(0, true);
    case 'f32':
      return read(4).getFloat32(0, true);
    case 'f64':
      return read(8).getFloat64(0, true);
    case 'u64':
      return Number(read(8).getBigUint64(0, true));
    case 'i64':
      return Number(read(8).getBigInt64(0, true));
  }
}

function alignmentOf(metadata: ReadonlyMap<string, MetadataValue>): number {
  const value = metadata.get('general.alignment');
  if (value === undefined) return DEFAULT_ALIGNMENT;
  if (value.type !== 'u32') throw invalidGguf(`general.alignment has type ${value.type}, expected u32`);
  const alignment = value.value;
  if (alignment === 0 || (alignment & (alignment - 1)) !== 0 || alignment > 1 << 20)
    throw invalidGguf(`general.alignment is ${alignment}`);
  return alignment;
}

function parseTensor(cursor: Cursor, index: number): TensorEntry {
  const name = ascii(
    cursor.string(MAX_TENSOR_NAME_BYTES, `the name of tensor ${index}`),
    `the name of tensor ${index}`,
  );
  const dimensions = cursor.u32(`the dimensions of ${name}`);
  if (dimensions > MAX_DIMENSIONS)
    throw invalidGguf(`tensor ${name} has ${dimensions} dimensions, at most 4 are possible`);
  const shape: [number, number, number, number] = [1, 1, 1, 1];
  let elements = 1;
  for (let d = 0; d < dimensions; d++) {
    const size = cursor.u64(`dimension ${d} of ${name}`);
    if (size < 1) throw invalidGguf(`dimension ${d} of tensor ${name} is 0`);
    elements *= size;
    if (!Number.isSafeInteger(elements)) throw invalidGguf(`tensor ${name} has too many elements`);
    shape[d] = size;
  }
  const typeId = cursor.u32(`the type of ${name}`);
  const type = TENSOR_TYPES.get(typeId);
  if (type === undefined) throw invalidGguf(`tensor ${name} has the unknown type ${typeId}`);
  if (shape[0] % type.blockSize !== 0) {
    throw invalidGguf(
      `rows of tensor ${name} have ${shape[0]} elements, not a multiple of the ${type.name} block of ${type.blockSize}`,
    );
  }
  const bytes = (elements / type.blockSize) * type.blockBytes;
  if (!Number.isSafeInteger(bytes)) throw invalidGguf(`tensor ${name} is too large`);
  return { name, type, shape, elements, bytes, offset: cursor.u64(`the offset of ${name}`) };
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function utf8(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
}

/** Messages contain keys, so keys must be printable. */
function ascii(bytes: Uint8Array, what: string): string {
  if (bytes.length === 0) throw invalidGguf(`${what} is empty`);
  for (const byte of bytes)
    if (byte < 0x21 || byte > 0x7e) throw invalidGguf(`${what} is not printable ASCII`);
  return latin1(bytes);
}
