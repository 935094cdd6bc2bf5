// HPKE (RFC 9180) in base mode with the one suite of docs/sealed.md §3: DHKEM(X25519, HKDF-SHA256),
// HKDF-SHA256, AES-256-GCM. Curve and cipher are WebCrypto's, so private keys are not extractable; the hashes
// between them are in key-schedule.ts. Refused: public keys of another length or of small order.

import { equalBytes } from '../encoding/bytes.ts';
import { AttestationError, malformed } from '../transcript/errors.ts';
import { type ContextSecrets, exported, scheduleOf } from './key-schedule.ts';
import { chunkNonce } from './nonce.ts';
import { isUsablePoint, KEY_BYTES } from './points.ts';

/** Ids of the suite (RFC 9180 §7), as a request header has them. */
export const SUITE = { kem: 0x0020, kdf: 0x0001, aead: 0x0002 } as const;
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
  /** 32 bytes: claim 7. */
  readonly publicKey: Uint8Array;
  /** Rejects with `sealed_altered` for an encapsulated key that is none. */
  receive(enc: Uint8Array, info: Uint8Array): Promise<OpeningContext>;
}

const AEADS = {
  'aes-256-gcm': { id: 0x0002, keyBytes: 32 },
  'aes-128-gcm': { id: 0x0001, keyBytes: 16 },
} as const;

const X25519 = 'X25519';
/** PrivateKeyInfo of X25519 (RFC 8410 §7), up to the 32 bytes of the key. */
const PKCS8_PREFIX = Uint8Array.from([
  0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x04, 0x22, 0x04, 0x20,
]);

/**
 * A new key pair of this process.
 * @example const { publicKey } = await generateRecipient();
 */
export async function generateRecipient(opener?: ChunkOpener): Promise<RecipientKey> {
  const { privateKey, publicKey } = await newPair();
  return recipientOf(privateKey, publicKey, 'aes-256-gcm', opener);
}

/** The pair of a private key of 32 bytes: for the published examples, and for one-time recipients. */
export async function importRecipient(
  privateKey: Uint8Array,
  publicKey: Uint8Array,
  aead: Aead = 'aes-256-gcm',
): Promise<RecipientKey> {
  if (privateKey.length !== KEY_BYTES || publicKey.length !== KEY_BYTES)
    throw malformed('malformed_length', 'a key of X25519 has 32 bytes');
  const pkcs8 = new Uint8Array(PKCS8_PREFIX.length + KEY_BYTES);
  pkcs8.set(PKCS8_PREFIX);
  pkcs8.set(privateKey, PKCS8_PREFIX.length);
  const key = await crypto.subtle.importKey('pkcs8', pkcs8, X25519, false, ['deriveBits']);
  return recipientOf(key, publicKey.slice(), aead);
}

function recipientOf(
  privateKey: CryptoKey,
  publicKey: Uint8Array,
  aead: Aead,
  opener?: ChunkOpener,
): RecipientKey {
  return {
    publicKey,
    async receive(enc, info) {
      if (!isUsablePoint(enc)) throw altered('the encapsulated key is no point of X25519 that can be used');
      const own = enc.slice();
      const dh = await agreed(privateKey, own).catch((error: unknown) => {
        throw altered('the encapsulated key could not be decapsulated', error);
      });
      const secrets = scheduleOf({ dh, enc: own, publicKey, info, aead: AEADS[aead] });
      const opens = opener === undefined ? await webOpener(secrets) : openerOf(secrets, opener);
      return {
        open: async (sealed, aad) => {
          try {
            return await opens(sealed, aad);
          } catch (error) {
            throw altered('a chunk does not open', error);
          }
        },
        export: exporterOf(secrets, aead),
      };
    },
  };
}

/** A context to the holder of `publicKey`. Throws `malformed_length` or `sealed_malformed` for a bad key. */
export async function sendTo(
  publicKey: Uint8Array,
  info: Uint8Array,
  aead: Aead = 'aes-256-gcm',
): Promise<SealingContext> {
  if (!isUsablePoint(publicKey))
    throw malformed('sealed_malformed', 'public key is no point of X25519 that can be used');
  const own = publicKey.slice();
  const { privateKey, publicKey: enc } = await newPair();
  const dh = await agreed(privateKey, own);
  const secrets = scheduleOf({ dh, enc, publicKey: own, info, aead: AEADS[aead] });
  const next = await chunkCipher(secrets, 'encrypt');
  return {
    enc,
    seal: async (plaintext, aad) => {
      const { key, parameters } = next(aad);
      return new Uint8Array(await crypto.subtle.encrypt(parameters, key, plaintext as BufferSource));
    },
    export: exporterOf(secrets, aead),
  };
}

/** The public half can be read, the private half cannot. */
async function newPair(): Promise<{ readonly privateKey: CryptoKey; readonly publicKey: Uint8Array }> {
  const pair = await crypto.subtle.generateKey('X25519', false, ['deriveBits']);
  const raw = await crypto.subtle.exportKey('raw', pair.publicKey);
  return { privateKey: pair.privateKey, publicKey: new Uint8Array(raw) };
}

/** RFC 9180 §7.1.4: a secret of zeros is refused, whatever the platform does. */
async function agreed(privateKey: CryptoKey, peer: Uint8Array): Promise<Uint8Array> {
  const key = await crypto.subtle.importKey('raw', peer as BufferSource, X25519, false, []);
  const bits = await crypto.subtle.deriveBits({ name: X25519, public: key }, privateKey, 8 * KEY_BYTES);
  const dh = new Uint8Array(bits);
  if (equalBytes(dh, new Uint8Array(KEY_BYTES))) throw malformed('sealed_malformed', 'the secret is zero');
  return dh;
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

function exporterOf(secrets: ContextSecrets, aead: Aead): SealingContext['export'] {
  return (context, length) => Promise.resolve(exported(secrets, AEADS[aead].id, context, length));
}

function altered(what: string, cause?: unknown): AttestationError {
  return new AttestationError('refused', 'sealed_altered', what, { cause });
}
