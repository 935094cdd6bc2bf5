// Opus in WebM and Matroska (RFC 9559), as browsers record it (sizes unknown until the end) and as other
// programs write it: the first track of sound, its blocks with every kind of lacing, in the order of the
// file. Other tracks are passed over. Compressed or encrypted tracks, and codecs other than Opus, are
// refused.

import { elementAt, elementsIn, isFiller, known, numberAt, textIn, unsignedIn, type Known } from './ebml.ts';
import { OPUS_RATE, OpusPackets, readOpusHead, type OpusHead, type OpusSound } from './opus.ts';
import { noSound } from './refusals.ts';

/** RFC 8794, 11.2; RFC 9559, 5.1. */
const ID = {
  ebml: 0x1a45_dfa3,
  readVersion: 0x42f7,
  maxIdLength: 0x42f2,
  maxSizeLength: 0x42f3,
  docType: 0x4282,
  docTypeReadVersion: 0x4285,
  segment: 0x1853_8067,
  tracks: 0x1654_ae6b,
  track: 0xae,
  trackNumber: 0xd7,
  trackType: 0x83,
  codec: 0x86,
  codecPrivate: 0x63a2,
  encodings: 0x6d80,
  cluster: 0x1f43_b675,
  simpleBlock: 0xa3,
  blockGroup: 0xa0,
  block: 0xa1,
  discardPadding: 0x75a2,
} as const;

/** The children of a segment: one of them ends a cluster of unknown size. */
const OF_SEGMENT: ReadonlySet<number> = new Set([
  ID.cluster,
  ID.tracks,
  0x114d_9b74,
  0x1549_a966,
  0x1c53_bb6b,
  0x1254_c367,
  0x1043_a770,
  0x1941_a469,
]);
const SOUND = 2;
const MAX_READ_VERSION = 4;

interface Track extends OpusHead {
  readonly number: number;
}

export function isWebm(file: Uint8Array): boolean {
  return file.length >= 4 && Buffer.from(file.subarray(0, 4)).readUInt32BE() === ID.ebml;
}

export function readWebm(file: Uint8Array): OpusSound {
  const head = known(elementAt(file, 0, file.length));
  checkHead(file, head);
  let at = head.end;
  let segment = elementAt(file, at, file.length);
  while (isFiller(segment.id)) {
    at = known(segment).end;
    segment = elementAt(file, at, file.length);
  }
  if (segment.id !== ID.segment) throw noSound('it has no WebM segment');
  const end = segment.end ?? file.length;
  if (end < file.length) {
    for (const { id } of elementsIn(file, end, file.length))
      if (!isFiller(id)) throw noSound('it has more than one WebM segment');
  }
  return new SegmentReader(file).read(segment.start, end);
}

function checkHead(file: Uint8Array, head: Known): void {
  let type = '';
  for (const element of elementsIn(file, head.start, head.end)) {
    if (element.id === ID.docType) type = textIn(file, element);
    const highest = HIGHEST.get(element.id);
    if (highest !== undefined && unsignedIn(file, element) > highest)
      throw noSound('it is of a later version of WebM');
  }
  if (type !== 'webm' && type !== 'matroska') throw noSound('its EBML is neither WebM nor Matroska');
}

const HIGHEST: ReadonlyMap<number, number> = new Map([
  [ID.readVersion, 1],
  [ID.maxIdLength, 4],
  [ID.maxSizeLength, 8],
  [ID.docTypeReadVersion, MAX_READ_VERSION],
]);

class SegmentReader {
  readonly #file: Uint8Array;
  readonly #packets: OpusPackets;
  #track: Track | undefined;
  /** Nanoseconds to leave out at the end of the last block. */
  #padding = 0;

  constructor(file: Uint8Array) {
    this.#file = file;
    this.#packets = new OpusPackets(file.length);
  }

