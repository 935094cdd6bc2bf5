// Rules on Intel's certificates: T7 to T10. The root counts by its public key; every certificate must have
// the name and constraints of its own role, so that a PCK key cannot sign TCB info.

import { equalBytes, toHex } from '../encoding/bytes.ts';
import type { Transcript } from '../transcript/checks.ts';
import { caProblem, criticalProblem, issuanceProblem, nameText, validityProblem } from '../x509/path.ts';
import { parseCertificate, type Certificate } from '../x509/certificate.ts';
import { pckCasOf, rootsOf, type IntelCertificates } from './certificates.ts';
import { checkRevocation } from './crl-rules.ts';
import { SGX_EXTENSIONS_OID } from './pck.ts';
import { INTEL_ROOT_SPKI_SHA256, spkiSha256 } from './roots.ts';
import { TDX_RULES } from './rules.ts';
import type { TdxSubject } from './subject.ts';

/**
 * The certificates that are authentic after the chain rules: signed up to the trusted root by certificates of
 * the right roles, none revoked by CRLs that are authentic themselves. Dates are not in it: what is merely
 * stale is refused by its own rule, and can still be judged by all the others.
 */
export interface ChainOutcome {
  readonly pck: boolean;
  readonly tcbSigner: boolean;
  readonly qeSigner: boolean;
}

/**
 * SHA-256 of the public keys of roots given in place of Intel's, or Intel's own. `known` saves
 * parsing one of them again.
 */
export function trustedRoots(
  roots: readonly Uint8Array[] | undefined,
  known?: Certificate,
): readonly string[] {
  if (roots === undefined) return [toHex(INTEL_ROOT_SPKI_SHA256)];
  const certificates = roots.map((der) =>
    known !== undefined && equalBytes(known.raw, der) ? known : parseCertificate(der, 'root'),
  );
  return certificates.map(({ publicKey }) => spkiSha256(publicKey.raw));
}

/** Rules T7 to T10, in order. */
export async function checkPckChain(subject: TdxSubject, transcript: Transcript): Promise<ChainOutcome> {
  const { certificates: all, trusted, context } = subject;
  const signatures = subject.signatures.chain;
  const rootTrusted = transcript.expect(
    TDX_RULES.root,
    trusted.includes(signatures.rootSpki),
    `root public key is ${short(signatures.rootSpki)}, ${trusted.includes(signatures.rootSpki) ? 'pinned' : `trusted are ${trusted.map(short).join(', ')}`}`,
    { expected: trusted.join(' or '), actual: signatures.rootSpki },
  );
  const links = [
    link(all.pck, all.pckCa, signatures.pck),
    link(all.pckCa, all.root, signatures.pckCa),
    link(all.root, all.root, signatures.roots),
  ];
  const pckBroken = links.find((problem) => problem !== undefined);
  const pckChain = transcript.expect(
    TDX_RULES.pckChain,
    pckBroken === undefined,
    pckBroken ?? `PCK is issued by ${nameText(all.pck.issuer)}, that by the root`,
  );
  const tcbBroken = signerChain(all, all.tcbSigner, all.tcbRoot, signatures.tcbSigner);
  const qeBroken = signerChain(all, all.qeSigner, all.qeRoot, signatures.qeSigner);
  transcript.expect(
    TDX_RULES.pckChain,
    (tcbBroken ?? qeBroken) === undefined,
    tcbBroken ?? qeBroken ?? 'TCB signing certificates are issued by the same root',
  );
  const roles = roleProblems(all);
  const rolesHold = transcript.expect(
    TDX_RULES.roles,
    roles.length === 0,
    roles[0] ?? 'PCK, PCK CA, TCB signing and root certificates each have their role',
  );
  checkValidity(all, transcript, context.now);
  // Only what leads to the trusted root is remembered: strangers must not be able to fill the memory.
  const memory = rootTrusted && pckChain && rolesHold ? context.memory : undefined;
  const clean = await checkRevocation(subject, transcript, memory);
  const common = rootTrusted && rolesHold && clean;
  return {
    pck: common && pckChain,
    tcbSigner: common && tcbBroken === undefined,
    qeSigner: common && qeBroken === undefined,
  };
}

