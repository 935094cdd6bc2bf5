// Opus in Ogg (RFC 3533, RFC 7845): one stream, every page by its checksum and number, packets across pages,
// and the positions that say where the sound begins and ends. Streams beside or behind the first one are
// refused: they would be other sounds. A file that ends between two pages without its last one is read as far
// as it goes.

import { OpusPackets, readOpusHead, type OpusHead, type OpusSound } from './opus.ts';
import { noSound } from './refusals.ts';

const HEADER_BYTES = 27;
const [CONTINUED, FIRST, LAST] = [1, 2, 4];

interface Page {
  readonly flags: number;
  /** Frames until the end of the last packet that ends on the page; undefined where none does. */
  readonly position: number | undefined;
  readonly serial: number;
  readonly sequence: number;
  readonly lacing: Uint8Array;
  readonly body: Uint8Array;
}

export function isOgg(file: Uint8Array): boolean {
  return Buffer.from(file.subarray(0, 4)).toString('latin1') === 'OggS';
}

export function readOgg(file: Uint8Array): OpusSound {
  const reader = new OggReader(file.length);
  for (const page of pagesOf(file)) reader.take(page);
  return reader.end();
}

class OggReader {
  readonly #packets: OpusPackets;
  #before: Page | undefined;
  /** The last packet goes on with the next page. */
  #open = false;
  #head: OpusHead | undefined;
  /** Bytes of the comments that were seen; the magic in front of them is checked. */
  #comments = Buffer.alloc(0);
  #place: 'head' | 'comments' | 'sound' = 'head';
  /** Position at which the first packet begins. */
  #begin: number | undefined;
  #position = 0;

  constructor(bytes: number) {
    this.#packets = new OpusPackets(bytes);
  }

  take(page: Page): void {
    this.#checkOrder(page);
    const heard = this.#packets.frames;
    const place = this.#place;
    let at = 0;
    let piece = 0;
    for (const [i, length] of page.lacing.entries()) {
      piece += length;
      const whole = length < 255;
      this.#open = !whole;
      if (!whole && i + 1 < page.lacing.length) continue;
      this.#give(page.body.subarray(at, at + piece), whole);
      if (whole && this.#place !== place && i + 1 < page.lacing.length)
        throw noSound('a page of its Ogg stream has a header and more');
      at += piece;
      piece = 0;
    }
    if (place === 'head' && this.#place === 'head') throw noSound('the head of its Ogg stream is broken');
    if (place === 'sound') this.#locate(page, heard);
    this.#before = page;
  }

  end(): OpusSound {
    if (this.#open) throw noSound('its Ogg stream ends in the middle of a packet');
    if (this.#head === undefined || this.#packets.frames === 0) throw noSound('its Ogg stream has no sound');
    const last = this.#before !== undefined && (this.#before.flags & LAST) !== 0;
    const frames = last ? this.#position - (this.#begin ?? 0) : this.#packets.frames;
    return this.#packets.sound(this.#head, frames);
  }

  #checkOrder({ flags, serial, sequence }: Page): void {
    const before = this.#before;
    if (
      (before === undefined) !== ((flags & FIRST) !== 0) ||
      (before !== undefined && (before.flags & LAST) !== 0)
    )
      throw noSound('it has more than one Ogg stream, or none from its beginning');
    if (before !== undefined && before.serial !== serial) throw noSound('it has more than one Ogg stream');
    if (before !== undefined && sequence !== (before.sequence + 1) >>> 0)
      throw noSound('pages of its Ogg stream are missing');
    if (((flags & CONTINUED) !== 0) !== this.#open) throw noSound('a packet of its Ogg stream is not whole');
  }

  #give(piece: Uint8Array, whole: boolean): void {
    if (this.#place === 'sound') {
      this.#packets.append(piece);
      if (whole) this.#packets.finish();
    } else if (this.#place === 'comments') {
      const missing = Math.max(0, COMMENTS.length - this.#comments.length);
      this.#comments = Buffer.concat([this.#comments, piece.subarray(0, missing)]);
      if (whole && this.#comments.toString('latin1') !== COMMENTS)
        throw noSound('the comments of its Opus stream are broken');
      if (whole) this.#place = 'sound';
    } else {
      if (Buffer.from(piece.subarray(0, 8)).toString('latin1') !== 'OpusHead')
        throw noSound('what its Ogg stream has is not Opus');
      if (!whole) throw noSound('the head of its Opus stream is broken');
      this.#head = readOpusHead(piece);
      this.#place = 'comments';
    }
  }

  /** RFC 7845, 4: what the first position leaves over is before the file; the last one may cut its end. */
  #locate({ flags, position }: Page, heard: number): void {
    const frames = this.#packets.frames - heard;
    if (position === undefined) {
      if (frames > 0) throw noSound('a page of its Ogg stream has no position');
      return;
    }
    const last = (flags & LAST) !== 0;
    if (this.#begin === undefined) {
      if (frames === 0) return;
      if (position < frames && !last) throw noSound('the first position of its Ogg stream is wrong');
      this.#begin = Math.max(0, position - frames);
    } else if (position < this.#position && !last)
      throw noSound('the positions of its Ogg stream go backwards');
    this.#position = position;
  }
}

const COMMENTS = 'OpusTags';

function* pagesOf(file: Uint8Array): Generator<Page> {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.length);
  for (let at = 0; at < bytes.length;) {
    const segments = bytes[at + 26];
    const start = at + HEADER_BYTES + (segments ?? 0);
    if (segments === undefined || start > bytes.length) throw noSound('its last Ogg page is not whole');
    if (bytes.toString('latin1', at, at + 4) !== 'OggS' || bytes[at + 4] !== 0)
      throw noSound('it has bytes between its Ogg pages');
    const lacing = bytes.subarray(at + HEADER_BYTES, start);
    const end = start + lacing.reduce((sum, length) => sum + length, 0);
    if (end > bytes.length) throw noSound('its last Ogg page is not whole');
    if (checksum(bytes.subarray(at, end)) !== bytes.readUInt32LE(at + 22))
      throw noSound('the checksum of one of its Ogg pages is wrong');
    yield {
      flags: bytes[at + 5] ?? 0,
      position: positionOf(bytes.readBigInt64LE(at + 6)),
      serial: bytes.readUInt32LE(at + 14),
      sequence: bytes.readUInt32LE(at + 18),
      lacing,
      body: bytes.subarray(start, end),
    };
    at = end;
  }
}

function positionOf(written: bigint): number | undefined {
  if (written === -1n) return undefined;
  if (written < 0n || written > BigInt(Number.MAX_SAFE_INTEGER))
    throw noSound('a position of its Ogg stream is wrong');
  return Number(written);
}

const CHECKSUMS = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte << 24;
  for (let bit = 0; bit < 8; bit++) value = (value << 1) ^ (value < 0 ? 0x04c1_1db7 : 0);
  return value;
});

/** Of a page, in which the checksum itself counts as zeros (RFC 3533, 6). */
function checksum(page: Uint8Array): number {
  let value = 0;
  for (let i = 0; i < page.length; i++) {
    const byte = i >= 22 && i < 26 ? 0 : (page[i] ?? 0);
    value = (value << 8) ^ (CHECKSUMS[((value >>> 24) ^ byte) & 0xff] ?? 0);
  }
  return value >>> 0;
}
