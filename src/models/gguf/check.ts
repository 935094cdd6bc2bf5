// Requirements of llama.cpp on a model beyond a well-formed header, so that a bad file is refused
// here and not by a GGML_ASSERT (which ends the process) or an exception without a reason. The rules
// follow load_hparams, load_vocab and load_tensors of the pinned llama.cpp. Unknown architectures
// get only the generic rules.

import { invalidGguf } from './bytes.ts';
import type { GgufHeader, MetadataValue, TensorEntry } from './header.ts';

const MAX_LAYERS = 512;
const MAX_EXPERTS = 1024;
const MAX_CONTEXT = 1 << 28;
/** No model has wider vectors or more heads; keeps products of them far from overflow. */
const MAX_WIDTH = 1 << 20;

/** State-space models: no attention heads. */
const HEADLESS = new Set(['mamba', 'mamba2', 'rwkv6', 'rwkv6qwen2', 'rwkv7', 'arwkv7', 'wavtokenizer-dec']);
const BERT_FAMILY = new Set([
  'bert',
  'nomic-bert',
  'nomic-bert-moe',
  'jina-bert-v2',
  'jina-bert-v3',
  'neo-bert',
  'modern-bert',
  'eurobert',
]);
const ROPE_SCALINGS = new Set(['none', 'linear', 'yarn', 'longrope']);

export function isBertFamily(architecture: string): boolean {
  return BERT_FAMILY.has(architecture);
}

/** Families whose rules we know in full; others get the common rules. */
function isStrict(architecture: string): boolean {
  return architecture === 'llama' || BERT_FAMILY.has(architecture);
}

/** Settings of a model that passed the checks. Arrays per layer are reduced to their largest value. */
export interface CheckedModel {
  readonly architecture: string;
  readonly contextLength: number;
  readonly embeddingLength: number;
  readonly blockCount: number;
  readonly headCount: number;
  readonly headCountKv: number;
  /** Key and value cache of one token over all layers, 16 bits per element; 0 where none is cached. */
  readonly cacheBytesPerToken: number;
  /** Numbers in the keys and values of one attention head; each width that some layer has. */
  readonly headWidths: readonly number[];
  readonly vocabSize: number;
  readonly tokenizer: string | undefined;
}

/** Typed access to metadata: absent is undefined, another type is refused. */
export interface Settings {
  string(key: string): string | undefined;
  /** u32, as llama.cpp requires. */
  u32(key: string): number | undefined;
  f32(key: string): number | undefined;
  bool(key: string): boolean | undefined;
  /** u32, or an array of i32/u32 with one number per layer; always an array of `layers` numbers. */
  perLayer(key: string, layers: number): readonly number[] | undefined;
  array(key: string, of: readonly string[]): Extract<MetadataValue, { type: 'array' }> | undefined;
}

export function settingsOf(metadata: ReadonlyMap<string, MetadataValue>): Settings {
  const u32 = (key: string): number | undefined => {
    const value = metadata.get(key);
    if (value === undefined) return undefined;
    if (value.type !== 'u32') throw wrong(key, value, 'u32');
    return value.value;
  };
  return {
    u32,
    string: (key) => {
      const value = metadata.get(key);
      if (value === undefined) return undefined;
      if (value.type !== 'string') throw wrong(key, value, 'string');
      return value.value;
    },
    f32: (key) => {
      const value = metadata.get(key);
      if (value === undefined) return undefined;
      if (value.type !== 'f32') throw wrong(key, value, 'f32');
      return value.value;
    },
    bool: (key) => {
      const value = metadata.get(key);
      if (value === undefined) return undefined;
      if (value.type !== 'bool') throw wrong(key, value, 'bool');
      return value.value;
    },
    perLayer: (key, layers) => {
      const value = metadata.get(key);
      if (value?.type !== 'array') {
        const single = u32(key);
        return single === undefined ? undefined : Array.from({ length: layers }, () => single);
      }
      if (value.of !== 'u32' && value.of !== 'i32') throw wrong(key, value, 'u32 or array of i32');
      if (value.count !== layers)
        throw invalidGguf(`${key} has ${value.count} elements, expected one for each of ${layers} layers`);
      const numbers = value.numbers ?? [];
      // llama.cpp reads them as unsigned.
      if (numbers.some((number) => number < 0)) throw invalidGguf(`${key} holds a negative number`);
      return numbers;
    },
    array: (key, of) => {
      const value = metadata.get(key);
      if (value === undefined) return undefined;
      if (value.type !== 'array' || !of.includes(value.of))
        throw wrong(key, value, `array of ${of.join(' or ')}`);
      return value;
    },
  };
}

