// The checks of a projector: what libmtmd would abort on, divide by zero with or compute wrongly is refused
// with a typed error, and what they accept is loaded by real libmtmd, and sees.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { WrittenValue } from '../../../../scripts/demo-model/gguf.ts';
import { ApiError } from '../../../../src/base/errors.ts';
import { readHeader } from '../../../../src/models/gguf/header.ts';
import {
  inspectProjector,
  SERVED_KINDS,
  type ProjectorFacts,
} from '../../../../src/models/gguf/projector.ts';
import { openVision, seeing } from '../../../fixtures/engine/vision-engine.ts';
import { source } from '../../../fixtures/models/gguf-source.ts';
import { SEEING } from '../../../fixtures/models/vision-kinds.ts';
import { TILE, TILE_TOKENS, type VisionChanges } from '../../../fixtures/models/vision-model.ts';
import { haveVision } from '../../../fixtures/native/libraries.ts';

type Kind = keyof typeof SEEING;

async function inspect(changes: VisionChanges = {}, kind: Kind = 'idefics3'): Promise<ProjectorFacts> {
  return inspectProjector(await readHeader(source(SEEING[kind].projector(changes))));
}

function metadata(key: string, value: WrittenValue | undefined): VisionChanges {
  return { metadata: { [key]: value } };
}

function shape(name: string, ...sizes: readonly number[]): VisionChanges {
  return { tensors: { [name]: { shape: sizes } } };
}

test.each([
  ['idefics3', TILE ** 2 / TILE_TOKENS, false, 32],
  ['gemma3', 8 * 8, false, 32],
  ['qwen2vl_merger', 8 * 8, true, 32],
  ['qwen2.5vl_merger', 8 * 8, true, 32],
  ['qwen3vl_merger', 8 * 8, true, 64],
] as const)('the facts of %s, which is served', async (kind, vectorPixels, grid, width) => {
  expect(await inspect({}, kind)).toEqual({ kind, served: true, vectorPixels, grid, width });
  expect(SERVED_KINDS).toContain(kind);
});

test.each([
  ['llama4', 'llama4'],
  ['a\nb', 'unknown'],
])('another kind (%j) is named, and not served', async (written, kind) => {
  expect(await inspect(metadata('clip.projector_type', { string: written }))).toMatchObject({
    kind,
    served: false,
  });
});

function vision(name: string): string {
  return `clip.vision.${name}`;
}
const REFUSED: readonly (readonly [string, VisionChanges, string])[] = [
  ['no encoder', metadata('clip.has_vision_encoder', undefined), 'has_vision_encoder'],
  ['an encoder of another type', metadata('clip.has_vision_encoder', { u32: 1 }), 'has type u32'],
  ['sound', metadata('clip.has_audio_encoder', { bool: true }), 'only images are taken'],
  ['a kind that is no text', metadata('clip.projector_type', { u32: 1 }), 'has type u32'],
  ['a name that is no text', metadata('general.name', { u32: 1 }), 'has type u32'],
  ['both activations', metadata('clip.use_silu', { bool: true }), 'both true'],
  ['an activation of another type', metadata('clip.use_gelu', { u32: 1 }), 'has type u32'],
  ['no layers', metadata(vision('block_count'), { u32: 0 }), 'block_count is 0'],
  [
    'more layers than tensors',
    metadata(vision('block_count'), { u32: 2 }),
    'tensor v.blk.1.ln1.weight is missing',
  ],
  ['no heads', metadata(vision('attention.head_count'), { u32: 0 }), 'head_count is 0'],
  ['heads that do not divide', metadata(vision('attention.head_count'), { u32: 3 }), 'attention heads'],
  [
    'other heads for keys',
    metadata(vision('attention.head_count_kv'), { u32: 1 }),
    'heads of another number',
  ],
  ['patches of nothing', metadata(vision('patch_size'), { u32: 0 }), 'patch_size is 0'],
  ['patches of another size', metadata(vision('patch_size'), { u32: 7 }), 'v.patch_embd.weight is [8, 8'],
  ['a scale of nothing', metadata(vision('projector.scale_factor'), { u32: 0 }), 'scale_factor is 0'],
  ['a scale that does not divide', metadata(vision('projector.scale_factor'), { u32: 3 }), 'do not fit'],
  ['tiles beyond measure', metadata(vision('image_size'), { u32: 1 << 30 }), 'image_size is 1073741824'],
  ['images beyond measure', metadata(vision('preproc_image_size'), { u32: 1 << 20 }), 'preproc_image_size'],
  ['images of nothing', metadata(vision('preproc_image_size'), { u32: 0 }), 'preproc_image_size is 0'],
  ['no size of images', metadata(vision('preproc_image_size'), undefined), 'preproc_image_size is missing'],
  ['a mean of two', metadata(vision('image_mean'), { f32s: [0.5, 0.5] }), 'image_mean'],
  ['a deviation of 0', metadata(vision('image_std'), { f32s: [0.5, 0, 0.5] }), 'not positive'],
  ['a mean that is no number', metadata(vision('image_mean'), { f32s: [0.5, NaN, 0.5] }), 'image_mean'],
  ['a negative epsilon', metadata(vision('attention.layer_norm_epsilon'), { f32: -1 }), 'layer_norm_epsilon'],
  ['pinpoints', metadata(vision('image_grid_pinpoints'), { i32s: [1] }), 'not of idefics3'],
  ['feature layers', metadata(vision('feature_layer'), { i32s: [99] }), 'not of idefics3'],
  ['another kind’s version', metadata('clip.minicpmv_version', { i32: 2 }), 'not of idefics3'],
  ['a tensor less', { tensors: { 'mm.model.fc.weight': undefined } }, 'tensor mm.model.fc.weight is missing'],
  ['a projection of other columns', shape('mm.model.fc.weight', 32, 32), 'mm.model.fc.weight is [32, 32'],
  ['positions of other patches', shape('v.position_embd.weight', 16, 4), 'v.position_embd.weight is [16, 4'],
  ['patches of two colours', shape('v.patch_embd.weight', 8, 8, 2, 16), 'v.patch_embd.weight is [8, 8, 2'],
  ['a short bias', shape('v.blk.0.attn_q.bias', 8), 'v.blk.0.attn_q.bias is [8'],
  [
    'a bias of another type',
    { tensors: { 'v.post_ln.bias': { type: 'F16' } } },
    'v.post_ln.bias has type F16',
  ],
];

