// Headers of WebP files: the dimensions of lossy, lossless and extended ones, and a refusal for whatever
// contradicts itself or is cut off before its first frame is told.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { webpSize } from '../../../../src/api/chat/webp-header.ts';
import {
  animation,
  animationFrame,
  canvas,
  chunk,
  lossless,
  losslessFrame,
  MOTLEY,
  webp,
  WRITTEN,
} from '../../../fixtures/webp.ts';

const SIZE = { width: 8, height: 6 };
const IMAGE = chunk('VP8L', losslessFrame(SIZE, MOTLEY));
const LOSSY = WRITTEN['lossy']!;
/** Of `LOSSY`: its chunk, and the data in it. */
const [LOSSY_CHUNK, LOSSY_DATA] = [12, 20];

test.each(Object.entries(WRITTEN))('%s', (_, { file, width, height }) => {
  expect(webpSize(file)).toEqual({ width, height });
});

test.each([
  ['lossless', lossless(SIZE, MOTLEY)],
  ['on a canvas', webp(canvas(SIZE), IMAGE)],
  ['behind chunks that no one knows', webp(canvas(SIZE), chunk('ICCP', Buffer.alloc(5)), chunk('abcd', Buffer.alloc(3)), IMAGE)], // prettier-ignore
  ['animated', animation(SIZE, { ...SIZE, image: IMAGE })],
  ['with bytes behind its end', Buffer.concat([lossless(SIZE, MOTLEY), Buffer.alloc(9)])],
])('%s, as it was written', (_, file) => {
  expect(webpSize(file)).toEqual(SIZE);
});

test('the largest dimensions of each kind', () => {
  const lossy = Buffer.from(LOSSY.file);
  lossy.writeUInt32LE(0xffffffff, LOSSY_DATA + 6);
  expect(webpSize(lossy)).toEqual({ width: 16_383, height: 16_383 });
  const data = Buffer.from(losslessFrame(SIZE, MOTLEY));
  data.writeUInt32LE(0x0fffffff, 1);
  expect(webpSize(webp(chunk('VP8L', data)))).toEqual({ width: 16_384, height: 16_384 });
  const huge = { width: 1 << 24, height: 1 << 24 };
  expect(webpSize(animation(huge, { ...SIZE, left: 2 * 0xffff, image: IMAGE }))).toEqual(huge);
});

/** The file with these bytes instead. */
function changed(file: Uint8Array, at: number, ...bytes: readonly number[]): Buffer {
  const out = Buffer.from(file);
  out.set(bytes, at);
  return out;
}

const PLACED = { ...SIZE, image: IMAGE };
test.each([
  ['no bytes', new Uint8Array()],
  ['a sound in RIFF', changed(lossless(SIZE, MOTLEY), 8, ...Buffer.from('WAVE'))],
  ['no chunk', webp()],
  ['a container longer than its file', changed(LOSSY.file, 4, 0xff)],
  ['a container shorter than its chunk', changed(LOSSY.file, 4, 40, 0, 0, 0)],
  ['a chunk longer than its container', changed(LOSSY.file, LOSSY_CHUNK + 4, 0xff)],
  ['a chunk of 4 GiB', changed(LOSSY.file, LOSSY_CHUNK + 4, 0xff, 0xff, 0xff, 0xff)],
  ['a lossy frame of no bytes', webp(chunk('VP8 ', Buffer.alloc(0)))],
  ['a lossy frame that is no key frame', changed(LOSSY.file, LOSSY_DATA, LOSSY.file[LOSSY_DATA]! | 1)],
  ['a lossy frame with another start code', changed(LOSSY.file, LOSSY_DATA + 5, 0x2b)],
  ['a lossless frame of no bytes', webp(chunk('VP8L', Buffer.from([0x2f])))],
  ['a lossless frame with another signature', changed(lossless(SIZE, MOTLEY), LOSSY_DATA, 0x2e)],
  ['a lossless frame of another version', changed(lossless(SIZE, MOTLEY), LOSSY_DATA + 4, 0x20)],
  ['an unknown chunk first', webp(chunk('abcd', Buffer.alloc(10)), IMAGE)],
  ['a short canvas', webp(chunk('VP8X', Buffer.alloc(9)), IMAGE)],
  ['a canvas alone', webp(canvas(SIZE))],
  ['a canvas larger than its frame', webp(canvas({ width: 9, height: 6 }), IMAGE)],
  ['a canvas smaller than its frame', webp(canvas({ width: 8, height: 5 }), IMAGE)],
  ['an animation of no frame', animation(SIZE)],
  ['a short frame', webp(canvas(SIZE, true), chunk('ANMF', Buffer.alloc(15)))],
  ['a frame without an image', animation(SIZE, { ...SIZE, image: Buffer.alloc(0) })],
  ['a frame beside its canvas', animation(SIZE, { ...PLACED, left: 2 })],
  ['a frame below its canvas', animation(SIZE, { ...PLACED, top: 2 })],
  ['a frame that says another width', animation({ width: 9, height: 6 }, { ...PLACED, width: 9 })],
  ['a frame that says another height', animation({ width: 8, height: 9 }, { ...PLACED, height: 9 })],
  ['a frame in a frame', animation(SIZE, { ...SIZE, image: animationFrame(PLACED) })],
  [
    'chunks without end',
    webp(canvas(SIZE), ...Array<Buffer>(100).fill(chunk('abcd', Buffer.alloc(0))), IMAGE),
  ],
])('%s is no image', (_, file) => {
  expect(webpSize(file)).toBeUndefined();
});

test('cut anywhere it is no image', () => {
  for (const { file } of Object.values(WRITTEN))
    for (let length = 0; length < file.length; length += 1)
      expect(webpSize(file.subarray(0, length))).toBeUndefined();
});

describe('property', () => {
  test('a mutant is read or refused, never an error, and its dimensions can be', () => {
    const files = [...Object.values(WRITTEN).map(({ file }) => file), animation(SIZE, PLACED)];
    const mutant = fc
      .record({
        file: fc.constantFrom(...files),
        changes: fc.array(fc.tuple(fc.nat(90), fc.integer({ min: 0, max: 255 })), { maxLength: 6 }),
        length: fc.nat(400),
        fits: fc.boolean(),
      })
      .map(({ file, changes, length, fits }) => {
        const out = Buffer.from(file.subarray(0, Math.max(1, length)));
        for (const [at, byte] of changes) out[at % out.length] = byte;
        // So that it does not fail at the first number.
        if (fits && out.length > 8) out.writeUInt32LE(out.length - 8, 4);
        return out;
      });
    fc.assert(
      fc.property(mutant, (file) => {
        const size = webpSize(file);
        if (size === undefined) return;
        for (const edge of [size.width, size.height]) {
          expect(Number.isInteger(edge)).toBe(true);
          expect(edge).toBeGreaterThanOrEqual(0);
          expect(edge).toBeLessThanOrEqual(1 << 24);
        }
      }),
      { numRuns: 1000 * Number(process.env['ASSAY_FUZZ'] ?? 1) },
    );
  });
});