export function checkModel(header: GgufHeader): CheckedModel {
  const settings = settingsOf(header.metadata);
  const architecture = settings.string('general.architecture');
  if (architecture === undefined) throw invalidGguf('general.architecture is missing');
  if (!/^[a-z0-9][a-z0-9._-]{0,63}$/.test(architecture))
    throw invalidGguf('general.architecture is not a plain name');
  const splits = header.metadata.get('split.count');
  if (
    splits !== undefined &&
    (splits.type === 'string' || splits.type === 'array' || Number(splits.value) > 1)
  ) {
    throw invalidGguf(
      'it is one part of a split model (split.count), and its name (NAME-00001-of-00003.gguf) does not tell the others; name all parts in order',
    );
  }
  if (header.tensors.length === 0) throw invalidGguf('it has no tensors');

  const setting = (name: string): string => `${architecture}.${name}`;
  const required = (name: string, max: number): number => {
    const value = settings.u32(setting(name));
    if (value === undefined) throw invalidGguf(`${setting(name)} is missing`);
    if (value < 1 || value > max) throw invalidGguf(`${setting(name)} is ${value}, expected 1 to ${max}`);
    return value;
  };
  const contextLength = required('context_length', MAX_CONTEXT);
  const embeddingLength = required('embedding_length', MAX_WIDTH);
  const blockCount = required('block_count', MAX_LAYERS);
  if (isStrict(architecture)) {
    const units = settings.perLayer(setting('feed_forward_length'), blockCount);
    if (units === undefined) throw invalidGguf(`${setting('feed_forward_length')} is missing`);
    const out = settings.u32(setting('embedding_length_out'));
    if (out !== undefined && (out < 1 || out > embeddingLength))
      throw invalidGguf(`${setting('embedding_length_out')} is ${out} for vectors of ${embeddingLength}`);
    if (Math.min(...units) < 1 || Math.max(...units) > MAX_WIDTH * 16)
      throw invalidGguf(`${setting('feed_forward_length')} is ${Math.min(...units)}`);
  }
  checkExperts(settings, setting, blockCount);
  const heads = checkHeads(settings, setting, { architecture, layers: blockCount, width: embeddingLength });
  checkRope(settings, setting);
  checkNorms(settings, setting);
  const vocabulary = checkVocabulary(settings);
  checkTensors(header.tensors, architecture, { embeddingLength, blockCount, vocabSize: vocabulary.size });
  return {
    architecture,
    contextLength,
    embeddingLength,
    blockCount,
    ...heads,
    vocabSize: vocabulary.size,
    tokenizer: vocabulary.model,
  };
}

type Name = (name: string) => string;

/** The GGML_ASSERTs on experts in llama_model_base::load_hparams. */
function checkExperts(settings: Settings, setting: Name, layers: number): void {
  const nextn = settings.u32(setting('nextn_predict_layers')) ?? 0;
  if (nextn > layers)
    throw invalidGguf(`${setting('nextn_predict_layers')} is ${nextn}, more than block_count ${layers}`);
  const experts = settings.u32(setting('expert_count')) ?? 0;
  const used = Math.max(0, ...(settings.perLayer(setting('expert_used_count'), layers) ?? []));
  if (experts > MAX_EXPERTS)
    throw invalidGguf(`${setting('expert_count')} is ${experts}, at most ${MAX_EXPERTS} are possible`);
  if (used > experts)
    throw invalidGguf(`${setting('expert_used_count')} is ${used}, more than expert_count ${experts}`);
  if (experts > 0 && used === 0)
    throw invalidGguf(`${setting('expert_used_count')} is 0 for ${experts} experts`);
  const groups = settings.u32(setting('expert_group_count')) ?? 0;
  const groupsUsed = settings.u32(setting('expert_group_used_count')) ?? 0;
  if (groups > 0 && groups >= experts)
    throw invalidGguf(`${setting('expert_group_count')} is ${groups} for ${experts} experts`);
  if (groups > 1 && (experts % groups !== 0 || groupsUsed === 0 || groupsUsed >= groups)) {
    throw invalidGguf(`${groupsUsed} of ${groups} expert groups for ${experts} experts are impossible`);
  }
}

type Heads = Pick<CheckedModel, 'headCount' | 'headCountKv' | 'cacheBytesPerToken' | 'headWidths'>;

