// Merges a LoRA adapter into its base: every matrix the adapter changes becomes W + scale · alpha / rank ·
// B·A, computed in doubles from the values of the files and rounded once to the type of the matrix; all
// else is copied. Matrices of F32, F16 and BF16 are changed. A quantised one is refused: its rounding
// would hide the adapter, so merge into the model it was made of and quantise the result.

import { ApiError } from '../../base/errors.ts';
import { checkAdapter } from '../../models/gguf/adapter.ts';
import { invalidGguf, type ByteSource } from '../../models/gguf/bytes.ts';
import { writeHead } from '../../models/gguf/head.ts';
import { readHeader, type GgufHeader, type TensorEntry } from '../../models/gguf/header.ts';
import { conversion, singleOfHalf, type FloatType } from '../../models/convert/floats.ts';
import { writeFileAt, type FileWriter, type Writing } from './write.ts';

export interface LoraOptions extends Writing {
  /** 1 by default, as the adapter was trained. */
  readonly scale?: number | undefined;
}

export interface MergedLora {
  readonly size: number;
  /** Matrices that were changed. */
  readonly merged: number;
}

const FLOATS: ReadonlySet<string> = new Set(['F32', 'F16', 'BF16']);
/** Rows of a matrix in memory at once. */
const CHUNK_BYTES = 8 * 1024 * 1024;
/** Both factors of one matrix, as doubles of 32 bits: a vocabulary of 262 144 with rank 256. */
const MAX_FACTOR_BYTES = 512 * 1024 * 1024;
const EMBEDDING = 'token_embd.weight';
const Q8_BLOCK = 34;

/** 400 invalid_gguf, adapter_mismatch, unsupported_model_format for a quantised matrix; 507 storage_full. */
export async function mergeLora(
  base: ByteSource,
  adapter: ByteSource,
  path: string,
  options: LoraOptions,
): Promise<MergedLora> {
  const { scale = 1 } = options;
  if (!Number.isFinite(scale))
    throw new ApiError('invalid_value', 'scale is not a finite number', { param: 'scale' });
  const header = await readHeader(base);
  const pairs = await readHeader(adapter);
  const { alpha } = checkAdapter(pairs, header);
  const changed = header.tensors.filter(({ name }) => factorOf(pairs, name, 'a') !== undefined);
  for (const tensor of changed) refuseQuantised(tensor);
  let offset = 0;
  const placed = header.tensors.map((tensor) => {
    const entry = { ...tensor, offset };
    offset += Math.ceil(tensor.bytes / header.alignment) * header.alignment;
    return entry;
  });
  const size = await writeFileAt(path, options, async (writer) => {
    await writer.bytes(writeHead(header, header.metadata.keys(), placed));
    for (const tensor of header.tensors) {
      const at = header.dataOffset + tensor.offset;
      const [a, b] = [factorOf(pairs, tensor.name, 'a'), factorOf(pairs, tensor.name, 'b')];
      if (a === undefined || b === undefined) await writer.copy(base, at, at + tensor.bytes);
      else {
        const factors = await readFactors(adapter, pairs, { a, b });
        const rank = b.shape[0];
        const strength = alpha === 0 ? scale : (scale * alpha) / rank;
        await writeMerged({ tensor, at, base, writer, rank, strength, ...factors });
      }
      await writer.padTo(header.alignment);
    }
  });
  return { size, merged: changed.length };
}

function factorOf(pairs: GgufHeader, name: string, side: 'a' | 'b'): TensorEntry | undefined {
  return pairs.tensors.find((tensor) => tensor.name === `${name}.lora_${side}`);
}

function refuseQuantised({ name, type }: TensorEntry): void {
  if (FLOATS.has(type.name)) return;
  throw new ApiError(
    'unsupported_model_format',
    `tensor ${name} is ${type.name}: an adapter is merged into F32, F16 or BF16, and the result quantised`,
    { param: 'base' },
  );
}

interface Merging {
  readonly tensor: TensorEntry;
  /** In the file. */
  readonly at: number;
  readonly base: ByteSource;
  readonly writer: FileWriter;
  readonly rank: number;
  readonly strength: number;
  readonly a: Float32Array;
  readonly b: Float32Array;
}

