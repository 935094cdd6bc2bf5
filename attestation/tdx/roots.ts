// The Intel SGX Root CA, pinned by the SHA-256 of its public key: Intel re-issued the certificate (2018–2033,
// then 2018–2049) for the same key, so its bytes are not the identity. Intel's published sample root
// (bf85a53f…) is never trusted.

import { sha256 } from '@noble/hashes/sha2.js';
import { fromHex, toHex } from '../encoding/bytes.ts';

/** SHA-256 of the DER SubjectPublicKeyInfo of "Intel SGX Root CA". */
export const INTEL_ROOT_SPKI_SHA256 = fromHex(
  'a0af031289f5d5d4132f9186068a7fc13628633ba235777472e29b6b6c67a49e',
);

/** SHA-256 of the whole certificate, for people to compare: current, and the older issue. */
export const INTEL_ROOT_DER_SHA256: readonly string[] = [
  '44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3',
  'fc64f8076d79a4fee9d1d473d74c89eb8d8fd55c5abafeabeba7366d20429404',
];

export function spkiSha256(spki: Uint8Array): string {
  return toHex(sha256(spki));
}
