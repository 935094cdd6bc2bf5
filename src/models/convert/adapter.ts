// A PEFT folder (adapter_config.json, adapter_model.safetensors) becomes a GGUF adapter of a base that is
// GGUF already: every pair under llama.cpp's name of its matrix, B permuted as the rows of that matrix are,
// after `convert_lora_to_gguf.py` of the pinned llama.cpp, as F32. Whatever of a configuration would make
// other deltas than alpha ÷ rank · B · A is refused by its name; rslora goes into alpha.

import { ARCHITECTURES, HEAD_RULE, type Architecture } from './architectures.ts';
import { Fields } from './config.ts';
import { writePlan, type Converted, type ConvertOptions } from './convert.ts';
import { conversion, FLOAT_BYTES } from './floats.ts';
import {
  invalidDescription,
  invalidWeights,
  readExactly,
  unsupportedModel,
  type Folder,
  type Output,
} from './folder.ts';
import { readJson } from './json.ts';
import type { Metadata, PlannedTensor } from './plan.ts';
import { readSafetensorsHeader, type SafeTensor } from './safetensors.ts';
import { rulesByName, type Match } from './tensors.ts';

/** The facts of a base that decide how its adapters are written. */
export interface AdapterBase {
  /** general.architecture */
  readonly architecture: string;
  readonly layers: number;
  readonly heads: number;
  readonly headsKv: number;
}

const CONFIG = 'adapter_config.json';
const WEIGHTS = 'adapter_model.safetensors';
const PICKLE = /\.(?:bin|pt|pth|ckpt|pkl|pickle)$/i;
/** A row of the embedding's A is turned by hand. */
const MAX_TURNED = 1 << 27;
const MAX_RANK = 65_536;
const MAX_ALPHA = 1e6;

/** 400 invalid_safetensors · invalid_model_config · unsupported_model_format. */
export function convertAdapter(
  folder: Folder,
  output: Output,
  options: Pick<ConvertOptions, 'onProgress'> & { readonly base: AdapterBase },
): Converted {
  const { base, onProgress } = options;
  const json = readJson(folder, CONFIG);
  if (json === undefined) throw invalidDescription(CONFIG, 'the folder has no such file');
  if (!folder.has(WEIGHTS)) throw withoutWeights(folder);
  const scaling = readConfig(new Fields(CONFIG, json));
  const architecture = architectureOf(base);
  const pairs = pairsOf(architecture, base, readSafetensorsHeader(folder, WEIGHTS));
  const tensors = [...pairs].flatMap(([name, pair]) => planPair(folder, name, { ...pair, base, scaling }));
  if (tensors.length === 0) throw invalidWeights(WEIGHTS, 'it has no pair of lora_A and lora_B');
  const metadata: Metadata = new Map([
    ['general.architecture', { string: base.architecture }],
    ['general.type', { string: 'adapter' }],
    ['adapter.type', { string: 'lora' }],
    ['adapter.lora.alpha', { f32: scaling.alpha }],
  ]);
  const bytes = writePlan(folder, output, { metadata, tensors, onProgress });
  return { architecture: base.architecture, type: 'F32', tensors: tensors.length, bytes };
}

function withoutWeights(folder: Folder): Error {
  const pickle = [...folder.keys()].find((name) => PICKLE.test(name));
  return pickle === undefined
    ? invalidDescription(WEIGHTS, 'the folder has no such file')
    : unsupportedModel(`${pickle} is a pickle and is never opened; ${WEIGHTS} is missing`);
}

interface Scaling {
  /** As llama.cpp divides it by a pair's own rank. */
  readonly alpha: number;
  /** Absent where a pattern gives modules ranks of their own. */
  readonly rank: number | undefined;
}

