// A private key as bytes, and the public key that belongs to it: for one-time recipients of a request to
// several replicas (docs/sealed.md §8), whose private key travels to them.

import { importKem, type Kem, PRIVATE_KEY_BYTES } from './kem.ts';

export interface OneTimeKey {
  readonly privateKey: Uint8Array;
  readonly publicKey: Uint8Array;
}

export async function generateOneTime(kem: Kem): Promise<OneTimeKey> {
  const privateKey = crypto.getRandomValues(new Uint8Array(PRIVATE_KEY_BYTES));
  return { privateKey, publicKey: await publicKeyOf(kem, privateKey) };
}

/** The public key of any 32 bytes as private key. */
export async function publicKeyOf(kem: Kem, privateKey: Uint8Array): Promise<Uint8Array> {
  return (await importKem(kem, privateKey)).publicKey;
}
