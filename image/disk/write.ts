// Writes the disk, raw or in the form a cloud imports: Google Cloud takes `disk.raw` in a gzipped tar and
// whole GiB, Azure a fixed VHD, AWS the raw disk in whole GiB. The guest sees the same bytes everywhere; what
// follows the table's last sector, where a cloud rounds up, is zeros.

import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { PassThrough } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { contentBytes } from '../tree.ts';
import { SECTOR_BYTES } from './gpt.ts';
import type { DiskLayout } from './layout.ts';

export const CLOUDS = ['gcp', 'azure', 'aws'] as const;
export type Cloud = (typeof CLOUDS)[number];

const GIBIBYTE = 1 << 30;
const ZEROS = new Uint8Array(1 << 20);

/** Bytes of the disk as a guest of that cloud sees it. */
export function diskBytesFor(layout: DiskLayout, cloud: Cloud | undefined): number {
  if (cloud !== 'gcp' && cloud !== 'aws') return layout.bytes;
  return Math.ceil(layout.bytes / GIBIBYTE) * GIBIBYTE;
}

/** The file appears under its name when it is whole. Gives the SHA-256 of the file and of the disk inside. */
export async function writeDisk(
  layout: DiskLayout,
  path: string,
  cloud?: Cloud,
): Promise<{ readonly file: string; readonly disk: string }> {
  const partial = `${path}.partial`;
  const size = diskBytesFor(layout, cloud);
  const file = createHash('sha256');
  const disk = createHash('sha256');
  const framed = async function* (): AsyncGenerator<Uint8Array> {
    if (cloud === 'gcp') yield tarHeader('disk.raw', size);
    for await (const bytes of diskBytes(layout, size)) {
      disk.update(bytes);
      yield bytes;
    }
    if (cloud === 'gcp') yield new Uint8Array(2 * SECTOR_BYTES);
    if (cloud === 'azure') yield vhdFooter(size, disk.copy().digest());
  };
  const hashed = async function* (source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const chunk of source) {
      file.update(chunk);
      yield chunk;
    }
  };
  try {
    const packer = cloud === 'gcp' ? createGzip({ level: 6 }) : new PassThrough();
    await pipeline(framed, packer, hashed, createWriteStream(partial));
    await rename(partial, path);
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
  return { file: file.digest('hex'), disk: disk.digest('hex') };
}

/** The disk from its first byte to its last, in chunks of no particular size. */
async function* diskBytes(layout: DiskLayout, size: number): AsyncGenerator<Uint8Array> {
  let at = layout.table.head.length;
  yield layout.table.head;
  for (const { at: start, content } of layout.parts) {
    yield* zeros(start - at);
    at = start;
    for await (const bytes of contentBytes(content)) {
      at += bytes.length;
      yield bytes;
    }
  }
  const tail = layout.bytes - layout.table.tail.length;
  yield* zeros(tail - at);
  yield layout.table.tail;
  yield* zeros(size - layout.bytes);
}

function* zeros(count: number): Generator<Uint8Array> {
  for (let left = count; left > 0; left -= ZEROS.length)
    yield ZEROS.subarray(0, Math.min(left, ZEROS.length));
}

/** ustar (POSIX.1-1988), with no owner and no time. */
function tarHeader(name: string, size: number): Uint8Array {
  const header = Buffer.alloc(SECTOR_BYTES);
  const octal = (value: number, digits: number): string => `${value.toString(8).padStart(digits, '0')}\0`;
  header.write(name, 0, 'latin1');
  header.write(octal(0o644, 7), 100, 'latin1');
  header.write(octal(0, 7), 108, 'latin1');
  header.write(octal(0, 7), 116, 'latin1');
  if (size < 8 ** 11) header.write(octal(size, 11), 124, 'latin1');
  else {
    // GNU's form for 8 GiB and more, which Google's import takes.
    header.writeUInt8(0x80, 124);
    header.writeBigUInt64BE(BigInt(size), 128);
  }
  header.write(octal(0, 11), 136, 'latin1');
  header.write('        ', 148, 'latin1');
  header.write('0', 156, 'latin1');
  header.write('ustar\x0000', 257, 'latin1');
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return header;
}

/**
 * The footer of a fixed VHD (Virtual Hard Disk Image Format Specification 1.0); its identifier is the disk's
 * digest.
 */
function vhdFooter(size: number, digest: Uint8Array): Uint8Array {
  const footer = Buffer.alloc(SECTOR_BYTES);
  footer.write('conectix', 0, 'latin1');
  footer.writeUInt32BE(2, 8);
  footer.writeUInt32BE(0x00010000, 12);
  footer.writeBigUInt64BE(0xffffffffffffffffn, 16);
  footer.write('asay', 28, 'latin1');
  footer.writeUInt32BE(0x00010000, 32);
  footer.write('Wi2k', 36, 'latin1');
  footer.writeBigUInt64BE(BigInt(size), 40);
  footer.writeBigUInt64BE(BigInt(size), 48);
  const { cylinders, heads, sectors } = geometryOf(size / SECTOR_BYTES);
  footer.writeUInt16BE(cylinders, 56);
  footer.writeUInt8(heads, 58);
  footer.writeUInt8(sectors, 59);
  footer.writeUInt32BE(2, 60);
  footer.set(digest.subarray(0, 16), 68);
  const sum = footer.reduce((total, byte) => total + byte, 0);
  footer.writeUInt32BE(~sum >>> 0, 64);
  return footer;
}

/** The specification's own calculation ("CHS Calculation", appendix). */
function geometryOf(total: number): {
  readonly cylinders: number;
  readonly heads: number;
  readonly sectors: number;
} {
  const most = Math.min(total, 65_535 * 16 * 255);
  if (most >= 65_535 * 16 * 63) return { cylinders: Math.floor(most / 255 / 16), heads: 16, sectors: 255 };
  let sectors = 17;
  let tracks = Math.floor(most / sectors);
  let heads = Math.max(4, Math.floor((tracks + 1023) / 1024));
  if (tracks >= heads * 1024 || heads > 16) {
    sectors = 31;
    heads = 16;
    tracks = Math.floor(most / sectors);
  }
  if (tracks >= heads * 1024) {
    sectors = 63;
    heads = 16;
    tracks = Math.floor(most / sectors);
  }
  return { cylinders: Math.floor(tracks / heads), heads, sectors };
}
