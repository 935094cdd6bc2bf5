// The importance matrix of a model: for every column of a weight matrix, the mean square of the numbers that
// are multiplied with it while the model reads a text; of the experts of a model, for each expert over the
// tokens that were given to it. llama.cpp asks before and after each node of its graph (`cb_eval`).
// Deterministic: 32-bit keys and values, and the arithmetic of the plain CPU variant.

import koffi from 'koffi';
import { ApiError } from '../../../base/errors.ts';
import { POINTER, type ContextParams, type LlamaLibrary, type Pointer } from '../llama/declarations.ts';
import {
  nativeAlloc,
  nativeView,
  openFileStream,
  closeStream,
  type NativeLibrary,
} from '../llama/library.ts';
import { CALIBRATION_TEXT } from './calibration.ts';

/** Tokens read at once. Each has an output of as many floats as the vocabulary has tokens. */
export const CHUNK = 128;
/** struct ggml_tensor of ggml.h, 336 bytes. */
const TENSOR = { bytes: 336, type: 0, ne: 16, nb: 48, op: 80, src: 152, data: 248, name: 256 } as const;
const NAME_BYTES = 64;
const F32 = 0;
/** Matrices that a low-bit type needs a row of. */
const WEIGHTS = /^(?:blk\.\d+\..+|output)\.weight$/;

export type ImportanceMatrix = ReadonlyMap<string, Float32Array>;

/** Of one matrix: the sum of squares of each column, plane after plane; `counts` has the rows of each. */
export interface Sum {
  readonly squares: Float64Array;
  readonly counts: number[];
}

export interface MatrixOptions {
  readonly path: string;
  /** libllama and libggml-base, as koffi opened them. */
  readonly library: NativeLibrary;
  readonly ggml: NativeLibrary;
  /** UTF-8; our own text when absent. */
  readonly text?: Uint8Array | undefined;
  readonly maxTokens?: number | undefined;
  readonly onTokens?: ((done: number, total: number) => void) | undefined;
}

/** By the name of the tensor. Throws where the model cannot be loaded or run. */
export function collectMatrix(llama: LlamaLibrary, options: MatrixOptions): ImportanceMatrix {
  return new Map([...collectSums(llama, options).sums].map(([name, sum]) => [name, meanOf(sum)]));
}

/** The sums themselves. 400 invalid_input where the text has no tokens. */
export function collectSums(
  llama: LlamaLibrary,
  options: MatrixOptions,
): { readonly sums: ReadonlyMap<string, Sum>; readonly tokens: number; readonly chunk: number } {
  const { library } = options;
  const model = loadModel(llama, options.path);
  const sums = new Map<string, Sum>();
  const params: ContextParams & { cb_eval?: Pointer | undefined } = llama.llama_context_default_params();
  params.n_ctx = CHUNK;
  params.n_batch = CHUNK;
  params.n_ubatch = CHUNK;
  // The sums must be the same on every machine, which is shown for one thread alone.
  params.n_threads = 1;
  params.n_threads_batch = 1;
  params.type_k = F32;
  params.type_v = F32;
  params.flash_attn_type = 0;
  // Every token then has outputs, so the last layer sees all of them as well.
  params.embeddings = true;
  params.cb_eval = observer(sums, multiplications(options.ggml));
  const context = llama.llama_init_from_model(model, params);
  if (context === null) throw unusable('run');
  const tokens = tokenize(llama, model, options);
  const batchOf = library.func('llama_batch_get_one', koffi.struct({ ...BATCH }), [POINTER, 'int32']);
  const decode = library.func('llama_decode', 'int32', [POINTER, koffi.struct({ ...BATCH })]);
  const memory = llama.llama_get_memory(context);
  const window = Math.min(CHUNK, llama.llama_model_n_ctx_train(model));
  for (let start = 0; start < tokens.length; start += window) {
    const count = Math.min(window, tokens.length - start);
    const { pointer, memory: native } = nativeAlloc(4 * count);
    new Int32Array(native).set(tokens.subarray(start, start + count));
    if (memory !== null) llama.llama_memory_clear(memory, true);
    const rc: unknown = decode(context, batchOf(pointer, count));
    if (rc !== 0) throw unusable('run');
    options.onTokens?.(start + count, tokens.length);
  }
  library.func('llama_free', 'void', [POINTER])(context);
  library.func('llama_model_free', 'void', [POINTER])(model);
  return { sums, tokens: tokens.length, chunk: window };
}

