// libllama, as the npm packages `@node-llama-cpp/<platform>` ship it, called through koffi. Structures and functions are
// declared once here and follow include/llama.h of llama.cpp v0.4.0 (the git bundle inside node-llama-cpp 3.21.1).
// A wrong layout corrupts memory silently, so `loadLlama` refuses: another library version, another structure size, or a
// default-parameters call whose fields do not come back as the header's constructor writes them.

import { existsSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import koffi from 'koffi';

/** A native address. koffi hands out bigint; null is NULL. */
export type Pointer = bigint;

const SUPPORTED_VERSION = '0.4.0-dev';
const P = 'void *';

const modelParams = koffi.struct({
  devices: P,
  tensor_buft_overrides: P,
  n_gpu_layers: 'int32',
  split_mode: 'int32',
  load_mode: 'int32',
  lazy_mode: 'int32',
  main_gpu: 'int32',
  tensor_split: P,
  progress_callback: P,
  progress_callback_user_data: P,
  kv_overrides: P,
  vocab_only: 'bool',
  check_tensors: 'bool',
  use_extra_bufts: 'bool',
  no_host: 'bool',
  no_alloc: 'bool',
  load_mtp: 'bool',
});

const contextParams = koffi.struct({
  n_ctx: 'uint32',
  n_batch: 'uint32',
  n_ubatch: 'uint32',
  n_seq_max: 'uint32',
  n_rs_seq: 'uint32',
  n_outputs_max: 'uint32',
  n_outputs_max_per_seq: 'uint32',
  n_threads: 'int32',
  n_threads_batch: 'int32',
  ctx_type: 'int32',
  rope_scaling_type: 'int32',
  pooling_type: 'int32',
  attention_type: 'int32',
  flash_attn_type: 'int32',
  rope_freq_base: 'float',
  rope_freq_scale: 'float',
  yarn_ext_factor: 'float',
  yarn_attn_factor: 'float',
  yarn_beta_fast: 'float',
  yarn_beta_slow: 'float',
  yarn_orig_ctx: 'uint32',
  defrag_thold: 'float',
  cb_eval: P,
  cb_eval_user_data: P,
  type_k: 'int32',
  type_v: 'int32',
  abort_callback: P,
  abort_callback_data: P,
  embeddings: 'bool',
  offload_kqv: 'bool',
  no_perf: 'bool',
  op_offload: 'bool',
  swa_full: 'bool',
  kv_unified: 'bool',
  samplers: P,
  n_samplers: 'size_t',
  ctx_other: P,
});

const batchStruct = koffi.struct({
  n_tokens: 'int32',
  token: P,
  embd: P,
  pos: P,
  n_seq_id: P,
  seq_id: P,
  logits: P,
});

const threadpoolParams = koffi.struct({
  cpumask: koffi.array('bool', 512),
  n_threads: 'int32',
  prio: 'int32',
  poll: 'uint32',
  strict_cpu: 'bool',
  paused: 'bool',
});

export interface ModelParams {
  n_gpu_layers: number;
  load_mode: number;
  lazy_mode: number;
  split_mode: number;
  progress_callback: Pointer | null;
  use_extra_bufts: boolean;
  check_tensors: boolean;
  vocab_only: boolean;
}

export interface ContextParams {
  n_ctx: number;
  n_batch: number;
  n_ubatch: number;
  n_seq_max: number;
  n_outputs_max: number;
  n_outputs_max_per_seq: number;
  n_threads: number;
  n_threads_batch: number;
  rope_scaling_type: number;
  pooling_type: number;
  flash_attn_type: number;
  yarn_ext_factor: number;
  defrag_thold: number;
  type_k: number;
  type_v: number;
  abort_callback: Pointer | null;
  abort_callback_data: Pointer | null;
  embeddings: boolean;
  offload_kqv: boolean;
  no_perf: boolean;
  op_offload: boolean;
  swa_full: boolean;
  kv_unified: boolean;
  samplers: Pointer | null;
  n_samplers: number;
}

export interface NativeBatch {
  n_tokens: number;
  readonly token: Pointer;
  readonly embd: null;
  readonly pos: Pointer;
  readonly n_seq_id: Pointer;
  readonly seq_id: Pointer;
  readonly logits: Pointer;
}

type Native<A extends unknown[], R> = ((...args: A) => R) & {
  async(...args: [...A, (error: Error | null, result: R) => void]): void;
};

/** The functions we call, by their C names. */
export interface LlamaLibrary {
  readonly llama_backend_init: Native<[], void>;
  readonly llama_log_set: Native<[Pointer | null, null], void>;
  readonly llama_model_default_params: Native<[], ModelParams>;
  readonly llama_context_default_params: Native<[], ContextParams>;
  readonly llama_model_load_from_file_ptr: Native<[Pointer, ModelParams], Pointer | null>;
  readonly llama_model_free: Native<[Pointer], void>;
  readonly llama_init_from_model: Native<[Pointer, ContextParams], Pointer | null>;
  readonly llama_free: Native<[Pointer], void>;
  readonly llama_model_get_vocab: Native<[Pointer], Pointer>;
  readonly llama_get_memory: Native<[Pointer], Pointer | null>;
  readonly llama_n_ctx: Native<[Pointer], number>;
  readonly llama_model_n_ctx_train: Native<[Pointer], number>;
  readonly llama_model_n_embd_out: Native<[Pointer], number>;
  readonly llama_model_n_layer: Native<[Pointer], number>;
  readonly llama_model_n_head_kv: Native<[Pointer], number>;
  readonly llama_model_n_cls_out: Native<[Pointer], number>;
  readonly llama_model_size: Native<[Pointer], number>;
  readonly llama_model_has_encoder: Native<[Pointer], boolean>;
  readonly llama_model_has_decoder: Native<[Pointer], boolean>;
  readonly llama_model_is_recurrent: Native<[Pointer], boolean>;
  readonly llama_model_is_hybrid: Native<[Pointer], boolean>;
  readonly llama_model_is_diffusion: Native<[Pointer], boolean>;
  readonly llama_model_chat_template: Native<[Pointer, string | null], string | null>;
  readonly llama_model_meta_val_str: Native<[Pointer, string, Uint8Array, number], number>;
  readonly llama_memory_clear: Native<[Pointer, boolean], void>;
  readonly llama_memory_seq_rm: Native<[Pointer, number, number, number], boolean>;
  readonly llama_memory_seq_cp: Native<[Pointer, number, number, number, number], void>;
  readonly llama_decode: Native<[Pointer, NativeBatch], number>;
  readonly llama_get_logits_ith: Native<[Pointer, number], Pointer | null>;
  readonly llama_get_embeddings_seq: Native<[Pointer, number], Pointer | null>;
  readonly llama_attach_threadpool: Native<[Pointer, Pointer, Pointer], void>;
  readonly llama_set_n_threads: Native<[Pointer, number, number], void>;
  readonly llama_vocab_n_tokens: Native<[Pointer], number>;
  readonly llama_vocab_get_text: Native<[Pointer, number], string | null>;
  readonly llama_vocab_get_attr: Native<[Pointer, number], number>;
  readonly llama_vocab_is_eog: Native<[Pointer, number], boolean>;
  readonly llama_vocab_bos: Native<[Pointer], number>;
  readonly llama_vocab_eos: Native<[Pointer], number>;
  readonly llama_vocab_sep: Native<[Pointer], number>;
  readonly llama_vocab_get_add_bos: Native<[Pointer], boolean>;
  readonly llama_vocab_get_add_eos: Native<[Pointer], boolean>;
  readonly llama_vocab_get_add_sep: Native<[Pointer], boolean>;
  readonly llama_vocab_fim_pre: Native<[Pointer], number>;
  readonly llama_vocab_fim_suf: Native<[Pointer], number>;
  readonly llama_vocab_fim_mid: Native<[Pointer], number>;
  readonly llama_tokenize: Native<
    [Pointer, Uint8Array, number, Int32Array, number, boolean, boolean],
    number
  >;
  readonly llama_token_to_piece: Native<[Pointer, number, Uint8Array, number, number, boolean], number>;
  readonly llama_sampler_init_grammar: Native<[Pointer, string, string], Pointer | null>;
  readonly llama_sampler_apply: Native<[Pointer, Pointer], void>;
  readonly llama_sampler_accept: Native<[Pointer, number], void>;
  readonly llama_sampler_free: Native<[Pointer], void>;
}

type Signature = readonly [
  result: string | ReturnType<typeof koffi.struct>,
  args: readonly (string | ReturnType<typeof koffi.struct>)[],
];

const SIGNATURES: { readonly [name in keyof LlamaLibrary]: Signature } = {
  llama_backend_init: ['void', []],
  llama_log_set: ['void', [P, P]],
  llama_model_default_params: [modelParams, []],
  llama_context_default_params: [contextParams, []],
  llama_model_load_from_file_ptr: [P, [P, modelParams]],
  llama_model_free: ['void', [P]],
  llama_init_from_model: [P, [P, contextParams]],
  llama_free: ['void', [P]],
  llama_model_get_vocab: [P, [P]],
  llama_get_memory: [P, [P]],
  llama_n_ctx: ['uint32', [P]],
  llama_model_n_ctx_train: ['int32', [P]],
  llama_model_n_embd_out: ['int32', [P]],
  llama_model_n_layer: ['int32', [P]],
  llama_model_n_head_kv: ['int32', [P]],
  llama_model_n_cls_out: ['uint32', [P]],
  llama_model_size: ['uint64', [P]],
  llama_model_has_encoder: ['bool', [P]],
  llama_model_has_decoder: ['bool', [P]],
  llama_model_is_recurrent: ['bool', [P]],
  llama_model_is_hybrid: ['bool', [P]],
  llama_model_is_diffusion: ['bool', [P]],
  llama_model_chat_template: ['str', [P, 'str']],
  llama_model_meta_val_str: ['int32', [P, 'str', P, 'size_t']],
  llama_memory_clear: ['void', [P, 'bool']],
  llama_memory_seq_rm: ['bool', [P, 'int32', 'int32', 'int32']],
  llama_memory_seq_cp: ['void', [P, 'int32', 'int32', 'int32', 'int32']],
  llama_decode: ['int32', [P, batchStruct]],
  llama_get_logits_ith: [P, [P, 'int32']],
  llama_get_embeddings_seq: [P, [P, 'int32']],
  llama_attach_threadpool: ['void', [P, P, P]],
  llama_set_n_threads: ['void', [P, 'int32', 'int32']],
  llama_vocab_n_tokens: ['int32', [P]],
  llama_vocab_get_text: ['str', [P, 'int32']],
  llama_vocab_get_attr: ['int32', [P, 'int32']],
  llama_vocab_is_eog: ['bool', [P, 'int32']],
  llama_vocab_bos: ['int32', [P]],
  llama_vocab_eos: ['int32', [P]],
  llama_vocab_sep: ['int32', [P]],
  llama_vocab_get_add_bos: ['bool', [P]],
  llama_vocab_get_add_eos: ['bool', [P]],
  llama_vocab_get_add_sep: ['bool', [P]],
  llama_vocab_fim_pre: ['int32', [P]],
  llama_vocab_fim_suf: ['int32', [P]],
  llama_vocab_fim_mid: ['int32', [P]],
  llama_tokenize: ['int32', [P, P, 'int32', P, 'int32', 'bool', 'bool']],
  llama_token_to_piece: ['int32', [P, 'int32', P, 'int32', 'int32', 'bool']],
  llama_sampler_init_grammar: [P, [P, 'str', 'str']],
  llama_sampler_apply: ['void', [P, P]],
  llama_sampler_accept: ['void', [P, 'int32']],
  llama_sampler_free: ['void', [P]],
};

export class LlamaLibraryError extends Error {
  override readonly name = 'LlamaLibraryError';
}

/** The folder with libllama for this machine, from the optional npm package of the platform. */
export function llamaFolder(): string {
  const platform =
    process.platform === 'darwin'
      ? process.arch === 'arm64'
        ? 'mac-arm64-metal'
        : 'mac-x64'
      : `${process.platform}-${process.arch}`;
  const name = `@node-llama-cpp/${platform}`;
  let entry: string;
  try {
    entry = createRequire(import.meta.url).resolve(name);
  } catch (cause) {
    throw new LlamaLibraryError(`${name} is not installed: there is no inference library for this machine`, {
      cause,
    });
  }
  const folder = join(dirname(dirname(entry)), 'bins', platform);
  if (!existsSync(folder)) throw new LlamaLibraryError(`${name} has no bins/${platform}`);
  return folder;
}

/**
 * Gives native calls the largest stack koffi has. Of its usual 2 MiB libllama's regular expressions use up all at 7 000
 * characters in a row (text-runs). Must come before anything native is called.
 */
export function growNativeStack(): void {
  koffi.config({ sync_stack_size: 16 * 1024 * 1024 });
}

/** Loads the library and the CPU variant that fits this processor. Call once per process. */
export function loadLlama(folder = llamaFolder()): {
  readonly llama: LlamaLibrary;
  /** `poll`: rounds in units of 131 072 that a worker spins for the next step before it sleeps. */
  readonly newThreadpool: (threads: number, poll: number) => Pointer | null;
} {
  const files = readdirSync(folder);
  const suffix = process.platform === 'darwin' ? 'dylib' : 'so';
  const find = (stem: string): string => {
    const name = files.find((file) => file.startsWith(`${stem}.`) && file.endsWith(suffix));
    if (name === undefined) throw new LlamaLibraryError(`${stem} is missing from the inference library`);
    return join(folder, name);
  };
  const ggml = koffi.load(find('libggml'));
  const library = koffi.load(find('libllama'));
  const version: unknown = library.func('llama_version', 'str', [])();
  assertVersion(version);
  assertSizes();
  // koffi's functions are untyped; LlamaLibrary is their only typing, kept beside `signatures` above.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  const llama = Object.fromEntries(
    Object.entries(SIGNATURES).map(([name, [result, args]]) => [name, library.func(name, result, [...args])]),
  ) as unknown as LlamaLibrary;
  assertDefaults(llama);
  ggml.func('ggml_backend_load_all_from_path', 'void', ['str'])(folder);
  llama.llama_backend_init();
  return { llama, newThreadpool: threadpoolMaker(ggml) };
}

