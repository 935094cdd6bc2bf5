// The answer to a sealed request, sealed (docs/sealed.md §5): a nonce, then chunks under a key exported from
// the request's context. Each write of a stream is a chunk; anything else leaves in chunks of 16 384 bytes
// and is padded as a whole. Synchronous, so that a write of the route is one write here.

import { createCipheriv, randomBytes } from 'node:crypto';
import {
  AAD,
  chunkNonce,
  encodeResponseHead,
  framed,
  MAX_CHUNK_BYTES,
  paddedLength,
  RESPONSE_NONCE_BYTES,
  responseKeys,
  writeVarint,
  type OpenedRequest,
  type ResponseHead,
  type ResponseKeys,
} from '@assay/attestation/sealed-envelope';

/** Most content of a chunk: the rest says its length. */
const MAX_CONTENT_BYTES = MAX_CHUNK_BYTES - 4;

export class SealedAnswer {
  readonly #keys: ResponseKeys;
  readonly #send: (bytes: Uint8Array) => boolean;
  #counter = 0;
  /** Of an answer that is padded: bytes that fill no chunk yet, and how many there were in all. */
  #pending: Buffer = Buffer.alloc(0);
  #length = 0;
  /** Null before the head. */
  #streamed: boolean | null = null;
  #ended = false;

  private constructor(keys: ResponseKeys, send: (bytes: Uint8Array) => boolean) {
    this.#keys = keys;
    this.#send = send;
  }

  /** `send` writes to the connection; false: it is full. */
  static async open(
    request: Pick<OpenedRequest, 'context' | 'enc'>,
    send: (bytes: Uint8Array) => boolean,
  ): Promise<{ readonly answer: SealedAnswer; readonly nonce: Uint8Array }> {
    const nonce = new Uint8Array(randomBytes(RESPONSE_NONCE_BYTES));
    const keys = await responseKeys(request.context, request.enc, nonce);
    return { answer: new SealedAnswer(keys, send), nonce };
  }

  get begun(): boolean {
    return this.#streamed !== null;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** `length`: of the content, where the route says it; the answer is then no stream. */
  head(head: ResponseHead, length: number | undefined): void {
    this.#streamed = length === undefined;
    const bytes = encodeResponseHead(head);
    if (length === undefined) this.#seal(bytes, false);
    else this.#collect(length === 0 ? bytes : Buffer.concat([bytes, writeVarint(length)]));
  }

  /** False: the connection is full. */
  write(content: Uint8Array): boolean {
    if (this.#streamed !== true) return this.#collect(content);
    let room = true;
    for (let at = 0; at < content.length; at += MAX_CONTENT_BYTES) {
      const piece = content.subarray(at, at + MAX_CONTENT_BYTES);
      room = this.#seal(Buffer.concat([writeVarint(piece.length), piece]), false) && room;
    }
    return room;
  }

  /** Ends content and trailers, and seals the final chunk. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    if (this.#streamed === true) {
      this.#seal(Uint8Array.of(0, 0), true);
      return;
    }
    const zeros = paddedLength(this.#length + 2) - this.#length;
    this.#collect(new Uint8Array(zeros));
    this.#seal(this.#pending, true);
  }

  /** Full chunks leave; the last bytes stay, since a final chunk must be left. */
  #collect(bytes: Uint8Array): boolean {
    this.#length += bytes.length;
    this.#pending = Buffer.concat([this.#pending, bytes]);
    let room = true;
    while (this.#pending.length > MAX_CHUNK_BYTES) {
      room = this.#seal(this.#pending.subarray(0, MAX_CHUNK_BYTES), false) && room;
      this.#pending = this.#pending.subarray(MAX_CHUNK_BYTES);
    }
    return room;
  }

  #seal(plain: Uint8Array, final: boolean): boolean {
    const { key, nonce } = this.#keys;
    const cipher = createCipheriv('aes-256-gcm', key, chunkNonce(nonce, this.#counter));
    this.#counter += 1;
    cipher.setAAD(final ? AAD.final : AAD.chunk);
    return this.#send(
      framed(Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()]), final),
    );
  }
}
