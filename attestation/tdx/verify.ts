// Verification of Intel TDX evidence: rules T1 to T28 and, when an event log is given, E1 to E3. Reads as: parse everything,
// check every signature at once, then judge. No JSON, certificate field or level is used before the signature over it held.
// Malformed or unsupported input throws a typed AttestationError; a rule that fails is in the transcript, and every rule that
// can still be judged is. Acceptance needs each required rule to have passed: a skip is never a pass.

import { sha256 } from '@noble/hashes/sha2.js';
import { concatBytes, equalBytes, isZero, toHex, utf8 } from '../encoding/bytes.ts';
import { Transcript, type Rule } from '../transcript/checks.ts';
import { AttestationError, malformed, unsupported } from '../transcript/errors.ts';
import type { RollbackMemory } from '../transcript/rollback-memory.ts';
import { ecPublicKeyFromPoint } from '../x509/public-key.ts';
import { createKeyCache, verifyEcdsaRaw, type KeyCache } from '../x509/signature.ts';
import {
  chainRules,
  notOlder,
  parseCertificates,
  trustedRoots,
  verifyChainSignatures,
  type IntelCertificates,
} from './chain.ts';
import {
  cutSigned,
  parseQeIdentity,
  parseTcbInfo,
  type QeIdentity,
  type TcbInfo,
  type TdxCollateral,
} from './collateral.ts';
import { eventLogRules } from './eventlog-rules.ts';
import { parsePckExtensions, pckClaims, SGX_EXTENSIONS_OID, type PckExtensions } from './pck.ts';
import { decideTdxPolicy, type DecidedTdxPolicy, type TdxPolicy } from './policy.ts';
import { parseTdxQuote, quoteClaims, type TdxQuote } from './quote.ts';
import { TDX_RULES } from './rules.ts';
import { isIntelModule } from './tcb.ts';
import { qeRules, tcbRules, type TdxTcb } from './tcb-rules.ts';
import { platformRules, tdRules } from './td.ts';

export interface TdxEvidence {
  /** The raw quote, as the quoting enclave wrote it. */
  readonly quote: Uint8Array;
  readonly collateral: TdxCollateral;
  /** CCEL, or a dstack event log in JSON. */
  readonly eventLog?: Uint8Array | undefined;
}

export interface TdxContext {
  /** Every window is judged at this moment; there is no other clock. */
  readonly now: Date;
  /** DER certificates that replace the pinned Intel root; the result says so. */
  readonly roots?: readonly Uint8Array[] | undefined;
  readonly memory?: RollbackMemory | undefined;
  /** Imported public keys, kept between verifications by callers who make many. */
  readonly keys?: KeyCache | undefined;
}

export interface TdxVerification {
  readonly transcript: Transcript;
  /** The fields as parsed: nothing vouches for them unless `authentic`. */
  readonly quote: TdxQuote;
  /** Field values in hex; empty unless `authentic`. */
  readonly claims: Record<string, unknown>;
  readonly tcb: TdxTcb;
  readonly rootsReplaced: boolean;
  /**
   * Made by Intel's quoting enclave for a TD on Intel's module, signed up to a trusted root, nothing revoked by authentic CRLs:
   * policy, dates and TCB aside, the quote is what it says.
   */
  readonly authentic: boolean;
  readonly accepted: boolean;
}

/** What has to have passed whatever the policy: the rest are the policy's, or cannot apply to every quote. */
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

