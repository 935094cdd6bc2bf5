// Verification of Intel TDX evidence: rules T1 to T28 and, when an event log is given, E1 to E3. Reads as:
// parse everything, check every signature at once, then judge. No JSON, certificate field or level is used
// before the signature over it held. Malformed or unsupported input throws a typed AttestationError; a rule
// that fails is in the transcript, and every rule that can still be judged is. Acceptance needs each required
// rule to have passed: a skip is never a pass.

import { concatBytes, utf8 } from '../encoding/bytes.ts';
import { Transcript, type Rule } from '../transcript/checks.ts';
import { malformed, unsupported } from '../transcript/errors.ts';
import { ecPublicKeyFromPoint, type PublicKeyInfo } from '../x509/public-key.ts';
import { createKeyCache, verifyEcdsaRaw, type KeyCache, type SignedBytes } from '../x509/signature.ts';
import { commonWindow, type TimeWindow } from '../x509/path.ts';
import {
  type IntelCertificates,
  parseCertificates,
  pckCasOf,
  rootsOf,
  verifyChainSignatures,
} from './certificates.ts';
import { checkPckChain, trustedRoots } from './chain-rules.ts';
import { checkQeIdentity, checkTcbInfo, noteMixedNumbers } from './collateral-rules.ts';
import { cutSigned, type QeIdentity, type TcbInfo, type TdxCollateral } from './collateral.ts';
import { checkEventLog } from './eventlog-rules.ts';
import { checkPck, checkQuoteForm } from './form-rules.ts';
import { pckClaims } from './pck.ts';
import { decideTdxPolicy, type DecidedTdxPolicy, type TdxPolicy } from './policy.ts';
import { parseTdxQuote, quoteClaims, type TdxQuote } from './quote.ts';
import { TDX_RULES } from './rules.ts';
import type { TdxContext, TdxEvidence, TdxSubject } from './subject.ts';
import { isIntelModule } from './tcb.ts';
import { checkQe, checkTcb, type TdxTcb } from './tcb-rules.ts';
import { checkPckPlatform, checkTd } from './td-rules.ts';

/** The verdict of {@link verifyTdx} and the values it read. */
export interface TdxVerification {
  readonly transcript: Transcript;
  /** The fields as parsed: signed only where `authentic`. */
  readonly quote: TdxQuote;
  /** Field values in hex; empty unless `authentic`. */
  readonly claims: Record<string, unknown>;
  readonly tcb: TdxTcb;
  readonly rootsReplaced: boolean;
  /**
   * Made by Intel's quoting enclave for a TD on Intel's module, signed up to a trusted root, no certificate
   * revoked by authentic CRLs: policy, dates and TCB aside, the quote is what it says.
   */
  readonly authentic: boolean;
  readonly accepted: boolean;
  /** In which certificates, CRLs, TCB info and QE identity are valid together; undefined unless accepted. */
  readonly window: TimeWindow | undefined;
}

/** Rules that must pass whatever the policy: the rest are the policy's, or cannot apply to every quote. */
const REQUIRED: readonly Rule[] = [
  TDX_RULES.header,
  TDX_RULES.body,
  TDX_RULES.signatureData,
  TDX_RULES.trailing,
  TDX_RULES.quoteSignature,
  TDX_RULES.attestationKey,
  TDX_RULES.qeSignature,
  TDX_RULES.pckChain,
  TDX_RULES.root,
  TDX_RULES.roles,
  TDX_RULES.validity,
  TDX_RULES.crl,
  TDX_RULES.crlWindow,
  TDX_RULES.revocation,
  TDX_RULES.pckExtensions,
  TDX_RULES.tcbInfo,
  TDX_RULES.tcbInfoSignature,
  TDX_RULES.tcbInfoWindow,
  TDX_RULES.platform,
  TDX_RULES.module,
  TDX_RULES.platformTcb,
  TDX_RULES.convergence,
  TDX_RULES.level,
  TDX_RULES.qeIdentity,
  TDX_RULES.qeIdentitySignature,
  TDX_RULES.qeIdentityWindow,
  TDX_RULES.qeTcb,
  TDX_RULES.status,
  TDX_RULES.debug,
  TDX_RULES.reservedAttributes,
  TDX_RULES.xfamBits,
  TDX_RULES.seamAttributes,
];

