// Engines that see, of each other kind of projector that is served: real libmtmd in the confined child, and
// llama.cpp with attention in both directions over an image (Gemma 3) or with positions in rows and columns
// (Qwen-VL). The text depends on the pixels alone: not on what is beside it, nor on what was kept.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Engine } from '../../../src/engine/seam/engine.ts';
import { run, type Result } from '../../fixtures/engine/demo-engine.ts';
import { image, openVision, seeing, type VisionSpec } from '../../fixtures/engine/vision-engine.ts';
import {
  GEMMA_VECTORS,
  gemmaProjector,
  qwen3Projector,
  qwenProjector,
  qwenText,
  SEEING,
} from '../../fixtures/models/vision-kinds.ts';
import { visionText } from '../../fixtures/models/vision-model.ts';
import { haveVision } from '../../fixtures/native/libraries.ts';
import { apiRefusal } from '../../fixtures/refusal.ts';

/** The tokens of an answer, and the log probability of each. */
interface Told {
  readonly text: string;
  readonly logprobs: readonly number[];
}

function told({ text, events }: Result): Told {
  const logprobs = events.flatMap((event) =>
    event.kind === 'delta' && event.index === 0 ? (event.logprobs ?? []).map(({ logprob }) => logprob) : [],
  );
  expect(logprobs.length).toBeGreaterThan(0);
  return { text, logprobs };
}

/** The largest difference of log probabilities, as far as the texts are one. */
function apart(a: Told, b: Told): number {
  if (a.text !== b.text) return Infinity;
  return Math.max(...a.logprobs.map((each, i) => Math.abs(each - b.logprobs[i]!)));
}

/** Numerics are exact here: what is read otherwise, beside others or from a memory of its own is far less. */
const SAME = 1e-3;
/** Another image moves more. */
const OTHER = 1e-2;

function open(kind: keyof typeof SEEING, given: VisionSpec = {}): Promise<Engine> {
  const { text, projector, grid } = SEEING[kind];
  return openVision({ text: text(), projector: projector(), grid, ...given });
}

/** Vectors of a picture of 48 × 48 pixels, and the two marks around it. */
const VECTORS = {
  gemma3: GEMMA_VECTORS,
  qwen2vl_merger: 36,
  'qwen2.5vl_merger': 36,
  qwen3vl_merger: 36,
} as const;

