// The kinds of projectors that are served, each with what its graph in libmtmd asks of a file (siglip.cpp,
// qwen2vl.cpp of tools/mtmd/models, and load_hparams and load_tensors of clip.cpp): all its tensors in their
// shapes, sizes that divide, and no number by which memory grows beyond measure.

import { invalidGguf } from './bytes.ts';
import { KERNELS, MATRICES, WIDEST, VECTORS, type ProjectorFile } from './projector-file.ts';

/** The facts of a served kind for the server and the engine. */
export interface KindFacts {
  /** Pixels of a prepared image for each vector of it. */
  readonly vectorPixels: number;
  /** Its vectors stand in rows and columns, for a model whose positions have several components (M-RoPE). */
  readonly grid: boolean;
  /** Numbers of a vector. */
  readonly width: number;
}

const MAX_LAYERS = 256;
const MAX_TILE = 1024;
const MAX_PATCHES = 1 << 16;
/** Of the longest edge of a resized image, in tiles. */
const MAX_GRID = 8;
/** An image may be 64 times as wide as high: less than this would leave no pixel of its height. */
const MIN_LONGEST = 64;
/** Vectors that attend to each other are decoded at once. */
const MAX_WHOLE = 1024;
/** Of libmtmd, whatever the file says: patches become a vector two by two. */
const QWEN_MERGE = 2;
/** libmtmd lays windows of this many pixels over an image, at least one vector each. */
const QWEN_WINDOW = 112;
const SIGLIP_FOREIGN = ['clip.vision.image_grid_pinpoints', 'clip.vision.feature_layer', 'clip.vision.mm_patch_merge_type', 'clip.minicpmv_version', 'clip.minicpmv_query_num']; // prettier-ignore

export const KINDS: ReadonlyMap<string, (file: ProjectorFile) => KindFacts> = new Map([
  ['idefics3', idefics3],
  ['gemma3', gemma3],
  ['qwen2vl_merger', (file) => qwen(file, false)],
  ['qwen2.5vl_merger', (file) => qwen(file, true)],
  ['qwen3vl_merger', qwen3],
]);

interface Tower {
  readonly layers: number;
  readonly inner: number;
  readonly heads: number;
}

function towerOf(file: ProjectorFile): Tower {
  file.refuseKeys(...SIGLIP_FOREIGN);
  const layers = file.number('block_count', MAX_LAYERS);
  const inner = file.number('embedding_length', WIDEST);
  const heads = file.number('attention.head_count', WIDEST);
  file.number('projection_dim', WIDEST);
  if (inner % heads !== 0) throw invalidGguf(`${inner} numbers for ${heads} attention heads are impossible`);
  const headsKv = file.numberOr('attention.head_count_kv', heads, WIDEST);
  const headWidth = file.numberOr('attention.head_dim', inner / heads, WIDEST);
  if (headsKv !== heads || headWidth !== inner / heads)
    throw invalidGguf('clip.vision.attention has heads of another number or width than its vectors');
  return { layers, inner, heads };
}

/** A square image of `side` × `side` patches, `merge` × `merge` of which become a vector. */
function squareOf(
  file: ProjectorFile,
  mergeOf: () => number,
): { tile: number; patch: number; merge: number; side: number } {
  const tile = file.number('image_size', MAX_TILE);
  const patch = file.number('patch_size', tile);
  const merge = mergeOf();
  // SmolVLM of 2.2B has tiles of 384 pixels in patches of 14: what is left at two edges is not looked at.
  const side = Math.floor(tile / patch);
  if (side % merge !== 0 || side * side > MAX_PATCHES)
    throw invalidGguf(`tiles of ${tile} pixels, patches of ${patch} and a scale of ${merge} do not fit`);
  return { tile, patch, merge, side };
}

/** The encoder of SigLIP. */
function siglip(file: ProjectorFile, { layers, inner }: Tower, patch: number, patches: number): void {
  const units = file.number('feed_forward_length', WIDEST * 4);
  file.pair('v.patch_embd', [patch, patch, 3, inner], KERNELS);
  file.take('v.position_embd.weight', [inner, patches], VECTORS);
  for (let i = 0; i < layers; i += 1) {
    for (const norm of ['ln1', 'ln2']) file.pair(`v.blk.${i}.${norm}`, [inner], VECTORS);
    blockOf(file, i, inner);
    ffnOf(file, i, { inner, units });
  }
  file.pair('v.post_ln', [inner], VECTORS);
}