export function assertVersion(version: unknown): void {
  if (version !== SUPPORTED_VERSION)
    throw new LlamaLibraryError(`libllama is ${String(version)}, this build needs ${SUPPORTED_VERSION}`);
}

/** Copies of the struct sizes `sizeof` gives in C for the pinned headers (LP64: x86-64 and arm64 alike). */
function assertSizes(): void {
  const expected = [
    ['llama_model_params', modelParams, 80],
    ['llama_context_params', contextParams, 160],
    ['llama_batch', batchStruct, 56],
    ['ggml_threadpool_params', threadpoolParams, 528],
  ] as const;
  for (const [name, type, size] of expected) {
    if (koffi.sizeof(type) !== size)
      throw new LlamaLibraryError(`${name} is ${koffi.sizeof(type)} bytes, the pinned header says ${size}`);
  }
}

/** Every distinctive default, from the first field to the last: a shifted layout cannot pass. */
export function assertDefaults(
  llama: Pick<LlamaLibrary, 'llama_model_default_params' | 'llama_context_default_params'>,
): void {
  check('llama_model_params', llama.llama_model_default_params(), {
    n_gpu_layers: -1,
    split_mode: 1,
    load_mode: -1,
    lazy_mode: 1,
    progress_callback: null,
    vocab_only: false,
    use_extra_bufts: true,
    check_tensors: false,
  });
  check('llama_context_params', llama.llama_context_default_params(), {
    n_ctx: 512,
    n_batch: 2048,
    n_ubatch: 512,
    n_seq_max: 1,
    n_outputs_max: 0,
    n_outputs_max_per_seq: 1,
    n_threads: 4,
    rope_scaling_type: -1,
    pooling_type: -1,
    flash_attn_type: -1,
    yarn_ext_factor: -1,
    defrag_thold: -1,
    type_k: 1,
    type_v: 1,
    abort_callback: null,
    embeddings: false,
    offload_kqv: true,
    no_perf: true,
    op_offload: true,
    swa_full: true,
    kv_unified: false,
    samplers: null,
    n_samplers: 0,
  });
}

