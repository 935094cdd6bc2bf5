// Writes a picture of a page as a PNG with a palette (PNG, third edition, §11.2): pages have few colours, so
// a palette of 256 loses shades of letters' edges alone, and is a quarter of the size.

import { promisify } from 'node:util';
import { crc32, deflate, inflate } from 'node:zlib';

const SIGNATURE = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
const MAX_COLOURS = 256;

interface Picture {
  readonly width: number;
  readonly height: number;
  /** Red, green, blue. */
  readonly pixels: Uint8Array;
}

/** A PNG of 8 bits without interlacing, as browsers write them → the same with a palette. */
export async function palettePng(png: Uint8Array): Promise<Buffer> {
  const picture = await decoded(Buffer.from(png));
  const { palette, indices } = reduced(picture);
  const { width, height } = picture;
  const rows = Buffer.alloc((width + 1) * height);
  for (let y = 0; y < height; y += 1)
    rows.set(indices.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 3, 0, 0, 0], 8);
  return Buffer.concat([
    SIGNATURE,
    chunk('IHDR', header),
    chunk('PLTE', palette),
    chunk('IDAT', await promisify<Buffer, object, Buffer>(deflate)(rows, { level: 9, memLevel: 9 })),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

async function decoded(png: Buffer): Promise<Picture> {
  const data: Buffer[] = [];
  let header = Buffer.alloc(13);
  for (let at = 8; at < png.length;) {
    const length = png.readUInt32BE(at);
    const type = png.toString('latin1', at + 4, at + 8);
    const body = png.subarray(at + 8, at + 8 + length);
    if (type === 'IHDR') header = Buffer.from(body);
    if (type === 'IDAT') data.push(body);
    at += length + 12;
  }
  const channels = header[9] === 6 ? 4 : 3;
  if (header[8] !== 8 || (header[9] !== 6 && header[9] !== 2) || header[12] !== 0)
    throw new TypeError('the picture is no PNG of 8 bits without interlacing');
  const [width, height] = [header.readUInt32BE(0), header.readUInt32BE(4)];
  const raw = await promisify<Buffer, Buffer>(inflate)(Buffer.concat(data));
  const rows = unfiltered(raw, { stride: width * channels, height, channels });
  const pixels = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i += 1)
    pixels.set(rows.subarray(i * channels, i * channels + 3), i * 3);
  return { width, height, pixels };
}

/** Filters 0 to 4 (PNG §9). */
function unfiltered(
  raw: Buffer,
  {
    stride,
    height,
    channels,
  }: { readonly stride: number; readonly height: number; readonly channels: number },
): Uint8Array {
  const out = new Uint8Array(stride * height);
  for (let y = 0; y < height; y += 1) {
    const filter = raw[y * (stride + 1)] ?? 0;
    for (let x = 0; x < stride; x += 1) {
      const at = y * stride + x;
      const left = x >= channels ? (out[at - channels] ?? 0) : 0;
      const up = y > 0 ? (out[at - stride] ?? 0) : 0;
      const corner = x >= channels && y > 0 ? (out[at - stride - channels] ?? 0) : 0;
      out[at] = (raw[y * (stride + 1) + 1 + x] ?? 0) + predicted(filter, left, up, corner);
    }
  }
  return out;
}

function predicted(filter: number, left: number, up: number, corner: number): number {
  if (filter === 1) return left;
  if (filter === 2) return up;
  if (filter === 3) return (left + up) >> 1;
  if (filter !== 4) return 0;
  const [toLeft, toUp, toCorner] = [Math.abs(up - corner), Math.abs(left - corner), Math.abs(left + up - 2 * corner)]; // prettier-ignore
  if (toLeft <= toUp && toLeft <= toCorner) return left;
  return toUp <= toCorner ? up : corner;
}

/** The most frequent colours stay as they are; every other becomes the nearest of them. */
function reduced({ pixels }: Picture): { readonly palette: Buffer; readonly indices: Uint8Array } {
  const counts = new Map<number, number>();
  const colours = new Uint32Array(pixels.length / 3);
  for (let i = 0; i < colours.length; i += 1) {
    const colour = ((pixels[i * 3] ?? 0) << 16) | ((pixels[i * 3 + 1] ?? 0) << 8) | (pixels[i * 3 + 2] ?? 0);
    colours[i] = colour;
    counts.set(colour, (counts.get(colour) ?? 0) + 1);
  }
  const chosen = [...counts]
    .toSorted(([one, few], [other, many]) => many - few || one - other)
    .slice(0, MAX_COLOURS)
    .map(([colour]) => colour);
  const index = new Map(chosen.map((colour, i) => [colour, i]));
  for (const colour of counts.keys()) if (!index.has(colour)) index.set(colour, nearest(colour, chosen));
  const palette = Buffer.alloc(chosen.length * 3);
  chosen.forEach((colour, i) => palette.writeUIntBE(colour, i * 3, 3));
  return { palette, indices: Uint8Array.from(colours, (colour) => index.get(colour) ?? 0) };
}

function nearest(colour: number, chosen: readonly number[]): number {
  let best = 0;
  let least = Infinity;
  for (const [i, candidate] of chosen.entries()) {
    const distance = [16, 8, 0].reduce((sum, shift) => {
      const difference = ((colour >> shift) & 255) - ((candidate >> shift) & 255);
      return sum + difference * difference;
    }, 0);
    if (distance < least) [best, least] = [i, distance];
  }
  return best;
}

function chunk(type: string, body: Buffer): Buffer {
  const head = Buffer.alloc(4);
  head.writeUInt32BE(body.length);
  const content = Buffer.concat([Buffer.from(type, 'latin1'), body]);
  const sum = Buffer.alloc(4);
  sum.writeUInt32BE(crc32(content));
  return Buffer.concat([head, content, sum]);
}
