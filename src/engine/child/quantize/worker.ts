// The process that quantises one model (llama_model_quantize) or collects its importance matrix, under the
// Landlock of launch.ts and a seccomp filter that leaves it opening files by name and no socket, no
// program, no other process. Reads fd 5 and 6, writes fd 4. Its log tells the progress, and the tensors
// whose shape does not fit their type, which llama.cpp gives another one.

import { fstatSync, readdirSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import koffi from 'koffi';
import { ApiError } from '../../../base/errors.ts';
import { llamaFolder } from '../../seam/library-folder.ts';
import {
  QUANTIZE_TYPES,
  type CollectedEntry,
  type CollectOrder,
  type Fallback,
  type MatrixEntry,
  type QuantizeOrder,
} from '../../seam/quantize.ts';
import { TASK_MATRIX_FD, TASK_OUTPUT_FD, TASK_SOURCE_FD, type TaskDone } from '../../seam/task.ts';
import { confineProcess } from '../confine.ts';
import { hardenProcess } from '../harden.ts';
import { POINTER, type Pointer } from '../llama/declarations.ts';
import { growNativeStack, loadLlama, type NativeLibrary } from '../llama/library.ts';
import { serveTask, type TaskReport } from '../task.ts';
import {
  collectMatrix,
  collectSums,
  meanOf,
  nativeMatrix,
  type ImportanceMatrix,
  type Sum,
} from './matrix.ts';

/** include/llama.h, llama_model_quantize_params. */
const params = koffi.struct({
  nthread: 'int32',
  ftype: 'int32',
  output_tensor_type: 'int32',
  token_embedding_type: 'int32',
  allow_requantize: 'bool',
  quantize_output_tensor: 'bool',
  only_copy: 'bool',
  pure: 'bool',
  keep_split: 'bool',
  dry_run: 'bool',
  imatrix: POINTER,
  kv_overrides: POINTER,
  tt_overrides: POINTER,
  prune_layers: POINTER,
  max_buf_size: 'size_t',
});
const PARAMS_BYTES = 64;
/** Rows of a tensor in memory at once. */
const MAX_BUFFER_BYTES = 1024 * 1024 * 1024;
const MAX_FALLBACKS = 4096;
const SOURCE = `/proc/self/fd/${TASK_SOURCE_FD}`;
const PROBE_BYTES = 1024 * 1024;
const MAX_TEXT_BYTES = 16 * 1024 * 1024;

serveTask<QuantizeOrder | CollectOrder>((order, report) => {
  growNativeStack();
  hardenProcess(order.parentPid);
  const { llama, ggml: parts } = loadLlama(llamaFolder(), { plain: true });
  const library = loadLibrary();
  const ggml = parts.base();
  const quantize = quantizer(library);
  const log = new Log(report);
  const proto = koffi.pointer(koffi.proto('void', ['int', 'str', POINTER]));
  llama.llama_log_set(
    koffi.register((_level: number, text: string) => log.take(text), proto),
    null,
  );
  confineProcess('files');
  const from = { path: SOURCE, library, ggml };
  if (order.kind === 'collect') {
    const text = textAt(fstatSync(TASK_MATRIX_FD).size);
    const { maxTokens } = order;
    const { sums, tokens, chunk } = collectSums(llama, { ...from, text, maxTokens, onTokens: report });
    return { kind: 'done', entries: writeSums(sums), tokens, chunk } satisfies TaskDone;
  }
  const matrix = matrixFor(order, () => collectMatrix(llama, from));
  const rc = quantize(order, matrix === undefined ? null : nativeMatrix(matrix));
  if (rc !== 0) {
    assertRoom();
    throw log.refusal(order.type);
  }
  return { kind: 'done', fallbacks: log.fallbacks } satisfies TaskDone;
});

function matrixFor(
  { type, matrix }: QuantizeOrder,
  collect: () => ImportanceMatrix,
): ImportanceMatrix | undefined {
  if (matrix !== undefined) return new Map(matrix.map((entry) => [entry.name, valuesOf(entry)]));
  return QUANTIZE_TYPES[type].needsMatrix ? collect() : undefined;
}

function valuesOf({ name, at, columns, counts }: MatrixEntry): Float32Array {
  const sums = new Float32Array(Uint8Array.from(readAt(at, 4 * columns * counts.length)).buffer);
  if (!sums.every((each) => Number.isFinite(each) && each >= 0))
    throw new ApiError(
      'invalid_input',
      `the importance matrix of ${name} has a value that is no sum of squares`,
    );
  return meanOf({ squares: Float64Array.from(sums), counts: [...counts] }, true);
}

/** As much as is read of it; llama.cpp ends the process at bytes that are no UTF-8. 400 invalid_input. */
function textAt(size: number): Buffer {
  const bytes = readAt(0, Math.min(size, MAX_TEXT_BYTES));
  try {
    // The last character may be cut off where the text goes on.
    const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
    return Buffer.from(decoder.decode(bytes, { stream: size > MAX_TEXT_BYTES }));
  } catch {
    throw new ApiError('invalid_input', 'the text is not UTF-8');
  }
}

function readAt(at: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let done = 0; done < length;) {
    const read = readSync(TASK_MATRIX_FD, bytes, done, length - done, at + done);
    if (read === 0) throw new Error('a file became shorter while it was read');
    done += read;
  }
  return bytes;
}

