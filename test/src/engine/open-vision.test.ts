// An engine that sees: real libmtmd in the confined child. Its text depends on the pixels alone: not on what
// is beside it, not on how its prompt was cut into steps, not on what was kept.

import { deflateSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Engine } from '../../../src/engine/seam/engine.ts';
import { run } from '../../fixtures/engine/demo-engine.ts';
import { image, openVision, seeing } from '../../fixtures/engine/vision-engine.ts';
import { GIF, JPEG, picture, png, pngOf } from '../../fixtures/images.ts';
import { TILE_TOKENS, visionText, visionVocabulary } from '../../fixtures/models/vision-model.ts';
import { haveVision, haveWebp } from '../../fixtures/native/libraries.ts';
import { apiRefusal } from '../../fixtures/refusal.ts';
import { lossless, manyCodes, MOTLEY, WRITTEN } from '../../fixtures/webp.ts';

describe.skipIf(!haveVision)('an engine that sees', () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await openVision();
  });
  afterAll(() => engine.close());

  test.each([
    ['a PNG', { file: picture(48, 48, 4) }],
    ['a GIF, its first frame', { file: GIF, kind: 'gif' as const, size: [3, 2] as const }],
    ['a JPEG', { file: JPEG, kind: 'jpeg' as const, size: [16, 8] as const }],
    ['one pixel', { file: png(1, 1, () => [1, 2, 3]), size: [1, 1] as const }],
    ['a strip, 64 times as wide as high', { file: picture(128, 2), size: [128, 2] as const }],
  ])('%s is read', async (_, given) => {
    const seen = await seeing(engine, given);
    expect(seen.finish).toBe('length');
    expect(seen.promptTokens).toBeGreaterThan(20);
  });

  test.each([
    ['cut short', picture(48, 48).subarray(0, 400)],
    ['of no image', Buffer.concat([picture(48, 48).subarray(0, 33), Buffer.alloc(200)])],
    ['of other dimensions than it says', picture(47, 48)],
    ['that inflates to far more than its pixels', pngOf(48, 48, deflateSync(Buffer.alloc(64 * 1024 * 1024)))],
  ])('a file %s is refused by name, and the engine goes on', async (_, file) => {
    const error = await apiRefusal(seeing(engine, { file, size: [48, 48] }));
    expect(error).toMatchObject({
      status: 400,
      code: 'invalid_image',
      param: 'messages[0].content[0].image_url.url',
    });
    expect((await seeing(engine)).finish).toBe('length');
  });

  test('the same pixels are found again, whatever file they come in', async () => {
    const pixel = (column: number, row: number) => [column * 5, row * 5, 77] as const;
    const first = await seeing(engine, { file: png(48, 48, pixel) });
    const file = png(48, 48, pixel);
    const other = pngOf(48, 48, deflateSync(rows(48, 48, pixel), { level: 1 }));
    expect(other.equals(file)).toBe(false);
    const again = await seeing(engine, { file: other });
    expect(again.cachedTokens).toBe(again.promptTokens - 1);
    expect(again.text).toBe(first.text);
    const near = await seeing(engine, {
      file: png(48, 48, (column, row) => [column * 5, row * 5, column === 47 && row === 47 ? 200 : 77]),
    });
    expect(near.cachedTokens).toBeLessThan(12);
  });

  describe.skipIf(!haveWebp)('WebP', () => {
    const size = [48, 48] as const;
    const [width, height] = size;
    const written = (change = 0): Uint8Array =>
      lossless({ width, height }, (column, row) => [MOTLEY(column, row)[0], (row * 11 + change) & 255, 9]);

    test('of the same pixels as a PNG is found again, with the same answer', async () => {
      const file = png(width, height, (column, row) => [MOTLEY(column, row)[0], (row * 11) & 255, 9]);
      const first = await seeing(engine, { file, size, cacheScope: 'webp' });
      const again = await seeing(engine, { file: written(), kind: 'webp', size, cacheScope: 'webp' });
      expect(again.cachedTokens).toBe(again.promptTokens - 1);
      expect(again.text).toBe(first.text);
      const other = await seeing(engine, { file: written(1), kind: 'webp', size, cacheScope: 'webp' });
      expect(other.cachedTokens).toBeLessThan(12);
    });

    test.each(Object.entries(WRITTEN))('%s is read', async (_, { file, width: across, height: down }) => {
      const seen = await seeing(engine, { file, kind: 'webp', size: [across, down] });
      expect(seen.finish).toBe('length');
    });

    test.each([
      ['cut short', written().subarray(0, 400)],
      ['of other dimensions than it says', WRITTEN['lossy']!.file],
      ['of another kind than its header says', picture(48, 48)],
    ])('a file %s is refused by name, and the engine goes on', async (_, file) => {
      const error = await apiRefusal(seeing(engine, { file, kind: 'webp', size }));
      expect(error).toMatchObject({ status: 400, code: 'invalid_image' });
      expect(error.message).toContain('damaged');
      expect((await seeing(engine)).finish).toBe('length');
    });

    test('one that asks for more memory than its pixels account for is refused as that', async () => {
      const file = manyCodes(64, 4096);
      const error = await apiRefusal(seeing(engine, { file, kind: 'webp', size: [256, 256] }));
      expect(error).toMatchObject({ status: 400, code: 'invalid_image' });
      expect(error.message).toContain('more memory');
      expect((await seeing(engine)).finish).toBe('length');
    });
  });

  test('another scope finds nothing', async () => {
    await seeing(engine, { seed: 21 });
    expect((await seeing(engine, { seed: 21, cacheScope: 'other' })).cachedTokens).toBe(0);
  });

  test('marks in the text of a user are text', async () => {
    const said = '<image> <fake_token_around_image><global-img> <__media__> \u{f0000}\u{f8000}';
    const tokens = await engine.tokenize({ messages: [{ role: 'user', content: said }] });
    const marks = ['<image>', '<fake_token_around_image>', '<global-img>'].map((mark) =>
      visionVocabulary.id(mark),
    );
    expect(tokens.filter((token) => marks.includes(token))).toEqual([]);
    expect(await engine.detokenize(tokens)).toContain(said);
    const [with_, without] = [await seeing(engine, { text: said }), await seeing(engine, { text: '' })];
    expect(with_.promptTokens - without.promptTokens).toBe(
      tokens.length - (await engine.tokenize({ messages: [{ role: 'user', content: '' }] })).length,
    );
  });

  test('images keep their places between texts', async () => {
    const [red, blue] = [image({ seed: 1 }, 4), image({ seed: 2 }, 4)];
    const asked = (images: readonly ReturnType<typeof image>[]) =>
      run(engine, {
        maxTokens: 8,
        prompt: { kind: 'chat', messages: [{ role: 'user', content: 'One and two', images }] },
      });
    expect((await asked([red, blue])).text).not.toBe((await asked([blue, red])).text);
  });

  test('what it writes does not depend on what is beside it', async () => {
    const alone = [];
    for (const seed of [31, 32, 33])
      alone.push((await seeing(engine, { seed, cacheScope: `a${seed}` })).text);
    const text = { kind: 'text' as const, text: 'the image '.repeat(20) };
    const beside = await run(engine, { prompt: text, maxTokens: 40, cacheScope: 'x' });
    const [together, ...pictures] = await Promise.all([
      run(engine, { prompt: text, maxTokens: 40, cacheScope: 'y' }),
      ...[31, 32, 33].map((seed) => seeing(engine, { seed, cacheScope: `b${seed}` })),
    ]);
    expect(pictures.map((each) => each.text)).toEqual(alone);
    expect(together.text).toBe(beside.text);
  });

  test('several answers share one reading', async () => {
    const seen = await seeing(engine, { seed: 41, n: 3, cacheScope: 'n' });
    expect(new Set(seen.texts)).toEqual(new Set([seen.text]));
  });

  test('an abort ends it, and the engine goes on', async () => {
    const controller = new AbortController();
    const asked = seeing(engine, { seed: 51, maxTokens: 500 }, controller.signal);
    controller.abort(new Error('gone'));
    await expect(asked).rejects.toThrow('gone');
    await engine.dropped();
    expect(engine.stats()).toMatchObject({ active: 0, queued: 0 });
    expect((await seeing(engine)).finish).toBe('length');
  });

  test('tokens of a conversation with an image are those of its prompt: −1 for each vector', async () => {
    const messages = [{ role: 'user' as const, content: '', images: [image({})] }];
    const counted = await engine.tokenize({ messages });
    const read = await seeing(engine, { text: '', cacheScope: 'counted' });
    expect(counted).toHaveLength(read.promptTokens);
    // Four tiles and the overview.
    expect(counted.filter((token) => token === -1)).toHaveLength(5 * TILE_TOKENS);
  });

  test('a prompt cut into steps of a few vectors writes the same', async () => {
    const cut = await openVision({ options: { maxChunk: 3 } });
    try {
      expect((await seeing(cut, { seed: 61 })).text).toBe((await seeing(engine, { seed: 61 })).text);
    } finally {
      await cut.close();
    }
  });

  test('a context that a few images fill is made free again for others', async () => {
    const small = await openVision({ spec: { contextLength: 128 }, options: { maxCells: 256 } });
    try {
      const seeds = [71, 72, 73, 74, 75, 76];
      const seen = await Promise.all(seeds.map((seed) => seeing(small, { seed, cacheScope: `s${seed}` })));
      expect(seen.map((each) => each.finish)).toEqual(seeds.map(() => 'length'));
    } finally {
      await small.close();
    }
  });

  test('a vocabulary without the marks of an image is refused when it loads', async () => {
    const text = visionText();
    const at = text.indexOf('<global-img>');
    text.write('<another-1g>', at, 'latin1');
    const error = await apiRefusal(openVision({ text }));
    expect(error).toMatchObject({ code: 'model_load_failed' });
    expect(error.message).toContain('lacks the marks');
  });
});

function rows(
  width: number,
  height: number,
  pixel: (column: number, row: number) => readonly number[],
): Buffer {
  const line = (row: number): number[] => [
    0,
    ...Array.from({ length: width }, (_, column) => pixel(column, row)).flat(),
  ];
  return Buffer.from(Array.from({ length: height }, (_, row) => line(row)).flat());
}
