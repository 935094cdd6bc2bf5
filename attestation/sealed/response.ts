// A sealed response (docs/sealed.md §5; RFC 9458 §4.4 with draft-ietf-ohai-chunked-ohttp-08 §6.2): a nonce of
// the server, then chunks under a key of the request's context, so that only its sender opens them and none
// can be moved to another request. The browser-safe end, by WebCrypto; src/sealed writes.

import { expand, extract } from '@noble/hashes/hkdf.js';
import { sha256 } from '@noble/hashes/sha2.js';
import { concatBytes, utf8 } from '../encoding/bytes.ts';
import { AttestationError, malformed } from '../transcript/errors.ts';
import { ContentReader, decodeResponseHead, type ResponseHead } from './bhttp.ts';
import { AAD, type Bytes, ByteReader, nextChunk, truncated } from './chunks.ts';
import type { SealingContext } from './hpke.ts';
import { chunkNonce } from './nonce.ts';

const RESPONSE_LABEL = 'message/bhttp chunked response';
const NONCE_BYTES = 12;

/** Key and nonce of the chunks of one response. */
export interface ResponseKeys {
  readonly key: Uint8Array;
  readonly nonce: Uint8Array;
}

/** Bytes of a response's own nonce, and of the secret: max(Nk, Nn). */
export const RESPONSE_NONCE_BYTES = 32;

/**
 * `secret` is exported from the context of the request by this label, as long as the AEAD's key.
 * @example
 * const recipient = await generateRecipient();
 * const context = await recipient.receive(bytes, digest);
 * const keys = await responseKeys(context, bytes, nonce);
 */
export async function responseKeys(
  context: Pick<SealingContext, 'export'>,
  enc: Uint8Array,
  responseNonce: Uint8Array,
): Promise<ResponseKeys> {
  const keyBytes = responseNonce.length;
  const secret = await context.export(utf8(RESPONSE_LABEL), keyBytes);
  const prk = extract(sha256, secret, concatBytes(enc, responseNonce));
  return {
    key: expand(sha256, prk, utf8('key'), keyBytes),
    nonce: expand(sha256, prk, utf8('nonce'), NONCE_BYTES),
  };
}

/** A response whose first chunk opened. Its content ends only after the final chunk opened. */
export interface OpenedResponse extends ResponseHead {
  /** Throws `sealed_altered`, `sealed_malformed` or `sealed_truncated` in place of an end. */
  readonly content: AsyncGenerator<Uint8Array, void>;
}

const MAX_RESPONSE_HEAD_BYTES = 64 * 1024;

/**
 * Opens the answer to a request of `context`. Rejects as `content` does when the head cannot be had.
 * @example const { status, content } = await openResponse(sealed.context, response.body);
 */
export async function openResponse(
  context: Pick<SealingContext, 'enc' | 'export'>,
  source: Bytes,
  nonceBytes: number = RESPONSE_NONCE_BYTES,
): Promise<OpenedResponse> {
  const chunks = openedChunks(context, new ByteReader(source), nonceBytes);
  let held: Uint8Array = new Uint8Array(0);
  for (;;) {
    const next = await chunks.next();
    // Empty sections at the end may be left out (RFC 9292 §3.8), those of a head too.
    held = concatBytes(held, next.done === true ? Uint8Array.of(0) : next.value);
    const read = decodeResponseHead(held);
    if (next.done === true && read?.next !== held.length)
      throw malformed('sealed_malformed', 'the response ends inside its head');
    if (read !== undefined) {
      const reader = new ContentReader(read.indeterminate);
      return { ...read.head, content: contentOf(reader, held.subarray(read.next), chunks) };
    }
    if (held.length > MAX_RESPONSE_HEAD_BYTES)
      throw malformed('sealed_malformed', 'the head of the response is too long');
  }
}

async function* contentOf(
  reader: ContentReader,
  first: Uint8Array,
  chunks: AsyncGenerator<Uint8Array, void>,
): AsyncGenerator<Uint8Array, void> {
  yield* reader.push(first);
  for await (const chunk of chunks) yield* reader.push(chunk);
  reader.end();
}

async function* openedChunks(
  context: Pick<SealingContext, 'enc' | 'export'>,
  reader: ByteReader,
  nonceBytes: number,
): AsyncGenerator<Uint8Array, void> {
  const responseNonce = await reader.take(nonceBytes);
  if (responseNonce === undefined) throw truncated();
  const { key, nonce } = await responseKeys(context, context.enc, responseNonce);
  const opener = await crypto.subtle.importKey('raw', key as BufferSource, 'AES-GCM', false, ['decrypt']);
  for (let counter = 0; ; counter++) {
    const { sealed, final } = await nextChunk(reader);
    const iv = chunkNonce(nonce, counter);
    const additionalData = final ? AAD.final : AAD.chunk;
    const parameters = { name: 'AES-GCM', iv, additionalData } as AesGcmParams;
    const opened = await crypto.subtle
      .decrypt(parameters, opener, sealed as BufferSource)
      .catch((error: unknown) => {
        throw new AttestationError('refused', 'sealed_altered', 'a chunk of the response does not open', {
          cause: error,
        });
      });
    yield new Uint8Array(opened);
    if (final) return;
  }
}
