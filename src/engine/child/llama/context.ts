// One llama.cpp context: the KV memory, the native batch, and what a decode leaves behind. Sequences share one unified KV
// pool, where `copySequence` copies no data, or have a stream each, where attention never looks at cells of others.
// Nothing here knows requests or policies.
// Errors: `decode` gives llama.cpp's code — 0 done, 1 no KV room (nothing changed), 2 aborted (what was processed stays).

import { createCrew } from './thread-count.ts';
import { libcSymbol, nativeAlloc, nativeView, type LlamaLibrary, type Pointer } from './library.ts';
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
   * Keys and values unrounded and no flash attention: what a sequence gets then hardly depends on who shares its batch
   * (about 1e-5 in a logit instead of 1e-2, whatever the batch), for twice the memory and slower long contexts.
   */
  readonly exact: boolean;
  /** One pool for all sequences; else each has cells ÷ sequences of its own. */
  readonly unified: boolean;
}

export interface Context {
  readonly cells: number;
  readonly batchTokens: number;
  readonly threads: number;
  /** Tokens of one batch that may ask for logits. */
  readonly maxOutputs: number;
  /** Starts a new batch. */
  clearBatch(): void;
  /** Appends a token; returns its index in the batch, which `logits` takes. */
  add(token: number, position: number, sequence: number, output: boolean): number;
  readonly batchLength: number;
  decodeSync(): number;
  decode(): Promise<number>;
  /** Makes a running `decode` return 2 soon; cleared by the next decode. */
  abort(): void;
  /** Logits of an output of the last decode, valid until the next one. */
  logits(index: number): Float32Array;
  /** Pooled embedding or rank outputs of a sequence after the last decode; a copy. */
  pooled(sequence: number): Float32Array;
  /** Forgets positions from `from` on; false when the memory cannot (then the sequence is emptied instead). */
  removeTail(sequence: number, from: number): boolean;
  /** Forgets everything. */
  clearMemory(): void;
  copySequence(from: number, to: number, end: number): void;
}

export class ContextError extends Error {
  override readonly name = 'ContextError';
}

function nothingToLearn(): void {
  return undefined;
}

/** enum llama_pooling_type */
const POOLING_TYPE = { none: 0, mean: 1, last: 3, rank: 4 } as const;

/** The model's own way to one vector per text; for a model made to write, the last token's, which has seen all of it. */
function embeddingPooling(model: LoadedModel): number {
  const own = Number(model.meta(`${model.architecture}.pooling_type`) ?? POOLING_TYPE.none);
  if (own !== POOLING_TYPE.none) return own;
  return model.meta(`${model.architecture}.attention.causal`) === 'false'
    ? POOLING_TYPE.mean
    : POOLING_TYPE.last;
}

