// The KEMs of sealed bodies (docs/sealed.md §2) over WebCrypto: DHKEM(X25519, HKDF-SHA256) of RFC 9180 §4.1,
// and X-Wing (draft-connolly-cfrg-xwing-kem; HPKE's MLKEM768-X25519 of draft-ietf-hpke-pq), which needs a
// runtime with ML-KEM. Private keys are not extractable. Refused: public keys of another length or of small
// order.

import { AttestationError, malformed } from '../transcript/errors.ts';
import { dhkemSecret } from './key-schedule.ts';
import { isUsablePoint, KEY_BYTES } from './points.ts';
import { agreed, type Encapsulated, importPrivate, newPair, publicOf } from './x25519.ts';
import { decapsulateXWing, encapsulateXWing, hasMlKem, importXWing } from './x-wing.ts';

/** KEMs by their id (RFC 9180 §7.1, draft-ietf-hpke-pq). */
export const KEM = { x25519: 0x0020, xWing: 0x647a } as const;
/** The id of a KEM of sealed bodies. */
export type Kem = (typeof KEM)[keyof typeof KEM];
/** Bytes of a public key and of an encapsulated key. The last 32 of both are X25519's. */
export const KEM_BYTES: Readonly<Record<Kem, { readonly publicKey: number; readonly enc: number }>> = {
  [KEM.x25519]: { publicKey: KEY_BYTES, enc: KEY_BYTES },
  [KEM.xWing]: { publicKey: 1216, enc: 1120 },
};
/** Bytes of a private key of either KEM. */
export const PRIVATE_KEY_BYTES = 32;

/** A key pair whose private half never leaves WebCrypto. */
export interface KemKey {
  readonly kem: Kem;
  /** Of X25519 the 32 bytes of claim 7. */
  readonly publicKey: Uint8Array;
  /** Rejects where `enc` is none. */
  decapsulate(enc: Uint8Array): Promise<Uint8Array>;
}

/** The KEM of a public key, which its length tells. Throws `sealed_malformed`. */
export function kemOf({ length }: Uint8Array): Kem {
  const kem = Object.values(KEM).find((id) => KEM_BYTES[id].publicKey === length);
  if (kem === undefined) throw malformed('sealed_malformed', `public key of ${length} bytes is of no KEM`);
  return kem;
}

/** Rejects with `sealed_unsupported` for X-Wing where WebCrypto has no ML-KEM. */
export async function generateKem(kem: Kem): Promise<KemKey> {
  if (kem === KEM.x25519) {
    const { privateKey, publicKey } = await newPair();
    return dhkemKey(privateKey, publicKey);
  }
  const seed = crypto.getRandomValues(new Uint8Array(PRIVATE_KEY_BYTES));
  try {
    return await importKem(kem, seed);
  } finally {
    seed.fill(0);
  }
}

/** The pair of any 32 bytes as private key; rejects as {@link generateKem}. */
export async function importKem(kem: Kem, privateKey: Uint8Array): Promise<KemKey> {
  if (privateKey.length !== PRIVATE_KEY_BYTES)
    throw malformed('malformed_length', `a private key has ${PRIVATE_KEY_BYTES} bytes`);
  if (kem === KEM.x25519) {
    const key = await importPrivate(privateKey);
    return dhkemKey(key, await publicOf(key));
  }
  const pair = await importXWing(privateKey).catch(notXWing);
  return {
    kem,
    publicKey: pair.publicKey,
    async decapsulate(enc) {
      if (!hasUsablePoint(enc, KEM_BYTES[kem].enc)) throw noPoint();
      return decapsulateXWing(pair, enc.slice());
    },
  };
}

function dhkemKey(privateKey: CryptoKey, publicKey: Uint8Array): KemKey {
  return {
    kem: KEM.x25519,
    publicKey,
    async decapsulate(given) {
      if (!hasUsablePoint(given, KEY_BYTES)) throw noPoint();
      const enc = given.slice();
      return dhkemSecret({ dh: await agreed(privateKey, enc), enc, publicKey });
    },
  };
}

/** A secret for the holder of a public key. Throws `sealed_malformed`; rejects as {@link generateKem}. */
export async function encapsulate(publicKey: Uint8Array): Promise<Encapsulated> {
  const kem = kemOf(publicKey);
  if (!hasUsablePoint(publicKey, KEM_BYTES[kem].publicKey))
    throw malformed('sealed_malformed', 'public key has no point of X25519 that can be used');
  const own = publicKey.slice();
  if (kem === KEM.xWing) return encapsulateXWing(own).catch(notXWing);
  const { privateKey, publicKey: enc } = await newPair();
  return { enc, secret: dhkemSecret({ dh: await agreed(privateKey, own), enc, publicKey: own }) };
}

/** The part of X25519 in a key, or in an encapsulated key, is at its end. */
function hasUsablePoint(bytes: Uint8Array, length: number): boolean {
  return bytes.length === length && isUsablePoint(bytes.subarray(-KEY_BYTES));
}

function noPoint(): AttestationError {
  return malformed('sealed_malformed', 'the encapsulated key has no point of X25519 that can be used');
}

/** Of X-Wing: a platform without it, or bytes that are no key of it (FIPS 203 §7.2). */
function notXWing(cause: unknown): never {
  if (cause instanceof AttestationError) throw cause;
  if (hasMlKem()) throw malformed('sealed_malformed', 'the key is none of X-Wing', { cause });
  throw new AttestationError('unsupported', 'sealed_unsupported', 'X-Wing could not be used', {
    hint: 'WebCrypto needs ML-KEM-768 (Node 24.7)',
    cause,
  });
}
