// One llama.cpp context: the KV memory, the native batch, and the outputs of a decode. Sequences share one
// unified KV pool, where `copySequence` copies no data, or have a stream each, where attention never looks at
// cells of others. It knows neither requests nor policies. Errors: `decode` gives llama.cpp's code — 0 done,
// 1 no KV room (no change), 2 aborted (what was processed stays).

import type { KvType } from '../../seam/engine.ts';
import { createThreadCount, type ThreadCount } from './thread-count.ts';
import { ContextError, NativeRows, NativeTokens, type RowsPlace } from './native-batch.ts';
import type { LoadedAdapter } from './adapters.ts';
import type { ContextParams, LlamaLibrary, NativeBatch, Pointer } from './declarations.ts';
import { libcSymbol, nativeAlloc, nativeFree, nativeView } from './library.ts';
import type { LoadedModel } from './model.ts';

export interface ContextOptions {
  readonly sequences: number;
  /** Cells of the KV pool, shared by all sequences. */
  readonly cells: number;
  readonly batchTokens: number;
  readonly threads: number;
  readonly threadpool: Pointer | null;
  readonly embeddings: 'none' | 'pooled' | 'rank';
  /**
   * Keys and values unrounded and no flash attention: what a sequence gets then hardly depends on the
   * others in its batch (about 1e-5 in a logit instead of 1e-2, whatever the batch), for twice the memory
   * and slower long contexts.
   */
  readonly exact: boolean;
  /** Without effect where `exact` is set. Q8_0 needs flash attention. */
  readonly kvType?: KvType | undefined;
  /** One pool for all sequences; else each has cells ÷ sequences of its own. */
  readonly unified: boolean;
  /** `useAdapter` counts them from 1. */
  readonly adapters?: readonly LoadedAdapter[] | undefined;
  /** Takes vectors of images in the place of tokens. */
  readonly vectors?: boolean | undefined;
  /** Most vectors that attend to each other in one decode. */
  readonly wholeRun?: number | undefined;
  /** Never fewer threads than `threads`, however busy the machine is. */
  readonly fixedThreads?: boolean | undefined;
}

/** enum llama_pooling_type */
const POOLING_TYPE = { none: 0, mean: 1, last: 3, rank: 4 } as const;

/**
 * The model's own pooling to one vector per text; for a generating model the last token's, which
 * has seen the whole text.
 */
function embeddingPooling(model: LoadedModel): number {
  const own = Number(model.meta(`${model.architecture}.pooling_type`) ?? POOLING_TYPE.none);
  if (own !== POOLING_TYPE.none) return own;
  return model.meta(`${model.architecture}.attention.causal`) === 'false'
    ? POOLING_TYPE.mean
    : POOLING_TYPE.last;
}

/** Parameters in llama.cpp's form; `maxOutputs`: tokens of one batch that may ask for logits. */
function paramsFor(
  llama: LlamaLibrary,
  model: LoadedModel,
  options: ContextOptions,
  maxOutputs: number,
): ContextParams {
  const params = llama.llama_context_default_params();
  const pooled = options.embeddings !== 'none';
  params.n_ctx = options.cells;
  params.n_batch = options.batchTokens;
  // Neither a pooled sequence nor a whole run may be split over micro-batches (an assertion of llama.cpp).
  const split = Math.max(512, options.wholeRun ?? 0);
  params.n_ubatch = pooled ? options.batchTokens : Math.min(split, options.batchTokens);
  params.n_seq_max = options.sequences;
  params.n_outputs_max = pooled ? 0 : maxOutputs;
  params.n_outputs_max_per_seq = 0;
  if (options.exact) {
    params.type_k = 0; // GGML_TYPE_F32
    params.type_v = 0;
    params.flash_attn_type = 0; // disabled
  } else if (options.kvType === 'q8_0') {
    params.type_k = 8; // GGML_TYPE_Q8_0
    params.type_v = 8;
    params.flash_attn_type = 1; // enabled: no other attention takes quantised values
  }
  params.n_threads = options.threads;
  params.n_threads_batch = options.threads;
  params.kv_unified = options.unified;
  params.embeddings = pooled;
  if (options.embeddings === 'rank') params.pooling_type = POOLING_TYPE.rank;
  if (options.embeddings === 'pooled') params.pooling_type = embeddingPooling(model);
  return params;
}