export function createContext(llama: LlamaLibrary, model: LoadedModel, options: ContextOptions): Context {
  const params = llama.llama_context_default_params();
  const pooled = options.embeddings !== 'none';
  params.n_ctx = options.cells;
  params.n_batch = options.batchTokens;
  // A pooled sequence must not be split over micro-batches.
  params.n_ubatch = pooled ? options.batchTokens : Math.min(512, options.batchTokens);
  params.n_seq_max = options.sequences;
  // Without a bound llama.cpp reserves batch × vocabulary floats; a batch over it would be an assertion, so `add` refuses.
  const maxOutputs = pooled
    ? options.batchTokens
    : Math.min(options.batchTokens, Math.max(64, options.sequences));
  params.n_outputs_max = pooled ? 0 : maxOutputs;
  params.n_outputs_max_per_seq = 0;
  if (options.exact) {
    params.type_k = 0; // GGML_TYPE_F32
    params.type_v = 0;
    params.flash_attn_type = 0; // disabled
  }
  params.n_threads = options.threads;
  params.n_threads_batch = options.threads;
  params.kv_unified = options.unified;
  params.embeddings = pooled;
  if (options.embeddings === 'rank') params.pooling_type = POOLING_TYPE.rank;
  if (options.embeddings === 'pooled') params.pooling_type = embeddingPooling(model);

  // ggml asks this callback between graph nodes, on its own thread: a JavaScript function would cost a thread hop each time.
  // strlen of one flag byte is the same question in native code: "" is 0, false; "\x01" is 1, true.
  const flag = nativeAlloc(8);
  const aborting = new Uint8Array(flag.memory);
  params.abort_callback = libcSymbol('strlen');
  params.abort_callback_data = flag.pointer;

  const created = llama.llama_init_from_model(model.handle, params);
  if (created === null)
    throw new ContextError(
      'the context cannot be created (too little memory, or the model does not support it)',
    );
  const handle = created;
  if (options.threadpool !== null)
    llama.llama_attach_threadpool(handle, options.threadpool, options.threadpool);
  const memory = llama.llama_get_memory(handle); // BERT-like models have none
  const capacity = options.batchTokens;

  const token = nativeAlloc(capacity * 4);
  const pos = nativeAlloc(capacity * 4);
  const count = nativeAlloc(capacity * 4);
  const ids = nativeAlloc(capacity * 4);
  const idPointers = nativeAlloc(capacity * 8);
  const output = nativeAlloc(capacity);
  const tokens = new Int32Array(token.memory);
  const positions = new Int32Array(pos.memory);
  const sequences = new Int32Array(ids.memory);
  const outputs = new Int8Array(output.memory);
  new Int32Array(count.memory).fill(1);
  const pointers = new BigUint64Array(idPointers.memory);
  for (let i = 0; i < capacity; i += 1) pointers[i] = ids.pointer + BigInt(i * 4);
  const batch = {
    n_tokens: 0,
    token: token.pointer,
    embd: null,
    pos: pos.pointer,
    n_seq_id: count.pointer,
    seq_id: idPointers.pointer,
    logits: output.pointer,
  };
  const run = llama.llama_decode; // of itself goes to encode for models without a KV memory
  const crew = createCrew(options.threads, () => performance.now());
  let threads = options.threads;
  /** Call it when the decode is over. */
  const begin = (): (() => void) => {
    aborting[0] = 0;
    if (options.threads === 1) return nothingToLearn;
    if (crew.threads !== threads) {
      threads = crew.threads;
      llama.llama_set_n_threads(handle, threads, threads);
    }
    const used = process.cpuUsage();
    const started = performance.now();
    return () => {
      const { user, system } = process.cpuUsage(used);
      crew.record(performance.now() - started, (user + system) / 1000);
    };
  };
  let outputCount = 0;
  // llama.cpp keeps its output buffer while it is large enough, so the same few addresses come back at every step.
  const views = new Map<Pointer, Float32Array>();
  const view = (pointer: Pointer | null, length: number): Float32Array => {
    if (pointer === null) throw new ContextError('the decode left no output where one was asked for');
    let found = views.get(pointer);
    if (found === undefined) {
      if (views.size > 256) views.clear();
      found = new Float32Array(nativeView(pointer, length * 4));
      views.set(pointer, found);
    }
    return found;
  };

  return {
    cells: llama.llama_n_ctx(handle),
    batchTokens: capacity,
    threads: options.threads,
    maxOutputs,
    get batchLength() {
      return batch.n_tokens;
    },
    clearBatch() {
      batch.n_tokens = 0;
      outputCount = 0;
    },
    add(id, position, sequence, wanted) {
      const index = batch.n_tokens;
      if (index >= capacity) throw new ContextError(`a batch holds ${capacity} tokens`);
      if (wanted) outputCount += 1;
      if (outputCount > maxOutputs) throw new ContextError(`a batch gives ${maxOutputs} outputs`);
      tokens[index] = id;
      positions[index] = position;
      sequences[index] = sequence;
      outputs[index] = wanted ? 1 : 0;
      batch.n_tokens = index + 1;
      return index;
    },
    decodeSync() {
      const done = begin();
      const code = run(handle, batch);
      done();
      return code;
    },
    async decode() {
      const done = begin();
      const code = await new Promise<number>((resolve, reject) => {
        run.async(handle, batch, (error, result) => (error === null ? resolve(result) : reject(error)));
      });
      done();
      return code;
    },
    abort() {
      aborting[0] = 1;
    },
    logits: (index) => view(llama.llama_get_logits_ith(handle, index), model.vocabSize),
    pooled(sequence) {
      const length = options.embeddings === 'rank' ? Math.max(1, model.classOutputs) : model.embeddingSize;
      return view(llama.llama_get_embeddings_seq(handle, sequence), length).slice();
    },
    removeTail(sequence, from) {
      if (memory === null || llama.llama_memory_seq_rm(memory, sequence, from, -1)) return true;
      llama.llama_memory_seq_rm(memory, sequence, -1, -1);
      return false;
    },
    clearMemory() {
      if (memory !== null) llama.llama_memory_clear(memory, false);
    },
    copySequence(from, to, end) {
      if (memory === null) return;
      if (options.unified) llama.llama_memory_seq_cp(memory, from, to, 0, end);
      else {
        // Between streams llama.cpp copies whole sequences only.
        llama.llama_memory_seq_cp(memory, from, to, -1, -1);
        llama.llama_memory_seq_rm(memory, to, end, -1);
      }
    },
  };
}