test.each(REFUSED)('refused: %s', async (_, changes, message) => {
  const refused = inspect(changes);
  await expect(refused).rejects.toMatchObject({ status: 400, code: 'invalid_gguf' });
  await expect(refused).rejects.toThrow(message);
});

const REFUSED_OTHERS: readonly (readonly [Kind, string, VisionChanges, string])[] = [
  ['gemma3', 'more vectors than one decode has', { metadata: { [vision('image_size')]: { u32: 512 }, [vision('projector.scale_factor')]: { u32: 1 } } }, 'an image of 16384 vectors'], // prettier-ignore
  [
    'gemma3',
    'a scale that does not divide',
    metadata(vision('projector.scale_factor'), { u32: 3 }),
    'do not fit',
  ],
  ['gemma3', 'a projection of blocks', { tensors: { 'mm.input_projection.weight': { type: 'Q8_0' } } }, 'mm.input_projection.weight has type Q8_0'], // prettier-ignore
  ['gemma3', 'a projection of other rows', shape('mm.input_projection.weight', 32, 8), 'mm.input_projection.weight is [32, 8'], // prettier-ignore
  [
    'gemma3',
    'no norm',
    { tensors: { 'mm.soft_emb_norm.weight': undefined } },
    'mm.soft_emb_norm.weight is missing',
  ],
  [
    'qwen2vl_merger',
    'patches beyond measure',
    metadata(vision('patch_size'), { u32: 57 }),
    'patch_size is 57',
  ],
  [
    'qwen2vl_merger',
    'another merge',
    metadata(vision('spatial_merge_size'), { u32: 4 }),
    'spatial_merge_size is 4',
  ],
  [
    'qwen2vl_merger',
    'heads without pairs',
    metadata(vision('attention.head_count'), { u32: 8 }),
    'no two pairs',
  ],
  ['qwen2vl_merger', 'windows', metadata(vision('n_wa_pattern'), { u32: 2 }), 'not of qwen2vl_merger'],
  ['qwen2vl_merger', 'one moment', { tensors: { 'v.patch_embd.weight.1': undefined } }, 'v.patch_embd.weight.1 is missing'], // prettier-ignore
  ['qwen2vl_merger', 'a bias less', { tensors: { 'v.blk.1.attn_k.bias': undefined } }, 'v.blk.1.attn_k.bias is missing'], // prettier-ignore
  ['qwen2.5vl_merger', 'no windows', metadata(vision('n_wa_pattern'), undefined), 'n_wa_pattern is missing'],
  [
    'qwen2.5vl_merger',
    'no pattern of windows',
    metadata(vision('n_wa_pattern'), { u32: 0 }),
    'n_wa_pattern is 0',
  ],
  [
    'qwen2.5vl_merger',
    'another projection',
    metadata(vision('projection_dim'), { u32: 64 }),
    'projection_dim is not 32',
  ],
  ['qwen2.5vl_merger', 'no gate', { tensors: { 'v.blk.0.ffn_gate.weight': undefined } }, 'v.blk.0.ffn_gate.weight is missing'], // prettier-ignore
  [
    'qwen3vl_merger',
    'places in no square',
    shape('v.position_embd.weight', 16, 63),
    '63 places, expected a square',
  ],
  ['qwen3vl_merger', 'deeper vectors of another width', { tensors: { 'v.deepstack.0.fc2.weight': { shape: [64, 16] }, 'v.deepstack.0.fc2.bias': { shape: [16] } } }, 'other vectors than mm.2'], // prettier-ignore
  ['qwen3vl_merger', 'half of a deeper layer', { tensors: { 'v.deepstack.0.fc1.weight': undefined } }, 'v.deepstack.0.norm.weight is not of'], // prettier-ignore
];

