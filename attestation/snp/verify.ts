// Verifies SEV-SNP evidence offline: report, VEK, chain, CRL against a policy at a given time. All rules
// S1–S32 are made and listed even after a failure, so that a refusal is complete; the first failure gives the
// verdict its code. Throws only for input that is not of its format
// (`malformed`) or of a version or product not known (`unsupported`). No field is trusted before its
// signature: `authentic` says whether claims may be believed, `accepted` whether to act.

import { toHex } from '../encoding/bytes.ts';
import { Transcript } from '../transcript/checks.ts';
import { malformed, unsupported } from '../transcript/errors.ts';
import { certificateDer, crlDer } from '../x509/pem.ts';
import { createKeyCache, verifyEcdsaRaw, verifySignedBy, type KeyCache } from '../x509/signature.ts';
import { parseCertificate, parseCrl, type Certificate } from '../x509/certificate.ts';
import { snpClaims, type SnpClaims } from './claims.ts';
import { checkVekChain } from './chain-rules.ts';
import { checkCrl } from './crl-rules.ts';
import { checkGuest } from './guest-rules.ts';
import { checkSnpPlatform } from './platform-rules.ts';
import { decideSnpPolicy, type DecidedSnpPolicy, type SnpPolicy } from './policy.ts';
import { parseReport, reportSignature, signedBytes, type SnpReport } from './report.ts';
import { commonWindow, type TimeWindow } from '../x509/path.ts';
import { checkReportForm } from './form-rules.ts';
import type { Product } from './tcb.ts';
import { productOfCpuid } from './tcb.ts';
import { caRole, parseVek, readVekExtensions, type Vek } from './vek.ts';
import type { SnpEvidence, SnpContext, SnpSubject } from './subject.ts';

/** The verdict of {@link verifySnp} and the values it read. */
export interface SnpVerification {
  readonly transcript: Transcript;
  /** The fields as parsed: signed only where `authentic`. */
  readonly report: SnpReport;
  readonly product: Product;
  /** The fields of the report as JSON; empty unless `authentic`. */
  readonly claims: SnpClaims;
  /** The roots were replaced: no property of AMD hardware is proven. */
  readonly rootsReplaced: boolean;
  /**
   * The report is signed by the VEK of its own chip, TCB and product, of a trusted chain that no authentic
   * CRL revokes; dates and policy aside, its claims are the firmware's.
   */
  readonly authentic: boolean;
  /** No rule failed. */
  readonly accepted: boolean;
  /** In which the certificates and, where one was given, the CRL are valid together. */
  readonly window: TimeWindow;
}

/**
 * @throws AttestationError malformed (`malformed_length`, `malformed_certificate`,
 * `malformed_crl`, `malformed_policy`, `input_too_large`) or unsupported (`snp_version`, `snp_product`);
 * never for evidence that is merely wrong
 * @example const { accepted, claims } = await verifySnp(evidence, { guestPolicy: 'strict' }, { now: new Date() });
 */