function check(struct: string, actual: object, expected: Record<string, unknown>): void {
  for (const [field, value] of Object.entries(expected)) {
    const found: unknown = Reflect.get(actual, field);
    if (found !== value)
      throw new LlamaLibraryError(
        `${struct}.${field} defaults to ${String(found)}, the pinned header says ${String(value)}`,
      );
  }
}

/** The thread pool lives in the CPU variant that was just chosen, so it is reached through the backend registry. */
function threadpoolMaker(
  ggml: ReturnType<typeof koffi.load>,
): (threads: number, poll: number) => Pointer | null {
  const deviceByType = ggml.func('ggml_backend_dev_by_type', P, ['int32']);
  const registryOf = ggml.func('ggml_backend_dev_backend_reg', P, [P]);
  const procAddress = ggml.func('ggml_backend_reg_get_proc_address', P, [P, 'str']);
  const defaults = ggml.func('ggml_threadpool_params_default', threadpoolParams, ['int32']);
  const newPool = koffi.proto(P, [koffi.pointer(threadpoolParams)]);
  return (threads, poll) => {
    const cpu: unknown = deviceByType(0);
    if (typeof cpu !== 'bigint') return null;
    const create: unknown = procAddress(registryOf(cpu), 'ggml_threadpool_new');
    if (typeof create !== 'bigint') return null;
    const params: unknown = defaults(threads);
    if (typeof params !== 'object' || params === null || Reflect.get(params, 'n_threads') !== threads)
      throw new LlamaLibraryError('ggml_threadpool_params.n_threads is not where the pinned header has it');
    const pool: unknown = koffi.call(create, newPool, { ...params, poll });
    return typeof pool === 'bigint' ? pool : null;
  };
}

