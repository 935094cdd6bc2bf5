// A Hugging Face folder becomes one GGUF file: first the plan, of headers and descriptions, then the bytes,
// tensor by tensor in pieces of a few MiB. The result depends on the files, the type and the name alone,
// never on where they lie or on the machine, and is byte for byte what `convert_hf_to_gguf.py` of the pinned
// llama.cpp writes. Refuses values that are not finite.

import { ARCHITECTURES, type Architecture } from './architectures.ts';
import { Fields } from './config.ts';
import { conversion, FLOAT_BYTES, type FloatType } from './floats.ts';
import {
  invalidDescription,
  invalidWeights,
  readExactly,
  unsupportedModel,
  type Folder,
  type Output,
} from './folder.ts';
import { encodeGgufHeader, padded } from './gguf-header.ts';
import { readJson } from './json.ts';
import {
  elementsOf,
  sizeLabel,
  type CopiedTensor,
  type Metadata,
  type Plan,
  type PlannedTensor,
} from './plan.ts';
import { readTensors, type SafeTensor } from './safetensors.ts';
import { planTensors, usedTensors } from './tensors.ts';
import { addTokens } from './tokens.ts';

/** `auto` keeps BF16 and F16 and makes F16 of F32, as the official converter does. */
export type OutputType = 'auto' | 'f32' | 'f16' | 'bf16';

export interface ConvertOptions {
  readonly type: OutputType;
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

/** general.file_type and ggml_type of each. */
const FILE_TYPES: Readonly<Record<FloatType, number>> = { F32: 0, F16: 1, BF16: 32 };
const TYPE_IDS: Readonly<Record<FloatType, number>> = { F32: 0, F16: 1, BF16: 30 };
/**
 * Of a source, converted at once. A row of the widest tensor is 64 MiB at most; nearly all are
 * thousands of times smaller.
 */
const PIECE_BYTES = 4 * 1024 * 1024;
const CONFIG = 'config.json';

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

export interface Planned {
  readonly plan: Plan;
  readonly architecture: string;
  readonly type: FloatType;
}

/** Everything that can be refused without reading a weight is refused here. */
export function planConversion(folder: Folder, options: ConvertOptions): Planned {
  const json = readJson(folder, CONFIG);
  if (json === undefined) throw invalidDescription(CONFIG, 'the folder has no such file');
  const config = new Fields(CONFIG, json);
  const architecture = architectureOf(config);
  const used = usedTensors(architecture, readTensors(folder));
  const type = typeOf(options.type, used);
  const metadata: Metadata = new Map([['general.architecture', { string: architecture.gguf }]]);
  const fileType = FILE_TYPES[type];
  const parameters = architecture.parameters({
    config,
    folder,
    architecture: architecture.gguf,
    fileType,
    metadata,
  });
  const { sizes } = parameters;
  const tied = config.boolean('tie_word_embeddings') ?? architecture.tiedUnlessSaid === true;
  const heads = sizes.queries / sizes.head;
  const headsKv = sizes.keys / sizes.head;
  const copied = planTensors(used, { architecture, sizes, type, heads, headsKv, tied });
  const tensors = [...parameters.extra, ...copied];
  metadata.set('general.type', { string: 'model' });
  addSampling(folder, metadata);
  if (options.name !== undefined) metadata.set('general.name', { string: options.name });
  const count = tensors.reduce((sum, { shape }) => sum + elementsOf(shape), 0);
  metadata.set('general.size_label', { string: sizeLabel(count) });
  parameters.write();
  metadata.set('general.quantization_version', { u32: 2 });
  const { vocabulary, tokenTypes } = sizes;
  addTokens({ folder, config, metadata, vocabulary, tokenTypes, rules: architecture.tokens });
  return { plan: { metadata, tensors }, architecture: architecture.gguf, type };
}

function architectureOf(config: Fields): Architecture {
  const name = config.list('architectures')?.[0];
  if (typeof name !== 'string') throw config.wrong('architectures', 'names none');
  const architecture = Object.hasOwn(ARCHITECTURES, name) ? ARCHITECTURES[name] : undefined;
  if (architecture === undefined) {
    const shown = /^\w{1,64}$/.test(name) ? name : 'the one named';
    const known = Object.keys(ARCHITECTURES).join(', ');
    throw unsupportedModel(`${CONFIG}: architectures: ${shown} is not converted; ${known} are`);
  }
  if (config.string('model_type') !== architecture.modelType)
    throw config.wrong('model_type', `is not ${architecture.modelType}, as ${name} has it`);
  const quantized = config.object('quantization_config');
  if (quantized !== undefined) {
    const method = quantized.string('quant_method') ?? '';
    const shown = /^[\w-]{1,40}$/.test(method) ? method : 'of a kind unknown here';
    throw unsupportedModel(
      `${CONFIG}: quantization_config: weights that are quantised already (${shown}) are not converted`,
    );
  }
  for (const field of ['text_config', 'num_local_experts', 'num_experts', 'n_routed_experts'])
    if (config.value(field) !== undefined) throw config.wrong(field, `is not supported with ${name}`);
  architecture.check?.(config);
  return architecture;
}

function typeOf(asked: OutputType, used: readonly SafeTensor[]): FloatType {
  if (asked !== 'auto') return ({ f32: 'F32', f16: 'F16', bf16: 'BF16' } as const)[asked];
  const first = used.find(({ dtype, shape }) => shape.length >= 2 && (dtype === 'BF16' || dtype === 'F16'));
  return first?.dtype === 'BF16' ? 'BF16' : 'F16';
}

/** Sampling that the makers of the model recommend, in generation_config.json. */
const SAMPLING = [
  ['top_k', 'top_k', 'i32'],
  ['top_p', 'top_p', 'f32'],
  ['min_p', 'min_p', 'f32'],
  ['xtc_probability', 'xtc_probability', 'f32'],
  ['xtc_threshold', 'xtc_threshold', 'f32'],
  ['temp', 'temperature', 'f32'],
  ['penalty_last_n', 'penalty_last_n', 'i32'],
  ['penalty_repeat', 'repetition_penalty', 'f32'],
  ['mirostat', 'mirostat', 'i32'],
  ['mirostat_tau', 'mirostat_tau', 'f32'],
  ['mirostat_eta', 'mirostat_eta', 'f32'],
] as const;

function addSampling(folder: Folder, metadata: Metadata): void {
  const file = 'generation_config.json';
  const json = readJson(folder, file);
  if (json === undefined) return;
  const config = new Fields(file, json);
  const sequence = config.string('sequence');
  if (sequence !== undefined) metadata.set('general.sampling.sequence', { string: sequence });
  for (const [key, name, type] of SAMPLING) {
    const own = key === 'penalty_repeat' ? 'penalty_repeat' : name;
    const field = config.value(own) === undefined ? name : own;
    const value =
      type === 'i32' ? config.optionalInteger(field, 1e9, -1e9) : config.optionalNumber(field, -1e9, 1e9);
    if (value !== undefined)
      metadata.set(`general.sampling.${key}`, type === 'i32' ? { i32: value } : { f32: value });
  }
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