/** Attention. */
function blockOf(file: ProjectorFile, block: number, inner: number): void {
  for (const matrix of ['attn_q', 'attn_k', 'attn_v', 'attn_out'])
    file.pair(`v.blk.${block}.${matrix}`, [inner, inner]);
}

function ffnOf(
  file: ProjectorFile,
  block: number,
  { inner, units }: { readonly inner: number; readonly units: number },
): void {
  const name = (part: string): string => `v.blk.${block}.${part}`;
  // Older converters have the names of these two the other way round, which the loader mends.
  const swapped = file.shapeOf(name('ffn_up.weight'))[0] === units && units !== inner;
  file.pair(name('ffn_up'), swapped ? [units, inner] : [inner, units]);
  file.pair(name('ffn_down'), swapped ? [inner, units] : [units, inner]);
}

function idefics3(file: ProjectorFile): KindFacts {
  const tower = towerOf(file);
  const { tile, patch, merge, side } = squareOf(file, () => file.number('projector.scale_factor', 64));
  const longest = file.number('preproc_image_size', tile * MAX_GRID, MIN_LONGEST);
  if (longest < tile)
    throw invalidGguf(`clip.vision.preproc_image_size is ${longest}, less than a tile of ${tile}`);
  siglip(file, tower, patch, side ** 2);
  const width = widthOf(file, 'mm.model.fc.weight', 1);
  file.take('mm.model.fc.weight', [tower.inner * merge * merge, width], MATRICES);
  return { vectorPixels: Math.ceil(((tile / side) * merge) ** 2), grid: false, width };
}

function gemma3(file: ProjectorFile): KindFacts {
  const tower = towerOf(file);
  const { tile, patch, merge, side } = squareOf(file, () => file.numberOr('projector.scale_factor', 4, 64));
  // Never run with a rest.
  if (side * patch !== tile) throw invalidGguf(`tiles of ${tile} pixels and patches of ${patch} do not fit`);
  const vectors = (side / merge) ** 2;
  if (vectors > MAX_WHOLE) throw invalidGguf(`an image of ${vectors} vectors, expected ${MAX_WHOLE} at most`);
  siglip(file, tower, patch, side ** 2);
  const width = widthOf(file, 'mm.input_projection.weight', 0);
  // It is transposed in the graph, which no type of blocks can be.
  file.take('mm.input_projection.weight', [width, tower.inner], new Set(['F32', 'F16']));
  file.take('mm.soft_emb_norm.weight', [tower.inner], VECTORS);
  return { vectorPixels: (patch * merge) ** 2, grid: false, width };
}

/** Common to Qwen-VL: patches of two moments, which are turned by their rows and columns. */
function qwenTower(file: ProjectorFile): Tower & { readonly patch: number } {
  const tower = towerOf(file);
  const { inner, heads } = tower;
  file.number('image_size', 8192, 0);
  const patch = file.number('patch_size', QWEN_WINDOW / QWEN_MERGE);
  file.numberOr('spatial_merge_size', QWEN_MERGE, QWEN_MERGE, QWEN_MERGE);
  if ((inner / heads) % 4 !== 0)
    throw invalidGguf(`attention heads of ${inner / heads} numbers are no two pairs for rows and columns`);
  for (const moment of ['v.patch_embd.weight', 'v.patch_embd.weight.1'])
    file.take(moment, [patch, patch, 3, inner], KERNELS);
  return { ...tower, patch };
}