/** Verifies a quote with its collateral at `context.now`. Throws only for malformed or unsupported input. */
export async function verifyTdx(
  evidence: TdxEvidence,
  given: TdxPolicy,
  context: TdxContext,
): Promise<TdxVerification> {
  if (Number.isNaN(context.now.getTime())) throw malformed('malformed_policy', 'now is not a time');
  const policy = decideTdxPolicy(given);
  // A copy: what the signatures are checked over is what the rules judge, whatever the caller does to its buffer meanwhile.
  const quote = parseTdxQuote(new Uint8Array(evidence.quote));
  const pckChain =
    quote.certificationType === 5 ? quote.certificationData : externalPckChain(quote, evidence.collateral);
  const { collateral } = evidence;
  const keys = context.keys ?? createKeyCache();
  // Signature checks run on other threads: each is started as soon as its inputs are parsed, and awaited below.
  // The attestation key lives as long as the QE: not worth a place in the cache.
  const attestationKey = ecPublicKeyFromPoint(concatBytes(Uint8Array.of(4), quote.attestationKey), 'P-256');
  const quoteJob = started(verifyEcdsaRaw(attestationKey, 'SHA-256', quote.signature, quote.signed));
  const certificates = parseCertificates(pckChain, collateral);
  const chainJob = started(verifyChainSignatures(certificates, keys));
  const qeJob = started(
    verifyEcdsaRaw(certificates.pck.publicKey, 'SHA-256', quote.qeReportSignature, quote.qeReportBytes, keys),
  );
  const signedTcbInfo = cutSigned(collateral.tcbInfo, 'tcbInfo');
  const tcbInfoJob = started(
    verifyEcdsaRaw(
      certificates.tcbSigner.publicKey,
      'SHA-256',
      signedTcbInfo.signature,
      signedTcbInfo.bytes,
      keys,
    ),
  );
  const signedQeIdentity = cutSigned(collateral.qeIdentity, 'enclaveIdentity');
  const qeIdentityJob = started(
    verifyEcdsaRaw(
      certificates.qeSigner.publicKey,
      'SHA-256',
      signedQeIdentity.signature,
      signedQeIdentity.bytes,
      keys,
    ),
  );
  const [chainSignatures, quoteSigned, qeSigned, tcbInfoSigned, qeIdentitySigned] = await Promise.all([
    chainJob,
    quoteJob,
    qeJob,
    tcbInfoJob,
    qeIdentityJob,
  ]);

  const bound = sha256(concatBytes(quote.attestationKey, quote.qeAuthData));
  const trusted = trustedRoots(context.roots, certificates.root);

  const t = new Transcript();
  const R = TDX_RULES;
  shapeRules(t, quote);
  const quoteHolds = t.expect(
    R.quoteSignature,
    quoteSigned,
    signature('header and body', quoteSigned, 'the attestation key'),
  );
  const keyHolds = t.expect(
    R.attestationKey,
    vouches(quote, bound),
    'QE REPORTDATA against SHA-256(attestation key, authentication data)',
    {
      expected: toHex(bound),
      actual: toHex(quote.qeReport.reportData),
    },
  );
  const qeHolds = t.expect(R.qeSignature, qeSigned, signature('QE report', qeSigned, 'the PCK'));
  const chain = await chainRules(t, certificates, chainSignatures, { ...context, trusted });
  const pck = pckRules(t, certificates, chain.pck);
  const tcbInfoHolds = t.expect(
    R.tcbInfoSignature,
    tcbInfoSigned,
    signature('TCB info', tcbInfoSigned, 'the TCB signing key'),
  );
  const tcbInfo =
    chain.tcbSigner && tcbInfoHolds
      ? await tcbInfoRules(t, parseTcbInfo(signedTcbInfo.text), context, policy, chainSignatures.rootSpki)
      : undefined;
  const qeIdentityHolds = t.expect(
    R.qeIdentitySignature,
    qeIdentitySigned,
    signature('QE identity', qeIdentitySigned, 'the TCB signing key'),
  );
  const qeIdentity =
    chain.qeSigner && qeIdentityHolds
      ? await qeIdentityRules(
          t,
          parseQeIdentity(signedQeIdentity.text),
          context,
          policy,
          chainSignatures.rootSpki,
        )
      : undefined;
  noteMixedNumbers(t, tcbInfo, qeIdentity);
  // A PCK certifies a platform: any enclave on it can have a quote signed. That it was Intel's is the QE identity's to say.
  const qe = qeRules(t, quoteHolds && keyHolds && qeHolds && chain.pck ? quote : undefined, qeIdentity);
  const vouched = qe.isIntels ? quote : undefined;
  const tcb = tcbRules(t, { quote: vouched, pck, tcbInfo, qeIdentity, qe: qe.level }, policy, context.now);
  const authentic = vouched !== undefined && isIntelModule(vouched.body, tcbInfo);
  tdRules(t, quote.body, policy);
  platformRules(t, pck, certificates.pck, policy);
  await eventLogRules(t, quote.body, evidence.eventLog && new Uint8Array(evidence.eventLog));

  const passed = new Set(t.checks.flatMap(({ title, status }) => (status === 'pass' ? [title] : [])));
  const accepted = !t.failed && REQUIRED.every(({ title }) => passed.has(title));
  if (!authentic) t.unauthenticated(TDX_PROVENANCE);
  const claims = authentic
    ? { ...quoteClaims(quote), ...(pck === undefined ? {} : pckClaims(pck)), ...tcbClaims(tcb) }
    : {};
  return {
    transcript: t,
    quote,
    claims,
    tcb,
    rootsReplaced: context.roots !== undefined,
    authentic,
    accepted,
  };
}

