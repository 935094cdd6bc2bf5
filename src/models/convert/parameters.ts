// Metadata of each architecture beside the tokens, in the order and with the rules of
// `set_gguf_parameters` in the official converter (`conversion/{base,llama,qwen,bert,gemma,phi}.py`), and the
// sizes that the shapes of its tensors follow from.

import {
  MAX_CONTEXT,
  MAX_LAYERS,
  MAX_MODEL_WIDTH,
  readRope,
  scalingOf,
  type Fields,
  type Rope,
} from './config.ts';
import type { Folder } from './folder.ts';
import { ropeFactorsOfLlama3, ropeFactorsOfPhi3 } from './rope-factors.ts';
import type { Metadata, PlannedTensor, Sizes } from './plan.ts';
import { poolingOf } from './pooling.ts';

export interface ParameterInput {
  readonly config: Fields;
  readonly folder: Folder;
  readonly architecture: string;
  readonly fileType: number;
  readonly metadata: Metadata;
}

export interface ParameterResult {
  readonly sizes: Sizes;
  /** Tensors no file holds; they come first. */
  readonly extra: readonly PlannedTensor[];
  /** Writes the metadata, once its place in the file has come. */
  write(): void;
}

export type Parameters = (input: ParameterInput) => ParameterResult;

/** Sizes every transformer has. */
interface Core {
  readonly layers: number;
  readonly context: number;
  readonly embedding: number;
  readonly feedForward: number;
  readonly heads: number;
  readonly headsKv: number;
  readonly head: number;
  readonly vocabulary: number;
}

interface CoreRules {
  /** Key and value heads where config.json names none. */
  readonly defaultHeadsKv?: number | undefined;
  readonly defaultHead?: number | undefined;
}

function coreOf(config: Fields, { defaultHeadsKv, defaultHead }: CoreRules): Core {
  const embedding = config.integer('hidden_size', MAX_MODEL_WIDTH);
  const heads = config.integer('num_attention_heads', MAX_MODEL_WIDTH);
  const headsKv = config.optionalInteger('num_key_value_heads', MAX_MODEL_WIDTH) ?? defaultHeadsKv ?? heads;
  if (heads % headsKv !== 0)
    throw config.wrong('num_key_value_heads', `is no divisor of ${heads} attention heads`);
  const given = config.optionalInteger('head_dim', MAX_MODEL_WIDTH) ?? defaultHead;
  if (given === undefined && embedding % heads !== 0)
    throw config.wrong('hidden_size', `is not a multiple of ${heads} attention heads`);
  const head = given ?? embedding / heads;
  if (head * heads > MAX_MODEL_WIDTH)
    throw config.wrong('head_dim', `of ${heads} heads is more than ${MAX_MODEL_WIDTH} together`);
  return {
    layers: config.integer('num_hidden_layers', MAX_LAYERS),
    context: config.integer('max_position_embeddings', MAX_CONTEXT),
    embedding,
    feedForward: config.integer('intermediate_size', MAX_MODEL_WIDTH * 16),
    heads,
    headsKv,
    head,
    vocabulary: config.integer('vocab_size', 1 << 24),
  };
}

function sizesOf(core: Core, tokenTypes = 0): Sizes {
  return {
    layers: core.layers,
    embedding: core.embedding,
    feedForward: core.feedForward,
    queries: core.heads * core.head,
    keys: core.headsKv * core.head,
    head: core.head,
    vocabulary: core.vocabulary,
    context: core.context,
    tokenTypes,
    fused: (core.heads + 2 * core.headsKv) * core.head,
    gateUp: 2 * core.feedForward,
  };
}

/** Writes under the name of the architecture. */
class Writer {
  readonly #architecture: string;
  readonly #metadata: Metadata;

  constructor({ architecture, metadata }: ParameterInput) {
    this.#architecture = architecture;
    this.#metadata = metadata;
  }

  u32(name: string, value: number): void {
    this.#metadata.set(`${this.#architecture}.${name}`, { u32: value });
  }

  f32(name: string, value: number): void {
    this.#metadata.set(`${this.#architecture}.${name}`, { f32: value });
  }

