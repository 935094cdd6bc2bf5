// The chunks of a sealed message (draft-ietf-ohai-chunked-ohttp-08 §4, §5): each behind its length, the final
// one behind a zero and up to the end of the stream. Refused: a chunk over 16 384 bytes, an empty one that is
// not final, a stream that ends before its final chunk. Lengths need not be minimal.

import { concatBytes, utf8 } from '../encoding/bytes.ts';
import { AttestationError, malformed } from '../transcript/errors.ts';
import { AEAD_TAG_BYTES } from './hpke.ts';
import { readVarint, writeVarint } from './varint.ts';

/** Most bytes of a chunk before it is sealed. */
export const MAX_CHUNK_BYTES = 16_384;

/** Authenticated with each chunk: empty, or the mark of the final one. */
export const AAD = { chunk: new Uint8Array(0), final: utf8('final') } as const;

/** A chunk as it is on the wire, sealed. */
export interface SealedChunk {
  readonly sealed: Uint8Array;
  readonly final: boolean;
}

/**
 * The bytes before a chunk that was sealed.
 * @example const chunk = framed(bytes, false);
 */
export function framed(sealed: Uint8Array, final: boolean): Uint8Array {
  return concatBytes(writeVarint(final ? 0 : sealed.length), sealed);
}

/** The source of bytes: a body of `fetch`, or a stream of Node. */
export type Bytes = AsyncIterable<Uint8Array>;

/** Takes bytes in the sizes it is asked for from pieces of any size. */
export class ByteReader {
  readonly #source: AsyncIterator<Uint8Array>;
  #held: Uint8Array = new Uint8Array(0);
  #ended = false;

  constructor(source: Bytes) {
    this.#source = source[Symbol.asyncIterator]();
  }

  /** Exactly `count` bytes; undefined when the stream ends before them. */
  async take(count: number): Promise<Uint8Array | undefined> {
    if (!(await this.#fill(count))) return undefined;
    const taken = this.#held.subarray(0, count);
    this.#held = this.#held.subarray(count);
    return taken;
  }

  /** The integer that is next; undefined when the stream ends before it does. */
  async varint(): Promise<number | undefined> {
    for (let count = 1; count <= 8; count *= 2) {
      if (!(await this.#fill(count))) return undefined;
      const read = readVarint(this.#held, 0);
      if (read === undefined) continue;
      this.#held = this.#held.subarray(read.next);
      return read.value;
    }
    return undefined;
  }

  /** Everything up to the end; throws `sealed_malformed` beyond `most` bytes. */
  async rest(most: number): Promise<Uint8Array> {
    if (await this.#fill(most + 1)) throw malformed('sealed_malformed', 'the final chunk is over its size');
    const taken = this.#held;
    this.#held = new Uint8Array(0);
    return taken;
  }

  async #fill(count: number): Promise<boolean> {
    if (this.#held.length >= count) return true;
    const pieces = [this.#held];
    let length = this.#held.length;
    while (length < count && !this.#ended) {
      const next = await this.#source.next();
      if (next.done === true) this.#ended = true;
      else {
        pieces.push(next.value);
        length += next.value.length;
      }
    }
    this.#held = concatBytes(...pieces);
    return length >= count;
  }
}

/**
 * The next chunk, of at most `most` bytes before it was sealed. Throws `sealed_malformed`, and
 * `sealed_truncated` when the stream ends first.
 * @example
 * const reader = new ByteReader((async function* () { yield bytes; })());
 * const { sealed, final } = await nextChunk(reader);
 */
export async function nextChunk(reader: ByteReader, most = MAX_CHUNK_BYTES): Promise<SealedChunk> {
  const length = await reader.varint();
  if (length === undefined) throw truncated();
  if (length === 0) {
    const sealed = await reader.rest(MAX_CHUNK_BYTES + AEAD_TAG_BYTES);
    if (sealed.length < AEAD_TAG_BYTES) throw truncated();
    return { sealed, final: true };
  }
  if (length <= AEAD_TAG_BYTES)
    throw malformed('sealed_malformed', 'a chunk that is not the final one is empty');
  if (length > most + AEAD_TAG_BYTES) throw malformed('sealed_malformed', 'a chunk is over its size');
  const sealed = await reader.take(length);
  if (sealed === undefined) throw truncated();
  return { sealed, final: false };
}

export function truncated(): AttestationError {
  return new AttestationError('refused', 'sealed_truncated', 'the message ends before its final chunk');
}