export class LlamaContext {
  readonly batchTokens: number;
  /** Tokens of one batch that may ask for logits. */
  readonly maxOutputs: number;
  /** Outputs hardly depend on what else is in a batch. */
  readonly exact: boolean;
  readonly #llama: LlamaLibrary;
  readonly #handle: Pointer;
  /** Null: BERT-like models have none. */
  readonly #memory: Pointer | null;
  readonly #unified: boolean;
  readonly #adapters: readonly LoadedAdapter[];
  #adapter = 0;
  readonly #wholeRun: number;
  /** Attention goes only back. */
  #causal = true;
  readonly #vocabSize: number;
  readonly #pooledSize: number;
  readonly #batch: NativeTokens;
  /** For models that see images. */
  readonly #rows: NativeRows | null;
  /** The batch of the next decode. */
  #filled: NativeBatch;
  readonly #aborting: Uint8Array;
  readonly #flag: Pointer;
  readonly #threadCount: ThreadCount;
  readonly #allThreads: number;
  #threads: number;
  /**
   * llama.cpp keeps its output buffer while it is large enough, so the same few addresses
   * come back at every step.
   */
  readonly #views = new Map<Pointer, Float32Array>();

  constructor(llama: LlamaLibrary, model: LoadedModel, options: ContextOptions) {
    const { batchTokens, embeddings, sequences, threads, threadpool } = options;
    this.batchTokens = batchTokens;
    this.#wholeRun = Math.min(options.wholeRun ?? 0, batchTokens);
    this.exact = options.exact;
    // Without a limit llama.cpp reserves batch × vocabulary floats; a batch over it would be an
    // assertion, so `add` refuses.
    this.maxOutputs = embeddings === 'none' ? Math.min(batchTokens, Math.max(64, sequences)) : batchTokens;
    const params = paramsFor(llama, model, options, this.maxOutputs);
    // ggml asks this callback between graph nodes, on its own thread: a JavaScript function would cost
    // a thread hop each time. strlen of one flag byte is the same question in native code: "" is 0,
    // false; "\x01" is 1, true.
    const flag = nativeAlloc(8);
    this.#aborting = new Uint8Array(flag.memory);
    this.#flag = flag.pointer;
    params.abort_callback = libcSymbol('strlen');
    params.abort_callback_data = flag.pointer;
    const handle = llama.llama_init_from_model(model.handle, params);
    if (handle === null)
      throw new ContextError(
        `the context cannot be created (too little memory, or the model does not support it${options.kvType === 'q8_0' ? ' with kv_type q8_0' : ''})`,
      );
    if (threadpool !== null) llama.llama_attach_threadpool(handle, threadpool, threadpool);
    this.#llama = llama;
    this.#handle = handle;
    this.#memory = llama.llama_get_memory(handle);
    this.#unified = options.unified;
    this.#adapters = options.adapters ?? [];
    this.#vocabSize = model.vocabSize;
    this.#pooledSize = embeddings === 'rank' ? Math.max(1, model.classOutputs) : model.embeddingSize;
    this.#batch = new NativeTokens(batchTokens, this.maxOutputs);
    this.#filled = this.#batch.native;
    this.#rows = options.vectors === true ? new NativeRows(batchTokens, model.inputSize) : null;
    this.#threadCount = createThreadCount(threads, () => performance.now());
    this.#allThreads = options.fixedThreads === true ? 1 : threads;
    this.#threads = threads;
  }

  get batchLength(): number {
    return this.#filled.n_tokens;
  }

  /** Starts a new batch. */
  clearBatch(): void {
    this.#batch.clear();
    this.#filled = this.#batch.native;
  }