  bool(name: string, value: boolean): void {
    this.#metadata.set(`${this.#architecture}.${name}`, { bool: value });
  }

  string(name: string, value: string): void {
    this.#metadata.set(`${this.#architecture}.${name}`, { string: value });
  }
}

/** Settings that TextModel.set_gguf_parameters writes for every architecture that has them. */
interface Common {
  readonly headsKv?: number | undefined;
  readonly rope?: Rope | undefined;
  readonly thetaSwa?: number | undefined;
  readonly rmsEpsilon?: number | undefined;
  readonly layerEpsilon?: number | undefined;
  readonly head?: number | undefined;
}

function addCommon(input: ParameterInput, core: Core, common: Common): Writer {
  const out = new Writer(input);
  out.u32('block_count', core.layers);
  out.u32('context_length', core.context);
  out.u32('embedding_length', core.embedding);
  out.u32('feed_forward_length', core.feedForward);
  out.u32('attention.head_count', core.heads);
  if (common.headsKv !== undefined) out.u32('attention.head_count_kv', common.headsKv);
  if (common.rope !== undefined) addRope(out, input.config, common.rope);
  if (common.thetaSwa !== undefined) out.f32('rope.freq_base_swa', common.thetaSwa);
  if (common.rmsEpsilon !== undefined) out.f32('attention.layer_norm_rms_epsilon', common.rmsEpsilon);
  if (common.layerEpsilon !== undefined) out.f32('attention.layer_norm_epsilon', common.layerEpsilon);
  if (common.head !== undefined) {
    out.u32('attention.key_length', common.head);
    out.u32('attention.value_length', common.head);
  }
  input.metadata.set('general.file_type', { u32: input.fileType });
  return out;
}

const MAX_FACTOR = 1e6;

function addRope(out: Writer, config: Fields, rope: Rope): void {
  if (rope.type === 'linear') {
    out.string('rope.scaling.type', 'linear');
    out.f32('rope.scaling.factor', scalingOf(config, rope).number('factor', 1e-6, MAX_FACTOR));
  } else if (rope.type === 'yarn') {
    const scaling = scalingOf(config, rope);
    out.string('rope.scaling.type', 'yarn');
    out.f32('rope.scaling.factor', scaling.number('factor', 1e-6, MAX_FACTOR));
    const original = rope.originalContext ?? config.integer('max_position_embeddings', MAX_CONTEXT);
    out.u32('rope.scaling.original_context_length', original);
    for (const [name, key] of [
      ['extrapolation_factor', 'yarn_ext_factor'],
      ['attention_factor', 'yarn_attn_factor'],
      ['attn_factor', 'yarn_attn_factor'],
      ['beta_fast', 'yarn_beta_fast'],
      ['beta_slow', 'yarn_beta_slow'],
    ] as const) {
      const value = scaling.optionalNumber(name, 0, MAX_FACTOR);
      const first = name === 'attn_factor' && scaling.value('attention_factor') !== undefined;
      if (value !== undefined && !first) out.f32(`rope.scaling.${key}`, value);
    }
  } else if (rope.type === 'longrope') {
    out.string('rope.scaling.type', 'longrope');
  }
  out.f32('rope.freq_base', rope.theta);
}

function rmsEpsilonOf(config: Fields): number {
  return config.optionalNumber('rms_norm_eps', 0, 0.999) ?? 1e-6;
}

export function addLlama(input: ParameterInput): ParameterResult {
  const { config } = input;
  mustBe(config, 'hidden_act', 'silu');
  const mistral = config.string('model_type') === 'mistral';
  const core = coreOf(config, { defaultHeadsKv: mistral ? 8 : undefined });
  if (core.head % 2 !== 0) throw config.wrong('head_dim', `is ${core.head}, expected an even number`);
  const rope = readRope(config, ['default', 'linear', 'yarn', 'llama3']);
  return {
    sizes: sizesOf(core),
    extra: rope.type === 'llama3' ? ropeFactorsOfLlama3(config, rope, core.head) : [],
    write: () => {
      const { headsKv, head } = core;
      const out = addCommon(input, core, { headsKv, rope, rmsEpsilon: rmsEpsilonOf(config), head });
      out.u32('vocab_size', core.vocabulary);
      out.u32('rope.dimension_count', head);
    },
  };
}

