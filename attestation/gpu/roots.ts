// The pinned NVIDIA roots, by SHA-256 of the certificate's DER. Source: NVIDIA/nvtrust, guest_tools
// (verifier_device_root.pem, verifier_RIM_root.pem), compared with recorded evidence of several owners. The
// debug-only root of reference manifests is not among them.

import { sha256 } from '@noble/hashes/sha2.js';
import { equalBytes, toHex } from '../encoding/bytes.ts';

/** `NVIDIA Device Identity CA` and `NVIDIA CoRIM signing Root CA`: SHA-256 of the DER, in hex. */
export const NVIDIA_ROOTS = {
  device: '102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48',
  manifest: '12977b5115acb0381179279fffeb5a8c4d264971ebb32298023a465fa41df5d1',
} as const;

/** Which roots are trusted: the pinned ones, others in their place, or those the evidence brings itself. */
export type TrustedRoots = readonly Uint8Array[] | 'carried' | undefined;

/** The reason not to trust this root, or undefined. */
export function rootProblem(
  der: Uint8Array,
  kind: keyof typeof NVIDIA_ROOTS,
  roots: TrustedRoots,
): string | undefined {
  const digest = toHex(sha256(der));
  if (roots === undefined)
    return digest === NVIDIA_ROOTS[kind] ? undefined : `root ${digest} is not NVIDIA's`;
  if (roots === 'carried') {
    const isNvidias = digest === NVIDIA_ROOTS.device || digest === NVIDIA_ROOTS.manifest;
    return isNvidias ? 'the document says simulated, this root is NVIDIA’s' : undefined;
  }
  return roots.some((root) => equalBytes(root, der)) ? undefined : `root ${digest} is not one given`;
}
