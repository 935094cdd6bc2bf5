// HPKE (RFC 9180) in base mode with the one suite of docs/sealed.md §3: DHKEM(X25519, HKDF-SHA256),
// HKDF-SHA256, AES-256-GCM. The only file that imports the package `hpke`, which works on WebCrypto alone.
// Private keys are not extractable. Refused: public keys of another length or of small order.

import {
  AEAD_AES_128_GCM,
  AEAD_AES_256_GCM,
  CipherSuite,
  KDF_HKDF_SHA256,
  KEM_DHKEM_X25519_HKDF_SHA256,
  type KeyPair,
} from 'hpke';
import { AttestationError, malformed } from '../transcript/errors.ts';
import { isUsablePoint } from './points.ts';

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

/** A key pair whose private half never leaves WebCrypto. */
export interface RecipientKey {
  /** 32 bytes: claim 7. */
  readonly publicKey: Uint8Array;
  /** Rejects with `sealed_altered` for an encapsulated key that is none. */
  receive(enc: Uint8Array, info: Uint8Array): Promise<OpeningContext>;
}

const SUITES: Readonly<Record<Aead, CipherSuite>> = {
  'aes-256-gcm': new CipherSuite(KEM_DHKEM_X25519_HKDF_SHA256, KDF_HKDF_SHA256, AEAD_AES_256_GCM),
  'aes-128-gcm': new CipherSuite(KEM_DHKEM_X25519_HKDF_SHA256, KDF_HKDF_SHA256, AEAD_AES_128_GCM),
};

/**
 * A new key pair of this process.
 * @example const { publicKey } = await generateRecipient();
 */
export async function generateRecipient(): Promise<RecipientKey> {
  return recipientOf(await SUITES['aes-256-gcm'].GenerateKeyPair(false), 'aes-256-gcm');
}

/** The pair of a private key of 32 bytes: for the published examples, and for one-time recipients. */
export async function importRecipient(
  privateKey: Uint8Array,
  publicKey: Uint8Array,
  aead: Aead = 'aes-256-gcm',
): Promise<RecipientKey> {
  const suite = SUITES[aead];
  return recipientOf(
    {
      privateKey: await suite.DeserializePrivateKey(privateKey, false),
      publicKey: await suite.DeserializePublicKey(publicKey),
    },
    aead,
  );
}

async function recipientOf(pair: KeyPair, aead: Aead): Promise<RecipientKey> {
  const suite = SUITES[aead];
  const publicKey = await suite.SerializePublicKey(pair.publicKey);
  return {
    publicKey,
    async receive(enc, info) {
      if (!isUsablePoint(enc)) throw altered('the encapsulated key is no point of X25519 that can be used');
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

/** A context to the holder of `publicKey`. Throws `malformed_length` or `sealed_malformed` for a bad key. */
export async function sendTo(
  publicKey: Uint8Array,
  info: Uint8Array,
  aead: Aead = 'aes-256-gcm',
): Promise<SealingContext> {
  if (!isUsablePoint(publicKey))
    throw malformed('sealed_malformed', 'public key is no point of X25519 that can be used');
  const suite = SUITES[aead];
  const { encapsulatedSecret, ctx } = await suite.SetupSender(await suite.DeserializePublicKey(publicKey), {
    info,
  });
  return {
    enc: encapsulatedSecret,
    seal: (plaintext, aad) => ctx.Seal(plaintext, aad),
    export: (exporterContext, length) => ctx.Export(exporterContext, length),
  };
}

function altered(what: string, cause?: unknown): AttestationError {
  return new AttestationError('refused', 'sealed_altered', what, { cause });
}