/** struct llama_batch of llama.h. */
const BATCH = {
  n_tokens: 'int32',
  token: POINTER,
  embd: POINTER,
  pos: POINTER,
  n_seq_id: POINTER,
  seq_id: POINTER,
  logits: POINTER,
} as const;

function loadModel(llama: LlamaLibrary, path: string): Pointer {
  const file = openFileStream(path);
  if (file === null) throw new Error('the model file cannot be opened');
  const params = llama.llama_model_default_params();
  params.n_gpu_layers = 0;
  params.load_mode = 1; // mmap
  // Repacked weights are multiplied in another order.
  params.use_extra_bufts = false;
  const model = llama.llama_model_load_from_file_ptr(file, params);
  closeStream(file);
  if (model === null) throw unusable('loaded');
  return model;
}

function unusable(what: 'loaded' | 'run'): ApiError {
  return new ApiError('unsupported_model_format', `the model cannot be ${what} for its importance matrix`);
}

function tokenize(
  llama: LlamaLibrary,
  model: Pointer,
  { text = Buffer.from(CALIBRATION_TEXT.trim()), maxTokens = Infinity }: MatrixOptions,
): Int32Array {
  const tokens = new Int32Array(text.length + 2);
  const vocab = llama.llama_model_get_vocab(model);
  const count = llama.llama_tokenize(vocab, text, text.length, tokens, tokens.length, true, false);
  if (count <= 0)
    throw new ApiError('invalid_input', 'the text has no tokens in the vocabulary of the model');
  return tokens.subarray(0, Math.min(count, maxTokens));
}

interface Multiplications {
  readonly plain: number;
  /** By experts, which the third source names for each token. */
  readonly byId: number;
}

/** The numbers of GGML_OP_MUL_MAT and GGML_OP_MUL_MAT_ID in this library. */
function multiplications(ggml: NativeLibrary): Multiplications {
  const nameOf = ggml.func('ggml_op_name', 'str', ['int32']);
  const names = Array.from({ length: 64 }, (_, op) => String(nameOf(op)));
  const [plain, byId] = [names.indexOf('MUL_MAT'), names.indexOf('MUL_MAT_ID')];
  if (plain < 0 || byId < 0) throw new Error('the inference library has no MUL_MAT or no MUL_MAT_ID');
  return { plain, byId };
}

/** `bool (*)(struct ggml_tensor *, bool ask, void *)`: true to `ask` means that the node's data is wanted. */
function observer(sums: Map<string, Sum>, { plain, byId }: Multiplications): Pointer {
  const observe = (node: Pointer, ask: boolean): boolean => {
    const tensor = tensorAt(node);
    const op = tensor.getInt32(TENSOR.op, true);
    if (op !== plain && op !== byId) return !ask;
    const weights = tensorAt(tensor.getBigUint64(TENSOR.src, true));
    const name = nameOf(weights);
    const input = tensorAt(tensor.getBigUint64(TENSOR.src + 8, true));
    if (!WEIGHTS.test(name) || input.getInt32(TENSOR.type, true) !== F32) return !ask;
    if (ask) return true;
    if (op === plain) addRows(sums, name, input);
    else
      addExperts(sums, name, { weights, input, ids: tensorAt(tensor.getBigUint64(TENSOR.src + 16, true)) });
    return true;
  };
  return koffi.register(observe, koffi.pointer(koffi.proto('bool', [POINTER, 'bool', POINTER])));
}

function tensorAt(pointer: Pointer): DataView {
  return new DataView(nativeView(pointer, TENSOR.bytes));
}

function nameOf(tensor: DataView): string {
  const bytes = Buffer.from(tensor.buffer, TENSOR.name, NAME_BYTES);
  return bytes.toString('latin1', 0, bytes.indexOf(0));
}

function addRows(sums: Map<string, Sum>, name: string, input: DataView): void {
  const { sizes, strides, data } = layoutOf(input);
  const [columns, rows, planes] = sizes;
  const [, rowBytes, planeBytes] = strides;
  const sum = sumOf(sums, name, columns, 1);
  for (let plane = 0; plane < planes; plane++)
    for (let row = 0; row < rows; row++) {
      addRow(sum, 0, data + BigInt(plane * planeBytes + row * rowBytes), columns);
    }
}