async function writeMerged(merging: Merging): Promise<void> {
  const { tensor, at, base, writer } = merging;
  const [columns, rows, ...planes] = tensor.shape;
  const type = floatType(tensor);
  const [toSingle, fromSingle] = [conversion(type, 'F32'), conversion('F32', type)];
  const rowBytes = tensor.bytes / (rows * planes[0] * planes[1]);
  const total = rows * planes[0] * planes[1];
  const step = Math.max(1, Math.floor(CHUNK_BYTES / (4 * columns)));
  const delta = new Float64Array(columns);
  for (let row = 0; row < total; row += step) {
    const count = Math.min(step, total - row);
    const bytes = await base.read(at + row * rowBytes, count * rowBytes);
    if (bytes.length < count * rowBytes) throw invalidGguf('the file became shorter while it was read');
    const values = new Float32Array(count * columns);
    refuseOverflow(toSingle(aligned(bytes), bytesOf(values)), tensor);
    for (let i = 0; i < count; i++) {
      deltaOf(merging, row + i, delta);
      const own = values.subarray(i * columns, (i + 1) * columns);
      for (let column = 0; column < columns; column++) own[column] = own[column]! + delta[column]!;
    }
    const out = new Uint8Array(count * rowBytes);
    refuseOverflow(fromSingle(bytesOf(values), out), tensor);
    await writer.bytes(out);
  }
}

/** The row of strength · B·A; of the embedding, whose factors stand the other way round, of A·Bᵀ. */
function deltaOf({ tensor, a, b, rank, strength }: Merging, row: number, out: Float64Array): void {
  const [columns, rows] = tensor.shape;
  out.fill(0);
  if (tensor.name === EMBEDDING) {
    for (let column = 0; column < columns; column++) {
      let sum = 0;
      for (let k = 0; k < rank; k++) sum += a[row * rank + k]! * b[column * rank + k]!;
      out[column] = strength * sum;
    }
    return;
  }
  const plane = Math.floor(row / rows);
  for (let k = 0; k < rank; k++) {
    const factor = strength * b[row * rank + k]!;
    const from = (plane * rank + k) * columns;
    for (let column = 0; column < columns; column++) out[column] = out[column]! + factor * a[from + column]!;
  }
}

async function readFactors(
  adapter: ByteSource,
  header: GgufHeader,
  { a, b }: { readonly a: TensorEntry; readonly b: TensorEntry },
): Promise<{ readonly a: Float32Array; readonly b: Float32Array }> {
  if (4 * (a.elements + b.elements) > MAX_FACTOR_BYTES)
    throw invalidGguf(`the pair of ${a.name} has more than ${MAX_FACTOR_BYTES} bytes`);
  const read = async (tensor: TensorEntry): Promise<Float32Array> => {
    const bytes = await adapter.read(header.dataOffset + tensor.offset, tensor.bytes);
    if (bytes.length < tensor.bytes) throw invalidGguf('the adapter became shorter while it was read');
    return singlesOf(tensor, bytes);
  };
  return { a: await read(a), b: await read(b) };
}

function singlesOf(tensor: TensorEntry, bytes: Uint8Array): Float32Array {
  const values = new Float32Array(tensor.elements);
  if (tensor.type.name === 'Q8_0') dequantise(bytes, values);
  else refuseOverflow(conversion(floatType(tensor), 'F32')(aligned(bytes), bytesOf(values)), tensor);
  return values;
}

/** Blocks of a scale (half) and 32 signed bytes. */
function dequantise(bytes: Uint8Array, values: Float32Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const scale = new DataView(new ArrayBuffer(4));
  for (let block = 0; block * Q8_BLOCK < bytes.length; block++) {
    scale.setUint32(0, singleOfHalf(view.getUint16(block * Q8_BLOCK, true)));
    const factor = scale.getFloat32(0);
    if (!Number.isFinite(factor)) throw invalidGguf('the adapter has a scale that is not finite');
    for (let i = 0; i < 32; i++) values[32 * block + i] = factor * view.getInt8(block * Q8_BLOCK + 2 + i);
  }
}

function floatType({ name, type }: TensorEntry): FloatType {
  if (type.name === 'F32' || type.name === 'F16' || type.name === 'BF16') return type.name;
  throw invalidGguf(`tensor ${name} has type ${type.name}`);
}

/** A typed array can begin at a multiple of its element only. */
function aligned(bytes: Uint8Array): Uint8Array {
  return bytes.byteOffset % 4 === 0 ? bytes : Uint8Array.from(bytes);
}

function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

function refuseOverflow(index: number, { name }: TensorEntry): void {
  if (index >= 0) throw invalidGguf(`value ${index} of tensor ${name} is not finite, or becomes too large`);
}
