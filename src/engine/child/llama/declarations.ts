// The structures and functions of libllama that are called, declared once: they follow
// include/llama.h of llama.cpp v0.4.0 (the git bundle inside node-llama-cpp 3.21.1). `loadLlama`
// checks them against the library.

import koffi from 'koffi';

/** A native address. koffi hands out bigint; null is NULL. */
export type Pointer = bigint;

export const POINTER = 'void *';

export const modelParams = koffi.struct({
  devices: POINTER,
  tensor_buft_overrides: POINTER,
  n_gpu_layers: 'int32',
  split_mode: 'int32',
  load_mode: 'int32',
  lazy_mode: 'int32',
  main_gpu: 'int32',
  tensor_split: POINTER,
  progress_callback: POINTER,
  progress_callback_user_data: POINTER,
  kv_overrides: POINTER,
  vocab_only: 'bool',
  check_tensors: 'bool',
  use_extra_bufts: 'bool',
  no_host: 'bool',
  no_alloc: 'bool',
  load_mtp: 'bool',
});

export const contextParams = koffi.struct({
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
  cb_eval: POINTER,
  cb_eval_user_data: POINTER,
  type_k: 'int32',
  type_v: 'int32',
  abort_callback: POINTER,
  abort_callback_data: POINTER,
  embeddings: 'bool',
  offload_kqv: 'bool',
  no_perf: 'bool',
  op_offload: 'bool',
  swa_full: 'bool',
  kv_unified: 'bool',
  samplers: POINTER,
  n_samplers: 'size_t',
  ctx_other: POINTER,
});

export const batchStruct = koffi.struct({
  n_tokens: 'int32',
  token: POINTER,
  embd: POINTER,
  pos: POINTER,
  n_seq_id: POINTER,
  seq_id: POINTER,
  logits: POINTER,
});

