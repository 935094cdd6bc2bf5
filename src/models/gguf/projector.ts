// Requirements of libmtmd on a projector (clip_model_loader and the siglip graph of tools/mtmd in the
// pinned llama.cpp), checked against its header before an engine reads the file: value types it asserts on,
// sizes that it divides and allocates by, shapes that would only fail while an image is computed. One kind
// is served: the Idefics3 family (SmolVLM). Another is named, not an error, and then not used.

import { invalidGguf } from './bytes.ts';
import { settingsOf, type Settings } from './check.ts';
import type { GgufHeader, TensorEntry } from './header.ts';

/** The facts of a projector that the server uses. */
export interface ProjectorFacts {
  /** `idefics3`, `qwen2.5vl_merger` …; a file may say anything here. */
  readonly kind: string;
  readonly served: boolean;
  /** Pixels along the edge of the square that it sees at once; 0 where it is not served. */
  readonly tile: number;
  /** Numbers of a vector it gives; 0 where it is not served. */
  readonly width: number;
}

const SERVED = 'idefics3';
const MAX_LAYERS = 256;
const MAX_WIDTH = 1 << 16;
const MAX_TILE = 1024;
const MAX_PATCHES = 1 << 16;
/** Of the longest edge of a resized image, in tiles. */
const MAX_GRID = 8;
/** An image may be 64 times as wide as high: less than this would leave no pixel of its height. */
const MIN_LONGEST = 64;
const VECTORS: ReadonlySet<string> = new Set(['F32']);
const MATRICES: ReadonlySet<string> = new Set(['F32', 'F16', 'BF16', 'Q8_0', 'Q5_0', 'Q5_1', 'Q4_0', 'Q4_1', 'Q4_K', 'Q5_K', 'Q6_K']); // prettier-ignore

export function isProjector({ metadata }: GgufHeader): boolean {
  const settings = settingsOf(metadata);
  const kind = settings.string('general.type');
  return kind === 'mmproj' || kind === 'clip-vision' || settings.string('general.architecture') === 'clip';
}

/** 400 invalid_gguf where it is no projector, or a served kind that cannot be right. */
export function inspectProjector(header: GgufHeader): ProjectorFacts {
  if (!isProjector(header)) throw invalidGguf('it is no multimodal projector');
  const settings = settingsOf(header.metadata);
  const kind =
    settings.string('clip.projector_type') ?? settings.string('clip.vision.projector_type') ?? 'unknown';
  const shown = /^[\w.-]{1,40}$/.test(kind) ? kind : 'unknown';
  return kind === SERVED
    ? { kind, served: true, ...checkIdefics3(header, settings) }
    : { kind: shown, served: false, tile: 0, width: 0 };
}

function checkIdefics3(header: GgufHeader, settings: Settings): { tile: number; width: number } {
  const vision = (name: string): string => `clip.vision.${name}`;
  const required = (name: string, max: number, min = 1): number => {
    const value = settings.u32(vision(name));
    if (value === undefined) throw invalidGguf(`${vision(name)} is missing`);
    if (value < min || value > max)
      throw invalidGguf(`${vision(name)} is ${value}, expected ${min} to ${max}`);
    return value;
  };
  if (settings.bool('clip.has_vision_encoder') !== true)
    throw invalidGguf('clip.has_vision_encoder is not true');
  for (const other of ['clip.has_audio_encoder', 'clip.has_gen_audio_encoder'])
    if (settings.bool(other) === true) throw invalidGguf(`${other} is true: only images are taken`);
  refuseOthers(header, settings);
  const layers = required('block_count', MAX_LAYERS);
  const inner = required('embedding_length', MAX_WIDTH);
  const units = required('feed_forward_length', MAX_WIDTH * 4);
  const heads = required('attention.head_count', MAX_WIDTH);
  required('projection_dim', MAX_WIDTH);
  if (inner % heads !== 0) throw invalidGguf(`${inner} numbers for ${heads} attention heads are impossible`);
  const headsKv = settings.u32(vision('attention.head_count_kv')) ?? heads;
  const headWidth = settings.u32(vision('attention.head_dim')) ?? inner / heads;
  if (headsKv !== heads || headWidth !== inner / heads)
    throw invalidGguf('clip.vision.attention has heads of another number or width than Idefics3');
  const tile = required('image_size', MAX_TILE);
  const patch = required('patch_size', tile);
  const merge = required('projector.scale_factor', 64);
  const longest = required('preproc_image_size', tile * MAX_GRID, MIN_LONGEST);
  if (longest < tile)
    throw invalidGguf(`${vision('preproc_image_size')} is ${longest}, less than a tile of ${tile}`);
  // SmolVLM of 2.2B has tiles of 384 pixels in patches of 14: what is left at two edges is not looked at.
  const side = Math.floor(tile / patch);
  if (side % merge !== 0 || side * side > MAX_PATCHES)
    throw invalidGguf(`tiles of ${tile} pixels, patches of ${patch} and a scale of ${merge} do not fit`);
  checkNumbers(settings, vision);
  const width = checkTensors(header.tensors, { layers, inner, units, patch, patches: side * side, merge });
  return { tile, width };
}

