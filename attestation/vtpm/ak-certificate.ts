// The certificate of a cloud's TPM attestation key (Azure: NV index 0x01C101D0; Google: the AK's own), its
// chain to a pinned root, and whether its key is the one that signs quotes. NV holds more bytes than the
// certificate: the DER is cut at its own length, and the rest has to be zero.

import { equalBytes, isZero } from '../encoding/bytes.ts';
import { malformed } from '../transcript/errors.ts';
import { type Certificate, parseCertificate } from '../x509/certificate.ts';
import { type ChainFinding, verifyChainTo } from '../x509/chain.ts';
import { criticalProblem } from '../x509/path.ts';
import type { PublicKeyInfo } from '../x509/public-key.ts';
import type { KeyCache } from '../x509/signature.ts';

const EXTENDED_KEY_USAGE = '2.5.29.37';
const CERTIFICATE_POLICIES = '2.5.29.32';
/** Five intermediates and the root. */
export const AK_CHAIN_MAX = 6;

export interface AkChain {
  /** DER, followed by zeros where it was read from NV. */
  readonly certificate: Uint8Array;
  /** Intermediates and the root, in any order. */
  readonly chain: readonly Uint8Array[];
}

/** @throws AttestationError malformed_certificate */
export function parseAkCertificate(bytes: Uint8Array): Certificate {
  return parseCertificate(cutDer(bytes), 'AK certificate');
}

/** Undefined problem: the certificate is of `key` (any key where undefined), and leads to a trusted root. */
export async function judgeAkChain(
  { certificate, chain }: AkChain,
  context: {
    readonly trusted: readonly string[];
    readonly now: Date;
    readonly keys?: KeyCache | undefined;
    readonly key: PublicKeyInfo | undefined;
  },
): Promise<ChainFinding> {
  const leaf = parseAkCertificate(certificate);
  const others = chain.map((der, i) => parseCertificate(new Uint8Array(der), `AK chain[${i}]`));
  const found = await verifyChainTo(leaf, { ...context, others });
  const problem = found.problem ?? leafProblem(leaf, context.key);
  return { ...found, problem };
}

function leafProblem(leaf: Certificate, key: PublicKeyInfo | undefined): string | undefined {
  if (key !== undefined && !equalBytes(leaf.publicKey.raw, key.raw))
    return 'its key is not the attestation key the CPU vouches for';
  if (leaf.basicConstraints?.ca === true) return 'it is a CA';
  if (leaf.keyUsage !== undefined && !leaf.keyUsage.digitalSignature)
    return 'keyUsage lacks digitalSignature';
  return criticalProblem(leaf, [EXTENDED_KEY_USAGE, CERTIFICATE_POLICIES]);
}

function cutDer(bytes: Uint8Array): Uint8Array {
  const [tag, first = 0, high = 0, low = 0] = bytes;
  const size = first === 0x82 ? 4 + high * 256 + low : 0;
  if (tag !== 0x30 || size === 0 || size > bytes.length)
    throw malformed('malformed_certificate', 'AK certificate is no DER of its length');
  if (!isZero(bytes.subarray(size)))
    throw malformed('malformed_certificate', 'AK certificate has bytes after its end that are not zero');
  return new Uint8Array(bytes.subarray(0, size));
}