/** Types 1 to 4 name the PCK without carrying it: it then has to come with the collateral. The QE report's signature proves it. */
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

const INTEL_QE_VENDOR = '939a7233f79c4ca9940a0db3957f0607';

/** T1 to T3: what the parser made sure of is recorded, what it left to judge is judged. */
function shapeRules(t: Transcript, quote: TdxQuote): void {
  const R = TDX_RULES;
  const vendor = toHex(quote.header.qeVendorId);
  const headerOk = vendor === INTEL_QE_VENDOR && isZero(quote.header.reserved);
  t.expect(
    R.header,
    headerOk,
    `version ${quote.version}, ECDSA P-256, TDX, QE vendor ${vendor}, reserved ${toHex(quote.header.reserved)}`,
    {
      expected: INTEL_QE_VENDOR,
      actual: vendor,
    },
  );
  t.pass(R.body, `body type ${quote.bodyType} (TD ${quote.bodyType === 2 ? '1.0' : '1.5'})`);
  t.pass(R.signatureData, 'all lengths consume exactly their bytes');
  const zero = isZero(quote.trailing);
  t.expect(
    R.trailing,
    zero,
    quote.trailing.length === 0
      ? 'none'
      : `${quote.trailing.length} bytes, ${zero ? 'all zero' : 'not all zero'}`,
  );
}

/** T5. The hash covers exactly the 64 key bytes and the authentication data; the second half is zero. */
function vouches(quote: TdxQuote, bound: Uint8Array): boolean {
  const { reportData } = quote.qeReport;
  return equalBytes(reportData.subarray(0, 32), bound) && isZero(reportData.subarray(32));
}

function pckRules(
  t: Transcript,
  certificates: IntelCertificates,
  chainHolds: boolean,
): PckExtensions | undefined {
  const R = TDX_RULES;
  if (!chainHolds) {
    t.skip(R.pckExtensions, 'not read: the PCK certificate could not be relied on');
    return undefined;
  }
  const extension = certificates.pck.extensions.get(SGX_EXTENSIONS_OID);
  if (extension === undefined) {
    t.fail(R.pckExtensions, 'PCK has no SGX extensions');
    return undefined;
  }
  try {
    const pck = parsePckExtensions(extension.value);
    const platform = certificates.pckCa.subject.commonName === 'Intel SGX PCK Platform CA';
    if (platform !== (pck.platformInstanceId !== undefined)) {
      t.fail(
        R.pckExtensions,
        `platform instance id is ${platform ? 'missing in a PCK of the Platform CA' : 'there in a PCK of the Processor CA'}`,
      );
      return undefined;
    }
    t.pass(
      R.pckExtensions,
      `FMSPC ${toHex(pck.fmspc)}, PCEID ${toHex(pck.pceId)}, PCESVN ${pck.pceSvn}, CPUSVN ${toHex(pck.cpuSvn)}`,
    );
    return pck;
  } catch (error) {
    if (!(error instanceof AttestationError)) throw error;
    t.fail(R.pckExtensions, error.message);
    return undefined;
  }
}

