// WebP by the library that is built: the pixels that libwebp's other users get, those of a PNG where the file
// is lossless, beside the event loop, within its memory; refusals for files that are damaged or contradict
// themselves, and for thousands of mutants in a process of their own. Needs libwebpdecoder (make native).

import { createHash } from 'node:crypto';
import { setImmediate as turn } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { execFileSync } from 'node:child_process';
import koffi from 'koffi';
import { beforeAll, describe, expect, test } from 'vitest';
import { nativeView } from '../../../../../src/engine/child/llama/library.ts';
import { loadWebp, type WebpLibrary } from '../../../../../src/engine/child/vision/webp.ts';
import { nativeLibrary } from '../../../../../src/base/native-library.ts';
import { haveWebp } from '../../../../fixtures/native/libraries.ts';
import {
  animation,
  canvas,
  chunk,
  lossless,
  losslessFrame,
  manyCodes,
  MOTLEY,
  webp,
  WRITTEN,
  type ColourAt,
  type Dimensions,
} from '../../../../fixtures/webp.ts';

const FUZZ = Number(process.env['ASSAY_FUZZ'] ?? 1);

function rows({ width, height }: Dimensions, colour: ColourAt): Buffer {
  const pixels = Array.from({ length: width * height }, (_, i) => {
    const [red, green, blue] = colour(i % width, Math.floor(i / width));
    return [red, green, blue];
  });
  return Buffer.from(pixels.flat());
}

describe.skipIf(!haveWebp)('a WebP file', () => {
  let library: WebpLibrary;
  beforeAll(() => {
    library = loadWebp(nativeLibrary('libwebpdecoder') ?? '');
  });

  /** The pixels, or why there are none. */
  async function decoded(file: Uint8Array, { width, height }: Dimensions): Promise<Buffer | string> {
    const memory = [file.length, width * height * 3].map((size) => koffi.alloc('uint8', size) as bigint);
    const [bytes, pixels] = memory as [bigint, bigint];
    new Uint8Array(nativeView(bytes, file.length)).set(file);
    try {
      const outcome = await library.decode({ bytes, length: file.length, width, height }, pixels);
      return outcome === 'decoded' ? Buffer.from(nativeView(pixels, width * height * 3).slice(0)) : outcome;
    } finally {
      for (const each of memory) koffi.free(each);
    }
  }

  test.each(Object.entries(WRITTEN))('%s has the pixels that Pillow reads', async (_, each) => {
    const pixels = await decoded(each.file, each);
    expect(createHash('sha256').update(pixels).digest('hex')).toBe(each.sha256);
  });

  test.each([
    ['one pixel', { width: 1, height: 1 }],
    ['odd edges', { width: 33, height: 17 }],
    ['a strip', { width: 128, height: 2 }],
  ])('lossless, %s: each as it was written', async (_, size) => {
    expect(await decoded(lossless(size, MOTLEY), size)).toEqual(rows(size, MOTLEY));
  });

  const SIZE = { width: 8, height: 6 };
  test('alpha is left out: colours stay what they are where nothing is seen', async () => {
    const file = lossless(SIZE, (column, row) => [...MOTLEY(column, row), column * 9] as never);
    expect(await decoded(file, SIZE)).toEqual(rows(SIZE, MOTLEY));
  });

  const patch = { width: 3, height: 2, image: chunk('VP8L', losslessFrame({ width: 3, height: 2 }, MOTLEY)) };
  test('of an animation the first frame in its place, black around it', async () => {
    const file = animation(SIZE, { ...patch, left: 4, top: 2 }, patch);
    const expected = rows(SIZE, (column, row) =>
      column >= 4 && column < 7 && row >= 2 && row < 4 ? MOTLEY(column - 4, row - 2) : [0, 0, 0],
    );
    expect(await decoded(file, SIZE)).toEqual(expected);
  });

  const frame = chunk('VP8L', losslessFrame(SIZE, MOTLEY));
  const other = { width: 7, height: 6 };
  test.each([
    ['a canvas larger than its frame', webp(canvas({ width: 9, height: 6 }), frame), { width: 9, height: 6 }],
    ['a canvas smaller than its frame', webp(canvas(other), frame), other],
    ['other dimensions than asked for', lossless(SIZE, MOTLEY), other],
    ['an animation of no frame', animation(SIZE), SIZE],
    ['a frame beside the canvas', animation(SIZE, { ...patch, left: 6 }), SIZE],
    ['no file', Buffer.from('RIFF'), SIZE],
    ['a frame without its container', losslessFrame(SIZE, MOTLEY).subarray(0, 20), SIZE],
  ])('%s is damaged', async (_, file, size) => {
    expect(await decoded(file, size)).toBe('damaged');
  });

  test('cut anywhere it is damaged, and nothing is read beyond', async () => {
    for (const { file, ...size } of Object.values(WRITTEN))
      for (let length = 1; length < file.length; length += 1)
        expect(await decoded(file.subarray(0, length), size)).toBe('damaged');
  });

  test('tables beyond all proportion to its pixels are not allocated', async () => {
    // 430 kB for one million pixels, and 800 MB of tables.
    const bomb = manyCodes(256, 65_536);
    expect(bomb.length).toBeLessThan(450_000);
    expect(await decoded(bomb, { width: 1024, height: 1024 })).toBe('over limit');
    // As many as an encoder writes at most.
    const most = await decoded(manyCodes(256, 2600), { width: 1024, height: 1024 });
    expect(Buffer.alloc(3 * 1024 * 1024).equals(Buffer.from(most))).toBe(true);
  });

  test('it is decoded beside the event loop', async () => {
    const file = manyCodes(1024, 2600);
    let turns = 0;
    let done = false;
    const pixels = decoded(file, { width: 4096, height: 4096 }).finally(() => (done = true));
    while (!done) {
      await turn();
      turns += 1;
    }
    expect(await pixels).toHaveLength(3 * 4096 * 4096);
    expect(turns).toBeGreaterThan(1);
  });

  test('mutants are decoded or refused, and write nowhere else', () => {
    const entry = fileURLToPath(new URL('../../../../fixtures/native/webp-mutants.ts', import.meta.url));
    const count = 4000 * FUZZ;
    const said = execFileSync(process.execPath, ['--import', 'tsx', entry, String(count)], {
      encoding: 'utf8',
    });
    const { tried, decoded: read, damaged } = JSON.parse(said) as Record<string, number>;
    console.log(`mutants of WebP: ${said.trim()}`);
    expect(tried).toBe(count);
    expect(read).toBeGreaterThan(count / 100);
    expect(damaged).toBeGreaterThan(count / 10);
  }, 120_000);
});