/** The address of a C library function, to hand to libllama as a callback. */
export function libcSymbol(name: 'strlen' | 'abs'): Pointer {
  return address(koffi.load(null).symbol(name));
}

/** A C stream (`FILE *`) that reads the file and goes to no child; null when it cannot be opened. */
export function openStream(path: string): Pointer | null {
  const stream: unknown = koffi.load(null).func('fopen', P, ['str', 'str'])(path, 'rbe');
  return typeof stream === 'bigint' ? stream : null;
}

export function closeStream(stream: Pointer): void {
  koffi.load(null).func('fclose', 'int', [P])(stream);
}

/** Native memory seen as bytes; the view must not outlive the memory. */
export function nativeView(pointer: Pointer, bytes: number): ArrayBuffer {
  return koffi.view(pointer, bytes);
}

/** Zeroed native memory that lives as long as the process. */
export function nativeAlloc(bytes: number): { readonly pointer: Pointer; readonly memory: ArrayBuffer } {
  const pointer = address(koffi.alloc('uint8', bytes));
  const memory = koffi.view(pointer, bytes);
  new Uint8Array(memory).fill(0);
  return { pointer, memory };
}

/** A load-progress callback; returning false ends the load. */
export function progressCallback(report: (fraction: number) => boolean): Pointer {
  return koffi.register(report, koffi.pointer(koffi.proto('bool', ['float', P])));
}

function address(value: unknown): Pointer {
  if (typeof value !== 'bigint' || value === 0n) throw new LlamaLibraryError('a native address is missing');
  return value;
}