  read(start: number, end: number): OpusSound {
    for (let at = start; at < end;) {
      const element = elementAt(this.#file, at, end);
      if (element.id === ID.cluster) at = this.#cluster(element.start, element.end, end);
      else {
        const whole = known(element);
        if (whole.id === ID.tracks) this.#tracks(whole);
        at = whole.end;
      }
    }
    if (this.#track === undefined || this.#packets.frames === 0) throw noSound('its WebM has no sound');
    const cut = Math.round((this.#padding * OPUS_RATE) / 1e9);
    return this.#packets.sound(this.#track, this.#packets.frames - cut);
  }

  #tracks(tracks: Known): void {
    if (this.#track !== undefined) throw noSound('it says twice which tracks it has');
    for (const element of elementsIn(this.#file, tracks.start, tracks.end))
      if (element.id === ID.track) this.#track ??= this.#soundTrack(element);
  }

  /** Undefined: a track of another type. */
  #soundTrack({ start, end }: Known): Track | undefined {
    let [number, type, codec, encoded] = [0, 0, '', false];
    let head: Uint8Array | undefined;
    for (const element of elementsIn(this.#file, start, end)) {
      if (element.id === ID.trackNumber) number = unsignedIn(this.#file, element);
      else if (element.id === ID.trackType) type = unsignedIn(this.#file, element);
      else if (element.id === ID.codec) codec = textIn(this.#file, element);
      else if (element.id === ID.codecPrivate) head = this.#file.subarray(element.start, element.end);
      else if (element.id === ID.encodings) encoded = true;
    }
    if (type !== SOUND) return undefined;
    if (codec !== 'A_OPUS' || head === undefined) throw noSound('the sound of its WebM is not Opus');
    if (encoded) throw noSound('the sound of its WebM is compressed once more, or encrypted');
    return { number, ...readOpusHead(head) };
  }

  /** Gives where it ends. */
  #cluster(start: number, end: number | undefined, limit: number): number {
    let at = start;
    while (at < (end ?? limit)) {
      const element = elementAt(this.#file, at, end ?? limit);
      if (end === undefined && OF_SEGMENT.has(element.id)) return at;
      const whole = known(element);
      if (whole.id === ID.simpleBlock) this.#block(whole, 0);
      else if (whole.id === ID.blockGroup) this.#group(whole);
      at = whole.end;
    }
    return at;
  }

  #group(group: Known): void {
    let block: Known | undefined;
    let padding = 0;
    for (const element of elementsIn(this.#file, group.start, group.end)) {
      if (element.id === ID.block) block = element;
      else if (element.id === ID.discardPadding) padding = this.#signedIn(element);
    }
    if (block !== undefined) this.#block(block, Math.max(0, padding));
  }

  #signedIn(element: Known): number {
    const { start, end } = element;
    if (start === end || ((this.#file[start] ?? 0) & 0x80) === 0) return unsignedIn(this.#file, element);
    return -1;
  }

  /** RFC 9559, 10. `padding`: nanoseconds at its end. */
  #block({ start, end }: Known, padding: number): void {
    if (this.#track === undefined) throw noSound('its WebM has sound before it says of which kind');
    const { value: track, start: at } = numberAt(this.#file, start, end);
    // Two bytes of time and one of flags.
    const content = at + 3;
    if (content > end) throw noSound('a block of its WebM is broken');
    if (track !== this.#track.number) return;
    this.#padding = padding;
    const kind = ((this.#file[at + 2] ?? 0) >> 1) & 3;
    if (kind === 0) return this.#packet(content, end);
    const { sizes, first } = lacingOf(this.#file, { kind, start: content, end });
    let from = first;
    for (const size of sizes) {
      this.#packet(from, from + size);
      from += size;
    }
  }

  #packet(from: number, to: number): void {
    this.#packets.append(this.#file.subarray(from, to));
    this.#packets.finish();
  }
}

interface Laced {
  /** 1: Xiph, 2: all of one size, 3: EBML. */
  readonly kind: number;
  readonly start: number;
  readonly end: number;
}

/** The sizes of the packets of a block, the first of which begins at `first`; together they fill it. */
function lacingOf(
  bytes: Uint8Array,
  { kind, start, end }: Laced,
): { readonly sizes: readonly number[]; readonly first: number } {
  const count = (bytes[start] ?? 0) + 1;
  let at = start + 1;
  const sizes: number[] = [];
  let size = 0;
  while (kind !== 2 && sizes.length + 1 < count) {
    if (kind === 3) {
      const { value, start: next, length } = numberAt(bytes, at, end);
      if (value === undefined) throw noSound('a block of its WebM is broken');
      size = sizes.length === 0 ? value : size + value - (2 ** (7 * length - 1) - 1);
      at = next;
    } else {
      size = 0;
      let byte = 255;
      for (; byte === 255 && at < end; at++) {
        byte = bytes[at] ?? 0;
        size += byte;
      }
    }
    sizes.push(size);
  }
  const rest = end - at - sizes.reduce((sum, each) => sum + each, 0);
  const equal = (end - at) / count;
  if (kind === 2) sizes.push(...Array.from({ length: count }, () => equal));
  else sizes.push(rest);
  // A block of no lacing byte, a negative size, or sizes beyond the block.
  if (at > end || sizes.some((each) => !Number.isInteger(each) || each < 0))
    throw noSound('a block of its WebM is broken');
  return { sizes, first: at };
}
