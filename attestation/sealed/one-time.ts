// A private key as bytes, and the public key that belongs to it: for one-time recipients of a request to
// several replicas (docs/sealed.md §8), whose private key travels to them.

import { concatBytes } from '../encoding/bytes.ts';
import { type Kem, KEM, PRIVATE_KEY_BYTES } from './hpke.ts';

export interface OneTimeKey {
  readonly privateKey: Uint8Array;
  readonly publicKey: Uint8Array;
}

export async function generateOneTime(kem: Kem): Promise<OneTimeKey> {
  const privateKey = crypto.getRandomValues(new Uint8Array(PRIVATE_KEY_BYTES));
  return { privateKey, publicKey: await publicKeyOf(kem, privateKey) };
}

/** The public key of any 32 bytes as private key. */
export function publicKeyOf(kem: Kem, privateKey: Uint8Array): Promise<Uint8Array> {
  return kem === KEM.x25519 ? pointOf(privateKey) : xWingKeyOf(privateKey);
}

/** RFC 8410 §7: the form in which WebCrypto takes a private key. */
const PKCS8_X25519 = Uint8Array.of(0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x6e, 4, 0x22, 4, 0x20);
const BASE_POINT = Uint8Array.from({ length: 32 }, (_, i) => (i === 0 ? 9 : 0));

/** X25519(private key, base point) (RFC 7748 §6.1). */
async function pointOf(scalar: Uint8Array): Promise<Uint8Array> {
  const { subtle } = crypto;
  const pkcs8 = concatBytes(PKCS8_X25519, scalar) as BufferSource;
  const own = await subtle.importKey('pkcs8', pkcs8, 'X25519', false, ['deriveBits']);
  const base = await subtle.importKey('raw', BASE_POINT, 'X25519', false, []);
  return new Uint8Array(await subtle.deriveBits({ name: 'X25519', public: base }, own, 256));
}

/** The part of WebCrypto that X-Wing needs and TypeScript's library does not declare. */
interface ModernSubtle {
  digest(algorithm: object, data: Uint8Array): Promise<ArrayBuffer>;
  importKey(format: string, key: Uint8Array, name: string, extractable: boolean, usages: string[]): Promise<CryptoKey>;
  getPublicKey(key: CryptoKey, usages: string[]): Promise<CryptoKey>;
  exportKey(format: string, key: CryptoKey): Promise<ArrayBuffer>;
} // prettier-ignore

/**
 * draft-connolly-cfrg-xwing-kem §5.2: SHAKE256 of the seed is the seed of ML-KEM-768 (64 bytes) and the
 * scalar of X25519.
 */
async function xWingKeyOf(seed: Uint8Array): Promise<Uint8Array> {
  const subtle = crypto.subtle as unknown as ModernSubtle;
  const bits = 96 * 8;
  const shake = { name: 'cSHAKE256', length: bits, outputLength: bits };
  const expanded = new Uint8Array(await subtle.digest(shake, seed));
  const decapsulation = await subtle.importKey('raw-seed', expanded.slice(0, 64), 'ML-KEM-768', true, ['decapsulateBits']); // prettier-ignore
  const encapsulation = await subtle.getPublicKey(decapsulation, ['encapsulateBits']);
  return concatBytes(
    new Uint8Array(await subtle.exportKey('raw-public', encapsulation)),
    await pointOf(expanded.slice(64)),
  );
}
