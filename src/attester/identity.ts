// The keys of this boot, made in memory and never written: P-256 for TLS, Ed25519 for receipts
// (docs/protocol.md §3, claims 2, 6); that of sealed bodies rotates (src/sealed/keys.ts). A new process has
// new keys; clients then attest again.

import { createHash, createPublicKey, generateKeyPairSync, webcrypto, type KeyObject } from 'node:crypto';

export interface Identity {
  readonly tls: {
    /** For @peculiar/x509. */
    readonly keys: webcrypto.CryptoKeyPair;
    /** PKCS #8 PEM, for node:tls. Lives in this process's memory only. */
    readonly keyPem: string;
    /** SHA-256 of the DER SubjectPublicKeyInfo, 32 bytes. */
    readonly spkiSha256: Uint8Array;
  };
  readonly receipt: { readonly privateKey: KeyObject; /** 32 bytes. */ readonly publicKey: Uint8Array };
}

export async function createIdentity(): Promise<Identity> {
  const keys = await webcrypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, [
    'sign',
    'verify',
  ]);
  const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey));
  const keyPem = `-----BEGIN PRIVATE KEY-----\n${pkcs8.toString('base64').replaceAll(/.{64}/g, '$&\n').trimEnd()}\n-----END PRIVATE KEY-----\n`;
  pkcs8.fill(0);
  const spki = Buffer.from(await webcrypto.subtle.exportKey('spki', keys.publicKey));
  const spkiSha256 = new Uint8Array(createHash('sha256').update(spki).digest());
  return {
    tls: { keys, keyPem, spkiSha256 },
    receipt: rawPair(generateKeyPairSync('ed25519')),
  };
}

/**
 * The raw 32 bytes of an Ed25519 or X25519 public key (RFC 8410: the last 32 bytes of its
 * SubjectPublicKeyInfo).
 */
export function rawPublicKey(key: KeyObject): Uint8Array {
  const spki = (key.type === 'private' ? createPublicKey(key) : key).export({ format: 'der', type: 'spki' });
  if (spki.length !== 44) throw new TypeError('not an Ed25519 or X25519 key');
  return new Uint8Array(spki.subarray(12));
}

function rawPair(pair: { readonly privateKey: KeyObject; readonly publicKey: KeyObject }): {
  readonly privateKey: KeyObject;
  readonly publicKey: Uint8Array;
} {
  return { privateKey: pair.privateKey, publicKey: rawPublicKey(pair.publicKey) };
}