test.each(REFUSED_OTHERS)('refused of %s: %s', async (kind, _, changes, message) => {
  const refused = inspect(changes, kind);
  await expect(refused).rejects.toMatchObject({ status: 400, code: 'invalid_gguf' });
  await expect(refused).rejects.toThrow(message);
});

describe.skipIf(!haveVision)('real libmtmd', () => {
  /** The image of the test is seen: the engine answers. */
  async function sees(changes: VisionChanges, kind: Kind): Promise<void> {
    const { text, projector, grid } = SEEING[kind];
    const engine = await openVision({ text: text(), projector: projector(changes), grid });
    try {
      expect((await seeing(engine, { maxTokens: 2 })).finish).toBe('length');
    } finally {
      await engine.close();
    }
  }

  test.each<readonly [Kind, string, VisionChanges]>([
    ['idefics3', 'matrices of F16', { tensors: { 'v.blk.0.attn_q.weight': { type: 'F16' } } }],
    ['idefics3', 'the names of the two layers exchanged', { tensors: { 'v.blk.0.ffn_up.weight': { shape: [32, 16] }, 'v.blk.0.ffn_up.bias': { shape: [16] }, 'v.blk.0.ffn_down.weight': { shape: [16, 32] }, 'v.blk.0.ffn_down.bias': { shape: [32] } } }], // prettier-ignore
    ['idefics3', 'another activation', metadata('clip.use_gelu', { bool: false })],
    ['idefics3', 'small images', metadata(vision('preproc_image_size'), { u32: 70 })],
    ['gemma3', 'a projection of F16', { tensors: { 'mm.input_projection.weight': { type: 'F16' } } }],
    ['gemma3', 'an image of one vector', metadata(vision('projector.scale_factor'), { u32: 8 })],
    ['qwen2vl_merger', 'the names of the two layers exchanged', { tensors: { 'v.blk.0.ffn_up.weight': { shape: [32, 16] }, 'v.blk.0.ffn_up.bias': { shape: [16] }, 'v.blk.0.ffn_down.weight': { shape: [16, 32] }, 'v.blk.0.ffn_down.bias': { shape: [32] } } }], // prettier-ignore
    ['qwen2vl_merger', 'another width in its keys', metadata(vision('feed_forward_length'), { u32: 0 })],
    [
      'qwen2.5vl_merger',
      'windows in every layer but the third',
      metadata(vision('n_wa_pattern'), { u32: 3 }),
    ],
  ])('loads %s: %s', async (kind, _, changes) => {
    await inspect(changes, kind);
    await sees(changes, kind);
  });

  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- its own keys
  test.each(Object.keys(SEEING) as Kind[])(
    'property: what the checks accept of %s is loaded, and sees',
    async (kind) => {
      const numbers = fc.oneof(fc.integer({ min: 0, max: 70 }), fc.constantFrom(96, 128, 256, 4096, 1 << 20));
      const changed = fc
        .tuple(
          fc.constantFrom('block_count', 'embedding_length', 'feed_forward_length', 'attention.head_count', 'projection_dim', 'image_size', 'patch_size', 'projector.scale_factor', 'preproc_image_size', 'spatial_merge_size', 'n_wa_pattern'), // prettier-ignore
          numbers,
        )
        .map(([key, value]) => metadata(vision(key), { u32: value }));
      await fc.assert(
        fc.asyncProperty(changed, async (changes) => {
          try {
            await inspect(changes, kind);
          } catch (error) {
            if (error instanceof ApiError && error.code === 'invalid_gguf') return;
            throw error;
          }
          try {
            await sees(changes, kind);
          } catch (error) {
            // So many tiles that the context of the test's model does not hold them: refused before it sees.
            if (!(error instanceof ApiError && error.code === 'context_length_exceeded')) throw error;
          }
        }),
        { numRuns: 25 * Number(process.env['ASSAY_FUZZ'] ?? 1) },
      );
    },
    120_000,
  );
});
