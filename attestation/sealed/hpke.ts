// HPKE (RFC 9180) in base mode with the suites of docs/sealed.md §2: a KEM of kem.ts, HKDF-SHA256,
// AES-256-GCM. Curve and cipher are WebCrypto's, so private keys are not extractable; the hashes between them
// are in key-schedule.ts.

import { AttestationError } from '../transcript/errors.ts';
import { encapsulate, generateKem, importKem, type Kem, KEM, kemOf, type KemKey } from './kem.ts';
import { type ContextSecrets, exported, scheduleOf } from './key-schedule.ts';
import { chunkNonce } from './nonce.ts';

/** Ids of KDF and AEAD (RFC 9180 §7), as a request header has them. */
export const SUITE = { kdf: 0x0001, aead: 0x0002 } as const;
/** Bytes an AEAD adds to a chunk. */
export const AEAD_TAG_BYTES = 16;

/** The published examples use AES-128-GCM; no request may choose it. */
export type Aead = 'aes-256-gcm' | 'aes-128-gcm';

/** The sending end of one request: chunks are sealed in their order. */
export interface SealingContext {
  /** The encapsulated key. */
  readonly enc: Uint8Array;
  seal(plaintext: Uint8Array, aad: Uint8Array): Promise<Uint8Array>;
  export(context: Uint8Array, length: number): Promise<Uint8Array>;
}

/** The receiving end. `open` rejects with `sealed_altered`, and the context is of no further use then. */
export interface OpeningContext {
  open(sealed: Uint8Array, aad: Uint8Array): Promise<Uint8Array>;
  export(context: Uint8Array, length: number): Promise<Uint8Array>;
}

/**
 * AES-256-GCM for the chunks of one request, in the place of WebCrypto's: throws for one that does not open.
 * Where it is at hand in the calling thread, a chunk costs no way to another and back.
 */
export type ChunkOpener = (
  key: Uint8Array,
) => (iv: Uint8Array, sealed: Uint8Array, aad: Uint8Array) => Uint8Array;

/** A key pair whose private half never leaves WebCrypto. */
export interface RecipientKey {
  readonly kem: Kem;
  /** Of X25519 the 32 bytes of claim 7. */
  readonly publicKey: Uint8Array;
  /** Rejects with `sealed_altered` for an encapsulated key that is none. */
  receive(enc: Uint8Array, info: Uint8Array): Promise<OpeningContext>;
}

const AEADS = {
  'aes-256-gcm': { id: 0x0002, keyBytes: 32 },
  'aes-128-gcm': { id: 0x0001, keyBytes: 16 },
} as const;

/**
 * A new key pair of this process. X-Wing rejects with `sealed_unsupported` where WebCrypto has no ML-KEM.
 * @example const { publicKey } = await generateRecipient();
 */
export async function generateRecipient(kem: Kem = KEM.x25519, opener?: ChunkOpener): Promise<RecipientKey> {
  return recipientOf(await generateKem(kem), 'aes-256-gcm', opener);
}

/** The pair of a private key of 32 bytes: for the published examples, and for one-time recipients. */
export async function importRecipient(
  privateKey: Uint8Array,
  {
    kem = KEM.x25519,
    aead = 'aes-256-gcm',
  }: { readonly kem?: Kem | undefined; readonly aead?: Aead | undefined } = {},
): Promise<RecipientKey> {
  return recipientOf(await importKem(kem, privateKey), aead);
}

function recipientOf(key: KemKey, aead: Aead, opener?: ChunkOpener): RecipientKey {
  const { kem, publicKey } = key;
  return {
    kem,
    publicKey,
    async receive(enc, info) {
      const secret = await key.decapsulate(enc).catch((error: unknown) => {
        throw altered('the encapsulated key could not be decapsulated', error);
      });
      const secrets = scheduleOf({ secret, info, kem, aead: AEADS[aead] });
      const opens = opener === undefined ? await webOpener(secrets) : openerOf(secrets, opener);
      return {
        open: async (sealed, aad) => {
          try {
            return await opens(sealed, aad);
          } catch (error) {
            throw altered('a chunk does not open', error);
          }
        },
        export: exporterOf(secrets, { kem, aead }),
      };
    },
  };
}

/**
 * A context to the holder of `publicKey`, whose KEM its length tells. Throws `sealed_malformed` for a bad
 * key, and `sealed_unsupported` for one of X-Wing where WebCrypto has no ML-KEM.
 */
export async function sendTo(
  publicKey: Uint8Array,
  info: Uint8Array,
  aead: Aead = 'aes-256-gcm',
): Promise<SealingContext> {
  const kem = kemOf(publicKey);
  const { enc, secret } = await encapsulate(publicKey);
  const secrets = scheduleOf({ secret, info, kem, aead: AEADS[aead] });
  const next = await chunkCipher(secrets, 'encrypt');
  return {
    enc,
    seal: async (plaintext, aad) => {
      const { key, parameters } = next(aad);
      return new Uint8Array(await crypto.subtle.encrypt(parameters, key, plaintext as BufferSource));
    },
    export: exporterOf(secrets, { kem, aead }),
  };
}

type Opens = (sealed: Uint8Array, aad: Uint8Array) => Uint8Array | Promise<Uint8Array>;

async function webOpener(secrets: ContextSecrets): Promise<Opens> {
  const next = await chunkCipher(secrets, 'decrypt');
  return async (sealed, aad) => {
    const { key, parameters } = next(aad);
    return new Uint8Array(await crypto.subtle.decrypt(parameters, key, sealed as BufferSource));
  };
}

function openerOf({ key, baseNonce }: ContextSecrets, opener: ChunkOpener): Opens {
  const open = opener(key);
  let counter = 0;
  return (sealed, aad) => open(chunkNonce(baseNonce, counter++), sealed, aad);
}

/** The key, and for each chunk its nonce: a number is taken once, whatever becomes of the chunk. */
async function chunkCipher(
  { key, baseNonce }: ContextSecrets,
  use: 'encrypt' | 'decrypt',
): Promise<(aad: Uint8Array) => { readonly key: CryptoKey; readonly parameters: AesGcmParams }> {
  const cipher = await crypto.subtle.importKey('raw', key as BufferSource, 'AES-GCM', false, [use]);
  let counter = 0;
  return (aad) => {
    const iv = chunkNonce(baseNonce, counter) as Uint8Array<ArrayBuffer>;
    counter += 1;
    return { key: cipher, parameters: { name: 'AES-GCM', iv, additionalData: aad as BufferSource } };
  };
}

function exporterOf(
  secrets: ContextSecrets,
  { kem, aead }: { readonly kem: Kem; readonly aead: Aead },
): SealingContext['export'] {
  const suite = { kem, aead: AEADS[aead].id };
  return (context, length) => Promise.resolve(exported(secrets, suite, context, length));
}

function altered(what: string, cause?: unknown): AttestationError {
  return new AttestationError('refused', 'sealed_altered', what, { cause });
}
