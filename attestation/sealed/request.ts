// A sealed request (docs/sealed.md §4; RFC 9458 §4.3 with draft-ietf-ohai-chunked-ohttp-08 §6.1): the id of
// the key and of the suite, the encapsulated key, chunks. The head of the request inside is the first chunk
// alone; content and padding follow. One place for both ends.

import { sha256 } from '@noble/hashes/sha2.js';
import { concatBytes, utf8 } from '../encoding/bytes.ts';
import { malformed } from '../transcript/errors.ts';
import { encodeRequestHead, MAX_HEAD_BYTES, type RequestHead } from './bhttp.ts';
import { AAD, type ByteReader, framed, MAX_CHUNK_BYTES, nextChunk } from './chunks.ts';
import { type OpeningContext, type RecipientKey, sendTo, type SealingContext, SUITE } from './hpke.ts';
import { type Kem, KEM, KEM_BYTES, kemOf } from './kem.ts';
import { paddedLength } from './padding.ts';
import { writeVarint } from './varint.ts';

/** Media type of a sealed request. */
export const REQUEST_TYPE = 'message/ohttp-chunked-req';
/** Media type of a sealed response. */
export const RESPONSE_TYPE = 'message/ohttp-chunked-res';

const REQUEST_LABEL = 'message/bhttp chunked request';
/** Bytes before the encapsulated key. */
const HEADER_BYTES = 7;

/**
 * The id of a key: it follows from claim 7 alone, so it needs no signature (docs/sealed.md §2).
 * @example const id = keyIdOf(bytes);
 */
export function keyIdOf(publicKey: Uint8Array): number {
  return (sha256(publicKey)[0] ?? 0) % 128;
}

/**
 * The id of the X-Wing key that belongs to claim 7.
 * @example const keyId = xWingKeyIdOf(publicKey);
 */
export function xWingKeyIdOf(publicKey: Uint8Array): number {
  return keyIdOf(publicKey) + 128;
}

/** `key id ‖ KEM ‖ KDF ‖ AEAD`. */
export function requestHeader(keyId: number, kem: Kem = KEM.x25519, aead: number = SUITE.aead): Uint8Array {
  const ids = [kem, SUITE.kdf, aead].flatMap((id) => [id >> 8, id & 255]);
  return Uint8Array.of(keyId, ...ids);
}

/** The HPKE info of a request. */
export function requestInfo(header: Uint8Array): Uint8Array {
  return concatBytes(utf8(REQUEST_LABEL), Uint8Array.of(0), header);
}

/**
 * By what a request is known to its recipient, 32 bytes: SHA-256(public key ‖ encapsulated key). A receipt
 * carries it; its first 16 bytes are the entry of docs/sealed.md §5.
 */
export function requestDigest(publicKey: Uint8Array, enc: Uint8Array): Uint8Array {
  return sha256(concatBytes(publicKey, enc));
}

/** Bytes of the entry in the set that a request is executed by once. */
export const ENTRY_BYTES = 16;

/** A request on its way: its bytes, and what its answer opens with. */
export interface SealedRequest {
  readonly bytes: Uint8Array;
  readonly context: Pick<SealingContext, 'enc' | 'export'>;
  readonly digest: Uint8Array;
}

/**
 * Seals head and content to a key that was proven; one of X-Wing has the id of the claim 7 it belongs to.
 * @example const { bytes, context } = await sealRequest(publicKey, { method, path, fields }, body);
 */
export async function sealRequest(
  publicKey: Uint8Array,
  head: RequestHead,
  content: Uint8Array,
  keyId: number = keyIdOf(publicKey),
): Promise<SealedRequest> {
  const header = requestHeader(keyId, kemOf(publicKey));
  const context = await sendTo(publicKey, requestInfo(header));
  const first = encodeRequestHead(head);
  const bytes = await sealInto(context, header, [first, ...contentChunks(first.length, content)]);
  return { bytes, context, digest: requestDigest(publicKey, context.enc) };
}

/** The chunks of a request by a context, the last one as the final one. */
export async function sealInto(
  context: SealingContext,
  header: Uint8Array,
  chunks: readonly Uint8Array[],
): Promise<Uint8Array> {
  // The context numbers the chunks as they are given; they are sealed side by side.
  const sealed = await Promise.all(
    chunks.map(async (chunk, i) => {
      const final = i === chunks.length - 1;
      return framed(await context.seal(chunk, final ? AAD.final : AAD.chunk), final);
    }),
  );
  return concatBytes(header, context.enc, ...sealed);
}

/**
 * Behind a head of so many bytes: content of known length, no trailers, zeros up to the padded size of the
 * whole message, in chunks.
 */
export function contentChunks(headBytes: number, content: Uint8Array): readonly Uint8Array[] {
  const length = writeVarint(content.length);
  const bare = headBytes + length.length + content.length + 1;
  const message = new Uint8Array(paddedLength(bare) - headBytes);
  message.set(length);
  message.set(content, length.length);
  return cutIntoChunks(message);
}

/** In pieces of 16 384 bytes, at least one. */
export function cutIntoChunks(bytes: Uint8Array): readonly Uint8Array[] {
  const count = Math.max(1, Math.ceil(bytes.length / MAX_CHUNK_BYTES));
  return Array.from({ length: count }, (_, i) =>
    bytes.subarray(i * MAX_CHUNK_BYTES, (i + 1) * MAX_CHUNK_BYTES),
  );
}

/** A request whose first chunk was opened, which only its recipient can do. */
export interface OpenedRequest {
  /** The first chunk: a head, not judged. */
  readonly first: Uint8Array;
  readonly enc: Uint8Array;
  readonly digest: Uint8Array;
  readonly context: OpeningContext;
}

/**
 * Reads header and first chunk. Throws an AttestationError for whatever does not open: the caller gives one
 * answer to all of them.
 * @example
 * const recipient = await generateRecipient();
 * const reader = new ByteReader((async function* () { yield bytes; })());
 * const { first } = await openRequest(reader, () => recipient);
 */
export async function openRequest(
  reader: ByteReader,
  keyOf: (keyId: number) => RecipientKey | undefined,
): Promise<OpenedRequest> {
  const header = await reader.take(HEADER_BYTES);
  if (header === undefined) throw malformed('sealed_malformed', 'the header is cut');
  const key = keyOf(header[0] ?? 0);
  const known = requestHeader(header[0] ?? 0, key?.kem);
  if (key === undefined || header.some((byte, i) => byte !== known[i]))
    throw malformed('sealed_malformed', 'the key or the suite is not known');
  const own = (await reader.take(KEM_BYTES[key.kem].enc))?.slice();
  if (own === undefined) throw malformed('sealed_malformed', 'the header is cut');
  const context = await key.receive(own, requestInfo(known));
  const { sealed, final } = await nextChunk(reader, MAX_HEAD_BYTES);
  if (final) throw malformed('sealed_malformed', 'the first chunk is the final one');
  const first = await context.open(sealed, AAD.chunk);
  return { first, enc: own, digest: requestDigest(key.publicKey, own), context };
}