function writeSums(sums: ReadonlyMap<string, Sum>): readonly CollectedEntry[] {
  return [...sums].map(([name, { squares, counts }]) => {
    const bytes = Buffer.from(Float32Array.from(squares).buffer);
    for (let done = 0; done < bytes.length;) done += writeSync(TASK_OUTPUT_FD, bytes, done);
    return { name, columns: squares.length / counts.length, counts };
  });
}

/** llama.cpp does not say why a write failed: on a full disk this one fails as well, and says it. */
function assertRoom(): void {
  const { size } = fstatSync(TASK_OUTPUT_FD);
  const probe = new Uint8Array(PROBE_BYTES);
  for (let done = 0; done < probe.length;)
    done += writeSync(TASK_OUTPUT_FD, probe, done, probe.length - done, size + done);
}

function loadLibrary(): NativeLibrary {
  const folder = llamaFolder();
  const name = readdirSync(folder).find((file) => file.startsWith('libllama.'));
  if (name === undefined) throw new Error('libllama is missing from the inference library');
  return koffi.load(join(folder, name));
}

/** The function, with its parameters checked against the header's defaults. */
function quantizer(library: NativeLibrary): (order: QuantizeOrder, imatrix: Pointer | null) => number {
  const defaults: unknown = library.func('llama_model_quantize_default_params', params, [])();
  const expected = {
    nthread: 0,
    ftype: 7,
    output_tensor_type: 43,
    token_embedding_type: 43,
    quantize_output_tensor: true,
  };
  if (koffi.sizeof(params) !== PARAMS_BYTES || typeof defaults !== 'object' || defaults === null)
    throw new Error('llama_model_quantize_params is not what the pinned header says');
  for (const [field, value] of Object.entries(expected))
    if (Reflect.get(defaults, field) !== value)
      throw new Error(`llama_model_quantize_params.${field} is not where the pinned header has it`);
  const call = library.func('llama_model_quantize', 'uint32', ['str', 'str', koffi.pointer(params)]);
  return ({ type, threads }, imatrix) =>
    Number(
      call(SOURCE, `/proc/self/fd/${TASK_OUTPUT_FD}`, {
        ...defaults,
        nthread: threads,
        ftype: QUANTIZE_TYPES[type].id,
        imatrix,
        max_buf_size: MAX_BUFFER_BYTES,
      }),
    );
}

/** llama.cpp writes a line in several calls. */
class Log {
  readonly fallbacks: Fallback[] = [];
  readonly #report: TaskReport;
  #line = '';
  #reason: string | undefined;

  constructor(report: TaskReport) {
    this.#report = report;
  }

  take(text: string): void {
    this.#line = (this.#line + text).slice(-4096);
    for (let end = this.#line.indexOf('\n'); end >= 0; end = this.#line.indexOf('\n')) {
      this.#read(this.#line.slice(0, end));
      this.#line = this.#line.slice(end + 1);
    }
  }

  /** llama.cpp refuses a file with a reason, which is the caller's. */
  refusal(type: string): Error {
    const reason = this.#reason ?? 'it gave no reason';
    if (/(?:requires an imatrix|missing importance matrix)/i.test(reason))
      return new ApiError('unsupported_parameter', `${type} needs an importance matrix`, { param: 'isq' });
    if (/imatrix (?:size|contains)/i.test(reason))
      return new ApiError('invalid_value', 'the importance matrix is not one of this model');
    const already = /requantizing from type (\S{1,16}) is disabled/.exec(reason);
    const why =
      already === null
        ? `llama.cpp did not quantise the model: ${reason}`
        : `a tensor of the model is ${already[1]?.toUpperCase()} already: quantise the model in F32, F16 or BF16`;
    return new ApiError('unsupported_model_format', why);
  }

  #read(line: string): void {
    // Often on the line of the tensor it happened at.
    const failure = /failed to quantize: (.*)$/.exec(line);
    if (failure !== null) this.#reason ??= failure[1]?.trim().slice(0, 300);
    const step = /^\[\s*(\d+)\/\s*(\d+)\]/.exec(line);
    if (step !== null) return this.#report(Number(step[1]), Number(step[2]));
    const fallback =
      /^warning: (\S+)\s+- ncols\s+(\d+) not divisible by\s+\d+ \(required for type\s+(\S+)\).*falling back to\s+(\S+)/.exec(
        line,
      );
    if (fallback !== null && this.fallbacks.length < MAX_FALLBACKS)
      this.fallbacks.push({
        tensor: fallback[1]!,
        columns: Number(fallback[2]),
        wanted: fallback[3]!.toUpperCase(),
        used: fallback[4]!.toUpperCase(),
      });
  }
}
