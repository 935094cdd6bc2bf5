// The pinned AMD root keys (ARK), by SHA-256 of the certificate's DER and of its SubjectPublicKeyInfo:
// both must match. Source: AMD KDS `/vcek/v1/{product}/cert_chain`, compared with independent projects
// that pin them. Genoa's also signs for Bergamo and Siena. Adding a product means adding a line here
// and its layout in tcb.ts.

import { sha256 } from '@noble/hashes/sha2.js';
import { equalBytes, toHex } from '../encoding/bytes.ts';
import type { Certificate } from '../x509/certificate.ts';
import type { Product } from './tcb.ts';

export interface PinnedRoot {
  readonly product: Product;
  readonly derSha256: string;
  readonly spkiSha256: string;
}

/**
 * The ARKs of Milan, Genoa and Turin (AMD 57230): SHA-256 of each certificate and of its public key, in
 * hex. Rule S12 pins them.
 */
export const AMD_ROOTS: readonly PinnedRoot[] = [
  {
    product: 'Milan',
    derSha256: '69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd',
    spkiSha256: '9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9',
  },
  {
    product: 'Genoa',
    derSha256: '4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1',
    spkiSha256: '429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831',
  },
  {
    product: 'Turin',
    derSha256: '1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a',
    spkiSha256: '4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08',
  },
];

/** The pinned root this certificate is, when both fingerprints match. */
export function pinnedRoot(ark: Certificate): PinnedRoot | undefined {
  const der = toHex(sha256(ark.raw));
  const spki = toHex(sha256(ark.publicKey.raw));
  return AMD_ROOTS.find((root) => root.derSha256 === der && root.spkiSha256 === spki);
}

/** Whether it is, byte for byte, one of the roots that replace the pinned ones. */
export function isReplacedRoot(ark: Certificate, roots: readonly Uint8Array[]): boolean {
  return roots.some((root) => equalBytes(root, ark.raw));
}
