// The importance matrix of a model: for every column of a weight matrix, the mean square of the numbers that
// are multiplied with it while the model reads a text. llama.cpp asks before and after each node of its
// graph (`cb_eval`). Deterministic: 32-bit keys and values, and the arithmetic of the plain CPU variant.

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

/** Of one matrix: the sum of squares of each column, over so many rows. */
export interface Sum {
  readonly squares: Float64Array;
  rows: number;
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
  params.cb_eval = observer(sums, multiplication(options.ggml));
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

/** The number of GGML_OP_MUL_MAT in this library. */
function multiplication(ggml: NativeLibrary): number {
  const nameOf = ggml.func('ggml_op_name', 'str', ['int32']);
  for (let op = 0; op < 64; op++) if (nameOf(op) === 'MUL_MAT') return op;
  throw new Error('the inference library has no MUL_MAT');
}

/** `bool (*)(struct ggml_tensor *, bool ask, void *)`: true to `ask` means that the node's data is wanted. */
function observer(sums: Map<string, Sum>, multiply: number): Pointer {
  const observe = (node: Pointer, ask: boolean): boolean => {
    const tensor = tensorAt(node);
    if (tensor.getInt32(TENSOR.op, true) !== multiply) return !ask;
    const name = nameOf(tensorAt(tensor.getBigUint64(TENSOR.src, true)));
    const input = tensorAt(tensor.getBigUint64(TENSOR.src + 8, true));
    if (!WEIGHTS.test(name) || input.getInt32(TENSOR.type, true) !== F32) return !ask;
    if (!ask) addRows(sums, name, input);
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
  const [columns = 0, rows = 0, planes = 0] = [0, 1, 2].map((i) =>
    Number(input.getBigInt64(TENSOR.ne + 8 * i, true)),
  );
  const [, rowBytes = 0, planeBytes = 0] = [0, 1, 2].map((i) =>
    Number(input.getBigUint64(TENSOR.nb + 8 * i, true)),
  );
  const data = input.getBigUint64(TENSOR.data, true);
  const sum = sums.get(name) ?? { squares: new Float64Array(columns), rows: 0 };
  sums.set(name, sum);
  for (let plane = 0; plane < planes; plane++)
    for (let row = 0; row < rows; row++) {
      const at = data + BigInt(plane * planeBytes + row * rowBytes);
      const values = new Float32Array(nativeView(at, 4 * columns));
      for (let i = 0; i < columns; i++) sum.squares[i]! += values[i]! * values[i]!;
    }
  sum.rows += rows * planes;
}

/** A column that the text never reaches counts for a little: a block of none has no scale. */
export function meanOf({ squares, rows }: Sum): Float32Array {
  const floor = (squares.reduce((sum, each) => sum + each, 0) / squares.length) * 1e-6 || 1;
  return Float32Array.from(squares, (each) => Math.max(each, floor) / rows);
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