export async function verifySnp(
  evidence: SnpEvidence,
  policy: SnpPolicy | DecidedSnpPolicy,
  context: SnpContext,
): Promise<SnpVerification> {
  const decided = decideSnpPolicy(policy);
  if (Number.isNaN(context.now.getTime())) throw malformed('malformed_policy', 'now is not a time');
  // The ARK alone checks three signatures.
  const keys = context.keys ?? createKeyCache();
  // Copies: what the signatures are checked over is what the rules judge, whatever the caller does
  // to its buffers meanwhile.
  const report = parseReport(new Uint8Array(evidence.report));
  const vek = parseVek(certificateDer(evidence.vek, 'VEK'));
  // Signatures are checked on other threads: each check starts as soon as its inputs are
  // parsed, the longest first.
  const signature = reportSignature(report);
  const reportJob = started(
    signature === undefined ? Promise.resolve(false) : verifyReport(vek, signature, report, keys),
  );
  const [intermediateDer, arkDer] = evidence.chain;
  if (intermediateDer === undefined || arkDer === undefined || evidence.chain.length !== 2) {
    throw malformed(
      'malformed_certificate',
      `chain has ${evidence.chain.length} certificates, expected 2: ASK or ASVK, then ARK`,
    );
  }
  const intermediate = parseCertificate(new Uint8Array(intermediateDer), 'ASK or ASVK');
  const vekJob = started(verifySignedBy(vek.certificate, intermediate.publicKey, keys));
  const ark = parseCertificate(new Uint8Array(arkDer), 'ARK');
  const caJobs = started(
    Promise.all([
      verifySignedBy(intermediate, ark.publicKey, keys),
      verifySignedBy(ark, ark.publicKey, keys),
    ]),
  );
  const crl = evidence.crl === undefined ? undefined : parseCrl(crlDer(evidence.crl, 'CRL'), 'CRL');
  const crlJob = started(
    crl === undefined ? Promise.resolve(false) : verifySignedBy(crl, ark.publicKey, keys),
  );
  const product = productLine(report, vek, intermediate, ark);
  const extensions = readVekExtensions(vek.certificate, product, vek.namedKind ?? 'vcek');
  const [reportOk, vekOk, [intermediateOk, arkOk], crlOk] = await Promise.all([
    reportJob,
    vekJob,
    caJobs,
    crlJob,
  ]);

  const subject: SnpSubject = {
    report,
    vek,
    extensions,
    intermediate,
    ark,
    crl,
    product,
    policy: decided,
    context,
    signatures: { report: reportOk, vek: vekOk, intermediate: intermediateOk, ark: arkOk, crl: crlOk },
  };
  const transcript = new Transcript();
  const formOk = checkReportForm(subject, transcript);
  const chainOk = checkVekChain(subject, transcript);
  const unrevoked = await checkCrl(subject, transcript, chainOk);
  checkSnpPlatform(subject, transcript);
  checkGuest(subject, transcript);
  const authentic = formOk && chainOk && unrevoked;
  if (!authentic) transcript.unauthenticated(SNP_PROVENANCE);
  return {
    transcript,
    report,
    product,
    claims: authentic ? snpClaims(subject) : {},
    rootsReplaced: context.roots !== undefined,
    authentic,
    accepted: !transcript.failed,
    window: commonWindow([vek.certificate, intermediate, ark], crl === undefined ? [] : [crl]),
  };
}

/** Rows that ask where a report comes from. What the others read is the report's own word. */
const SNP_PROVENANCE: ReadonlySet<string> = new Set(
  'S1 S2 S3 S4 S5 S8 S10 S11 S12 S13 S15 S18 S19 S20'.split(' '),
);

/** A promise whose rejection is seen even when parsing throws before it is awaited. */
function started<T>(job: Promise<T>): Promise<T> {
  job.catch(() => undefined);
  return job;
}

async function verifyReport(
  vek: Vek,
  signature: Uint8Array,
  report: SnpReport,
  keys: KeyCache,
): Promise<boolean> {
  const { publicKey } = vek.certificate;
  if (publicKey.kind !== 'ec' || publicKey.curve !== 'P-384') return false;
  return verifyEcdsaRaw(publicKey, 'SHA-384', { bytes: signedBytes(report), signature }, keys);
}

/**
 * Which product's layouts to read by: the first of root, intermediate, VEK issuer and CPUID that names
 * one. S10 compares them all.
 */
function productLine(report: SnpReport, vek: Vek, intermediate: Certificate, ark: Certificate): Product {
  const lines = [
    caRole(ark.subject.commonName)?.line,
    caRole(intermediate.subject.commonName)?.line,
    caRole(vek.certificate.issuer.commonName)?.line,
    report.cpuidFamily === undefined ? undefined : productOfCpuid(report.cpuidFamily, report.cpuidModel ?? 0),
  ];
  for (const line of lines) if (line === 'Milan' || line === 'Genoa' || line === 'Turin') return line;
  const found =
    lines.find((line) => line !== undefined) ??
    `issuer ${toHex(vek.certificate.issuer.raw.subarray(0, 16))}…`;
  throw unsupported('snp_product', `product ${found} is not one of Milan, Genoa, Turin`, {
    check: 'S10',
    expected: 'Milan, Genoa or Turin',
    actual: found,
  });
}
