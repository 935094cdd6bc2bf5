// Strict reader of safetensors files (github.com/huggingface/safetensors, "Format"): u64 length of the header, JSON of
// `{name: {dtype, shape, data_offsets}}`, data. Refuses a header over 100 MB, a shape that is not its range of bytes, ranges that overlap,
// leave a hole or do not end with the file, and sizes no double can count. Of several files the index says which belong.

import { invalidDescription, invalidWeights, readExactly, unsupportedModel, type Folder } from './folder.ts';
import {
  isJsonList,
  isObject,
  parseJsonObject,
  readJson,
  type ModelJson,
  type ModelJsonObject,
} from './json.ts';

/** Bytes of an element. The whole list of the format; which of them a model may use is decided where it is used. */
const DTYPE_BYTES = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E5M2: 1,
  F8_E4M3: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  F64: 8,
  I64: 8,
  U64: 8,
} as const;

export type Dtype = keyof typeof DTYPE_BYTES;

export interface SafeTensor {
  readonly name: string;
  /** The file it is in. */
  readonly file: string;
  readonly dtype: Dtype;
  /** Slowest dimension first, as PyTorch has it. */
  readonly shape: readonly number[];
  readonly elements: number;
  /** In the file. */
  readonly position: number;
  readonly bytes: number;
}

const MAX_HEADER_BYTES = 100_000_000;
/** 300 000 tensors of the usual form. */
const MAX_HEADER_WEIGHT = 48 * 1024 * 1024;
const MAX_TENSORS = 1 << 16;
const MAX_DIMENSIONS = 4;
const MAX_NAME = 256;
const MAX_SHARDS = 1000;
const INDEX = 'model.safetensors.index.json';
const SINGLE = 'model.safetensors';
const PICKLE = /\.(?:bin|pt|pth|ckpt|pkl|pickle|joblib|msgpack|h5)$/i;

/** Every tensor of the folder, by file and then by name: the order in which the official converter takes them. */
export function readTensors(folder: Folder): readonly SafeTensor[] {
  const index = readJson(folder, INDEX, { maxBytes: 32 * 1024 * 1024, maxWeight: 16 * 1024 * 1024 });
  if (index === undefined) return readSingle(folder);
  const map = index['weight_map'];
  if (!isObject(map)) throw invalidDescription(INDEX, 'weight_map is missing');
  const shards = shardsOf(folder, map);
  const tensors: SafeTensor[] = [];
  for (const shard of shards)
    for (const tensor of readSafetensorsHeader(folder, shard)) {
      if (!Object.hasOwn(map, tensor.name))
        throw invalidWeights(shard, `tensor ${tensor.name} is not in weight_map of ${INDEX}`);
      if (map[tensor.name] !== shard)
        throw invalidWeights(shard, `tensor ${tensor.name} is in another file by weight_map of ${INDEX}`);
      tensors.push(tensor);
    }
  if (tensors.length > MAX_TENSORS) throw invalidDescription(INDEX, `more than ${MAX_TENSORS} tensors`);
  const found = new Set(tensors.map(({ name }) => name));
  for (const name of Object.keys(map))
    if (!found.has(name))
      throw invalidDescription(INDEX, `weight_map names tensor ${quoted(name)}, which is in no file`);
  return tensors;
}

function readSingle(folder: Folder): readonly SafeTensor[] {
  const names = [...folder.keys()].filter((name) => !name.includes('/'));
  const weights = names.filter((name) => /^model.*\.safetensors$/.test(name)).toSorted();
  if (weights.length === 0) {
    const pickle = names.find((name) => PICKLE.test(name));
    if (pickle !== undefined)
      throw unsupportedModel(
        `${pickle} is a pickle or unknown weights and is never opened; ${SINGLE} is missing`,
      );
    throw invalidDescription(SINGLE, 'the folder has no such file');
  }
  const alien = weights.find((name) => name !== SINGLE);
  if (alien !== undefined) throw invalidDescription(alien, `${INDEX} is missing, so it belongs to no model`);
  return readSafetensorsHeader(folder, SINGLE);
}

function shardsOf(folder: Folder, map: ModelJsonObject): readonly string[] {
  const shards = new Set<string>();
  for (const shard of Object.values(map)) {
    if (typeof shard !== 'string' || !/^[\w.-]{1,200}\.safetensors$/.test(shard))
      throw invalidDescription(INDEX, 'weight_map names a file that is no plain name of a safetensors file');
    shards.add(shard);
  }
  if (shards.size > MAX_SHARDS)
    throw invalidDescription(INDEX, `weight_map names ${shards.size} files, at most ${MAX_SHARDS} are read`);
  for (const shard of shards)
    if (!folder.has(shard)) throw invalidDescription(INDEX, `weight_map names ${shard}, which is missing`);
  for (const name of folder.keys())
    if (/^model[^/]*\.safetensors$/.test(name) && !shards.has(name))
      throw invalidDescription(name, `it is not in weight_map of ${INDEX}`);
  return [...shards].toSorted();
}

