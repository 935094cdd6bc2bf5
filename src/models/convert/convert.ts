// A Hugging Face folder becomes a GGUF file: first the plan, of headers and descriptions, then the bytes,
// tensor by tensor in pieces of a few MiB. The result depends on the files, the type and the name alone,
// never on where they lie or on the machine, and is byte for byte what `convert_hf_to_gguf.py` of the pinned
// llama.cpp writes. Refuses values that are not finite.

import { conversion, FLOAT_BYTES, type FloatType } from './floats.ts';
import { invalidDescription, invalidWeights, readExactly, type Folder, type Output } from './folder.ts';
import type { OutputType } from './general.ts';
import { encodeGgufHeader, padded } from './gguf-header.ts';
import { elementsOf, type CopiedTensor, type Plan, type PlannedTensor } from './plan.ts';
import { planConversion, type ConvertedPart } from './plan-model.ts';
import type { SafeTensor } from './safetensors.ts';

export interface ConvertOptions {
  readonly type: OutputType;
  /** Of a model that sees two files are made, one at a time; absent: the folder is one of text alone. */
  readonly part?: ConvertedPart | undefined;
  /**
   * general.name; absent, the file has none, so that its digest does not depend on what it is called here.
   */
  readonly name?: string | undefined;
  /** Bytes written so far, of all. */
  readonly onProgress?: ((written: number, total: number) => void) | undefined;
}

export interface Converted {
  readonly architecture: string;
  readonly type: FloatType;
  readonly tensors: number;
  readonly bytes: number;
}

/** ggml_type of each. */
const TYPE_IDS: Readonly<Record<FloatType, number>> = { F32: 0, F16: 1, BF16: 30 };
/**
 * Of a source, converted at once. A row of the widest tensor is 64 MiB at most; nearly all are
 * thousands of times smaller.
 */
const PIECE_BYTES = 4 * 1024 * 1024;

export function convertFolder(folder: Folder, output: Output, options: ConvertOptions): Converted {
  const { plan, architecture, type } = planConversion(folder, options);
  const bytes = writePlan(folder, output, { ...plan, onProgress: options.onProgress });
  return { architecture, type, tensors: plan.tensors.length, bytes };
}

/** Writes the whole file; the number of its bytes. */
export function writePlan(
  folder: Folder,
  output: Output,
  plan: Plan & Pick<ConvertOptions, 'onProgress'>,
): number {
  const header = encodeGgufHeader(
    plan.metadata,
    plan.tensors.map((tensor) => ({
      name: tensor.name,
      typeId: TYPE_IDS[tensor.type],
      shape: tensor.shape.toReversed(),
      bytes: bytesOf(tensor),
    })),
  );
  const total = plan.tensors.reduce((sum, tensor) => sum + padded(bytesOf(tensor)), header.length);
  const writer = new Writer(output, total, plan.onProgress);
  writer.write(header);
  for (const tensor of plan.tensors) {
    if (tensor.from.kind === 'computed') writer.write(littleEndian(tensor.from.values));
    else copyTensor(folder, tensor, tensor.from, writer);
    writer.write(new Uint8Array(padded(bytesOf(tensor)) - bytesOf(tensor)));
  }
  return total;
}

function bytesOf({ shape, type }: PlannedTensor): number {
  return elementsOf(shape) * FLOAT_BYTES[type];
}

function littleEndian(values: Float32Array): Uint8Array {
  const out = new DataView(new ArrayBuffer(4 * values.length));
  for (const [i, value] of values.entries()) out.setFloat32(4 * i, value, true);
  return new Uint8Array(out.buffer);
}

class Writer {
  readonly #output: Output;
  readonly #total: number;
  readonly #onProgress: ConvertOptions['onProgress'];
  #written = 0;

  constructor(output: Output, total: number, onProgress: ConvertOptions['onProgress']) {
    this.#output = output;
    this.#total = total;
    this.#onProgress = onProgress;
  }

  write(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#output.write(bytes);
    this.#written += bytes.length;
    this.#onProgress?.(this.#written, this.#total);
  }
}

/** Rows in pieces; the two halves of a head's rows are read beside each other and written in turn. */
function copyTensor(folder: Folder, tensor: PlannedTensor, from: CopiedTensor, writer: Writer): void {
  const { source, heads } = from;
  const sourceType = floatTypeOf(source);
  const file = folder.get(source.file);
  if (file === undefined) throw invalidDescription(source.file, 'the folder has no such file');
  const convert = conversion(sourceType, tensor.type, from.shift);
  const rows = tensor.shape.length > 1 ? tensor.shape[0]! : elementsOf(tensor.shape);
  const columns = elementsOf(tensor.shape) / rows;
  const rowBytes = columns * FLOAT_BYTES[sourceType];
  // A head's rows come in pairs; without heads every row is a group of its own.
  const group = heads === undefined ? rows : rows / heads;
  const pairs = heads === undefined ? 1 : 2;
  const perPiece = Math.max(1, Math.floor(PIECE_BYTES / (rowBytes * pairs)));
  const input = new Uint8Array(Math.min(perPiece, group / pairs) * pairs * rowBytes);
  const ordered = pairs === 1 ? input : new Uint8Array(input.length);
  const result = new Uint8Array((input.length / FLOAT_BYTES[sourceType]) * FLOAT_BYTES[tensor.type]);
  for (let start = 0; start < rows; start += group)
    for (let at = 0; at < group / pairs; at += perPiece) {
      const count = Math.min(perPiece, group / pairs - at);
      const bytes = count * rowBytes;
      for (let half = 0; half < pairs; half++) {
        const row = start + half * (group / pairs) + at;
        readExactly(
          source.file,
          file,
          source.position + row * rowBytes,
          input.subarray(half * bytes, (half + 1) * bytes),
        );
      }
      if (pairs === 2) interleave(input, ordered, count, rowBytes);
      const bad = convert(ordered.subarray(0, bytes * pairs), result);
      if (bad >= 0) throw notFinite(source, tensor);
      writer.write(
        result.subarray(0, ((bytes * pairs) / FLOAT_BYTES[sourceType]) * FLOAT_BYTES[tensor.type]),
      );
    }
}

function floatTypeOf({ dtype, name, file }: SafeTensor): FloatType {
  if (dtype !== 'F32' && dtype !== 'F16' && dtype !== 'BF16')
    throw invalidWeights(file, `tensor ${name}: dtype ${dtype} is none of F32, F16, BF16`);
  return dtype;
}

function interleave(input: Uint8Array, out: Uint8Array, rows: number, rowBytes: number): void {
  for (let row = 0; row < rows; row++)
    for (let half = 0; half < 2; half++) {
      const from = (half * rows + row) * rowBytes;
      out.set(input.subarray(from, from + rowBytes), (2 * row + half) * rowBytes);
    }
}

function notFinite({ name, file }: SafeTensor, { type }: PlannedTensor): Error {
  return invalidWeights(file, `tensor ${name}: a value is not finite, or not as ${type}`);
}
