// One gzip member (RFC 1952) of DEFLATE (RFC 1951), inflated to a bound. Own code: the platforms' inflaters
// take several members and stop silently before trailing bytes, and here what is refused matters as much as
// what is read. Refused: reserved flags, a second member or any byte after the first, a wrong CRC or size,
// codes that are over-subscribed or incomplete, distances before the start.

import { concatBytes } from '../encoding/bytes.ts';
import { malformed } from '../transcript/errors.ts';

const LENGTH_BASE = [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258]; // prettier-ignore
const LENGTH_EXTRA = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0]; // prettier-ignore
const DISTANCE_BASE = [1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12_289, 16_385, 24_577]; // prettier-ignore
const DISTANCE_EXTRA = [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13]; // prettier-ignore
const CODE_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const MAX_BITS = 15;

/** @throws AttestationError malformed `initdata_annotation`, or `input_too_large` past `most` bytes */
export function gunzip(bytes: Uint8Array, most: number): Uint8Array {
  const [id1, id2, method, flags = 0] = bytes;
  if (id1 !== 0x1f || id2 !== 0x8b || method !== 8) throw broken('is no gzip of DEFLATE');
  // FEXTRA, FNAME, FCOMMENT and FHCRC are in no annotation; reserved bits are in none at all.
  if (flags !== 0) throw broken(`has gzip flags 0x${flags.toString(16)}`);
  const reader = new BitReader(bytes, 10);
  const output = inflate(reader, most);
  const trailer = reader.rest();
  if (trailer.length !== 8) throw broken(`has ${trailer.length} bytes after its DEFLATE stream, expected 8`);
  const view = new DataView(trailer.buffer, trailer.byteOffset, 8);
  if (view.getUint32(0, true) !== crc32(output)) throw broken('has another CRC');
  if (view.getUint32(4, true) !== output.length) throw broken('has another size');
  return output;
}

interface Output {
  readonly bytes: Uint8Array;
  readonly most: number;
  at: number;
}

function inflate(reader: BitReader, most: number): Uint8Array {
  // Grows by doubling: a small bomb does not take the whole bound at once.
  let output: Output = { bytes: new Uint8Array(Math.min(most, 65_536)), most, at: 0 };
  for (let last = false; !last;) {
    last = reader.bits(1) === 1;
    const kind = reader.bits(2);
    if (kind === 0) output = stored(reader, output);
    else if (kind === 1) output = coded(reader, output, FIXED);
    else if (kind === 2) output = coded(reader, output, readCodes(reader));
    else throw broken('has a block of a reserved kind');
  }
  return output.bytes.slice(0, output.at);
}

function room(output: Output, size: number): Output {
  const needed = output.at + size;
  if (needed <= output.bytes.length) return output;
  if (needed > output.most)
    throw malformed('input_too_large', `init data inflates to more than ${output.most} bytes`);
  const grown = new Uint8Array(Math.min(output.most, Math.max(needed, 2 * output.bytes.length)));
  grown.set(output.bytes.subarray(0, output.at));
  return { ...output, bytes: grown };
}

function stored(reader: BitReader, output: Output): Output {
  reader.align();
  const size = reader.bits(16);
  if ((reader.bits(16) ^ 0xffff) !== size) throw broken('has a stored block whose length is contradicted');
  const grown = room(output, size);
  grown.bytes.set(reader.take(size), grown.at);
  grown.at += size;
  return grown;
}

interface Codes {
  readonly literals: Huffman;
  readonly distances: Huffman;
}

function coded(reader: BitReader, start: Output, { literals, distances }: Codes): Output {
  let output = start;
  for (;;) {
    const symbol = literals.read(reader);
    if (symbol === 256) return output;
    if (symbol < 256) {
      output = room(output, 1);
      output.bytes[output.at++] = symbol;
      continue;
    }
    const length = (LENGTH_BASE[symbol - 257] ?? invalid()) + reader.bits(LENGTH_EXTRA[symbol - 257] ?? 0);
    const code = distances.read(reader);
    const distance = (DISTANCE_BASE[code] ?? invalid()) + reader.bits(DISTANCE_EXTRA[code] ?? 0);
    if (distance > output.at) throw broken('copies from before its start');
    output = room(output, length);
    for (let i = 0; i < length; i++, output.at++)
      output.bytes[output.at] = output.bytes[output.at - distance] ?? 0;
  }
}

function invalid(): never {
  throw broken('has a code that is not defined');
}