interface Chosen {
  readonly weights: DataView;
  readonly input: DataView;
  readonly ids: DataView;
}

/**
 * ggml_mul_mat_id: `ids` has the experts of each token; the row of the input is one for all of them, or one
 * for each.
 */
function addExperts(sums: Map<string, Sum>, name: string, { weights, input, ids }: Chosen): void {
  const { sizes, strides, data } = layoutOf(input);
  const [columns, rows, tokens] = sizes;
  const [, rowBytes, tokenBytes] = strides;
  const experts = layoutOf(weights).sizes[2];
  const chosen = layoutOf(ids);
  const [slots, idTokens] = chosen.sizes;
  if (idTokens !== tokens) throw new Error('the experts of a layer are not of its tokens');
  const sum = sumOf(sums, name, columns, experts);
  for (let token = 0; token < tokens; token++)
    for (let slot = 0; slot < slots; slot++) {
      const at = chosen.data + BigInt(token * chosen.strides[1] + slot * chosen.strides[0]);
      const expert = new DataView(nativeView(at, 4)).getInt32(0, true);
      if (expert < 0 || expert >= experts) throw new Error('a token has an expert that is not there');
      addRow(sum, expert, data + BigInt((slot % rows) * rowBytes + token * tokenBytes), columns);
    }
}

type Three = readonly [number, number, number];

function layoutOf(tensor: DataView): {
  readonly sizes: Three;
  readonly strides: Three;
  readonly data: bigint;
} {
  const size = (i: number): number => Number(tensor.getBigInt64(TENSOR.ne + 8 * i, true));
  const stride = (i: number): number => Number(tensor.getBigUint64(TENSOR.nb + 8 * i, true));
  return {
    sizes: [size(0), size(1), size(2)],
    strides: [stride(0), stride(1), stride(2)],
    data: tensor.getBigUint64(TENSOR.data, true),
  };
}

function sumOf(sums: Map<string, Sum>, name: string, columns: number, planes: number): Sum {
  const sum = sums.get(name) ?? {
    squares: new Float64Array(columns * planes),
    counts: Array.from({ length: planes }, () => 0),
  };
  sums.set(name, sum);
  return sum;
}

function addRow({ squares, counts }: Sum, plane: number, at: bigint, columns: number): void {
  const values = new Float32Array(nativeView(at, 4 * columns));
  const start = plane * columns;
  for (let i = 0; i < columns; i++) squares[start + i]! += values[i]! * values[i]!;
  counts[plane]! += 1;
}

/**
 * A column that the text never reaches counts for a little: a block of none has no scale. A plane that it
 * never reaches, as an expert that was given no token, weighs all columns alike. Of a matrix that was given
 * only zeros are raised, so that the result is what llama.cpp makes of it.
 */
export function meanOf({ squares, counts }: Sum, isGiven = false): Float32Array {
  const columns = squares.length / counts.length;
  const means = new Float32Array(squares.length).fill(1);
  for (const [plane, rows] of counts.entries()) {
    if (rows === 0) continue;
    const own = squares.subarray(plane * columns, (plane + 1) * columns);
    const floor = (own.reduce((sum, each) => sum + each, 0) / columns) * 1e-6 || 1;
    means.set(
      Float32Array.from(own, (each) => (isGiven && each > 0 ? each : Math.max(each, floor)) / rows),
      plane * columns,
    );
  }
  return means;
}

/** `llama_model_imatrix_data { const char * name; const float * data; size_t size; }[]`, ended by zeros. */
export function nativeMatrix(matrix: ImportanceMatrix): Pointer {
  const { pointer, memory } = nativeAlloc(24 * (matrix.size + 1));
  const entries = new BigUint64Array(memory);
  for (const [i, [name, values]] of [...matrix].entries()) {
    const text = nativeAlloc(name.length + 1);
    Buffer.from(text.memory).write(name, 'latin1');
    const data = nativeAlloc(4 * values.length);
    new Float32Array(data.memory).set(values);
    entries.set([text.pointer, data.pointer, BigInt(values.length)], 3 * i);
  }
  return pointer;
}