export function addQwen(input: ParameterInput): ParameterResult {
  const { config } = input;
  mustBe(config, 'hidden_act', 'silu');
  const three = input.architecture === 'qwen3';
  const core = coreOf(config, { defaultHeadsKv: 32, defaultHead: three ? 128 : undefined });
  const rope = readRope(config, ['default', 'linear', 'yarn']);
  // Qwen2's own configuration has no such field; one that is in config.json all the same is written.
  const head = three || config.value('head_dim') !== undefined ? core.head : undefined;
  const pooling = poolingOf(input.folder);
  return {
    sizes: sizesOf(core),
    extra: [],
    write: () => {
      const out = addCommon(input, core, {
        headsKv: core.headsKv,
        rope,
        rmsEpsilon: rmsEpsilonOf(config),
        head,
      });
      if (pooling !== undefined) out.u32('pooling_type', pooling);
    },
  };
}

export function addBert(input: ParameterInput): ParameterResult {
  const { config } = input;
  mustBe(config, 'position_embedding_type', 'absolute');
  mustBe(config, 'hidden_act', 'gelu');
  const core = coreOf(config, {});
  const layerEpsilon = config.optionalNumber('layer_norm_eps', 0, 0.999) ?? 1e-12;
  return encoder(input, core, { layerEpsilon });
}

function encoder(input: ParameterInput, core: Core, common: Common): ParameterResult {
  const pooling = poolingOf(input.folder);
  return {
    sizes: sizesOf(core, input.config.optionalInteger('type_vocab_size', 1024) ?? 2),
    extra: [],
    write: () => {
      const out = addCommon(input, core, common);
      out.bool('attention.causal', false);
      if (pooling !== undefined) out.u32('pooling_type', pooling);
    },
  };
}

/** A field that is absent has the value it must have. */
function mustBe(config: Fields, name: string, value: string): void {
  if ((config.string(name) ?? value) !== value) throw config.wrong(name, `is not ${value}`);
}

const NOMIC_MUST: readonly (readonly [string, boolean | number | string])[] = [
  ['activation_function', 'swiglu'],
  ['causal', false],
  ['qkv_proj_bias', false],
  ['mlp_fc1_bias', false],
  ['mlp_fc2_bias', false],
  ['prenorm', false],
  ['rotary_emb_fraction', 1],
  ['rotary_emb_interleaved', false],
];

/** nomic-embed-text v1 and v1.5; the mixture of experts of v2 is another architecture. */
export function addNomic(input: ParameterInput): ParameterResult {
  const { config } = input;
  for (const [name, value] of NOMIC_MUST)
    if (config.value(name) !== value) throw config.wrong(name, `is not ${String(value)}`);
  for (const name of ['moe_every_n_layers', 'rotary_emb_scale_base'])
    if (config.value(name) !== undefined && config.value(name) !== 0)
      throw config.wrong(name, 'is not supported');
  const positions = config.integer('n_positions', MAX_CONTEXT);
  const trained = config.optionalInteger('max_trained_positions', MAX_CONTEXT) ?? 2048;
  if (positions !== 8192 || trained !== 2048)
    throw config.wrong('n_positions', 'with max_trained_positions is not 8192 with 2048');
  const embedding = config.integer('n_embd', MAX_MODEL_WIDTH);
  const heads = config.integer('n_head', MAX_MODEL_WIDTH);
  if (embedding % heads !== 0) throw config.wrong('n_embd', `is not a multiple of ${heads} attention heads`);
  const core: Core = {
    layers: config.integer('n_layer', MAX_LAYERS),
    context: 2048,
    embedding,
    feedForward: config.integer('n_inner', MAX_MODEL_WIDTH * 16),
    heads,
    headsKv: heads,
    head: embedding / heads,
    vocabulary: config.integer('vocab_size', 1 << 24),
  };
  const theta = config.number('rotary_emb_base', 1, 1e12);
  return encoder(input, core, {
    rope: { theta, type: 'default', parameters: undefined, originalContext: undefined },
    layerEpsilon: config.number('layer_norm_epsilon', 0, 0.999),
  });
}