function link(child: Certificate, issuer: Certificate, signed: boolean): string | undefined {
  const problem = issuanceProblem(child, issuer);
  if (problem !== undefined) return `${nameText(child.subject)}: ${problem}`;
  return signed ? undefined : `${nameText(child.subject)} is not signed by ${nameText(issuer.subject)}`;
}

function signerChain(
  all: IntelCertificates,
  signer: Certificate,
  root: Certificate,
  signed: boolean,
): string | undefined {
  if (!equalBytes(root.publicKey.raw, all.root.publicKey.raw))
    return 'a signing chain ends in another root than the PCK chain';
  return link(signer, root, signed);
}

const PCK_CAS = ['Intel SGX PCK Platform CA', 'Intel SGX PCK Processor CA'];

/** Names, constraints, key usages, critical extensions and curves. */
function roleProblems(all: IntelCertificates): readonly string[] {
  const named: readonly (readonly [string, Certificate, readonly string[], string | undefined])[] = [
    ['PCK', all.pck, ['Intel SGX PCK Certificate'], endEntityProblem(all.pck, [SGX_EXTENSIONS_OID])],
    ...pckCasOf(all).map(
      (ca) => ['PCK CA', ca, PCK_CAS, caProblem(ca, { certificates: true, crls: true }, 0)] as const,
    ),
    ['TCB signing', all.tcbSigner, ['Intel SGX TCB Signing'], endEntityProblem(all.tcbSigner)],
    ['QE identity signing', all.qeSigner, ['Intel SGX TCB Signing'], endEntityProblem(all.qeSigner)],
    ...rootsOf(all).map(
      (root) =>
        [
          'root',
          root,
          ['Intel SGX Root CA'],
          caProblem(root, { certificates: true, crls: true }, 1),
        ] as const,
    ),
  ];
  return named.flatMap(([role, certificate, names, problem]) => {
    const { subject, publicKey } = certificate;
    if (subject.commonName === undefined || !names.includes(subject.commonName)) {
      return [`${role} certificate is named ${nameText(subject)}, expected ${names.join(' or ')}`];
    }
    if (publicKey.kind !== 'ec' || publicKey.curve !== 'P-256')
      return [`${role} certificate has no P-256 key`];
    return problem === undefined ? [] : [`${role} certificate: ${problem}`];
  });
}

function endEntityProblem(certificate: Certificate, known: readonly string[] = []): string | undefined {
  if (certificate.basicConstraints === undefined) return 'basicConstraints is missing';
  if (certificate.basicConstraints.ca) return 'it is a CA';
  if (certificate.keyUsage?.digitalSignature !== true) return 'keyUsage lacks digitalSignature';
  if (certificate.keyUsage.keyCertSign || certificate.keyUsage.crlSign)
    return 'keyUsage allows signing certificates or CRLs';
  return criticalProblem(certificate, known);
}

function checkValidity(all: IntelCertificates, transcript: Transcript, now: Date): void {
  for (const certificate of new Set([
    all.pck,
    ...pckCasOf(all),
    ...rootsOf(all),
    all.tcbSigner,
    all.qeSigner,
  ])) {
    const problem = validityProblem(certificate, now);
    if (problem !== undefined) {
      transcript.fail(
        TDX_RULES.validity,
        `${nameText(certificate.subject)} at ${now.toISOString()}: ${problem}`,
      );
      return;
    }
  }
  transcript.pass(TDX_RULES.validity, `all certificates are valid at ${now.toISOString()}`);
}

function short(hex: string): string {
  return `${hex.slice(0, 16)}…`;
}
