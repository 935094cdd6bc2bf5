// PNG files whose compressed data hold more than their pixels: the decoder would inflate all of it,
// gigabytes from a file of megabytes. So the data are inflated once before, up to what the header says and
// no further (PNG specification §5, §8, §10). Refuses what is no stream of zlib, and Apple's variant
// without its header.

import { promisify } from 'node:util';
import { inflate } from 'node:zlib';

const inflateUpTo = promisify<Uint8Array, { maxOutputLength: number }, Buffer>(inflate);

/** By colour type: grey, truecolour, palette, grey and alpha, truecolour and alpha. */
const CHANNELS = new Map([
  [0, 1],
  [2, 3],
  [3, 1],
  [4, 2],
  [6, 4],
]);
/** Passes of an interlaced file have rows of their own, each with a byte of its filter and a rest. */
const PASSES = 7;
const FIRST_CHUNK = 8;

export async function inflatesAsSaid(file: Uint8Array, width: number, height: number): Promise<boolean> {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const [depth, channels] = [view.getUint8(24), CHANNELS.get(view.getUint8(25))];
  if (channels === undefined || depth > 16) return false;
  const row = Math.ceil((width * channels * depth) / 8) + 1;
  const data = compressedData(file, view);
  if (data === null) return false;
  try {
    const most = height * (row + 2 * PASSES) + PASSES * row;
    return (await inflateUpTo(data, { maxOutputLength: most })).length > 0;
  } catch {
    return false;
  }
}

/** All of IDAT up to the end; null where the file has another form. */
function compressedData(file: Uint8Array, view: DataView): Uint8Array | null {
  const parts: Uint8Array[] = [];
  for (let at = FIRST_CHUNK; at + 12 <= file.length;) {
    const length = view.getUint32(at);
    const type = Buffer.from(file.subarray(at + 4, at + 8)).toString('latin1');
    if (at + 12 + length > file.length || type === 'CgBI') return null;
    if (type === 'IDAT') parts.push(file.subarray(at + 8, at + 8 + length));
    if (type === 'IEND') return parts.length === 0 ? null : Buffer.concat(parts);
    at += 12 + length;
  }
  return null;
}
