// Intel's certificates and CRLs around a quote, parsed, and which of the signatures over them hold (Intel SGX
// PCK Certificate and CRL Profile): PCK ← Platform or Processor CA ← Root, TCB Signing ← Root, the root CRL
// and the PCK CRL. Judged in chain-rules.ts and crl-rules.ts.

import { equalBytes, fromUtf8 } from '../encoding/bytes.ts';
import { malformed } from '../transcript/errors.ts';
import { crlDer, parsePem } from '../x509/pem.ts';
import { verifySignedBy, type KeyCache } from '../x509/signature.ts';
import { parseCertificate, parseCrl, type Certificate, type RevocationList } from '../x509/certificate.ts';
import type { TdxCollateral } from './collateral.ts';
import { spkiSha256 } from './roots.ts';

export interface IntelCertificates {
  readonly pck: Certificate;
  readonly pckCa: Certificate;
  readonly root: Certificate;
  readonly tcbSigner: Certificate;
  readonly tcbRoot: Certificate;
  readonly qeSigner: Certificate;
  readonly qeRoot: Certificate;
  /**
   * The PCK CRL's issuer chain, when it was given: judged like the other chains, though the CRL
   * needs only the PCK's CA.
   */
  readonly pckCrlIssuer: Certificate | undefined;
  readonly pckCrlRoot: Certificate | undefined;
  readonly rootCrl: RevocationList;
  readonly pckCrl: RevocationList;
}

/** Parses every certificate and CRL; throws `malformed_certificate`, `malformed_crl` or `input_too_large`. */
export function parseCertificates(pckChainPem: Uint8Array, collateral: TdxCollateral): IntelCertificates {
  const seen: Certificate[] = [];
  const parsed = new Map<string, readonly Certificate[]>();
  const chain = (pem: string, length: number, name: string): readonly Certificate[] => {
    const known = parsed.get(pem);
    if (known !== undefined && known.length === length) return known;
    const blocks = parsePem(pem, 'CERTIFICATE', 4, name);
    if (blocks.length !== length)
      throw malformed(
        'malformed_certificate',
        `${name} has ${blocks.length} certificates, expected ${length}`,
      );
    const certificates = blocks.map((der, i) => {
      const before = seen.find(({ raw }) => equalBytes(raw, der));
      if (before !== undefined) return before;
      const certificate = parseCertificate(der, `${name}[${i}]`);
      seen.push(certificate);
      return certificate;
    });
    parsed.set(pem, certificates);
    return certificates;
  };
  const [pck, pckCa, root] = chain(pemText(pckChainPem), 3, 'PCK certificate chain');
  const [tcbSigner, tcbRoot] = chain(collateral.tcbInfoIssuerChain, 2, 'TCB info issuer chain');
  const [qeSigner, qeRoot] = chain(collateral.qeIdentityIssuerChain, 2, 'QE identity issuer chain');
  const [pckCrlIssuer, pckCrlRoot] =
    collateral.pckCrlIssuerChain === undefined
      ? []
      : chain(collateral.pckCrlIssuerChain, 2, 'PCK CRL issuer chain');
  if (!(pck && pckCa && root && tcbSigner && tcbRoot && qeSigner && qeRoot))
    throw malformed('malformed_certificate', 'a certificate chain is empty');
  const rootCrl = parseCrl(crlDer(collateral.rootCaCrl, 'root CA CRL'), 'root CA CRL');
  const pckCrl = parseCrl(crlDer(collateral.pckCrl, 'PCK CRL'), 'PCK CRL');
  return {
    pck,
    pckCa,
    root,
    tcbSigner,
    tcbRoot,
    qeSigner,
    qeRoot,
    pckCrlIssuer,
    pckCrlRoot,
    rootCrl,
    pckCrl,
  };
}

/**
 * Which of the signatures over certificates and CRLs hold; started together, each certificate verified once.
 */
export interface ChainSignatures {
  readonly roots: boolean;
  readonly pckCa: boolean;
  readonly pck: boolean;
  readonly tcbSigner: boolean;
  readonly qeSigner: boolean;
  readonly rootCrl: boolean;
  readonly pckCrl: boolean;
  readonly rootSpki: string;
}

export async function verifyChainSignatures(
  all: IntelCertificates,
  keys: KeyCache,
): Promise<ChainSignatures> {
  const rootKey = all.root.publicKey;
  const tcbSignerJob = verifySignedBy(all.tcbSigner, rootKey, keys);
  const [rootsSigned, casSigned, pck, tcbSigner, qeSigner, rootCrl, pckCrl] = await Promise.all([
    Promise.all(rootsOf(all).map((root) => verifySignedBy(root, rootKey, keys))),
    Promise.all(pckCasOf(all).map((ca) => verifySignedBy(ca, rootKey, keys))),
    verifySignedBy(all.pck, all.pckCa.publicKey, keys),
    tcbSignerJob,
    all.qeSigner === all.tcbSigner ? tcbSignerJob : verifySignedBy(all.qeSigner, rootKey, keys),
    verifySignedBy(all.rootCrl, rootKey, keys),
    verifySignedBy(all.pckCrl, all.pckCa.publicKey, keys),
  ]);
  const pckCa = casSigned.every(Boolean);
  return {
    roots: rootsSigned.every(Boolean),
    pckCa,
    pck,
    tcbSigner,
    qeSigner,
    rootCrl,
    pckCrl,
    rootSpki: spkiSha256(rootKey.raw),
  };
}

/**
 * Every root of the chains given, each once: they share a key, and each has a window, a role
 * and a serial of its own.
 */
export function rootsOf(all: IntelCertificates): readonly Certificate[] {
  return [
    ...new Set([
      all.root,
      all.tcbRoot,
      all.qeRoot,
      ...(all.pckCrlRoot === undefined ? [] : [all.pckCrlRoot]),
    ]),
  ];
}

export function pckCasOf(all: IntelCertificates): readonly Certificate[] {
  return [...new Set([all.pckCa, ...(all.pckCrlIssuer === undefined ? [] : [all.pckCrlIssuer])])];
}

/** The quoting library ends the PEM in the quote with a NUL. */
function pemText(bytes: Uint8Array): string {
  let end = bytes.length;
  while (end > 0 && bytes[end - 1] === 0) end--;
  return fromUtf8(bytes.subarray(0, end), 'PCK certificate chain', 'malformed_certificate');
}
