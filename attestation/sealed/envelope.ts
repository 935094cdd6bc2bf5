// The form of sealed bodies for the end that opens them (docs/sealed.md §4, §5): an entry of its own for the
// server, and for gateways and clients of others.

export { ANY_TYPE, keyHintOf, isHintOf, openAny, sealToAny, type OpenedAny, type Replica } from './any.ts';
export {
  ContentReader,
  decodeRequestHead,
  encodeResponseHead,
  type DecodedHead,
  type HttpField,
  type RequestHead,
  type ResponseHead,
} from './bhttp.ts';
export {
  AAD,
  ByteReader,
  framed,
  MAX_CHUNK_BYTES,
  nextChunk,
  type Bytes,
  type SealedChunk,
} from './chunks.ts';
export {
  type ChunkOpener,
  generateRecipient,
  type OpeningContext,
  type RecipientKey,
  type SealingContext,
} from './hpke.ts';
export { KEM, type Kem } from './kem.ts';
export { chunkNonce } from './nonce.ts';
export { paddedLength } from './padding.ts';
export {
  keyIdOf,
  openRequest,
  type OpenedRequest,
  REQUEST_TYPE,
  RESPONSE_TYPE,
  xWingKeyIdOf,
} from './request.ts';
export { RESPONSE_NONCE_BYTES, responseKeys, type ResponseKeys } from './response.ts';
export { writeVarint } from './varint.ts';