describe.skipIf(!haveVision).each(Object.entries(VECTORS))('an engine that sees by %s', (name, vectors) => {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the keys of VECTORS
  const kind = name as keyof typeof VECTORS;
  let engine: Engine;
  beforeAll(async () => {
    engine = await open(kind);
  });
  afterAll(() => engine.close());

  /** Two pictures between texts. */
  const two = (seeds: readonly [number, number], scope: string, end = 'Two'): Promise<Result> =>
    run(engine, {
      maxTokens: 8,
      logprobs: 0,
      cacheScope: scope,
      prompt: {
        kind: 'chat',
        messages: [
          {
            role: 'user',
            content: `One ${end}`,
            images: [image({ seed: seeds[0] }), image({ seed: seeds[1] }, 4)],
          },
        ],
      },
    });

  test('an image counts with its vectors and its marks', async () => {
    const [seen, blind] = await Promise.all([
      seeing(engine, { text: 'Hello' }),
      run(engine, { maxTokens: 8, prompt: { kind: 'chat', messages: [{ role: 'user', content: 'Hello' }] } }),
    ]);
    expect(seen.promptTokens - blind.promptTokens).toBe(vectors + 2);
    expect(seen.finish).toBe('length');
    expect(seen.text).not.toBe(blind.text);
  });

  test('what it writes depends on the pixels and their order', async () => {
    const seeds = [[1, 2], [2, 1], [1, 3]] as const; // prettier-ignore
    const all: Told[] = [];
    for (const each of seeds) all.push(told(await two(each, `order ${each.join()}`)));
    for (const [i, j] of [
      [0, 1],
      [0, 2],
      [1, 2],
    ] as const)
      // prettier-ignore
      expect(apart(all[i]!, all[j]!)).toBeGreaterThan(OTHER);
  });

  test('equal images of a scope are read once, another is read, and so is that of another scope', async () => {
    const first = await two([4, 5], 'kept');
    const again = await two([4, 5], 'kept');
    expect(again.cachedTokens).toBe(again.promptTokens - 1);
    expect(apart(told(again), told(first))).toBeLessThan(SAME);
    // Only up to its second image, and not into it.
    const other = await two([4, 6], 'kept');
    expect(other.cachedTokens).toBeGreaterThan(vectors);
    expect(other.cachedTokens).toBeLessThan(2 * vectors);
    expect(apart(told(other), told(await two([4, 6], 'fresh')))).toBeLessThan(SAME);
    expect((await two([4, 5], 'foreign')).cachedTokens).toBe(0);
  });

  test('a kept prefix with images goes on as one that is read anew', async () => {
    await two([7, 8], 'goes on', 'Two');
    const kept = await two([7, 8], 'goes on', 'Two and more words');
    expect(kept.cachedTokens).toBeGreaterThan(2 * vectors);
    const anew = await two([7, 8], 'anew', 'Two and more words');
    expect(anew.cachedTokens).toBe(0);
    expect(apart(told(kept), told(anew))).toBeLessThan(SAME);
  });

  test('what it writes does not depend on what is beside it', async () => {
    const seeds = [[31, 32], [33, 31], [32, 33]] as const; // prettier-ignore
    const alone: Told[] = [];
    for (const each of seeds) alone.push(told(await two(each, `alone ${each.join()}`)));
    const text = {
      prompt: { kind: 'text' as const, text: 'the image '.repeat(20) },
      maxTokens: 40,
      logprobs: 0,
    };
    const before = await run(engine, { ...text, cacheScope: 'x' });
    const [together, ...pictures] = await Promise.all([
      run(engine, { ...text, cacheScope: 'y' }),
      ...seeds.map((each) => two(each, `beside ${each.join()}`)),
    ]);
    for (const [i, each] of pictures.entries()) expect(apart(told(each), alone[i]!)).toBeLessThan(SAME);
    expect(apart(told(together), told(before))).toBeLessThan(SAME);
  });

  test('several answers share one reading', async () => {
    const seen = await seeing(engine, { seed: 41, n: 3, cacheScope: 'n' });
    expect(new Set(seen.texts)).toEqual(
      new Set([(await seeing(engine, { seed: 41, cacheScope: 'one' })).text]),
    );
  });

  test('steps of a few tokens and a memory too small for all change nothing', async () => {
    const seeds = [71, 72, 73, 74, 75, 76];
    const asks = { maxTokens: 30, logprobs: 0 };
    const expected: Told[] = [];
    for (const seed of seeds)
      expected.push(told(await seeing(engine, { seed, cacheScope: `e${seed}`, ...asks })));
    const small = await open(kind, { spec: { contextLength: 160 }, options: { maxCells: 256, maxChunk: 3 } });
    try {
      const asked = seeds.map((seed) => seeing(small, { seed, cacheScope: `s${seed}`, ...asks }));
      for (const [i, each] of (await Promise.all(asked)).entries())
        expect(apart(told(each), expected[i]!)).toBeLessThan(SAME);
    } finally {
      await small.close();
    }
  });

  test('an abort ends it, and the engine goes on', async () => {
    const expected = told(await seeing(engine, { seed: 52, cacheScope: 'before', logprobs: 0 }));
    const controller = new AbortController();
    const asked = seeing(engine, { seed: 51, maxTokens: 500 }, controller.signal);
    controller.abort(new Error('gone'));
    await expect(asked).rejects.toThrow('gone');
    await engine.dropped();
    const after = told(await seeing(engine, { seed: 52, cacheScope: 'after', logprobs: 0 }));
    expect(apart(after, expected)).toBeLessThan(SAME);
  });
});

describe.skipIf(!haveVision)('a projector of another model', () => {
  test.each<readonly [string, VisionSpec, RegExp]>([
    [
      'without rows and columns, for a model with them',
      { text: qwenText(), projector: gemmaProjector() },
      /the model has positions of several components/,
    ],
    [
      'with rows and columns, for a model without',
      { text: visionText(), projector: qwenProjector(false), grid: true },
      /for models with positions of several components/,
    ],
    [
      'for more layers than the model has',
      {
        text: visionText({ architecture: 'qwen3vl', deep: 2 }),
        projector: qwen3Projector({}, 2),
        grid: true,
      },
      /more layers than it has/,
    ],
    [
      'with vectors of another width',
      { projector: gemmaProjector({ tensors: { 'mm.input_projection.weight': { shape: [64, 16] } } }) },
      /cannot be loaded/,
    ],
    [
      'without a tensor',
      {
        text: qwenText(),
        projector: qwenProjector(true, { tensors: { 'mm.2.weight': undefined } }),
        grid: true,
      },
      /cannot be loaded/,
    ],
    [
      'with patches of nothing',
      { projector: gemmaProjector({ metadata: { 'clip.vision.patch_size': { u32: 0 } } }) },
      /cannot be loaded/,
    ],
    [
      'with patches beyond measure',
      {
        text: qwenText(),
        projector: qwenProjector(false, { metadata: { 'clip.vision.patch_size': { u32: 0xffffffff } } }),
        grid: true,
      },
      /cannot be loaded/,
    ],
  ])('%s, is a model that cannot be loaded', async (_, given, reason) => {
    const refusal = await apiRefusal(openVision(given));
    expect(refusal).toMatchObject({ status: 500, code: 'model_load_failed' });
    expect(refusal.message).toMatch(reason);
  });
});