function checkHeads(
  settings: Settings,
  setting: Name,
  {
    architecture,
    layers,
    width,
  }: { readonly architecture: string; readonly layers: number; readonly width: number },
): Heads {
  const heads = settings.perLayer(setting('attention.head_count'), layers);
  const headsKv = settings.perLayer(setting('attention.head_count_kv'), layers) ?? heads;
  if (HEADLESS.has(architecture))
    return { headCount: 0, headCountKv: 0, cacheBytesPerToken: 0, headWidths: [] };
  if (heads === undefined || headsKv === undefined)
    throw invalidGguf(`${setting('attention.head_count')} is missing`);
  heads.forEach((count, layer) => {
    const kv = headsKv[layer]!;
    if (count > MAX_WIDTH || kv > MAX_WIDTH)
      throw invalidGguf(`attention heads of layer ${layer}: ${count} with ${kv} for keys`);
    // Hybrid models mark layers without attention by a 0 in an array.
    if (count > 0 && kv > 0 && count % kv !== 0) {
      throw invalidGguf(
        `${setting('attention.head_count')} ${count} is not a multiple of head_count_kv ${kv} (layer ${layer})`,
      );
    }
  });
  const headCount = Math.max(...heads);
  const headCountKv = Math.max(...headsKv);
  if (headCount === 0) throw invalidGguf(`${setting('attention.head_count')} is 0`);
  if (headCountKv === 0) throw invalidGguf(`${setting('attention.head_count_kv')} is 0`);

  const keyLength = settings.u32(setting('attention.key_length'));
  const valueLength = settings.u32(setting('attention.value_length'));
  const derived = Math.floor(width / (heads[0] === 0 ? headCount : heads[0]!));
  for (const [name, length] of [
    ['attention.key_length', keyLength ?? derived],
    ['attention.value_length', valueLength ?? derived],
  ] as const) {
    if (length < 1 || length > MAX_WIDTH) throw invalidGguf(`${setting(name)} is ${length}`);
  }
  const rope = settings.u32(setting('rope.dimension_count'));
  if (rope !== undefined && rope > MAX_WIDTH)
    throw invalidGguf(`${setting('rope.dimension_count')} is ${rope}`);
  if (rope !== undefined && rope % 2 !== 0)
    throw invalidGguf(`${setting('rope.dimension_count')} is ${rope}, expected an even number`);
  if (architecture === 'llama') {
    if ((keyLength ?? derived) !== (valueLength ?? derived))
      throw invalidGguf(
        `llama.attention.key_length ${keyLength ?? derived} differs from value_length ${valueLength ?? derived}`,
      );
    if ((rope ?? keyLength ?? derived) !== (keyLength ?? derived))
      throw invalidGguf(`llama.rope.dimension_count is ${rope}, expected ${keyLength ?? derived}`);
    if ((keyLength ?? derived) % 2 !== 0)
      throw invalidGguf(
        `llama attention heads have ${keyLength ?? derived} dimensions, expected an even number`,
      );
  }
  const perHead = 2 * ((keyLength ?? derived) + (valueLength ?? derived));
  const cached = BERT_FAMILY.has(architecture) ? 0 : perHead * headsKv.reduce((sum, kv) => sum + kv, 0);
  // Layers with a sliding window may have heads of their own width.
  const windowed = ['attention.key_length_swa', 'attention.value_length_swa'].map((name) =>
    settings.u32(setting(name)),
  );
  const widths = [keyLength ?? derived, valueLength ?? derived, ...windowed];
  const headWidths = [...new Set(widths.filter((width) => width !== undefined))];
  return { headCount, headCountKv, cacheBytesPerToken: cached, headWidths };
}

function checkRope(settings: Settings, setting: Name): void {
  const scaling = settings.string(setting('rope.scaling.type'));
  if (scaling !== undefined && !ROPE_SCALINGS.has(scaling))
    throw invalidGguf(`${setting('rope.scaling.type')} is none of ${[...ROPE_SCALINGS].join(', ')}`);
  const base = settings.f32(setting('rope.freq_base'));
  if (base !== undefined && !(base > 0 && base < Infinity))
    throw invalidGguf(`${setting('rope.freq_base')} is ${base}`);
  const factor = settings.f32(setting('rope.scaling.factor'));
  if (factor !== undefined && !(factor >= 0 && factor < Infinity))
    throw invalidGguf(`${setting('rope.scaling.factor')} is ${factor}`);
}

/** ggml asserts eps ≥ 0 when it computes, not when it loads. */
function checkNorms(settings: Settings, setting: Name): void {
  for (const name of [
    'attention.layer_norm_rms_epsilon',
    'attention.layer_norm_epsilon',
    'attention.group_norm_epsilon',
  ].map(setting)) {
    const epsilon = settings.f32(name);
    if (epsilon !== undefined && !(epsilon >= 0 && epsilon < 1)) throw invalidGguf(`${name} is ${epsilon}`);
  }
}