/** Keys of other kinds that the loader reads whatever the kind is. */
function refuseOthers(header: GgufHeader, settings: Settings): void {
  for (const key of ['image_grid_pinpoints', 'feature_layer', 'mm_patch_merge_type'])
    if (header.metadata.has(`clip.vision.${key}`)) throw invalidGguf(`clip.vision.${key} is not of Idefics3`);
  const minicpmv = header.metadata.get('clip.minicpmv_version');
  if (minicpmv !== undefined || header.metadata.has('clip.minicpmv_query_num'))
    throw invalidGguf('clip.minicpmv_version is not of Idefics3');
  if (settings.bool('clip.use_gelu') === true && settings.bool('clip.use_silu') === true)
    throw invalidGguf('clip.use_gelu and clip.use_silu are both true');
  for (const key of ['general.name', 'general.description']) settings.string(key);
}

function checkNumbers(settings: Settings, vision: (name: string) => string): void {
  const epsilon = settings.f32(vision('attention.layer_norm_epsilon'));
  if (epsilon === undefined || !(epsilon >= 0 && epsilon < 1))
    throw invalidGguf(`${vision('attention.layer_norm_epsilon')} is ${epsilon ?? 'missing'}`);
  for (const name of ['image_mean', 'image_std']) {
    const list = settings.array(vision(name), ['f32']);
    const numbers = list?.numbers ?? [];
    if (list?.count !== 3 || !numbers.every((each) => Number.isFinite(each)))
      throw invalidGguf(`${vision(name)} has not three numbers`);
    if (name === 'image_std' && numbers.some((each) => each <= 0))
      throw invalidGguf(`${vision(name)} has a number that is not positive`);
  }
}

interface Sizes {
  readonly layers: number;
  readonly inner: number;
  readonly units: number;
  readonly patch: number;
  readonly patches: number;
  readonly merge: number;
}

/** All of them, no other, in their shapes; returns the numbers of a vector. */
function checkTensors(tensors: readonly TensorEntry[], sizes: Sizes): number {
  const { layers, inner, units, patch, patches, merge } = sizes;
  const left = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const take = (name: string, shape: readonly number[], types: ReadonlySet<string>): TensorEntry => {
    const tensor = left.get(name);
    if (tensor === undefined) throw invalidGguf(`tensor ${name} is missing`);
    left.delete(name);
    if (!types.has(tensor.type.name))
      throw invalidGguf(`tensor ${name} has type ${tensor.type.name}, expected ${[...types].join(', ')}`);
    const expected = [...shape, 1, 1, 1].slice(0, 4);
    if (tensor.shape.some((size, i) => size !== expected[i]))
      throw invalidGguf(`tensor ${name} is [${tensor.shape.join(', ')}], expected [${expected.join(', ')}]`);
    return tensor;
  };
  const pair = (name: string, shape: readonly number[], types = MATRICES): void => {
    take(`${name}.weight`, shape, types);
    take(`${name}.bias`, [shape.at(-1)!], VECTORS);
  };
  pair('v.patch_embd', [patch, patch, 3, inner], new Set(['F32', 'F16', 'BF16']));
  take('v.position_embd.weight', [inner, patches], VECTORS);
  for (let i = 0; i < layers; i += 1) {
    const name = (part: string): string => `v.blk.${i}.${part}`;
    for (const norm of ['ln1', 'ln2']) pair(name(norm), [inner], VECTORS);
    for (const matrix of ['attn_q', 'attn_k', 'attn_v', 'attn_out']) pair(name(matrix), [inner, inner]);
    // Older converters have the names of these two the other way round, which the loader mends.
    const swapped = left.get(name('ffn_up.weight'))?.shape[0] === units && units !== inner;
    pair(name('ffn_up'), swapped ? [units, inner] : [inner, units]);
    pair(name('ffn_down'), swapped ? [inner, units] : [units, inner]);
  }
  pair('v.post_ln', [inner], VECTORS);
  const width = left.get('mm.model.fc.weight')?.shape[1] ?? 0;
  if (width > MAX_WIDTH) throw invalidGguf(`tensor mm.model.fc.weight gives vectors of ${width}`);
  take('mm.model.fc.weight', [inner * merge * merge, width], MATRICES);
  const [other] = left.keys();
  if (other !== undefined) throw invalidGguf(`tensor ${other} is not of Idefics3`);
  return width;
}