/** Fields that change what an adapter does; each is refused unless it is absent, false, empty or 0. */
const REFUSED = [
  'use_dora',
  'fan_in_fan_out',
  'lora_bias',
  'modules_to_save',
  'alpha_pattern',
  'layer_replication',
  'target_parameters',
  'trainable_token_indices',
  'use_qalora',
  'use_bdlora',
  'alora_invocation_tokens',
  'invocation_string',
  'arrow_config',
  'megatron_config',
] as const;
/** Fields that do not change the deltas, or are read here. Any other is refused unless it is inert. */
const KNOWN: ReadonlySet<string> = new Set([
  'peft_type',
  'task_type',
  'auto_mapping',
  'base_model_name_or_path',
  'revision',
  'inference_mode',
  'peft_version',
  'r',
  'lora_alpha',
  'lora_dropout',
  'use_rslora',
  'rank_pattern',
  'bias',
  'target_modules',
  'exclude_modules',
  'layers_to_transform',
  'layers_pattern',
  'init_lora_weights',
  'qalora_group_size',
  'megatron_core',
  'ensure_weight_tying',
  'runtime_config',
]);
/** Those after which the base that the adapter was trained on is not the base as it was published. */
const OTHER_BASE = /^(?:pissa|olora|corda|loftq|lora_ga)/i;

function readConfig(config: Fields): Scaling {
  const kind = config.string('peft_type');
  if (kind !== 'LORA') throw config.wrong('peft_type', 'is not LORA');
  for (const field of REFUSED)
    if (!isInert(config.value(field)))
      throw unsupportedModel(`${CONFIG}: ${field} is set, and adapters that have it are not converted`);
  for (const field of config.names())
    if (!KNOWN.has(field) && !isInert(config.value(field)))
      throw unsupportedModel(`${CONFIG}: ${shown(field)} is not known, and may change what the adapter does`);
  const bias = config.string('bias') ?? 'none';
  if (bias !== 'none') throw unsupportedModel(`${CONFIG}: bias is not none: biases are not adapted`);
  const start = config.value('init_lora_weights');
  if (typeof start === 'string' && OTHER_BASE.test(start))
    throw unsupportedModel(`${CONFIG}: init_lora_weights: the adapter is one of a changed base`);
  const rank = config.integer('r', MAX_RANK);
  const alpha = config.number('lora_alpha', 0, MAX_ALPHA);
  if (alpha === 0) throw config.wrong('lora_alpha', 'is 0, so the adapter does nothing');
  const ownRanks = !isInert(config.value('rank_pattern'));
  const stabilised = config.boolean('use_rslora') === true;
  if (stabilised && ownRanks)
    throw unsupportedModel(`${CONFIG}: rank_pattern with use_rslora needs an alpha for each module`);
  return { alpha: stabilised ? alpha * Math.sqrt(rank) : alpha, rank: ownRanks ? undefined : rank };
}

/** A key of a stranger's file. */
function shown(field: string): string {
  return /^\w{1,64}$/.test(field) ? field : 'a field';
}

function isInert(value: unknown): boolean {
  if (value === undefined || value === false || value === 0 || value === '') return true;
  return typeof value === 'object' && value !== null && Object.keys(value).length === 0;
}

function architectureOf({ architecture }: AdapterBase): Architecture {
  const all = Object.values(ARCHITECTURES).filter(({ tensors }) => tensors.includes(HEAD_RULE));
  const found = all.find(({ gguf }) => gguf === architecture);
  if (found !== undefined) return found;
  const known = [...new Set(all.map(({ gguf }) => gguf))].join(', ');
  throw unsupportedModel(`PEFT folders are converted for bases of ${known}; the base is ${architecture}`);
}

interface Pair {
  readonly match: Match;
  readonly a?: SafeTensor | undefined;
  readonly b?: SafeTensor | undefined;
}

const NAME = /^base_model\.model\.(.+)\.(?:lora_([AB])\.weight|lora_embedding_([AB]))$/;

function pairsOf(
  architecture: Architecture,
  base: AdapterBase,
  tensors: readonly SafeTensor[],
): ReadonlyMap<string, Pair> {
  const rules = rulesByName(architecture, base.layers);
  const pairs = new Map<string, Pair>();
  for (const tensor of tensors) {
    const [, path = '', plain, embedding] = NAME.exec(tensor.name) ?? [];
    const side = plain ?? embedding;
    if (side === undefined)
      throw invalidWeights(WEIGHTS, `tensor ${tensor.name}: only pairs of lora_A and lora_B are converted`);
    const { prefix } = architecture;
    const below = path.startsWith(prefix) ? path.slice(prefix.length) : path;
    // Adapters of a model that sees name its text model, which is the base here.
    const name = below.replace(/^text_model\./, '');
    const match = rules.get(`${name}.weight`);
    if (match === undefined || match.rule.shape.length !== 2)
      throw invalidWeights(WEIGHTS, `tensor ${tensor.name}: ${base.architecture} has no such matrix`);
    if ((embedding !== undefined) !== (match.gguf === 'token_embd'))
      throw invalidWeights(WEIGHTS, `tensor ${tensor.name}: only the embedding has lora_embedding`);
    const target = `${match.gguf}.weight`;
    const key = side === 'A' ? 'a' : 'b';
    if (pairs.get(target)?.[key] !== undefined)
      throw invalidWeights(WEIGHTS, `tensor ${tensor.name}: ${target} has two lora_${side}`);
    pairs.set(target, { ...pairs.get(target), match, [key]: tensor });
  }
  return pairs;
}

