// Headers of image files: dimensions before anything decodes, whatever the bytes are.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { foreignKind, readImageHeader } from '../../../../src/api/chat/image-header.ts';
import { GIF, JPEG, picture } from '../../../fixtures/images.ts';
import { lossless, MOTLEY } from '../../../fixtures/webp.ts';

test.each([
  ['PNG', picture(40, 30), { kind: 'png', width: 40, height: 30 }],
  ['GIF', GIF, { kind: 'gif', width: 3, height: 2 }],
  ['JPEG', JPEG, { kind: 'jpeg', width: 16, height: 8 }],
  ['WebP', lossless({ width: 5, height: 4 }, MOTLEY), { kind: 'webp', width: 5, height: 4 }],
])('%s', (_, file, expected) => {
  expect(readImageHeader(file)).toEqual(expected);
});

/** A JPEG of segments: application data, then a frame of these dimensions. */
function jpeg(before: readonly number[], frame = 0xc0, scans = 1): Uint8Array {
  const head = [0xff, 0xd8, ...before, 0xff, frame, 0, 17, 8, 0, 100, 0, 200, 3, ...Array<number>(9).fill(0)];
  return Uint8Array.from([...head, ...Array.from({ length: scans }, () => [0xff, 0xda, 0, 2]).flat()]);
}

test.each([
  ['application data before the frame', jpeg([0xff, 0xe1, 0, 4, 1, 2])],
  ['bytes between segments, as some cameras leave them', jpeg([0xff, 0xe1, 0, 4, 1, 2, 0, 0])],
  ['a progressive frame', jpeg([], 0xc2)],
])('a JPEG with %s', (_, file) => {
  expect(readImageHeader(file)).toEqual({ kind: 'jpeg', width: 200, height: 100 });
});

test.each([
  ['an arithmetic-coded frame', jpeg([], 0xc9)],
  ['a scan before the frame', jpeg([0xff, 0xda, 0, 2])],
  ['more scans than pixels justify', jpeg([], 0xc2, 1000)],
  ['thousands of segments', jpeg(Array.from({ length: 5000 }, () => [0xff, 0xfe, 0, 2]).flat())],
  ['a segment that points beyond the file', Uint8Array.from([0xff, 0xd8, 0xff, 0xe0, 0xff, 0xff, 0])],
  ['no bytes', new Uint8Array(0)],
  ['a PNG signature alone', picture(4, 4).subarray(0, 8)],
  ['a PNG of no width', Buffer.concat([picture(4, 4).subarray(0, 16), Buffer.alloc(17)])],
])('%s is no image', (_, file) => {
  expect(readImageHeader(file)).toBeUndefined();
});

test.each([
  ['\0\0\0\x20ftypavif', 'AVIF'],
  ['\0\0\0\x20ftypheic', 'HEIC'],
  ['BM\0\0', 'BMP'],
  ['II*\0', 'TIFF'],
  ['<svg xmlns', 'SVG'],
  ['%PDF-1.7', 'PDF'],
  ['something', undefined],
])('%j is told as %s', (text, kind) => {
  expect(foreignKind(Buffer.from(text, 'latin1'))).toBe(kind);
});

describe('property', () => {
  test('a mutant of an image is read or refused, never an error', () => {
    const files = [picture(9, 7), GIF, JPEG, lossless({ width: 3, height: 2 }, MOTLEY)].map((file) =>
      Uint8Array.from(file),
    );
    const mutant = fc
      .record({
        file: fc.constantFrom(...files),
        changes: fc.array(fc.tuple(fc.nat(400), fc.integer({ min: 0, max: 255 })), { maxLength: 6 }),
        length: fc.nat(400),
      })
      .map(({ file, changes, length }) => {
        const out = file.slice(0, Math.max(1, length));
        for (const [at, byte] of changes) out[at % out.length] = byte;
        return out;
      });
    fc.assert(
      fc.property(mutant, (file) => {
        const header = readImageHeader(file);
        if (header === undefined) return;
        expect(Number.isInteger(header.width) && header.width > 0).toBe(true);
        expect(Number.isInteger(header.height) && header.height > 0).toBe(true);
      }),
      { numRuns: 500 * Number(process.env['ASSAY_FUZZ'] ?? 1) },
    );
  });
});
