// Intel's certificates and CRLs around a quote (Intel SGX PCK Certificate and CRL Profile): PCK ← Platform or Processor CA ←
// Root, TCB Signing ← Root, the root CRL and the PCK CRL. Rules T7 to T10. The root counts by its public key; every certificate
// must have the name and constraints of its own role, so that a PCK key cannot sign TCB info.

import { equalBytes, fromUtf8, toHex } from '../encoding/bytes.ts';
import type { Transcript } from '../transcript/checks.ts';
import { malformed } from '../transcript/errors.ts';
import type { RollbackMemory } from '../transcript/rollback-memory.ts';
import {
  caProblem,
  criticalProblem,
  crlProblem,
  isRevoked,
  issuanceProblem,
  nameText,
  validityProblem,
} from '../x509/path.ts';
import { crlDer, parsePem } from '../x509/pem.ts';
import { verifySignedBy, type KeyCache } from '../x509/signature.ts';
import { parseCertificate, parseCrl, type Certificate, type RevocationList } from '../x509/certificate.ts';
import type { TdxCollateral } from './collateral.ts';
import { SGX_EXTENSIONS_OID } from './pck.ts';
import { INTEL_ROOT_SPKI_SHA256, spkiSha256 } from './roots.ts';
import { TDX_RULES } from './rules.ts';

export interface IntelCertificates {
  readonly pck: Certificate;
  readonly pckCa: Certificate;
  readonly root: Certificate;
  readonly tcbSigner: Certificate;
  readonly tcbRoot: Certificate;
  readonly qeSigner: Certificate;
  readonly qeRoot: Certificate;
  /** The PCK CRL's issuer chain, when it was given: judged like the other chains, though the CRL needs only the PCK's CA. */
  readonly pckCrlIssuer: Certificate | undefined;
  readonly pckCrlRoot: Certificate | undefined;
  readonly rootCrl: RevocationList;
  readonly pckCrl: RevocationList;
}

/**
 * What is authentic after the chain rules: signed up to the trusted root by certificates of the right roles, none revoked by CRLs
 * that are authentic themselves.
 * Dates are not in it: what is merely stale is refused by its own rule, and can still be judged by all the others.
 */