/** The tensors of one file, by name. */
export function readSafetensorsHeader(folder: Folder, name: string): readonly SafeTensor[] {
  const file = folder.get(name);
  if (file === undefined) throw invalidDescription(name, 'the folder has no such file');
  const prefix = new Uint8Array(8);
  if (file.size < 8) throw invalidWeights(name, `it has ${file.size} bytes, too few for a header`);
  readExactly(name, file, 0, prefix);
  const length = new DataView(prefix.buffer).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER_BYTES))
    throw invalidWeights(name, `its header is ${length} bytes long, at most ${MAX_HEADER_BYTES} are read`);
  if (length > BigInt(file.size - 8))
    throw invalidWeights(name, `its header is ${length} bytes long, the file has ${file.size - 8} more`);
  const bytes = new Uint8Array(Number(length));
  readExactly(name, file, 8, bytes);
  if (bytes[0] !== 0x7b) throw invalidWeights(name, 'its header does not begin with {');
  const header = parseJsonObject(bytes, MAX_HEADER_WEIGHT, (message) =>
    invalidWeights(name, `its header: ${message}`),
  );
  const start = 8 + Number(length);
  const tensors: SafeTensor[] = [];
  for (const [key, value] of Object.entries(header)) {
    if (key === '__metadata__') continue;
    if (tensors.length === MAX_TENSORS) throw invalidWeights(name, `more than ${MAX_TENSORS} tensors`);
    tensors.push(readEntry({ name, start, size: file.size }, key, value));
  }
  mustTile(name, tensors, start, file.size);
  return tensors.toSorted((a, b) => (a.name < b.name ? -1 : 1));
}

interface Place {
  readonly name: string;
  /** Where the data begins. */
  readonly start: number;
  readonly size: number;
}

function readEntry(place: Place, key: string, value: ModelJson): SafeTensor {
  const file = place.name;
  if (key.length > MAX_NAME || !/^[\x21-\x7e]+$/.test(key))
    throw invalidWeights(file, `a tensor's name is not 1 to ${MAX_NAME} printable ASCII characters`);
  const wrong = (message: string): Error => invalidWeights(file, `tensor ${key}: ${message}`);
  if (!isObject(value) || Object.keys(value).length !== 3)
    throw wrong('expected dtype, shape and data_offsets');
  const { dtype, shape, data_offsets: offsets } = value;
  if (typeof dtype !== 'string' || !isDtype(dtype)) throw wrong('dtype is none of the format');
  if (!isJsonList(shape) || shape.length > MAX_DIMENSIONS)
    throw wrong(`shape is not a list of at most ${MAX_DIMENSIONS} sizes`);
  let elements = 1;
  const sizes: number[] = [];
  for (const size of shape) {
    if (!isSize(size)) throw wrong('shape has a size that is no whole number from 0 to 2^53');
    elements *= size;
    if (!Number.isSafeInteger(elements)) throw wrong('shape has more than 2^53 elements');
    sizes.push(size);
  }
  if (!isJsonList(offsets) || offsets.length !== 2) throw wrong('data_offsets is not a list of two');
  const [begin, end] = offsets;
  if (!isSize(begin) || !isSize(end)) throw wrong('data_offsets has no whole numbers from 0 to 2^53');
  if (begin > end) throw wrong(`data_offsets end at ${end}, before they begin at ${begin}`);
  if (end > place.size - place.start)
    throw wrong(`data_offsets end at ${end}, beyond the ${place.size - place.start} bytes of data`);
  if (end - begin !== elements * DTYPE_BYTES[dtype])
    throw wrong(
      `data_offsets hold ${end - begin} bytes, shape and dtype need ${elements * DTYPE_BYTES[dtype]}`,
    );
  return {
    name: key,
    file,
    dtype,
    shape: sizes,
    elements,
    position: place.start + begin,
    bytes: end - begin,
  };
}

/** The ranges follow each other from the first byte of data to the last. */
function mustTile(file: string, tensors: readonly SafeTensor[], start: number, size: number): void {
  let at = start;
  for (const { name, position, bytes } of tensors.toSorted(
    (a, b) => a.position - b.position || a.bytes - b.bytes,
  )) {
    if (position < at)
      throw invalidWeights(file, `tensor ${name}: data_offsets overlap those of another tensor`);
    if (position > at) throw invalidWeights(file, `tensor ${name}: data_offsets leave a hole before them`);
    at = position + bytes;
  }
  if (at !== size) throw invalidWeights(file, `${size - at} bytes after the last tensor belong to none`);
}

function isDtype(name: string): name is Dtype {
  return Object.hasOwn(DTYPE_BYTES, name);
}

function isSize(value: ModelJson | undefined): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

/** A key of a file in a message: short and printable. */
function quoted(name: string): string {
  return JSON.stringify(name.slice(0, 80)).replaceAll(/[^\x20-\x7e]/g, '?');
}
