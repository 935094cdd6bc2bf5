// The closed table of architectures, by the name in `architectures` of config.json: which tensors a model of
// it has and what llama.cpp calls them, after `conversion/*.py` and `gguf-py/gguf/tensor_mapping.py` of the
// pinned llama.cpp. A name that is missing here is refused; so is a tensor the table does not know, one that
// is missing, and one of another shape.

import { addBert, addGemma3, addLlama, addNomic, addPhi3, addQwen, type Parameters } from './parameters.ts';
import type { Fields } from './config.ts';
import type { Sizes } from './plan.ts';
import type { SafeTensor } from './safetensors.ts';
import type { TokenRules } from './tokens.ts';

export type Size = Exclude<keyof Sizes, 'layers'>;

/** `S` names the sizes that shapes are made of. */
export interface TensorRule<S extends string = Size> {
  /** Without `.weight` or `.bias`; a layer's without the part before its number. */
  readonly name: string;
  readonly gguf: string;
  /** Shape of the weight, rows first; of the bias the first. */
  readonly shape: readonly S[];
  readonly bias: 'none' | 'maybe' | 'needed';
  /** Rows are permuted in heads of this kind. */
  readonly permuted?: 'queries' | 'keys' | undefined;
  /** F32 whatever the type of the others. */
  readonly single?: boolean | undefined;
}

/** The tensors of one GGUF file, and what folders call them. */
export interface TensorTable<S extends string = Size> {
  /** general.architecture */
  readonly gguf: string;
  /** Before the names of tensors; absent in files of the model without its head. */
  readonly prefix: string;
  /** Between the prefix and the number of a layer. */
  readonly layer: string;
  /** Before the number of a layer in the GGUF file. */
  readonly ggufLayer: string;
  readonly tensors: readonly TensorRule<S>[];
  readonly layers: readonly TensorRule<S>[];
  /** Tensors that are no part of the model as llama.cpp runs it. */
  readonly left: RegExp;
  /** 1 is added to every norm. */
  readonly shiftedNorms?: boolean | undefined;
}

export interface Architecture extends TensorTable {
  /** `model_type` of config.json. */
  readonly modelType: string;
  readonly parameters: Parameters;
  readonly tokens: TokenRules;
  /** Whether the output layer is the embedding's where config.json does not say. */
  readonly tiedUnlessSaid?: boolean | undefined;
  /** Refuses further settings of config.json. */
  check?(config: Fields): void;
}

/** The source of a GGUF file of text. */
export interface TextModel {
  readonly architecture: Architecture;
  readonly config: Fields;
  /** Where the ids of special tokens stand. */
  readonly tokens: Fields;
  /** Whether the output layer is the embedding's; absent: config.json does not say. */
  readonly tied: boolean | undefined;
  readonly tensors: readonly SafeTensor[];
}

export function tensorRule<S extends string = Size>(
  name: string,
  gguf: string,
  shape: readonly S[],
  more: Partial<TensorRule<S>> = {},
): TensorRule<S> {
  return { name, gguf, shape, bias: 'none', ...more };
}

const LEFT = /(?:\.rotary_emb\.inv_freq|\.attention\.(?:masked_)?bias)$/;

const DECODER: readonly TensorRule[] = [
  tensorRule('embed_tokens', 'token_embd', ['vocabulary', 'embedding']),
  tensorRule('norm', 'output_norm', ['embedding']),
];

/** The output layer; absent where it is the embedding's. */
export const HEAD_RULE = tensorRule('lm_head', 'output', ['vocabulary', 'embedding']);

const NORMS: readonly TensorRule[] = [
  tensorRule('input_layernorm', 'attn_norm', ['embedding']),
  tensorRule('post_attention_layernorm', 'ffn_norm', ['embedding']),
];

const OUTPUT = tensorRule('self_attn.o_proj', 'attn_output', ['embedding', 'queries'], { bias: 'maybe' });
const DOWN = tensorRule('mlp.down_proj', 'ffn_down', ['embedding', 'feedForward'], { bias: 'maybe' });

