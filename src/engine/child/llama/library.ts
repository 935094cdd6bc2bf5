// libllama, as the npm packages `@node-llama-cpp/<platform>` ship it, called through koffi. A wrong layout
// corrupts memory silently, so `loadLlama` refuses: another library version, another structure size, or a
// default-parameters call whose fields do not come back as the header's constructor writes them.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import koffi from 'koffi';
import { llamaFolder, LlamaLibraryError } from '../../seam/library-folder.ts';
import {
  batchStruct,
  contextParams,
  modelParams,
  POINTER,
  SIGNATURES,
  threadpoolParams,
  type LlamaLibrary,
  type Pointer,
} from './declarations.ts';

const SUPPORTED_VERSION = '0.4.0-dev';

/**
 * Gives native calls the largest stack koffi has. libllama's regular expressions use up its usual 2 MiB at 7
 * 000 characters in a row (long-runs). Must come before any native call.
 */
export function growNativeStack(): void {
  koffi.config({ sync_stack_size: 16 * 1024 * 1024 });
}

export type NativeLibrary = ReturnType<typeof koffi.load>;

/**
 * Loads the library, the CPU variant that fits this processor, or the plain one, which computes the same
 * numbers on all, and, in a build for graphics cards, their driver. Call once per process.
 */
export function loadLlama(
  folder = llamaFolder(),
  { plain = false }: { readonly plain?: boolean | undefined } = {},
): {
  readonly llama: LlamaLibrary;
  /** `poll`: rounds in units of 131 072 that a worker spins for the next step before it sleeps. */
  readonly newThreadpool: (threads: number, poll: number) => Pointer | null;
  /** libggml with its registry, and libggml-base. */
  readonly ggml: { readonly registry: NativeLibrary; readonly base: () => NativeLibrary };
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
  // koffi's functions are untyped; LlamaLibrary is their only typing, kept beside `SIGNATURES`.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  const llama = Object.fromEntries(
    Object.entries(SIGNATURES).map(([name, [result, args]]) => [name, library.func(name, result, [...args])]),
  ) as unknown as LlamaLibrary;
  assertDefaults(llama);
  const plainCpu = files.find((file) => file.startsWith('libggml-cpu-x64.'));
  if (plain && plainCpu !== undefined)
    ggml.func('ggml_backend_load', POINTER, ['str'])(join(folder, plainCpu));
  else ggml.func('ggml_backend_load_all_from_path', 'void', ['str'])(folder);
  llama.llama_backend_init();
  const base = (): NativeLibrary => koffi.load(find('libggml-base'));
  return { llama, newThreadpool: threadpoolMaker(ggml), ggml: { registry: ggml, base } };
}

/**
 * The CPU variant in this process, by its file: `libggml-cpu-haswell`. Reads /proc/self/maps, so it is called
 * before the process is confined; `unknown` where there is no such file.
 */
export function cpuVariant(): string {
  try {
    return /\/(libggml-cpu[\w-]*)\.so/.exec(readFileSync('/proc/self/maps', 'utf8'))?.[1] ?? 'unknown';
  } catch {
    return 'unknown';
  }
}

export function assertVersion(version: unknown): void {
  if (version !== SUPPORTED_VERSION)
    throw new LlamaLibraryError(`libllama is ${String(version)}, this build needs ${SUPPORTED_VERSION}`);
}

/** The struct sizes that `sizeof` gives in C for the pinned headers (LP64: x86-64 and arm64 alike). */
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
    devices: null,
    tensor_buft_overrides: null,
    n_gpu_layers: -1,
    split_mode: 1,
    main_gpu: 0,
    tensor_split: null,
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

/**
 * The thread pool lives in the CPU variant that was just chosen, so it is reached through the backend
 * registry.
 */
function threadpoolMaker(ggml: NativeLibrary): (threads: number, poll: number) => Pointer | null {
  const deviceByType = ggml.func('ggml_backend_dev_by_type', POINTER, ['int32']);
  const registryOf = ggml.func('ggml_backend_dev_backend_reg', POINTER, [POINTER]);
  const procAddress = ggml.func('ggml_backend_reg_get_proc_address', POINTER, [POINTER, 'str']);
  const defaults = ggml.func('ggml_threadpool_params_default', threadpoolParams, ['int32']);
  const newPool = koffi.proto(POINTER, [koffi.pointer(threadpoolParams)]);
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
export function openFileStream(path: string): Pointer | null {
  const stream: unknown = koffi.load(null).func('fopen', POINTER, ['str', 'str'])(path, 'rbe');
  return typeof stream === 'bigint' ? stream : null;
}

export function closeStream(stream: Pointer): void {
  koffi.load(null).func('fclose', 'int', [POINTER])(stream);
}

/** Native memory seen as bytes; the view must not outlive the memory. */
export function nativeView(pointer: Pointer, bytes: number): ArrayBuffer {
  return koffi.view(pointer, bytes);
}

/** Zeroed native memory that lives until `nativeFree`. */
export function nativeAlloc(bytes: number): { readonly pointer: Pointer; readonly memory: ArrayBuffer } {
  const pointer = address(koffi.alloc('uint8', bytes));
  const memory = koffi.view(pointer, bytes);
  new Uint8Array(memory).fill(0);
  return { pointer, memory };
}

/** Gives memory of `nativeAlloc` back; no view of it may be used after. */
export function nativeFree(pointer: Pointer): void {
  koffi.free(pointer);
}

/** A load-progress callback; returning false ends the load. */
export function progressCallback(report: (fraction: number) => boolean): Pointer {
  return koffi.register(report, koffi.pointer(koffi.proto('bool', ['float', POINTER])));
}

function address(value: unknown): Pointer {
  if (typeof value !== 'bigint' || value === 0n) throw new LlamaLibraryError('a native address is missing');
  return value;
}