interface Planning extends Pair {
  readonly base: AdapterBase;
  readonly scaling: Scaling;
}

function planPair(folder: Folder, name: string, pair: Planning): readonly PlannedTensor[] {
  const { a, b, match, base, scaling } = pair;
  if (a === undefined || b === undefined)
    throw invalidWeights(WEIGHTS, `${name} has no lora_${a === undefined ? 'A' : 'B'}`);
  const [rank = 0] = a.shape;
  const wrong = ({ name: tensor }: SafeTensor, message: string): Error =>
    invalidWeights(WEIGHTS, `tensor ${tensor}: ${message}`);
  for (const tensor of [a, b]) {
    if (tensor.shape.length !== 2 || tensor.elements === 0)
      throw wrong(tensor, `shape is [${tensor.shape.join(', ')}], expected two sizes`);
    if (!(tensor.dtype in FLOAT_BYTES))
      throw wrong(tensor, `dtype ${tensor.dtype} is none of F32, F16, BF16`);
  }
  if (b.shape[1] !== rank) throw wrong(b, `shape is [${b.shape.join(', ')}], lora_A has rank ${rank}`);
  if (scaling.rank !== undefined && rank !== scaling.rank)
    throw wrong(a, `has rank ${rank}, r of ${CONFIG} is ${scaling.rank}`);
  const heads = headsOf(match, base);
  const rows = b.shape[0] ?? 0;
  if (heads !== undefined && rows % (2 * heads) !== 0)
    throw wrong(b, `has ${rows} rows, which ${heads} heads of the base do not share`);
  const first: PlannedTensor =
    match.gguf === 'token_embd'
      ? { name: `${name}.lora_a`, type: 'F32', shape: a.shape.toReversed(), from: turned(folder, a) }
      : { name: `${name}.lora_a`, type: 'F32', shape: a.shape, from: { kind: 'copied', source: a } };
  return [
    first,
    { name: `${name}.lora_b`, type: 'F32', shape: b.shape, from: { kind: 'copied', source: b, heads } },
  ];
}

function headsOf({ rule }: Match, { heads, headsKv }: AdapterBase): number | undefined {
  if (rule.permuted === undefined) return undefined;
  return rule.permuted === 'queries' ? heads : headsKv;
}

/** A of the embedding, by token. */
function turned(
  folder: Folder,
  tensor: SafeTensor,
): { readonly kind: 'computed'; readonly values: Float32Array } {
  const [rank = 0, tokens = 0] = tensor.shape;
  const { dtype, elements, bytes, position } = tensor;
  if (elements > MAX_TURNED)
    throw invalidWeights(WEIGHTS, `tensor ${tensor.name}: has more than ${MAX_TURNED} elements`);
  const file = folder.get(WEIGHTS);
  if (file === undefined || (dtype !== 'F32' && dtype !== 'F16' && dtype !== 'BF16'))
    throw invalidWeights(WEIGHTS, `tensor ${tensor.name}: dtype ${dtype} is none of F32, F16, BF16`);
  const source = new Uint8Array(bytes);
  readExactly(WEIGHTS, file, position, source);
  const rows = new Float32Array(elements);
  if (conversion(dtype, 'F32')(source, new Uint8Array(rows.buffer)) >= 0)
    throw invalidWeights(WEIGHTS, `tensor ${tensor.name}: a value is not finite`);
  const values = new Float32Array(elements);
  for (let row = 0; row < rank; row++)
    for (let token = 0; token < tokens; token++) values[token * rank + row] = rows[row * tokens + token]!;
  return { kind: 'computed', values };
}