export function addGemma3(input: ParameterInput): ParameterResult {
  const { config } = input;
  mustBe(config, 'hidden_activation', 'gelu_pytorch_tanh');
  if (config.value('attn_logit_softcapping') !== undefined)
    throw config.wrong('attn_logit_softcapping', 'is not supported');
  const core = coreOf(config, { defaultHeadsKv: 4, defaultHead: 256 });
  const rope = ropeOfGemma3(config);
  const cap = config.optionalNumber('final_logit_softcapping', 0, 1e6);
  const window = config.optionalInteger('sliding_window', MAX_CONTEXT) ?? 4096;
  return {
    sizes: sizesOf(core),
    extra: [],
    write: () => {
      const out = addCommon(input, core, {
        headsKv: core.headsKv,
        rope: rope.global,
        thetaSwa: rope.localTheta,
        rmsEpsilon: rmsEpsilonOf(config),
        head: core.head,
      });
      if (cap !== undefined && cap !== 0) out.f32('final_logit_softcapping', cap);
      out.u32('attention.sliding_window', window);
    },
  };
}

/**
 * Two ropes: nested by kind of layer since transformers 5, before that
 * `rope_theta` with `rope_local_base_freq`.
 */
function ropeOfGemma3(config: Fields): { readonly global: Rope; readonly localTheta: number } {
  const nested = config.object('rope_parameters');
  const full = nested?.object('full_attention');
  const local = nested?.object('sliding_attention');
  if (full === undefined || local === undefined)
    return {
      global: readRope(config, ['default', 'linear'], 1_000_000),
      localTheta: config.optionalNumber('rope_local_base_freq', 1, 1e12) ?? 10_000,
    };
  const type = full.string('rope_type') ?? 'default';
  if (type !== 'default' && type !== 'linear') throw full.wrong('rope_type', 'is neither default nor linear');
  if ((local.string('rope_type') ?? 'default') !== 'default')
    throw local.wrong('rope_type', 'is not default');
  return {
    global: {
      theta: full.optionalNumber('rope_theta', 1, 1e12) ?? 1_000_000,
      type,
      parameters: full,
      originalContext: undefined,
    },
    localTheta: local.optionalNumber('rope_theta', 1, 1e12) ?? 10_000,
  };
}

export function addPhi3(input: ParameterInput): ParameterResult {
  const { config, metadata } = input;
  mustBe(config, 'hidden_act', 'silu');
  const core = coreOf(config, {});
  const rope = readRope(config, ['default', 'longrope']);
  const original = rope.originalContext ?? core.context;
  const partial =
    rope.parameters?.optionalNumber('partial_rotary_factor', 0, 1) ??
    config.optionalNumber('partial_rotary_factor', 0, 1) ??
    1;
  const dimensions = Math.floor(Math.trunc(partial * core.embedding) / core.heads);
  const scaled = { dimensions, context: core.context, original };
  const { attentionFactor, tensors } = ropeFactorsOfPhi3(config, rope, scaled);
  const out = new Writer(input);
  // The official converter writes it with the tensors, before anything else.
  if (attentionFactor !== undefined) out.f32('rope.scaling.attn_factor', attentionFactor);
  return {
    sizes: sizesOf(core),
    extra: tensors,
    write: () => {
      out.u32('context_length', core.context);
      out.u32('rope.scaling.original_context_length', original);
      out.u32('embedding_length', core.embedding);
      out.u32('feed_forward_length', core.feedForward);
      out.u32('block_count', core.layers);
      out.u32('attention.head_count', core.heads);
      out.u32('attention.head_count_kv', core.headsKv);
      out.f32('attention.layer_norm_rms_epsilon', rmsEpsilonOf(config));
      out.u32('rope.dimension_count', dimensions);
      out.f32('rope.freq_base', rope.theta);
      metadata.set('general.file_type', { u32: input.fileType });
      out.u32('attention.sliding_window', config.optionalInteger('sliding_window', MAX_CONTEXT) ?? 0);
    },
  };
}