function checkVocabulary(settings: Settings): { size: number; model: string } {
  const model = settings.string('tokenizer.ggml.model');
  if (model === undefined) throw invalidGguf('tokenizer.ggml.model is missing');
  if (model === 'no_vocab' || model === 'none') throw invalidGguf('it has no vocabulary');
  const tokens = settings.array('tokenizer.ggml.tokens', ['string']);
  if (tokens === undefined || tokens.count === 0)
    throw invalidGguf('tokenizer.ggml.tokens is missing or empty');
  if (tokens.firstRepeated !== undefined)
    throw invalidGguf(`tokenizer.ggml.tokens[${tokens.firstRepeated}] repeats an earlier token`);
  for (const [key, of] of [
    ['tokenizer.ggml.scores', ['f32', 'i32']],
    ['tokenizer.ggml.token_type', ['i32']],
  ] as const) {
    const list = settings.array(key, of);
    if (list !== undefined && list.count < tokens.count)
      throw invalidGguf(`${key} has ${list.count} elements for ${tokens.count} tokens`);
  }
  // A SentencePiece vocabulary spells unknown text in bytes; a missing one is an uncaught exception.
  if (model === 'llama' && tokens.byteTokens !== 256)
    throw invalidGguf(`tokenizer.ggml.tokens has tokens for ${tokens.byteTokens ?? 0} of 256 bytes`);
  settings.array('tokenizer.ggml.merges', ['string']);
  for (const name of ['bos', 'eos', 'eot', 'eom', 'unknown', 'seperator', 'padding', 'cls', 'mask']) {
    const key = `tokenizer.ggml.${name}_token_id`;
    const id = settings.u32(key);
    // 0xffffffff is LLAMA_TOKEN_NULL, which some converters write.
    if (id !== undefined && id >= tokens.count && id !== 0xffffffff)
      throw invalidGguf(`${key} is ${id}, beyond ${tokens.count} tokens`);
  }
  for (const name of ['add_bos_token', 'add_eos_token', 'add_space_prefix'])
    settings.bool(`tokenizer.ggml.${name}`);
  // llama.cpp asserts that a token it should add exists; t5 and rwkv vocabularies have no default for BOS.
  const noDefaultBos = model === 't5' || model === 'rwkv';
  for (const name of ['bos', 'eos'] as const) {
    const id = settings.u32(`tokenizer.ggml.${name}_token_id`);
    const absent = id === 0xffffffff || (id === undefined && name === 'bos' && noDefaultBos);
    if (settings.bool(`tokenizer.ggml.add_${name}_token`) === true && absent)
      throw invalidGguf(`tokenizer.ggml.add_${name}_token is set without ${name}_token_id`);
  }
  return { size: tokens.count, model };
}

function checkTensors(
  tensors: readonly TensorEntry[],
  architecture: string,
  model: { readonly embeddingLength: number; readonly blockCount: number; readonly vocabSize: number },
): void {
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const embedding = byName.get('token_embd.weight');
  if (embedding === undefined) throw invalidGguf('tensor token_embd.weight is missing');
  const [width, rows] = embedding.shape;
  if (width !== model.embeddingLength)
    throw invalidGguf(
      `token_embd.weight has rows of ${width}, expected embedding_length ${model.embeddingLength}`,
    );
  if (rows !== model.vocabSize)
    throw invalidGguf(`token_embd.weight has ${rows} rows for ${model.vocabSize} tokens`);
  const strict = isStrict(architecture);
  let blocks = 0;
  for (const tensor of tensors) {
    const index = /^blk\.(\d{1,6})\./.exec(tensor.name)?.[1];
    if (index !== undefined) blocks = Math.max(blocks, Number(index) + 1);
    const vector = tensor.shape[1] === 1 && tensor.shape[2] === 1;
    if (/_norm\.(weight|bias)$/.test(tensor.name) && vector && tensor.type.name !== 'F32') {
      throw invalidGguf(`tensor ${tensor.name} has type ${tensor.type.name}, norms must be F32`);
    }
    if (strict && tensor.name.endsWith('.bias') && tensor.type.name !== 'F32')
      throw invalidGguf(`tensor ${tensor.name} has type ${tensor.type.name}, biases must be F32`);
    if (tensor.name.endsWith('.weight') && !vector && !tensor.type.weight) {
      throw invalidGguf(`tensor ${tensor.name} has type ${tensor.type.name}, which no weight can have`);
    }
  }
  if (strict && blocks !== model.blockCount)
    throw invalidGguf(`block_count is ${model.blockCount}, but tensors are there for ${blocks} blocks`);
}

function wrong(key: string, actual: MetadataValue, expected: string): Error {
  return invalidGguf(
    `${key} has type ${actual.type === 'array' ? `array of ${actual.of}` : actual.type}, expected ${expected}`,
  );
}