/**
 * Verifies a quote with its collateral at `context.now`. Throws only for malformed or unsupported input.
 * @example const { accepted, tcb } = await verifyTdx({ quote, collateral }, {}, { now: new Date() });
 */
export async function verifyTdx(
  evidence: TdxEvidence,
  policy: TdxPolicy | DecidedTdxPolicy,
  context: TdxContext,
): Promise<TdxVerification> {
  if (Number.isNaN(context.now.getTime())) throw malformed('malformed_policy', 'now is not a time');
  const subject = await readSubject(evidence, decideTdxPolicy(policy), context);
  const { quote, certificates } = subject;
  const transcript = new Transcript();
  const formHolds = checkQuoteForm(subject, transcript);
  const chain = await checkPckChain(subject, transcript);
  const pck = checkPck(subject, transcript, chain.pck);
  const tcbInfo = await checkTcbInfo(subject, transcript, chain.tcbSigner);
  const qeIdentity = await checkQeIdentity(subject, transcript, chain.qeSigner);
  noteMixedNumbers(transcript, tcbInfo, qeIdentity);
  // A PCK certifies a platform: any enclave on it can have a quote signed. The QE identity
  // shows whether it was Intel's.
  const qe = checkQe(formHolds && chain.pck ? quote : undefined, transcript, qeIdentity);
  const vouched = qe.isIntels ? quote : undefined;
  const tcb = checkTcb(
    { quote: vouched, pck, tcbInfo, qeIdentity, qe: qe.level },
    transcript,
    subject.policy,
    context.now,
  );
  const authentic = vouched !== undefined && isIntelModule(vouched.body, tcbInfo);
  checkTd(subject, transcript);
  checkPckPlatform(subject, transcript, pck && { ...pck, serial: certificates.pck.serial });
  await checkEventLog(subject, transcript);

  const passed = new Set(
    transcript.checks.flatMap(({ title, status }) => (status === 'pass' ? [title] : [])),
  );
  const accepted = !transcript.failed && REQUIRED.every(({ title }) => passed.has(title));
  if (!authentic) transcript.unauthenticated(TDX_PROVENANCE);
  return {
    transcript,
    quote,
    claims: authentic ? { ...quoteClaims(quote), ...(pck && pckClaims(pck)), ...tcbClaims(tcb) } : {},
    tcb,
    rootsReplaced: context.roots !== undefined,
    authentic,
    accepted,
    window: accepted ? windowOf(certificates, [tcbInfo, qeIdentity]) : undefined,
  };
}

function windowOf(
  all: IntelCertificates,
  documents: readonly (TcbInfo | QeIdentity | undefined)[],
): TimeWindow {
  const certificates = [all.pck, ...pckCasOf(all), ...rootsOf(all), all.tcbSigner, all.qeSigner];
  const dated = documents.flatMap((each) => (each === undefined ? [] : [each]));
  const lists = dated.map(({ issueDate, nextUpdate }) => ({ thisUpdate: issueDate, nextUpdate }));
  return commonWindow(certificates, [all.rootCrl, all.pckCrl, ...lists]);
}

/**
 * Parses everything and checks every signature: on other threads, each started as soon as its inputs are
 * parsed.
 */