async function tcbInfoRules(
  t: Transcript,
  info: TcbInfo,
  context: TdxContext,
  policy: DecidedTdxPolicy,
  rootSpki: string,
): Promise<TcbInfo | undefined> {
  const R = TDX_RULES;
  const kind = t.expect(
    R.tcbInfo,
    info.id === 'TDX' && info.version === 3 && info.tcbType === 0,
    `id ${info.id}, version ${info.version}, tcbType ${info.tcbType}`,
    {
      expected: 'TDX, 3, 0',
      actual: `${info.id}, ${info.version}, ${info.tcbType}`,
    },
  );
  const current = windowRule(t, R.tcbInfoWindow, 'TCB info', info, context.now);
  if (kind)
    await evaluationRules(
      t,
      'TCB info',
      info,
      current,
      context,
      policy,
      `intel/${rootSpki.slice(0, 16)}/tcbInfo/${toHex(info.fmspc)}`,
    );
  // Stale but authentic: refused above, and still judged below so that everything wrong is listed.
  return kind ? info : undefined;
}

async function qeIdentityRules(
  t: Transcript,
  identity: QeIdentity,
  context: TdxContext,
  policy: DecidedTdxPolicy,
  rootSpki: string,
): Promise<QeIdentity | undefined> {
  const R = TDX_RULES;
  const kind = identity.id === 'TD_QE' && identity.version === 2;
  if (!kind)
    t.fail(
      R.qeIdentity,
      `enclave identity is ${identity.id} version ${identity.version}, expected TD_QE version 2`,
    );
  const current = windowRule(t, R.qeIdentityWindow, 'QE identity', identity, context.now);
  if (kind)
    await evaluationRules(
      t,
      'QE identity',
      identity,
      current,
      context,
      policy,
      `intel/${rootSpki.slice(0, 16)}/qeIdentity`,
    );
  return kind ? identity : undefined;
}

/** Intel publishes both with one number; two numbers are collateral of two publications, which no rule refuses. */
function noteMixedNumbers(t: Transcript, info: TcbInfo | undefined, identity: QeIdentity | undefined): void {
  if (info === undefined || identity === undefined) return;
  const numbers = [info.tcbEvaluationDataNumber, identity.tcbEvaluationDataNumber] as const;
  if (numbers[0] === numbers[1]) return;
  t.skip(
    TDX_RULES.evaluationNumber,
    `note: TCB info has ${numbers[0]} and QE identity ${numbers[1]}: they are of two publications; fetch both anew with the same \`update\``,
  );
}

function windowRule(
  t: Transcript,
  rule: Rule,
  name: string,
  { issueDate, nextUpdate }: { issueDate: Date; nextUpdate: Date },
  now: Date,
): boolean {
  return t.expect(
    rule,
    issueDate <= now && now < nextUpdate,
    `${name} is for ${issueDate.toISOString()} to ${nextUpdate.toISOString()}, now is ${now.toISOString()}`,
  );
}

/** T21, for each of the two documents that carry the number. Only what is current is compared with memory and remembered. */
async function evaluationRules(
  t: Transcript,
  name: string,
  { tcbEvaluationDataNumber: number }: { readonly tcbEvaluationDataNumber: number },
  current: boolean,
  context: TdxContext,
  policy: DecidedTdxPolicy,
  key: string,
): Promise<void> {
  const R = TDX_RULES;
  const floor = policy.minimumTcbEvaluationDataNumber;
  if (floor === undefined) t.skip(R.evaluationNumber, `no floor in the policy; ${name} has ${number}`);
  else
    t.expect(R.evaluationNumber, number >= floor, `${name} has ${number}, floor is ${floor}`, {
      expected: `>= ${floor}`,
      actual: String(number),
    });
  if (context.memory === undefined) t.skip(R.rollback, `${name}: no memory of earlier collateral was given`);
  else if (current) await notOlder(t, context.memory, key, name, BigInt(number));
  else t.skip(R.rollback, `${name} is not current and was not compared with memory`);
}

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

function signature(what: string, holds: boolean, key: string): string {
  return holds ? `${what} signed by ${key}` : `the signature over the ${what} is not by ${key}`;
}
