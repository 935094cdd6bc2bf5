// X25519 (RFC 7748) by WebCrypto, with private keys that cannot be read.

import { concatBytes, equalBytes } from '../encoding/bytes.ts';
import { malformed } from '../transcript/errors.ts';
import { KEY_BYTES } from './points.ts';

const X25519 = 'X25519';
/** PrivateKeyInfo of X25519 (RFC 8410 §7), up to the 32 bytes of the key. */
const PKCS8_PREFIX = Uint8Array.from([
  0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x04, 0x22, 0x04, 0x20,
]);
/** The base point (RFC 7748 §4.1). */
const BASE_POINT = Uint8Array.from({ length: KEY_BYTES }, (_, index) => (index === 0 ? 9 : 0));

/** A secret, and what its receiver needs to have it, too. */
export interface Encapsulated {
  readonly secret: Uint8Array;
  readonly enc: Uint8Array;
}

export interface X25519Pair {
  readonly privateKey: CryptoKey;
  readonly publicKey: Uint8Array;
}

/** The public half can be read, the private half cannot. */
export async function newPair(): Promise<X25519Pair> {
  const pair = await crypto.subtle.generateKey(X25519, false, ['deriveBits']);
  const raw = await crypto.subtle.exportKey('raw', pair.publicKey);
  return { privateKey: pair.privateKey, publicKey: new Uint8Array(raw) };
}

export async function importPrivate(scalar: Uint8Array): Promise<CryptoKey> {
  const pkcs8 = concatBytes(PKCS8_PREFIX, scalar);
  try {
    return await crypto.subtle.importKey('pkcs8', pkcs8 as BufferSource, X25519, false, ['deriveBits']);
  } finally {
    pkcs8.fill(0);
  }
}

/** RFC 7748 §6.1. */
export function publicOf(privateKey: CryptoKey): Promise<Uint8Array> {
  return agreed(privateKey, BASE_POINT);
}

/** RFC 9180 §7.1.4: a secret of zeros is refused, whatever the platform does. */
export async function agreed(privateKey: CryptoKey, peer: Uint8Array): Promise<Uint8Array> {
  const key = await crypto.subtle.importKey('raw', peer as BufferSource, X25519, false, []);
  const bits = await crypto.subtle.deriveBits({ name: X25519, public: key }, privateKey, 8 * KEY_BYTES);
  const dh = new Uint8Array(bits);
  if (equalBytes(dh, new Uint8Array(KEY_BYTES))) throw malformed('sealed_malformed', 'the secret is zero');
  return dh;
}