const FEED_FORWARD: readonly TensorRule[] = [
  tensorRule('mlp.gate_proj', 'ffn_gate', ['feedForward', 'embedding'], { bias: 'maybe' }),
  tensorRule('mlp.up_proj', 'ffn_up', ['feedForward', 'embedding'], { bias: 'maybe' }),
  DOWN,
];

function attention(bias: TensorRule['bias'], permuted: boolean): readonly TensorRule[] {
  return [
    tensorRule('self_attn.q_proj', 'attn_q', ['queries', 'embedding'], {
      bias,
      permuted: permuted ? 'queries' : undefined,
    }),
    tensorRule('self_attn.k_proj', 'attn_k', ['keys', 'embedding'], {
      bias,
      permuted: permuted ? 'keys' : undefined,
    }),
    tensorRule('self_attn.v_proj', 'attn_v', ['keys', 'embedding'], { bias }),
    OUTPUT,
  ];
}

const HEAD_NORMS: readonly TensorRule[] = [
  tensorRule('self_attn.q_norm', 'attn_q_norm', ['head']),
  tensorRule('self_attn.k_norm', 'attn_k_norm', ['head']),
];

const BLOCKS = 'blk.';
const DECODER_DEFAULTS = {
  prefix: 'model.',
  layer: 'layers.',
  ggufLayer: BLOCKS,
  tensors: DECODER,
  left: LEFT,
} as const;

const LLAMA: Architecture = {
  ...DECODER_DEFAULTS,
  gguf: 'llama',
  modelType: 'llama',
  layers: [...NORMS, ...attention('maybe', true), ...FEED_FORWARD],
  parameters: addLlama,
  tokens: 'llama',
};

const QWEN2: Architecture = {
  ...DECODER_DEFAULTS,
  gguf: 'qwen2',
  modelType: 'qwen2',
  layers: [...NORMS, ...attention('needed', false), ...FEED_FORWARD],
  parameters: addQwen,
  tokens: 'qwen',
  check: withoutSlidingWindow,
};

const QWEN3: Architecture = {
  ...DECODER_DEFAULTS,
  gguf: 'qwen3',
  modelType: 'qwen3',
  layers: [...NORMS, ...attention('maybe', false), ...HEAD_NORMS, ...FEED_FORWARD],
  parameters: addQwen,
  tokens: 'qwen',
  check: withoutSlidingWindow,
};

const GEMMA3: Architecture = {
  ...DECODER_DEFAULTS,
  gguf: 'gemma3',
  modelType: 'gemma3_text',
  layers: [
    tensorRule('input_layernorm', 'attn_norm', ['embedding']),
    tensorRule('post_attention_layernorm', 'post_attention_norm', ['embedding']),
    tensorRule('pre_feedforward_layernorm', 'ffn_norm', ['embedding']),
    tensorRule('post_feedforward_layernorm', 'post_ffw_norm', ['embedding']),
    ...attention('none', false),
    ...HEAD_NORMS,
    ...FEED_FORWARD,
  ],
  shiftedNorms: true,
  parameters: addGemma3,
  tokens: 'gemma3',
  tiedUnlessSaid: true,
};

const PHI3: Architecture = {
  ...DECODER_DEFAULTS,
  gguf: 'phi3',
  modelType: 'phi3',
  layers: [
    ...NORMS,
    tensorRule('self_attn.qkv_proj', 'attn_qkv', ['fused', 'embedding']),
    tensorRule('self_attn.o_proj', 'attn_output', ['embedding', 'queries']),
    tensorRule('mlp.gate_up_proj', 'ffn_up', ['gateUp', 'embedding']),
    tensorRule('mlp.down_proj', 'ffn_down', ['embedding', 'feedForward']),
  ],
  parameters: addPhi3,
  tokens: 'phi3',
};

const NEEDED = { bias: 'needed' } as const;