/** Qwen2-VL, and Qwen2.5-VL with its windows. */
function qwen(file: ProjectorFile, windows: boolean): KindFacts {
  const { layers, inner, patch } = qwenTower(file);
  if (windows) file.number('n_wa_pattern', MAX_LAYERS);
  else file.refuseKeys('clip.vision.n_wa_pattern');
  const said = file.number('feed_forward_length', WIDEST * 4, 0);
  // The converter writes another width there for Qwen2-VL.
  const [columns, rows] = file.shapeOf('v.blk.0.ffn_up.weight');
  const units = windows ? said : ((columns === inner ? rows : columns) ?? 0);
  if (units > WIDEST * 4) throw invalidGguf(`layers of ${units} units are impossible`);
  for (let i = 0; i < layers; i += 1) {
    blockOf(file, i, inner);
    for (const norm of ['ln1', 'ln2']) normOf(file, `v.blk.${i}.${norm}`, inner, windows);
    if (windows) file.pair(`v.blk.${i}.ffn_gate`, [inner, units]);
    ffnOf(file, i, { inner, units });
  }
  normOf(file, 'v.post_ln', inner, windows);
  const width = merger(file, 'mm.0', 'mm.2', inner);
  if (windows && file.number('projection_dim', WIDEST) !== width)
    throw invalidGguf(`clip.vision.projection_dim is not ${width}, the numbers of a vector`);
  return { vectorPixels: (patch * QWEN_MERGE) ** 2, grid: true, width };
}

/** Qwen3-VL: learned places, resized to an image, and vectors of some layers beside the last one's. */
function qwen3(file: ProjectorFile): KindFacts {
  const { layers, inner, patch } = qwenTower(file);
  file.refuseKeys('clip.vision.n_wa_pattern');
  const units = file.number('feed_forward_length', WIDEST * 4);
  file.take('v.patch_embd.bias', [inner], VECTORS);
  const places = file.shapeOf('v.position_embd.weight')[1] ?? 0;
  if (!Number.isInteger(Math.sqrt(places)) || places > MAX_PATCHES)
    throw invalidGguf(`tensor v.position_embd.weight has ${places} places, expected a square`);
  file.take('v.position_embd.weight', [inner, places], VECTORS);
  const deep: number[] = [];
  for (let i = 0; i < layers; i += 1) {
    const name = (part: string): string => `v.blk.${i}.${part}`;
    for (const norm of ['ln1', 'ln2']) file.pair(name(norm), [inner], VECTORS);
    file.pair(name('attn_qkv'), [inner, 3 * inner]);
    file.pair(name('attn_out'), [inner, inner]);
    file.pair(name('ffn_up'), [inner, units]);
    file.pair(name('ffn_down'), [units, inner]);
    if (file.shapeOf(`v.deepstack.${i}.fc1.weight`).length === 0) continue;
    file.pair(`v.deepstack.${i}.norm`, [inner * QWEN_MERGE ** 2], VECTORS);
    deep.push(merger(file, `v.deepstack.${i}.fc1`, `v.deepstack.${i}.fc2`, inner));
  }
  file.pair('v.post_ln', [inner], VECTORS);
  const width = merger(file, 'mm.0', 'mm.2', inner);
  if (deep.some((each) => each !== width))
    throw invalidGguf(`the layers of v.deepstack give other vectors than mm.2, of ${width} numbers`);
  return { vectorPixels: (patch * QWEN_MERGE) ** 2, grid: true, width: width * (1 + deep.length) };
}

/** Two layers that make a vector of four patches; returns its numbers. */
function merger(file: ProjectorFile, first: string, second: string, inner: number): number {
  const between = widthOf(file, `${first}.weight`, 1);
  file.pair(first, [inner * QWEN_MERGE ** 2, between]);
  const width = widthOf(file, `${second}.weight`, 1);
  file.pair(second, [between, width]);
  return width;
}

/** A layer norm, or the root mean square of Qwen2.5-VL, which has no bias. */
function normOf(file: ProjectorFile, name: string, inner: number, rms: boolean): void {
  if (rms) file.take(`${name}.weight`, [inner], VECTORS);
  else file.pair(name, [inner], VECTORS);
}

function widthOf(file: ProjectorFile, tensor: string, dimension: number): number {
  const width = file.shapeOf(tensor)[dimension] ?? 0;
  if (width > WIDEST) throw invalidGguf(`tensor ${tensor} gives vectors of ${width}`);
  return width;
}