function readCodes(reader: BitReader): Codes {
  const literalCount = reader.bits(5) + 257;
  const distanceCount = reader.bits(5) + 1;
  const codeCount = reader.bits(4) + 4;
  if (literalCount > 286 || distanceCount > 30) throw broken('has too many codes');
  const codeLengths = new Uint8Array(19);
  for (let i = 0; i < codeCount; i++) codeLengths[CODE_ORDER[i] ?? 0] = reader.bits(3);
  const lengthCodes = new Huffman(codeLengths);
  const lengths = new Uint8Array(literalCount + distanceCount);
  for (let at = 0; at < lengths.length;) {
    const symbol = lengthCodes.read(reader);
    if (symbol < 16) {
      lengths[at++] = symbol;
      continue;
    }
    if (symbol === 16 && at === 0) throw broken('repeats a length before the first');
    const value = symbol === 16 ? (lengths[at - 1] ?? 0) : 0;
    const repeated = [3 + (symbol === 16 ? reader.bits(2) : 0), symbol === 17 ? 3 + reader.bits(3) : 0, symbol === 18 ? 11 + reader.bits(7) : 0][symbol - 16] ?? 0; // prettier-ignore
    if (at + repeated > lengths.length) throw broken('has too many code lengths');
    lengths.fill(value, at, at + repeated);
    at += repeated;
  }
  if (lengths[256] === 0) throw broken('has a block that cannot end');
  return {
    literals: new Huffman(lengths.subarray(0, literalCount)),
    distances: new Huffman(lengths.subarray(literalCount), true),
  };
}

/** Canonical codes by their lengths (RFC 1951 §3.2.2). */
class Huffman {
  readonly #counts = new Uint16Array(MAX_BITS + 1);
  readonly #symbols: Uint16Array;

  /** `lone`: one code of one bit, or none, is allowed, as for distances. */
  constructor(lengths: Uint8Array, lone = false) {
    for (const length of lengths) this.#counts[length] = (this.#counts[length] ?? 0) + 1;
    const used = lengths.length - (this.#counts[0] ?? 0);
    let left = 1;
    for (let i = 1; i <= MAX_BITS; i++) left = 2 * left - (this.#counts[i] ?? 0);
    const single = lone && used <= 1 && (used === 0 || this.#counts[1] === 1);
    if (left < 0 || (left > 0 && !single)) throw broken('has codes that do not fit');
    const offsets = new Uint16Array(MAX_BITS + 2);
    for (let i = 1; i <= MAX_BITS; i++) offsets[i + 1] = (offsets[i] ?? 0) + (this.#counts[i] ?? 0);
    this.#symbols = new Uint16Array(lengths.length);
    for (const [symbol, length] of lengths.entries()) {
      if (length === 0) continue;
      this.#symbols[offsets[length] ?? 0] = symbol;
      offsets[length] = (offsets[length] ?? 0) + 1;
    }
  }

  read(reader: BitReader): number {
    let code = 0;
    let first = 0;
    let index = 0;
    for (let i = 1; i <= MAX_BITS; i++) {
      code |= reader.bits(1);
      const count = this.#counts[i] ?? 0;
      if (code - count < first) return this.#symbols[index + (code - first)] ?? 0;
      index += count;
      first = (first + count) << 1;
      code <<= 1;
    }
    return invalid();
  }
}

/** Fixed codes (RFC 1951 §3.2.6). */
const FIXED: Codes = {
  literals: new Huffman(
    concatBytes(
      new Uint8Array(144).fill(8),
      new Uint8Array(112).fill(9),
      new Uint8Array(24).fill(7),
      new Uint8Array(8).fill(8),
    ),
  ),
  distances: new Huffman(new Uint8Array(32).fill(5)),
};

class BitReader {
  readonly #bytes: Uint8Array;
  #at: number;
  #held = 0;
  #count = 0;

  constructor(bytes: Uint8Array, at: number) {
    this.#bytes = bytes;
    this.#at = at;
  }

  bits(count: number): number {
    while (this.#count < count) {
      const byte = this.#bytes[this.#at];
      if (byte === undefined) throw broken('ends early');
      this.#at += 1;
      this.#held |= byte << this.#count;
      this.#count += 8;
    }
    const value = this.#held & ((1 << count) - 1);
    this.#held >>>= count;
    this.#count -= count;
    return value;
  }

  /** To the next byte; fewer than eight bits are held. */
  align(): void {
    this.#held = 0;
    this.#count = 0;
  }

  take(size: number): Uint8Array {
    if (this.#bytes.length - this.#at < size) throw broken('ends early');
    this.#at += size;
    return this.#bytes.subarray(this.#at - size, this.#at);
  }

  rest(): Uint8Array {
    this.align();
    return this.#bytes.subarray(this.#at);
  }
}

function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let i = 0; i < 8; i++) crc = (crc >>> 1) ^ (0xedb88320 & -(crc & 1));
  }
  return (crc ^ 0xffffffff) >>> 0;
}

function broken(what: string): Error {
  return malformed('initdata_annotation', `init data annotation ${what}`);
}