export const threadpoolParams = koffi.struct({
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
  readonly token: Pointer | null;
  /** Vectors in the place of tokens. */
  readonly embd: Pointer | null;
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
  readonly llama_init_from_model: Native<[Pointer, ContextParams], Pointer | null>;
  readonly llama_free: Native<[Pointer], void>;
  readonly llama_model_get_vocab: Native<[Pointer], Pointer>;
  readonly llama_get_memory: Native<[Pointer], Pointer | null>;
  readonly llama_model_n_ctx_train: Native<[Pointer], number>;
  readonly llama_model_n_embd_out: Native<[Pointer], number>;
  readonly llama_model_n_embd_inp: Native<[Pointer], number>;
  readonly llama_model_n_layer: Native<[Pointer], number>;
  readonly llama_model_n_cls_out: Native<[Pointer], number>;
  readonly llama_model_size: Native<[Pointer], number>;
  readonly llama_model_has_encoder: Native<[Pointer], boolean>;
  readonly llama_model_has_decoder: Native<[Pointer], boolean>;
  readonly llama_model_is_recurrent: Native<[Pointer], boolean>;
  readonly llama_model_is_hybrid: Native<[Pointer], boolean>;
  readonly llama_model_chat_template: Native<[Pointer, string | null], string | null>;
  readonly llama_model_meta_val_str: Native<[Pointer, string, Uint8Array, number], number>;
  readonly llama_memory_clear: Native<[Pointer, boolean], void>;
  readonly llama_memory_seq_rm: Native<[Pointer, number, number, number], boolean>;
  readonly llama_memory_seq_cp: Native<[Pointer, number, number, number, number], void>;
  readonly llama_adapter_lora_init: Native<[Pointer, string], Pointer | null>;
  readonly llama_set_adapters_lora: Native<[Pointer, Pointer | null, number, Pointer | null], number>;
  readonly llama_decode: Native<[Pointer, NativeBatch], number>;
  readonly llama_get_logits_ith: Native<[Pointer, number], Pointer | null>;
  readonly llama_get_embeddings_seq: Native<[Pointer, number], Pointer | null>;
  readonly llama_attach_threadpool: Native<[Pointer, Pointer, Pointer], void>;
  readonly llama_set_n_threads: Native<[Pointer, number, number], void>;
  readonly llama_set_causal_attn: Native<[Pointer, boolean], void>;
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

export const SIGNATURES: { readonly [name in keyof LlamaLibrary]: Signature } = {
  llama_backend_init: ['void', []],
  llama_log_set: ['void', [POINTER, POINTER]],
  llama_model_default_params: [modelParams, []],
  llama_context_default_params: [contextParams, []],
  llama_model_load_from_file_ptr: [POINTER, [POINTER, modelParams]],
  llama_init_from_model: [POINTER, [POINTER, contextParams]],
  llama_free: ['void', [POINTER]],
  llama_model_get_vocab: [POINTER, [POINTER]],
  llama_get_memory: [POINTER, [POINTER]],
  llama_model_n_ctx_train: ['int32', [POINTER]],
  llama_model_n_embd_out: ['int32', [POINTER]],
  llama_model_n_embd_inp: ['int32', [POINTER]],
  llama_model_n_layer: ['int32', [POINTER]],
  llama_model_n_cls_out: ['uint32', [POINTER]],
  llama_model_size: ['uint64', [POINTER]],
  llama_model_has_encoder: ['bool', [POINTER]],
  llama_model_has_decoder: ['bool', [POINTER]],
  llama_model_is_recurrent: ['bool', [POINTER]],
  llama_model_is_hybrid: ['bool', [POINTER]],
  llama_model_chat_template: ['str', [POINTER, 'str']],
  llama_model_meta_val_str: ['int32', [POINTER, 'str', POINTER, 'size_t']],
  llama_memory_clear: ['void', [POINTER, 'bool']],
  llama_memory_seq_rm: ['bool', [POINTER, 'int32', 'int32', 'int32']],
  llama_memory_seq_cp: ['void', [POINTER, 'int32', 'int32', 'int32', 'int32']],
  llama_adapter_lora_init: [POINTER, [POINTER, 'str']],
  llama_set_adapters_lora: ['int32', [POINTER, POINTER, 'size_t', POINTER]],
  llama_decode: ['int32', [POINTER, batchStruct]],
  llama_get_logits_ith: [POINTER, [POINTER, 'int32']],
  llama_get_embeddings_seq: [POINTER, [POINTER, 'int32']],
  llama_attach_threadpool: ['void', [POINTER, POINTER, POINTER]],
  llama_set_n_threads: ['void', [POINTER, 'int32', 'int32']],
  llama_set_causal_attn: ['void', [POINTER, 'bool']],
  llama_vocab_n_tokens: ['int32', [POINTER]],
  llama_vocab_get_text: ['str', [POINTER, 'int32']],
  llama_vocab_get_attr: ['int32', [POINTER, 'int32']],
  llama_vocab_is_eog: ['bool', [POINTER, 'int32']],
  llama_vocab_bos: ['int32', [POINTER]],
  llama_vocab_eos: ['int32', [POINTER]],
  llama_vocab_sep: ['int32', [POINTER]],
  llama_vocab_get_add_bos: ['bool', [POINTER]],
  llama_vocab_get_add_eos: ['bool', [POINTER]],
  llama_vocab_get_add_sep: ['bool', [POINTER]],
  llama_vocab_fim_pre: ['int32', [POINTER]],
  llama_vocab_fim_suf: ['int32', [POINTER]],
  llama_vocab_fim_mid: ['int32', [POINTER]],
  llama_tokenize: ['int32', [POINTER, POINTER, 'int32', POINTER, 'int32', 'bool', 'bool']],
  llama_token_to_piece: ['int32', [POINTER, 'int32', POINTER, 'int32', 'int32', 'bool']],
  llama_sampler_init_grammar: [POINTER, [POINTER, 'str', 'str']],
  llama_sampler_apply: ['void', [POINTER, POINTER]],
  llama_sampler_accept: ['void', [POINTER, 'int32']],
  llama_sampler_free: ['void', [POINTER]],
};
