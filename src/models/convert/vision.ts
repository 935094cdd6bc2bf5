// Models of the Idefics3 family (SmolVLM) in a Hugging Face folder: a llama under `text_config`, an image
// encoder under `vision_config`, and a connector that makes vectors of the llama's width of what it sees. The
// encoder and the connector become the projector, as `conversion/smolvlm.py` with --mmproj writes it. Where
// config.json does not say, the defaults are those of `transformers`.

import { LLAMA_WITH_HEAD, tensorRule, type TensorTable, type TextModel } from './architectures.ts';
import { architectureName, CONFIG, Fields, MAX_MODEL_WIDTH, mustBePlain, shownName } from './config.ts';
import { invalidDescription, invalidWeights, unsupportedModel, type Folder } from './folder.ts';
import { addGeneral, FLOAT_FILE_TYPES, typeOf, type Planned, type PlanOptions } from './general.ts';
import { readImageSettings } from './image-settings.ts';
import { isObject, type ModelJsonObject } from './json.ts';
import type { GgufValue } from './gguf-header.ts';
import type { Metadata } from './plan.ts';
import { readTensors, type SafeTensor } from './safetensors.ts';
import { planTensors } from './tensors.ts';

/** `model_type` by the first name of `architectures`. */
const FAMILY: ReadonlyMap<string, string> = new Map([
  ['Idefics3ForConditionalGeneration', 'idefics3'],
  ['SmolVLMForConditionalGeneration', 'smolvlm'],
]);

/** Names of the same llama. */
const TEXTS: ReadonlySet<string> = new Set(['LlamaForCausalLM', 'VLlama3ForCausalLM']);
const TEXT_DEFAULTS = { model_type: 'llama', num_attention_heads: 32 } as const;
const TEXT = { ...LLAMA_WITH_HEAD, prefix: 'model.text_model.' } as const;

export function isSeeing(architecture: string): boolean {
  return FAMILY.has(architecture);
}

/** Bounds of what models/gguf/projector takes. */
const MAX_LAYERS = 256;
const MAX_WIDTH = 1 << 16;
const MAX_TILE = 1024;
const MAX_PATCHES = 1 << 16;
const MAX_MERGE = 64;

const VISION_DEFAULTS = {
  hidden_size: 1152,
  intermediate_size: 3072,
  num_hidden_layers: 12,
  num_attention_heads: 16,
  num_channels: 3,
  image_size: 224,
  patch_size: 32,
  hidden_act: 'gelu_pytorch_tanh',
  layer_norm_eps: 1e-6,
} as const;

type VisionSize = 'inner' | 'units' | 'channels' | 'patch' | 'patches' | 'merged' | 'projected';

const NEEDED = { bias: 'needed' } as const;

function matrix(name: string, gguf: string, shape: readonly [VisionSize, VisionSize]) {
  return tensorRule<VisionSize>(name, gguf, shape, NEEDED);
}

const PROJECTOR: TensorTable<VisionSize> = {
  gguf: 'clip',
  prefix: 'model.',
  layer: 'vision_model.encoder.layers.',
  ggufLayer: 'v.blk.',
  tensors: [
    tensorRule(
      'vision_model.embeddings.patch_embedding',
      'v.patch_embd',
      ['inner', 'channels', 'patch', 'patch'],
      {
        ...NEEDED,
        single: true,
      },
    ),
    tensorRule('vision_model.embeddings.position_embedding', 'v.position_embd', ['patches', 'inner'], {
      single: true,
    }),
    tensorRule('vision_model.post_layernorm', 'v.post_ln', ['inner'], NEEDED),
    tensorRule('connector.modality_projection.proj', 'mm.model.fc', ['projected', 'merged']),
  ],
  layers: [
    tensorRule('layer_norm1', 'ln1', ['inner'], NEEDED),
    matrix('self_attn.q_proj', 'attn_q', ['inner', 'inner']),
    matrix('self_attn.k_proj', 'attn_k', ['inner', 'inner']),
    matrix('self_attn.v_proj', 'attn_v', ['inner', 'inner']),
    matrix('self_attn.out_proj', 'attn_out', ['inner', 'inner']),
    tensorRule('layer_norm2', 'ln2', ['inner'], NEEDED),
    matrix('mlp.fc1', 'ffn_up', ['units', 'inner']),
    matrix('mlp.fc2', 'ffn_down', ['inner', 'units']),
  ],
  left: /(?!)/,
};