export interface ChainOutcome {
  readonly pck: boolean;
  readonly tcbSigner: boolean;
  readonly qeSigner: boolean;
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

/** Which of the signatures over certificates and CRLs hold; started together, each certificate verified once. */
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

/** Every root of the chains given, each once: they share a key, and each has a window, a role and a serial of its own. */
function rootsOf(all: IntelCertificates): readonly Certificate[] {
  return [
    ...new Set([
      all.root,
      all.tcbRoot,
      all.qeRoot,
      ...(all.pckCrlRoot === undefined ? [] : [all.pckCrlRoot]),
    ]),
  ];
}

function pckCasOf(all: IntelCertificates): readonly Certificate[] {
  return [...new Set([all.pckCa, ...(all.pckCrlIssuer === undefined ? [] : [all.pckCrlIssuer])])];
}

/** SHA-256 of the public keys of roots given in place of Intel's, or Intel's own. `known` saves parsing one of them again. */
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
export async function chainRules(
  t: Transcript,
  all: IntelCertificates,
  signatures: ChainSignatures,
  context: {
    readonly now: Date;
    readonly trusted: readonly string[];
    readonly memory?: RollbackMemory | undefined;
  },
): Promise<ChainOutcome> {
  const { now, trusted } = context;
  const R = TDX_RULES;
  const rootTrusted = t.expect(
    R.root,
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
  const pckChain = t.expect(
    R.pckChain,
    pckBroken === undefined,
    pckBroken ?? `PCK is issued by ${nameText(all.pck.issuer)}, that by the root`,
  );
  const tcbBroken = signerChain(all, all.tcbSigner, all.tcbRoot, signatures.tcbSigner);
  const qeBroken = signerChain(all, all.qeSigner, all.qeRoot, signatures.qeSigner);
  t.expect(
    R.pckChain,
    (tcbBroken ?? qeBroken) === undefined,
    tcbBroken ?? qeBroken ?? 'TCB signing certificates are issued by the same root',
  );
  const roles = roleProblems(all);
  const rolesHold = t.expect(
    R.roles,
    roles.length === 0,
    roles[0] ?? 'PCK, PCK CA, TCB signing and root certificates each have their role',
  );
  validity(t, all, now);
  // Only what leads to the trusted root is remembered: strangers must not be able to fill the memory.
  const memory = rootTrusted && pckChain && rolesHold ? context.memory : undefined;
  const clean = await revocationRules(t, all, signatures, {
    now,
    ...(memory === undefined ? {} : { memory }),
  });
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

function validity(t: Transcript, all: IntelCertificates, now: Date): void {
  for (const certificate of new Set([
    all.pck,
    ...pckCasOf(all),
    ...rootsOf(all),
    all.tcbSigner,
    all.qeSigner,
  ])) {
    const problem = validityProblem(certificate, now);
    if (problem !== undefined) {
      t.fail(TDX_RULES.validity, `${nameText(certificate.subject)} at ${now.toISOString()}: ${problem}`);
      return;
    }
  }
  t.pass(TDX_RULES.validity, `all certificates are valid at ${now.toISOString()}`);
}

/** T10. Both CRLs are required, authenticated and current; serials of the leaf, the intermediate and the signers are looked up. */
async function revocationRules(
  t: Transcript,
  all: IntelCertificates,
  signatures: ChainSignatures,
  { now, memory }: { readonly now: Date; readonly memory?: RollbackMemory | undefined },
): Promise<boolean> {
  const R = TDX_RULES;
  const problem =
    crlFault('root CA CRL', all.rootCrl, all.root, signatures.rootCrl) ??
    crlFault('PCK CRL', all.pckCrl, all.pckCa, signatures.pckCrl) ??
    (all.pckCrlIssuer !== undefined && !equalBytes(all.pckCrlIssuer.publicKey.raw, all.pckCa.publicKey.raw)
      ? `PCK CRL issuer chain is of ${nameText(all.pckCrlIssuer.subject)}, the issuer of the PCK is ${nameText(all.pckCa.subject)}`
      : undefined);
  const authentic = t.expect(
    R.crl,
    problem === undefined,
    problem ?? `root CA CRL by the root, PCK CRL by ${nameText(all.pckCa.subject)}`,
  );
  const late = [
    ['root CA CRL', all.rootCrl],
    ['PCK CRL', all.pckCrl],
  ] as const;
  const stale = late.flatMap(([name, { thisUpdate, nextUpdate }]) =>
    now >= thisUpdate && nextUpdate !== undefined && now < nextUpdate
      ? []
      : [
          `${name} is for ${thisUpdate.toISOString()} to ${nextUpdate?.toISOString() ?? 'never'}, now is ${now.toISOString()}`,
        ],
  )[0];
  const current = t.expect(
    R.crlWindow,
    stale === undefined,
    stale ?? `both are current at ${now.toISOString()}`,
  );
  const revoked: readonly (readonly [string, Certificate, RevocationList])[] = [
    ['PCK', all.pck, all.pckCrl],
    ...pckCasOf(all).map((ca) => ['PCK CA', ca, all.rootCrl] as const),
    ['TCB signing', all.tcbSigner, all.rootCrl],
    ['QE identity signing', all.qeSigner, all.rootCrl],
    ...rootsOf(all).map((root) => ['root', root, all.rootCrl] as const),
  ];
  const hit = revoked.find(([, certificate, crl]) => isRevoked(crl, certificate.serial));
  const found = `${all.pckCrl.revoked.length} PCKs and ${all.rootCrl.revoked.length} CAs are revoked, none of them in use`;
  if (hit !== undefined)
    t.fail(R.revocation, `${hit[0]} certificate, serial ${toHex(hit[1].serial)}, is revoked`);
  else if (authentic) t.pass(R.revocation, found);
  else t.skip(R.revocation, 'not known: the lists that would say so are not authentic');
  if (memory !== undefined && authentic && current) await crlMemory(t, all, signatures.rootSpki, memory);
  return authentic && hit === undefined;
}

function crlFault(
  name: string,
  crl: RevocationList,
  issuer: Certificate,
  signed: boolean,
): string | undefined {
  // The window is rule by rule below: here the CRL is looked at as of the moment it was issued.
  const problem = crlProblem(crl, issuer, crl.thisUpdate);
  if (problem !== undefined) return `${name}: ${problem}`;
  if (crl.authorityKeyId === undefined) return `${name}: authorityKeyIdentifier is missing`;
  return signed ? undefined : `${name} is not signed by ${nameText(issuer.subject)}`;
}

async function crlMemory(
  t: Transcript,
  all: IntelCertificates,
  rootSpki: string,
  memory: RollbackMemory,
): Promise<void> {
  for (const [name, { crlNumber, issuer }] of [
    ['root CA CRL', all.rootCrl],
    ['PCK CRL', all.pckCrl],
  ] as const) {
    await notOlder(
      t,
      memory,
      `intel/${rootSpki.slice(0, 16)}/crl/${issuer.commonName ?? ''}`,
      name,
      crlNumber ?? 0n,
    );
  }
}

/** T21: fails when a higher number has been seen under the key; otherwise remembers this one. */
export async function notOlder(
  t: Transcript,
  memory: RollbackMemory,
  key: string,
  name: string,
  value: bigint,
): Promise<boolean> {
  const highest = await memory.highest(key);
  if (highest !== undefined && value < highest) {
    return t.fail(TDX_RULES.rollback, `${name} has number ${value}, ${highest} has been seen`, {
      expected: `>= ${highest}`,
      actual: String(value),
    });
  }
  await memory.remember(key, value);
  return t.pass(TDX_RULES.rollback, `${name} has number ${value}, highest seen before ${highest ?? 'none'}`);
}

/** The quoting library ends the PEM in the quote with a NUL. */
function pemText(bytes: Uint8Array): string {
  let end = bytes.length;
  while (end > 0 && bytes[end - 1] === 0) end--;
  return fromUtf8(bytes.subarray(0, end), 'PCK certificate chain', 'malformed_certificate');
}

function short(hex: string): string {
  return `${hex.slice(0, 16)}…`;
}
