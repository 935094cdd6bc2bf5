// The roots of TPM-rooted evidence, pinned by SHA-256 of their DER (shared/reference/clouds.md has where each
// was seen). A root carried in evidence counts only where its digest is here.

import { sha256 } from '@noble/hashes/sha2.js';
import { toHex } from '../encoding/bytes.ts';

/** "Azure Virtual TPM Root Certificate Authority 2023", RSA 4096, to 2048. */
export const AZURE_TPM_ROOT = 'e6c596b17f8ffefba5c300f714cfb1260c6028704ecf7becc4ab5018efb00e95';
/** "EK/AK CA Root" of Google's virtual TPMs, to 2122. */
export const GOOGLE_TPM_ROOT = '594759594b9b61524f6c8ef668f7177f7b9066bc0674f2f49fe9e052be78beb2';
/** "aws.nitro-enclaves", root G1, of Enclaves and NitroTPM alike, to 2049. */
export const NITRO_ROOT = '641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b';

/** Roots in their place, for own hierarchies; the pinned one otherwise. */
export function trustedDigests(pinned: string, roots: readonly Uint8Array[] | undefined): readonly string[] {
  return roots === undefined ? [pinned] : roots.map((der) => toHex(sha256(der)));
}