export interface SeeingModel {
  readonly text: TextModel;
  readonly config: Fields;
  readonly vision: Fields;
  /** Of the image encoder and the connector. */
  readonly tensors: readonly SafeTensor[];
}

/** Refuses: an architecture that does not see, or another one than of this family, by its name. */
export function seeingModelOf(config: Fields, folder: Folder): SeeingModel {
  const name = architectureName(config);
  const modelType = FAMILY.get(name);
  if (modelType === undefined) {
    const known = [...FAMILY.keys()].join(', ');
    const why = config.value('vision_config') === undefined ? 'has no image encoder' : 'is not converted';
    throw unsupportedModel(
      `${CONFIG}: architectures: ${shownName(name)} ${why}; models that see are ${known}`,
    );
  }
  if (config.string('model_type') !== modelType)
    throw config.wrong('model_type', `is not ${modelType}, as ${name} has it`);
  mustBePlain(config, name);
  const text = partOf(config, 'text_config', TEXT_DEFAULTS);
  if (text.string('model_type') !== TEXT.modelType)
    throw text.wrong('model_type', `is not ${TEXT.modelType}, with which ${name} is converted`);
  const named = text.list('architectures')?.[0] ?? 'LlamaForCausalLM';
  if (typeof named !== 'string' || !TEXTS.has(named))
    throw text.wrong('architectures', `names none of ${[...TEXTS].join(', ')}`);
  mustBePlain(text, name);
  const { language, seeing } = split(readTensors(folder), name);
  return {
    text: {
      architecture: TEXT,
      config: text,
      tokens: tokensOf(config),
      tied: config.boolean('tie_word_embeddings') ?? text.boolean('tie_word_embeddings'),
      tensors: language,
    },
    config,
    vision: partOf(config, 'vision_config', VISION_DEFAULTS),
    tensors: seeing,
  };
}

function partOf(config: Fields, name: string, defaults: ModelJsonObject): Fields {
  const part = config.value(name);
  if (!isObject(part)) throw config.wrong(name, part === undefined ? 'is missing' : 'is not an object');
  return new Fields(CONFIG, { ...defaults, ...part }, `${name}.`);
}

/** Ids of special tokens: those of the whole model before those of its text. */
function tokensOf(config: Fields): Fields {
  const text = config.value('text_config');
  const inner = isObject(text) ? text : {};
  const own = config.names().flatMap((name) => {
    const value = name.endsWith('_token_id') ? config.value(name) : undefined;
    return value === undefined ? [] : [[name, value] as const];
  });
  return new Fields(CONFIG, { ...inner, ...Object.fromEntries(own) });
}

interface SplitTensors {
  readonly language: readonly SafeTensor[];
  readonly seeing: readonly SafeTensor[];
}

function split(tensors: readonly SafeTensor[], architecture: string): SplitTensors {
  const language: SafeTensor[] = [];
  const seeing: SafeTensor[] = [];
  for (const tensor of tensors)
    if (/^(?:model\.text_model|lm_head)\./.test(tensor.name)) language.push(tensor);
    else if (/^model\.(?:vision_model|connector)\./.test(tensor.name)) seeing.push(tensor);
    else throw invalidWeights(tensor.file, `tensor ${tensor.name}: none of ${architecture}`);
  return { language, seeing };
}

/** Tokens that libmtmd sets around an image, each as a vocabulary may have it. */
const MARKS = [
  ['<fake_token_around_image>'],
  ['<global-img>'],
  ['\\n', '\n', 'Ċ', '<0x0A>'],
  ['\\n\\n', '\n\n', 'ĊĊ'],
] as const;

/** Without them an engine would not load the projector. */
export function mustHaveMarks(folder: Folder, metadata: Metadata): void {
  const value = metadata.get('tokenizer.ggml.tokens');
  const tokens = new Set(value !== undefined && 'strings' in value ? value.strings : []);
  const file = folder.has('tokenizer.model') ? 'tokenizer.model' : 'tokenizer.json';
  for (const [shown, ...forms] of MARKS)
    if (![shown, ...forms].some((form) => tokens.has(form)))
      throw invalidDescription(file, `the vocabulary has no token ${shown}, which stands beside an image`);
}

