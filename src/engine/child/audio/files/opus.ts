// Opus packets out of a container (RFC 6716, RFC 7845): their bytes one behind the other, as libopus is given
// them, and how long they are, which the first byte of each says. A packet that cannot be one is refused
// here, and so is more than a request may bring, before anything is decoded.

import { MAX_AUDIO_SECONDS } from '../../../seam/transcription.ts';
import { noSound, tooLong } from './refusals.ts';

/** Every position and length of Opus in a container is in frames of 48 kHz. */
export const OPUS_RATE = 48_000;
/** RFC 6716, 2.1.4: 120 ms. */
const MAX_PACKET_FRAMES = 5760;
/** With what is left out at the beginning (16 bits) and the end. */
const MAX_FRAMES = MAX_AUDIO_SECONDS * OPUS_RATE + 65_536 + OPUS_RATE;

export interface OpusHead {
  /** Frames to leave out at the beginning. */
  readonly skip: number;
  /** 1/256 dB. */
  readonly gain: number;
}

export interface OpusSound extends OpusHead {
  readonly packets: Uint8Array;
  readonly sizes: Uint32Array;
  /** To hear, behind `skip`. */
  readonly frames: number;
}

/** RFC 7845, 5.1: version 0, one or two channels. */
export function readOpusHead(bytes: Uint8Array): OpusHead {
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (head.length < 19 || head.toString('latin1', 0, 8) !== 'OpusHead' || (head[8] ?? 0) >> 4 !== 0)
    throw noSound('the head of its Opus stream is broken');
  const channels = head[9] ?? 0;
  if (channels < 1 || channels > 2 || head[18] !== 0)
    throw noSound('its Opus stream has not one channel or two');
  return { skip: head.readUInt16LE(10), gain: head.readInt16LE(16) };
}

export class OpusPackets {
  readonly #bytes: Buffer;
  #used = 0;
  /** Where the packet that is not whole yet begins. */
  #start = 0;
  #sizes = new Uint32Array(1024);
  #count = 0;
  #frames = 0;

  /** `capacity`: of all packets together; the size of the file is enough. */
  constructor(capacity: number) {
    this.#bytes = Buffer.allocUnsafe(capacity);
  }

  /** Of the whole packets. */
  get frames(): number {
    return this.#frames;
  }

  /** A piece of the packet that is being read. */
  append(piece: Uint8Array): void {
    this.#bytes.set(piece, this.#used);
    this.#used += piece.length;
  }

  /** The packet is whole. */
  finish(): void {
    const packet = this.#bytes.subarray(this.#start, this.#used);
    this.#frames += framesOf(packet);
    // A packet has 120 frames at least, so their number is bounded with them.
    if (this.#frames > MAX_FRAMES) throw tooLong();
    if (this.#count === this.#sizes.length) {
      const more = new Uint32Array(2 * this.#count);
      more.set(this.#sizes);
      this.#sizes = more;
    }
    this.#sizes[this.#count++] = packet.length;
    this.#start = this.#used;
  }

  /** `frames`: of the whole sound, with what `skip` leaves out; more than there are is no error. */
  sound({ skip, gain }: OpusHead, frames: number): OpusSound {
    return {
      skip,
      gain,
      packets: this.#bytes.subarray(0, this.#start),
      sizes: this.#sizes.subarray(0, this.#count),
      frames: Math.max(0, Math.min(frames, this.#frames) - skip),
    };
  }
}

/** RFC 6716, 3.1 and 3.2. */
function framesOf(packet: Uint8Array): number {
  const [toc, more] = packet;
  if (toc === undefined) throw noSound('a packet of its Opus stream is empty');
  const frames = countOf(toc, more) * frameLength(toc >> 3);
  if (frames === 0 || frames > MAX_PACKET_FRAMES) throw noSound('a packet of its Opus stream is broken');
  return frames;
}

function countOf(toc: number, more: number | undefined): number {
  const code = toc & 3;
  if (code === 0) return 1;
  return code === 3 ? (more ?? 0) & 0x3f : 2;
}

/** Configurations 0 to 11 are SILK, 12 to 15 hybrid, the rest CELT. */
function frameLength(configuration: number): number {
  if (configuration >= 16) return 120 << (configuration & 3);
  if (configuration >= 12) return 480 << (configuration & 1);
  return [480, 960, 1920, 2880][configuration & 3] ?? 0;
}