  /** The adapter of the decodes to come; 0: the model as it is. */
  useAdapter(adapter: number): void {
    if (adapter === this.#adapter) return;
    this.#adapter = adapter;
    const chosen = this.#adapters[adapter - 1];
    const count = chosen === undefined ? 0 : 1;
    this.#llama.llama_set_adapters_lora(this.#handle, chosen?.handles ?? null, count, chosen?.scales ?? null);
  }

  /** Appends a token; returns its index in the batch, which `logits` takes. */
  add(token: number, position: number, sequence: number, output: boolean): number {
    return this.#batch.add(token, position, sequence, output);
  }

  /** Replaces the batch by vectors in the place of tokens. */
  addRows(rows: Float32Array, place: RowsPlace): void {
    if (this.#rows === null) throw new ContextError('this context takes no vectors');
    this.#rows.set(rows, place);
    this.#filled = this.#rows.native;
    if (place.whole === true && this.batchLength > this.#wholeRun)
      throw new ContextError(`${this.batchLength} vectors are more than one decode has whole`);
  }

  /** Decodes one token and forgets it. Throws when the device cannot. */
  warmUp(token: number): void {
    this.clearBatch();
    this.add(token, 0, 0, true);
    const code = this.decodeSync();
    this.clearBatch();
    if (this.#memory !== null) this.#llama.llama_memory_clear(this.#memory, true);
    if (code !== 0) throw new ContextError(`the first decode failed with code ${code}`);
  }

  decodeSync(): number {
    const measured = this.#begin();
    // llama_decode itself calls encode for models without a KV memory.
    const code = this.#llama.llama_decode(this.#handle, this.#filled);
    if (measured !== null) this.#end(measured);
    return code;
  }

  async decode(): Promise<number> {
    const measured = this.#begin();
    const code = await new Promise<number>((resolve, reject) => {
      this.#llama.llama_decode.async(this.#handle, this.#filled, (error, result) =>
        error === null ? resolve(result) : reject(error),
      );
    });
    if (measured !== null) this.#end(measured);
    return code;
  }

  /** Makes a running `decode` return 2 soon; cleared by the next decode. */
  abort(): void {
    this.#aborting[0] = 1;
  }

  /** Logits of an output of the last decode, valid until the next one. */
  logits(index: number): Float32Array {
    return this.#view(this.#llama.llama_get_logits_ith(this.#handle, index), this.#vocabSize);
  }

  /** Pooled embedding or rank outputs of a sequence after the last decode; a copy. */
  pooled(sequence: number): Float32Array {
    return this.#view(this.#llama.llama_get_embeddings_seq(this.#handle, sequence), this.#pooledSize).slice();
  }

  /**
   * Forgets positions from `from` on; false when the memory cannot (then the sequence is emptied instead).
   */
  removeTail(sequence: number, from: number): boolean {
    if (this.#memory === null || this.#llama.llama_memory_seq_rm(this.#memory, sequence, from, -1))
      return true;
    this.#llama.llama_memory_seq_rm(this.#memory, sequence, -1, -1);
    return false;
  }

  /** Forgets all sequences, and overwrites their keys and values. */
  wipe(): void {
    if (this.#memory !== null) this.#llama.llama_memory_clear(this.#memory, true);
  }

  /** Gives all memory back; the context is not used after. */
  free(): void {
    this.wipe();
    this.#views.clear();
    this.#llama.llama_free(this.#handle);
    this.#batch.free();
    nativeFree(this.#flag);
  }

  /** Forgets all sequences. */
  clearMemory(): void {
    if (this.#memory !== null) this.#llama.llama_memory_clear(this.#memory, false);
  }

  copySequence(from: number, to: number, end: number): void {
    if (this.#memory === null) return;
    if (this.#unified) this.#llama.llama_memory_seq_cp(this.#memory, from, to, 0, end);
    else {
      // Between streams llama.cpp copies whole sequences only.
      this.#llama.llama_memory_seq_cp(this.#memory, from, to, -1, -1);
      this.#llama.llama_memory_seq_rm(this.#memory, to, end, -1);
    }
  }

  /** Before a decode; with several thread counts, returns the start times that its end measures from. */
  #begin(): { readonly used: NodeJS.CpuUsage; readonly started: number } | null {
    this.#aborting[0] = 0;
    const causal = this.#filled !== this.#rows?.native || !this.#rows.whole;
    if (causal !== this.#causal) this.#llama.llama_set_causal_attn(this.#handle, causal);
    this.#causal = causal;
    if (this.#allThreads === 1) return null;
    if (this.#threadCount.threads !== this.#threads) {
      this.#threads = this.#threadCount.threads;
      this.#llama.llama_set_n_threads(this.#handle, this.#threads, this.#threads);
    }
    return { used: process.cpuUsage(), started: performance.now() };
  }

  #end({ used, started }: { readonly used: NodeJS.CpuUsage; readonly started: number }): void {
    const { user, system } = process.cpuUsage(used);
    this.#threadCount.record(performance.now() - started, (user + system) / 1000, this.#filled.n_tokens);
  }

  #view(pointer: Pointer | null, length: number): Float32Array {
    if (pointer === null) throw new ContextError('the decode left no output where one was asked for');
    let found = this.#views.get(pointer);
    if (found === undefined) {
      if (this.#views.size > 256) this.#views.clear();
      found = new Float32Array(nativeView(pointer, length * 4));
      this.#views.set(pointer, found);
    }
    return found;
  }
}
