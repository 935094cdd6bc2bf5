// Kind and dimensions of an image file by its first bytes, before anything decodes it: PNG (specification
// §5.2, §11.2.2), JPEG (ITU-T T.81 annex B), GIF (89a §17, §18) and WebP (webp-header.ts). Reads at most a
// bounded number of segments. Refuses what the decoder of the engine would refuse or take for something else,
// and files built to cost it far more than their pixels do.

import type { ImageKind } from '../../base/image-formats.ts';
import { webpSize } from './webp-header.ts';

export interface ImageHeader {
  readonly kind: ImageKind;
  readonly width: number;
  readonly height: number;
}

/** A real photograph has a few dozen segments before its frame. */
const MAX_SEGMENTS = 4096;
/** A progressive file has about ten scans; each costs a pass over all pixels, and may be a few bytes long. */
const MAX_SCANS = 100;

const PNG = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];

/** Undefined: no file of these kinds, or one whose header is damaged. */
export function readImageHeader(file: Uint8Array): ImageHeader | undefined {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (begins(file, PNG)) return pngHeader(file, view);
  if (begins(file, [0xff, 0xd8])) return jpegHeader(file, view);
  if (begins(file, bytesOf('GIF87a')) || begins(file, bytesOf('GIF89a'))) return gifHeader(view);
  const size = webpSize(file);
  return size === undefined ? undefined : sized('webp', size.width, size.height);
}

/** By name, for the refusal of a kind that is known and not decoded. */
export function foreignKind(file: Uint8Array): string | undefined {
  const at = (offset: number, text: string): boolean => begins(file.subarray(offset), bytesOf(text));
  if (at(4, 'ftypavif') || at(4, 'ftypavis')) return 'AVIF';
  if (at(4, 'ftyphei') || at(4, 'ftypmif1')) return 'HEIC';
  if (at(0, 'BM')) return 'BMP';
  if (at(0, 'II*\0') || at(0, 'MM\0*')) return 'TIFF';
  if (at(0, '<svg') || at(0, '<?xml')) return 'SVG';
  return at(0, '%PDF') ? 'PDF' : undefined;
}

function pngHeader(file: Uint8Array, view: DataView): ImageHeader | undefined {
  if (file.length < 33 || view.getUint32(8) !== 13 || !begins(file.subarray(12), bytesOf('IHDR')))
    return undefined;
  return sized('png', view.getUint32(16), view.getUint32(20));
}

function gifHeader(view: DataView): ImageHeader | undefined {
  return view.byteLength < 13 ? undefined : sized('gif', view.getUint16(6, true), view.getUint16(8, true));
}

/** Walks the segments as the decoder does, to the first frame. */
function jpegHeader(file: Uint8Array, view: DataView): ImageHeader | undefined {
  let at = 2;
  for (let segment = 0; segment < MAX_SEGMENTS; segment += 1) {
    at = file.indexOf(0xff, at);
    while (at >= 0 && file[at] === 0xff) at += 1;
    if (at < 0 || at + 3 > file.length) return undefined;
    const marker = file[at]!;
    const length = view.getUint16(at + 1);
    if (BASELINE_OR_PROGRESSIVE.has(marker)) {
      if (at + 8 > file.length || length < 8 || scans(file) > MAX_SCANS) return undefined;
      return sized('jpeg', view.getUint16(at + 6), view.getUint16(at + 4));
    }
    if (!BEFORE_FRAME.has(marker) || length < 2) return undefined;
    at += 1 + length;
  }
  return undefined;
}

/** Frames that the decoder knows. */
const BASELINE_OR_PROGRESSIVE = new Set([0xc0, 0xc1, 0xc2]);
/** Huffman and quantisation tables, restart interval, application data, comments. */
const BEFORE_FRAME = new Set([0xc4, 0xdb, 0xdd, 0xfe, ...Array.from({ length: 16 }, (_, i) => 0xe0 + i)]);
const START_OF_SCAN = Buffer.from([0xff, 0xda]);

/** At least as many as there are: the bytes also occur in thumbnails. */
function scans(file: Uint8Array): number {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.byteLength);
  let count = 0;
  for (let at = bytes.indexOf(START_OF_SCAN); at >= 0; at = bytes.indexOf(START_OF_SCAN, at + 2)) {
    count += 1;
    if (count > MAX_SCANS) break;
  }
  return count;
}

function sized(kind: ImageKind, width: number, height: number): ImageHeader | undefined {
  return width > 0 && height > 0 ? { kind, width, height } : undefined;
}

function begins(file: Uint8Array, start: readonly number[]): boolean {
  return file.length >= start.length && start.every((byte, i) => file[i] === byte);
}

function bytesOf(text: string): readonly number[] {
  return [...Buffer.from(text, 'latin1')];
}