/** The sizes of the encoder, which have to fit each other. */
interface Encoder {
  readonly layers: number;
  readonly inner: number;
  readonly units: number;
  readonly heads: number;
  readonly tile: number;
  readonly patch: number;
  /** Patches along the edge of a tile. */
  readonly side: number;
  /** So many patches along an edge become one vector. */
  readonly merge: number;
}

function encoderOf(vision: Fields, config: Fields): Encoder {
  const inner = vision.integer('hidden_size', MAX_WIDTH);
  const heads = vision.integer('num_attention_heads', MAX_WIDTH);
  if (inner % heads !== 0) throw vision.wrong('hidden_size', `is not a multiple of ${heads} attention heads`);
  if (vision.string('hidden_act') !== VISION_DEFAULTS.hidden_act)
    throw vision.wrong('hidden_act', `is not ${VISION_DEFAULTS.hidden_act}`);
  if (vision.integer('num_channels', 3) !== 3) throw vision.wrong('num_channels', 'is not 3');
  const tile = vision.integer('image_size', MAX_TILE);
  const patch = vision.integer('patch_size', tile);
  // As the encoder has it: what is left of a tile at its right and lower edge is not looked at.
  const side = Math.floor(tile / patch);
  if (side ** 2 > MAX_PATCHES)
    throw vision.wrong(
      'patch_size',
      `makes ${side ** 2} patches of a tile, at most ${MAX_PATCHES} are taken`,
    );
  const merge = config.optionalInteger('scale_factor', MAX_MERGE) ?? 2;
  if (side % merge !== 0)
    throw config.wrong('scale_factor', `is no divisor of the ${side} patches along a tile`);
  return {
    layers: vision.integer('num_hidden_layers', MAX_LAYERS),
    inner,
    units: vision.integer('intermediate_size', MAX_WIDTH * 4),
    heads,
    tile,
    patch,
    side,
    merge,
  };
}

export function planProjector(folder: Folder, model: SeeingModel, options: PlanOptions): Planned {
  const { vision, config, tensors } = model;
  const encoder = encoderOf(vision, config);
  const { layers, inner, units, patch, side, merge } = encoder;
  const projected = model.text.config.integer('hidden_size', MAX_MODEL_WIDTH);
  const sizes = {
    layers,
    inner,
    units,
    channels: 3,
    patch,
    patches: side ** 2,
    merged: inner * merge ** 2,
    projected,
  };
  const images = readImageSettings(folder, encoder.tile);
  const type = typeOf(options.type, tensors);
  const planned = planTensors(tensors, { table: PROJECTOR, sizes, type });
  const metadata: Metadata = new Map<string, GgufValue>([
    ['general.architecture', { string: PROJECTOR.gguf }],
  ]);
  addGeneral(metadata, { folder, kind: 'mmproj', name: options.name, tensors: planned });
  const rest: readonly (readonly [key: string, value: GgufValue])[] = [
    ['general.file_type', { u32: FLOAT_FILE_TYPES[type] }],
    ['clip.has_vision_encoder', { bool: true }],
    ['clip.vision.projection_dim', { u32: projected }],
    ['clip.vision.image_size', { u32: encoder.tile }],
    ['clip.vision.patch_size', { u32: patch }],
    ['clip.vision.embedding_length', { u32: inner }],
    ['clip.vision.feed_forward_length', { u32: units }],
    ['clip.vision.block_count', { u32: layers }],
    ['clip.vision.attention.head_count', { u32: encoder.heads }],
    ['clip.vision.image_mean', { f32s: images.mean }],
    ['clip.vision.image_std', { f32s: images.deviation }],
    ['clip.projector_type', { string: 'idefics3' }],
    ['clip.vision.attention.layer_norm_epsilon', { f32: vision.number('layer_norm_eps', 0, 0.999) }],
    ['clip.vision.projector.scale_factor', { u32: merge }],
    ['clip.use_gelu', { bool: true }],
    ['clip.vision.preproc_image_size', { u32: images.longest }],
    ['general.quantization_version', { u32: 2 }],
  ];
  for (const [key, value] of rest) metadata.set(key, value);
  return { plan: { metadata, tensors: planned }, architecture: PROJECTOR.gguf, type };
}