async function readSubject(
  evidence: TdxEvidence,
  policy: DecidedTdxPolicy,
  context: TdxContext,
): Promise<TdxSubject> {
  const { collateral } = evidence;
  // A copy: what the signatures are checked over is what the rules judge, whatever the caller does
  // to its buffer meanwhile.
  const quote = parseTdxQuote(new Uint8Array(evidence.quote));
  const pckChain =
    quote.certificationType === 5 ? quote.certificationData : externalPckChain(quote, collateral);
  const keys = context.keys ?? createKeyCache();
  const verify = (signer: PublicKeyInfo, signed: SignedBytes, cache?: KeyCache): Promise<boolean> =>
    started(verifyEcdsaRaw(signer, 'SHA-256', signed, cache));
  // The attestation key lives as long as the QE: not worth a place in the cache.
  const attestationKey = ecPublicKeyFromPoint(concatBytes(Uint8Array.of(4), quote.attestationKey), 'P-256');
  const quoteJob = verify(attestationKey, { bytes: quote.signed, signature: quote.signature });
  const certificates = parseCertificates(pckChain, collateral);
  const chainJob = started(verifyChainSignatures(certificates, keys));
  const qeReport = { bytes: quote.qeReportBytes, signature: quote.qeReportSignature };
  const qeJob = verify(certificates.pck.publicKey, qeReport, keys);
  const tcbInfo = cutSigned(collateral.tcbInfo, 'tcbInfo');
  const tcbInfoJob = verify(certificates.tcbSigner.publicKey, tcbInfo, keys);
  const qeIdentity = cutSigned(collateral.qeIdentity, 'enclaveIdentity');
  const qeIdentityJob = verify(certificates.qeSigner.publicKey, qeIdentity, keys);
  const signatures = {
    chain: await chainJob,
    quote: await quoteJob,
    qeReport: await qeJob,
    tcbInfo: await tcbInfoJob,
    qeIdentity: await qeIdentityJob,
  };
  return {
    quote,
    certificates,
    trusted: trustedRoots(context.roots, certificates.root),
    tcbInfo,
    qeIdentity,
    eventLog: evidence.eventLog && new Uint8Array(evidence.eventLog),
    policy,
    context,
    signatures,
  };
}

/**
 * Types 1 to 4 name the PCK without carrying it: it then has to come with the collateral. The QE
 * report's signature proves it.
 */
function externalPckChain({ certificationType }: TdxQuote, { pckChain }: TdxCollateral): Uint8Array {
  if (pckChain !== undefined) return utf8(pckChain);
  throw unsupported(
    'tdx_certification_data',
    `QE certification data is of type ${certificationType}: it names a PCK, and its certificate chain was not given`,
    {
      check: 'T6',
      expected: 'type 5 (PCK certificate chain), or the chain beside the quote',
      actual: `type ${certificationType}`,
      hint: 'give the chain in PEM, leaf first, as `pck_chain` of the collateral; the owner of the platform can get it from Intel',
    },
  );
}

/** Rows that ask where a quote comes from. What the others read is the quote's own word. */
const TDX_PROVENANCE: ReadonlySet<string> = new Set(
  'T1 T2 T3 T4 T5 T6 T7 T8 T9 T10 T11 T12 T13 T19 T21'.split(' '),
);

/** A promise whose rejection is seen even when parsing throws before it is awaited. */
function started<T>(job: Promise<T>): Promise<T> {
  job.catch(() => undefined);
  return job;
}

function tcbClaims(tcb: TdxTcb): Record<string, unknown> {
  return {
    ...(tcb.status === undefined ? {} : { tcbStatus: tcb.status }),
    ...(tcb.now === undefined ? {} : bothStatuses(tcb, tcb.now)),
    ...(tcb.tcbDate === undefined ? {} : { tcbDate: tcb.tcbDate.toISOString() }),
    // None open is a claim too: not made when a part could not be judged.
    ...(tcb.status === undefined ? {} : { advisoryIds: tcb.advisoryIds }),
    ...(tcb.evaluationDataNumber === undefined ? {} : { tcbEvaluationDataNumber: tcb.evaluationDataNumber }),
  };
}

/** A TD 1.5 body has two SVNs: the one policies judge is in `tcbStatus`, where it comes from is here. */
function bothStatuses(
  { atLaunch, module }: TdxTcb,
  now: NonNullable<TdxTcb['now']>,
): Record<string, unknown> {
  const claims = {
    tcbStatusAtLaunch: atLaunch,
    tcbStatusNow: now.status,
    moduleStatusAtLaunch: module,
    moduleStatusNow: now.module,
  };
  return Object.fromEntries(Object.entries(claims).filter(([, status]) => status !== undefined));
}