const BERT: Architecture = {
  gguf: 'bert',
  modelType: 'bert',
  prefix: 'bert.',
  layer: 'encoder.layer.',
  ggufLayer: BLOCKS,
  tensors: [
    tensorRule('embeddings.word_embeddings', 'token_embd', ['vocabulary', 'embedding']),
    tensorRule('embeddings.position_embeddings', 'position_embd', ['context', 'embedding'], { single: true }),
    tensorRule('embeddings.token_type_embeddings', 'token_types', ['tokenTypes', 'embedding'], {
      single: true,
    }),
    tensorRule('embeddings.LayerNorm', 'token_embd_norm', ['embedding'], NEEDED),
  ],
  layers: [
    tensorRule('attention.self.query', 'attn_q', ['queries', 'embedding'], NEEDED),
    tensorRule('attention.self.key', 'attn_k', ['keys', 'embedding'], NEEDED),
    tensorRule('attention.self.value', 'attn_v', ['keys', 'embedding'], NEEDED),
    tensorRule('attention.output.dense', 'attn_output', ['embedding', 'queries'], NEEDED),
    tensorRule('attention.output.LayerNorm', 'attn_output_norm', ['embedding'], NEEDED),
    tensorRule('intermediate.dense', 'ffn_up', ['feedForward', 'embedding'], NEEDED),
    tensorRule('output.dense', 'ffn_down', ['embedding', 'feedForward'], NEEDED),
    tensorRule('output.LayerNorm', 'layer_output_norm', ['embedding'], NEEDED),
  ],
  left: /^(?:embeddings\.position_ids|pooler\.dense\.(?:weight|bias)|cls\.(?:predictions|seq_relationship)\..+)$/,
  parameters: addBert,
  tokens: 'wordpiece',
};

const NOMIC: Architecture = {
  gguf: 'nomic-bert',
  modelType: 'nomic_bert',
  prefix: 'bert.',
  layer: 'encoder.layers.',
  ggufLayer: BLOCKS,
  tensors: [
    tensorRule('embeddings.word_embeddings', 'token_embd', ['vocabulary', 'embedding']),
    tensorRule('embeddings.token_type_embeddings', 'token_types', ['tokenTypes', 'embedding'], {
      single: true,
    }),
    tensorRule('emb_ln', 'token_embd_norm', ['embedding'], NEEDED),
  ],
  layers: [
    tensorRule('attn.Wqkv', 'attn_qkv', ['fused', 'embedding']),
    tensorRule('attn.out_proj', 'attn_output', ['embedding', 'queries']),
    tensorRule('norm1', 'attn_output_norm', ['embedding'], NEEDED),
    tensorRule('mlp.fc11', 'ffn_up', ['feedForward', 'embedding']),
    tensorRule('mlp.fc12', 'ffn_gate', ['feedForward', 'embedding']),
    tensorRule('mlp.fc2', 'ffn_down', ['embedding', 'feedForward']),
    tensorRule('norm2', 'layer_output_norm', ['embedding'], NEEDED),
  ],
  left: BERT.left,
  parameters: addNomic,
  tokens: 'wordpiece',
};

/** A llama with its output layer. */
export const LLAMA_WITH_HEAD = withHead(LLAMA);

/** By the first name of `architectures`. */
export const ARCHITECTURES: Readonly<Record<string, Architecture>> = {
  LlamaForCausalLM: LLAMA_WITH_HEAD,
  MistralForCausalLM: withHead({ ...LLAMA, modelType: 'mistral' }),
  Qwen2ForCausalLM: withHead(QWEN2),
  Qwen2Model: QWEN2,
  Qwen3ForCausalLM: withHead(QWEN3),
  Qwen3Model: QWEN3,
  Gemma3ForCausalLM: withHead(GEMMA3),
  Phi3ForCausalLM: withHead(PHI3),
  BertModel: BERT,
  BertForMaskedLM: BERT,
  NomicBertModel: NOMIC,
};

function withHead(architecture: Architecture): Architecture {
  return { ...architecture, tensors: [...architecture.tensors, HEAD_RULE] };
}

/** llama.cpp computes these without a window, which would be another model. */
function withoutSlidingWindow(config: Fields): void {
  if (config.boolean('use_sliding_window') === true)
    throw config.wrong('use_sliding_window', 'is true, which is not supported');
}
