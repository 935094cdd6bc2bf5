// HPKE (RFC 9180) in base mode with the suites of docs/sealed.md §2: DHKEM(X25519, HKDF-SHA256) or X-Wing,
// HKDF-SHA256, AES-256-GCM. The only file that imports the package `hpke`, which works on WebCrypto alone:
// X-Wing needs a runtime with ML-KEM. Private keys are not extractable. Refused: public keys of another
// length or of small order.

import {
  AEAD_AES_128_GCM,
  AEAD_AES_256_GCM,
  CipherSuite,
  KDF_HKDF_SHA256,
  KEM_DHKEM_X25519_HKDF_SHA256,
  KEM_MLKEM768_X25519,
  type KeyPair,
} from 'hpke';
import { AttestationError, malformed } from '../transcript/errors.ts';
import { isUsablePoint } from './points.ts';

/**
 * KEMs by their id (RFC 9180 §7.1; draft-ietf-hpke-pq, which has X-Wing of draft-connolly-cfrg-xwing-kem as
 * MLKEM768-X25519).
 */
export const KEM = { x25519: 0x0020, xWing: 0x647a } as const;
/** The id of a KEM of sealed bodies. */
export type Kem = (typeof KEM)[keyof typeof KEM];
/** Bytes of a public key and of an encapsulated key. The last 32 of both are X25519's. */
export const KEM_BYTES: Readonly<Record<Kem, { readonly publicKey: number; readonly enc: number }>> = {
  [KEM.x25519]: { publicKey: 32, enc: 32 },
  [KEM.xWing]: { publicKey: 1216, enc: 1120 },
};
/** Bytes of a private key of either KEM. */
export const PRIVATE_KEY_BYTES = 32;

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

/** A key pair whose private half never leaves WebCrypto. */
export interface RecipientKey {
  readonly kem: Kem;
  /** Of X25519 the 32 bytes of claim 7. */
  readonly publicKey: Uint8Array;
  /** Rejects with `sealed_altered` for an encapsulated key that is none. */
  receive(enc: Uint8Array, info: Uint8Array): Promise<OpeningContext>;
}

const SUITES: Readonly<Record<Kem, Readonly<Record<Aead, CipherSuite>>>> = {
  [KEM.x25519]: {
    'aes-256-gcm': new CipherSuite(KEM_DHKEM_X25519_HKDF_SHA256, KDF_HKDF_SHA256, AEAD_AES_256_GCM),
    'aes-128-gcm': new CipherSuite(KEM_DHKEM_X25519_HKDF_SHA256, KDF_HKDF_SHA256, AEAD_AES_128_GCM),
  },
  [KEM.xWing]: {
    'aes-256-gcm': new CipherSuite(KEM_MLKEM768_X25519, KDF_HKDF_SHA256, AEAD_AES_256_GCM),
    'aes-128-gcm': new CipherSuite(KEM_MLKEM768_X25519, KDF_HKDF_SHA256, AEAD_AES_128_GCM),
  },
};

/** The KEM of a public key, which its length tells. Throws `sealed_malformed`. */
export function kemOf({ length }: Uint8Array): Kem {
  const kem = Object.values(KEM).find((id) => KEM_BYTES[id].publicKey === length);
  if (kem === undefined) throw malformed('sealed_malformed', `public key of ${length} bytes is of no KEM`);
  return kem;
}

/**
 * A new key pair of this process. X-Wing rejects with `sealed_unsupported` where WebCrypto has no ML-KEM.
 * @example const { publicKey } = await generateRecipient();
 */
export async function generateRecipient(kem: Kem = KEM.x25519): Promise<RecipientKey> {
  const suite = SUITES[kem]['aes-256-gcm'];
  const pair = await suite.GenerateKeyPair(false).catch((error: unknown) => {
    if (kem === KEM.xWing) throw withoutMlKem(error);
    throw error;
  });
  return recipientOf(pair, kem, 'aes-256-gcm');
}

/** The pair of a private key of 32 bytes: for the published examples, and for one-time recipients. */
export async function importRecipient(
  privateKey: Uint8Array,
  publicKey: Uint8Array,
  aead: Aead = 'aes-256-gcm',
): Promise<RecipientKey> {
  const kem = kemOf(publicKey);
  const suite = SUITES[kem][aead];
  return recipientOf(
    {
      privateKey: await suite.DeserializePrivateKey(privateKey, false),
      publicKey: await suite.DeserializePublicKey(publicKey),
    },
    kem,
    aead,
  );
}

async function recipientOf(pair: KeyPair, kem: Kem, aead: Aead): Promise<RecipientKey> {
  const suite = SUITES[kem][aead];
  const publicKey = await suite.SerializePublicKey(pair.publicKey);
  return {
    kem,
    publicKey,
    async receive(enc, info) {
      if (!hasUsablePoint(enc, KEM_BYTES[kem].enc))
        throw altered('the encapsulated key has no point of X25519 that can be used');
      const context = await suite.SetupRecipient(pair, enc, { info }).catch((error: unknown) => {
        throw altered('the encapsulated key could not be decapsulated', error);
      });
      return {
        open: (sealed, aad) =>
          context.Open(sealed, aad).catch((error: unknown) => {
            throw altered('a chunk does not open', error);
          }),
        export: (exporterContext, length) => context.Export(exporterContext, length),
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
  if (!hasUsablePoint(publicKey, KEM_BYTES[kem].publicKey))
    throw malformed('sealed_malformed', 'public key has no point of X25519 that can be used');
  const suite = SUITES[kem][aead];
  const { encapsulatedSecret, ctx } = await suite
    .DeserializePublicKey(publicKey)
    .then((key) => suite.SetupSender(key, { info }))
    .catch((error: unknown) => {
      if (kem === KEM.xWing) throw withoutMlKem(error);
      throw error;
    });
  return {
    enc: encapsulatedSecret,
    seal: (plaintext, aad) => ctx.Seal(plaintext, aad),
    export: (exporterContext, length) => ctx.Export(exporterContext, length),
  };
}

/** The part of X25519 in a key, or in an encapsulated key, is at its end. */
function hasUsablePoint(bytes: Uint8Array, length: number): boolean {
  return bytes.length === length && isUsablePoint(bytes.subarray(-32));
}

function withoutMlKem(cause: unknown): AttestationError {
  return new AttestationError('unsupported', 'sealed_unsupported', 'X-Wing could not be used', {
    hint: 'WebCrypto needs ML-KEM-768, SHA3-256 and cSHAKE256 (Node 24.7), and a key that is of X-Wing',
    cause,
  });
}

function altered(what: string, cause?: unknown): AttestationError {
  return new AttestationError('refused', 'sealed_altered', what, { cause });
}
