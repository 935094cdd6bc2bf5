// X-Wing (draft-connolly-cfrg-xwing-kem-06 §5): ML-KEM-768 and X25519 of WebCrypto, combined by SHA3-256. It
// needs a runtime with ML-KEM; elsewhere every call rejects.

import { sha3_256, shake256 } from '@noble/hashes/sha3.js';
import { concatBytes, fromHex } from '../encoding/bytes.ts';
import { KEY_BYTES } from './points.ts';
import { agreed, type Encapsulated, importPrivate, newPair, publicOf } from './x25519.ts';

const ML_KEM = 'ML-KEM-768';
/** Bytes of a seed, of a public key and of a ciphertext of ML-KEM-768 (FIPS 203 §8). */
const SEED_BYTES = 64;
const ML_KEM_KEY_BYTES = 1184;
const ML_KEM_CIPHERTEXT_BYTES = 1088;
/** `\.//^\` (§5.3). */
const LABEL = fromHex('5c2e2f2f5e5c');

/** The part of WebCrypto that TypeScript's library does not declare. */
interface ModernSubtle {
  importKey(format: string, key: Uint8Array, name: string, extractable: boolean, usages: string[]): Promise<CryptoKey>;
  getPublicKey(key: CryptoKey, usages: string[]): Promise<CryptoKey>;
  exportKey(format: string, key: CryptoKey): Promise<ArrayBuffer>;
  encapsulateBits(name: string, key: CryptoKey): Promise<{ sharedKey: ArrayBuffer; ciphertext: ArrayBuffer }>;
  decapsulateBits(name: string, key: CryptoKey, ciphertext: Uint8Array): Promise<ArrayBuffer>;
} // prettier-ignore

/** Both private halves stay in WebCrypto. */
export interface XWingPair {
  readonly mlKem: CryptoKey;
  readonly x25519: CryptoKey;
  readonly publicKey: Uint8Array;
}

/** GenerateKeyPairDerand (§5.2): 32 bytes → the pair. */
export async function importXWing(privateKey: Uint8Array): Promise<XWingPair> {
  const expanded = shake256(privateKey, { dkLen: SEED_BYTES + KEY_BYTES });
  let mlKem: CryptoKey;
  let x25519: CryptoKey;
  try {
    const seed = expanded.subarray(0, SEED_BYTES);
    mlKem = await subtle().importKey('raw-seed', seed, ML_KEM, false, ['decapsulateBits']);
    x25519 = await importPrivate(expanded.subarray(SEED_BYTES));
  } finally {
    expanded.fill(0);
  }
  const encapsulation = await subtle().getPublicKey(mlKem, ['encapsulateBits']);
  const publicKey = concatBytes(
    new Uint8Array(await subtle().exportKey('raw-public', encapsulation)),
    await publicOf(x25519),
  );
  return { mlKem, x25519, publicKey };
}

/** Encapsulate (§5.4). */
export async function encapsulateXWing(publicKey: Uint8Array): Promise<Encapsulated> {
  const usages = ['encapsulateBits'];
  const theirs = publicKey.subarray(0, ML_KEM_KEY_BYTES);
  const key = await subtle().importKey('raw-public', theirs, ML_KEM, false, usages);
  const { sharedKey, ciphertext } = await subtle().encapsulateBits(ML_KEM, key);
  const point = publicKey.subarray(ML_KEM_KEY_BYTES);
  const own = await newPair();
  const dh = await agreed(own.privateKey, point);
  return {
    enc: concatBytes(new Uint8Array(ciphertext), own.publicKey),
    secret: combined(new Uint8Array(sharedKey), dh, own.publicKey, point),
  };
}

/** Decapsulate (§5.5). A ciphertext that is another's gives another secret. */
export async function decapsulateXWing(pair: XWingPair, enc: Uint8Array): Promise<Uint8Array> {
  const ciphertext = enc.subarray(0, ML_KEM_CIPHERTEXT_BYTES);
  const sent = enc.subarray(ML_KEM_CIPHERTEXT_BYTES);
  const shared = await subtle().decapsulateBits(ML_KEM, pair.mlKem, ciphertext);
  const dh = await agreed(pair.x25519, sent);
  return combined(new Uint8Array(shared), dh, sent, pair.publicKey.subarray(ML_KEM_KEY_BYTES));
}

/** Combiner (§5.3): both secrets, and the ciphertext and public key of X25519. */
function combined(shared: Uint8Array, dh: Uint8Array, sent: Uint8Array, point: Uint8Array): Uint8Array {
  return sha3_256(concatBytes(shared, dh, sent, point, LABEL));
}

/** Whether this runtime has ML-KEM. */
export function hasMlKem(): boolean {
  return 'encapsulateBits' in crypto.subtle;
}

function subtle(): ModernSubtle {
  return crypto.subtle as unknown as ModernSubtle;
}
