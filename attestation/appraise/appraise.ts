// The verdict (docs/protocol.md §7): document × policy × this connection × now → an AttestationResult, which nothing else can
// make, or an AttestationError with the complete transcript. Reads as six calls. No network, no clock, no randomness here.
// Refused: any failed rule. A rule that was skipped is never a pass, and those that must hold fail instead of being skipped.

import { sha256 } from '@noble/hashes/sha2.js';
import { type Hardware, type HardwareOptions, verifyHardware } from './hardware.ts';
import { bindChannel, bindClaims, bindModels, compareRepeats } from './bind.ts';
import { concatBytes, fromBase64, toHex } from '../encoding/bytes.ts';
import { type Check, Transcript } from '../transcript/checks.ts';
import type { Claims } from '../protocol/claims.ts';
import type { AttestationDocument, SnpEndorsements, TdxEndorsements, TeeType } from '../protocol/document.ts';
import { AttestationError, refused, withTranscript } from '../transcript/errors.ts';
import { type AppraisalPolicy, type Policy, parsePolicy } from './policy.ts';
import type { Reference } from './references.ts';
import { hintsOnDemand } from './hints-on-demand.ts';
import { RULES } from './rules.ts';
import { AMD_ROOTS } from '../snp/roots.ts';
import { INTEL_ROOT_DER_SHA256 } from '../tdx/roots.ts';

/** The values {@link verify} compares a document with: this connection, this moment and the policy. */
export interface VerifyOptions extends HardwareOptions {
  /** The challenge this verifier drew for this connection. */
  readonly nonce: Uint8Array;
  /** 32 bytes of TLS exporter, label EXPORTER-assay-attestation-v1, context = nonce; undefined where there is none. */
  readonly exporter: Uint8Array | undefined;
  /** DER SubjectPublicKeyInfo of the peer, read from the socket. */
  readonly peerSpki: Uint8Array;
  /** What the socket says of its handshake; absent where the platform does not tell. */
  readonly tls?: { readonly version: string; readonly resumed: boolean } | undefined;
  readonly policy: AppraisalPolicy | Policy;
  /** The model id that was asked for; default all models. */
  readonly model?: string | undefined;
}

export type { EndorsementRequest, EndorsementSource } from './hardware.ts';

declare const verified: unique symbol;

/** Proof that a document passed. Only `verify` makes one; `isAttestationResult` tells it from look-alikes. */
export interface AttestationResult {
  readonly [verified]: true;
  readonly teeType: TeeType;
  /** Nothing about hardware is proven. */
  readonly simulated: boolean;
  /** Freshness and connection are not proven. */
  readonly certificateAlone: boolean;
  /** Hex: MEASUREMENT or MRTD. */
  readonly measurement: string;
  /** What the policy calls this build. */
  readonly build: string | undefined;
  /** Milan, Genoa, Turin; undefined for TDX. */
  readonly product: string | undefined;
  /** Hex: CHIP_ID or PPID; undefined when masked. */
  readonly chip: string | undefined;
  /** Model id → SHA-256 in hex: what this server serves, all of it. */
  readonly models: ReadonlyMap<string, string>;
  readonly config: string;
  readonly receiptKey: string;
  readonly hpkeKey: string;
  readonly tlsSpki: string;
  /** Guest clock, seconds since 1970; informative. */
  readonly issuedAt: number;
  /** Milliseconds since 1970 on the verifier's clock. */
  readonly verifiedAt: number;
  /** The vendor's fields, as the evidence gives them. */
  readonly evidence: Readonly<Record<string, unknown>>;
  readonly transcript: readonly Check[];
}

const results = new WeakSet<object>();

/**
 * Whether `value` is a result that {@link verify} made in this process; a copy of one, or JSON of the same shape, is not.
 * @example if (!isAttestationResult(value)) throw new TypeError("this was not verified here");
 */
export function isAttestationResult(value: unknown): value is AttestationResult {
  return typeof value === 'object' && value !== null && results.has(value);
}

/**
 * The verdict on a document for this connection (docs/protocol.md §7). `now` is milliseconds since 1970.
 * @throws AttestationError `refused` with the transcript; `malformed` or `unsupported` for evidence that cannot be read
 *
 * @example
 * const result = await verify(parseDocument(text), { policy, nonce, exporter, peerSpki, now: Date.now() });
 * console.log(result.build, [...result.models.keys()]);
 */
export async function verify(
  document: AttestationDocument,
  options: VerifyOptions,
): Promise<AttestationResult> {
  const policy = parsePolicy(options.policy);
  const t = new Transcript();
  try {
    return await appraise(t, document, policy, options);
  } catch (error) {
    // Evidence that cannot be read ends the appraisal where it is: what was found before belongs to the refusal.
    throw error instanceof AttestationError ? withTranscript(error, [...t.checks]) : error;
  }
}

async function appraise(
  t: Transcript,
  document: AttestationDocument,
  policy: Policy,
  options: VerifyOptions,
): Promise<AttestationResult> {
  const found = await appraiseDocument(t, document, policy, options);
  const { hardware, claims, from } = found;
  recordHandshake(t, options.tls);
  const certificateAlone = bindChannel(t, claims, {
    ...options,
    certificateAlone: policy.danger.certificateChannel,
  });
  const build = applyPolicy(t, document, policy, found);
  // What is compared from here on rests on the report: where nobody vouches for that, nobody vouches for anything.
  if (!hardware.authentic) t.unauthenticated(NO_PROVENANCE, from);
  return await conclude(t, { document, options, hardware, claims, certificateAlone, build });
}

interface Appraised {
  readonly hardware: Hardware;
  readonly claims: Claims | undefined;
  /** Where in the transcript the rules begin that read the document. */
  readonly from: number;
}

/** Hardware and claims: all that does not need the connection. */
async function appraiseDocument(
  t: Transcript,
  document: AttestationDocument,
  policy: Policy,
  options: HardwareOptions & Pick<VerifyOptions, 'model'>,
): Promise<Appraised> {
  const admitted = admitTee(t, document, policy);
  const hardware = await verifyHardware(t, document, policy, options, admitted);
  const from = t.checks.length;
  const claims = bindClaims(t, document, hardware);
  compareRepeats(t, document, hardware, claims);
  bindModels(t, document, claims, options.model);
  return { hardware, claims, from };
}

declare const archived: unique symbol;

/** What kept evidence came to. Not an `AttestationResult`: it proves nothing about any connection. */
export type ArchivedResult = Omit<AttestationResult, typeof verified> & { readonly [archived]: true };

const ARCHIVED =
  'archived: nonce, exporter, TLS key and handshake are the word of the archiver, and prove nothing about a connection';

/**
 * Judges kept evidence at `now`, by what is stapled to it.
 * @throws AttestationError as `verify` does
 */
export async function verifyArchived(
  document: AttestationDocument,
  options: { readonly policy: AppraisalPolicy | Policy; readonly now: number },
): Promise<ArchivedResult> {
  const policy = parsePolicy(options.policy);
  const t = new Transcript();
  try {
    const found = await appraiseDocument(t, document, policy, { now: options.now });
    const { hardware, claims, from } = found;
    for (const rule of CHANNEL_RULES) t.skip(rule, ARCHIVED);
    const build = applyPolicy(t, document, policy, found);
    if (!hardware.authentic) t.unauthenticated(NO_PROVENANCE, from);
    const findings = { document, options, hardware, claims, certificateAlone: true, build };
    return Object.freeze(await resultOf(t, findings)) as ArchivedResult;
  } catch (error) {
    throw error instanceof AttestationError ? withTranscript(error, [...t.checks]) : error;
  }
}

const CHANNEL_RULES = [
  RULES.session,
  RULES.tlsVersion,
  RULES.certificateChannel,
  RULES.nonce,
  RULES.exporter,
  RULES.tlsKey,
];

/** Of the handshake the verifier knows by itself; everything else after the hardware reads the report or what it should bind. */
const NO_PROVENANCE: ReadonlySet<string> = new Set(['C6', 'C7']);

/** P1, P2, D13. Returns the roots that replace the pinned ones: only for simulated evidence that was allowed. */
function admitTee(
  t: Transcript,
  document: AttestationDocument,
  policy: Policy,
): readonly Uint8Array[] | undefined {
  const { teeType } = document;
  if (teeType !== 'simulated') {
    t.expect(RULES.tee, policy.tee.includes(teeType), teeType, {
      expected: policy.tee.join(' or '),
      actual: teeType,
    });
    t.pass(RULES.simulated, `${teeType}: judged by the pinned vendor roots`);
    return undefined;
  }
  const root = simulatedRoot(document.endorsements);
  const digest = root === undefined ? undefined : toHex(sha256(root));
  const { simulated } = policy.danger;
  const allowed = simulated === true || (simulated !== false && simulated === digest);
  t.skip(RULES.tee, 'simulated: policies speak of real TEEs only');
  const detail = `evidence is simulated, under the root ${digest ?? 'unknown'}`;
  if (allowed) t.pass(RULES.simulated, `${detail}, which was allowed: nothing about hardware is proven`);
  else if (simulated === false)
    t.fail(RULES.simulated, detail, { expected: 'real hardware', actual: 'simulated' });
  else t.fail(RULES.simulated, detail, { expected: String(simulated), actual: digest ?? 'no root' });
  const isVendors =
    digest !== undefined &&
    (AMD_ROOTS.some(({ derSha256 }) => derSha256 === digest) || INTEL_ROOT_DER_SHA256.includes(digest));
  t.expect(
    RULES.teeRepeated,
    !isVendors,
    isVendors ? 'document says simulated, its root is a vendor’s' : 'simulated',
  );
  return allowed && root !== undefined ? [root] : undefined;
}

function simulatedRoot(endorsements: SnpEndorsements | TdxEndorsements): Uint8Array | undefined {
  if ('vek' in endorsements) return endorsements.chain.at(-1);
  const last = [
    ...endorsements.tcbInfoIssuerChain.matchAll(
      /-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----/g,
    ),
  ].at(-1);
  return last?.[1] === undefined
    ? undefined
    : fromBase64(last[1].replace(/\s/g, ''), 'tcb_info_issuer_chain');
}

/** C6, C7: a caller with a socket has refused a bad one before it sent anything; here it becomes part of the record. */
function recordHandshake(t: Transcript, tls: VerifyOptions['tls']): void {
  if (tls === undefined) {
    t.skip(RULES.session, 'the caller does not know its handshake');
    t.skip(RULES.tlsVersion, 'the caller does not know its handshake');
    return;
  }
  t.expect(RULES.session, !tls.resumed, tls.resumed ? 'resumed' : 'full handshake');
  t.expect(RULES.tlsVersion, tls.version === 'TLSv1.3', tls.version, {
    expected: 'TLSv1.3',
    actual: tls.version,
  });
}

/** P4–P8. Returns what the policy calls the build. */
function applyPolicy(
  t: Transcript,
  document: AttestationDocument,
  policy: Policy,
  { hardware, claims }: Appraised,
): string | undefined {
  const reference = policy.measurements.find((candidate) => isReference(candidate, hardware));
  const found = describeSoftware(hardware);
  const known = policy.measurements.filter(
    (candidate) => 'measurement' in candidate === (hardware.format === 'snp'),
  ).length;
  if (reference !== undefined) t.pass(RULES.measurement, reference.name ?? found);
  else
    t.fail(RULES.measurement, `${found} is not ${referenceText(known, hardware.format)}`, {
      expected: known === 0 ? 'a reference value in the policy' : `one of the ${known} in the policy`,
      actual: found,
    });

  applyModels(t, document, policy);

  if (policy.chips === undefined)
    t.skip(RULES.chips, 'no allow-list in the policy: any genuine machine will do');
  else {
    const listed = hardware.chip !== undefined && policy.chips.includes(hardware.chip);
    t.expect(RULES.chips, listed, hardware.chip ?? 'the evidence names no chip');
  }
  if (policy.configs === undefined) t.skip(RULES.configs, 'no allow-list in the policy');
  else if (claims === undefined) t.fail(RULES.configs, 'the claims could not be read');
  else t.expect(RULES.configs, policy.configs.includes(toHex(claims.config)), toHex(claims.config));
  // Prompts would leave for a device nobody judged: what cannot be verified is not let pass.
  if (claims?.gpu !== undefined)
    t.fail(RULES.gpu, `the claims name GPU evidence ${toHex(claims.gpu)}, which this verifier cannot judge`);
  return reference?.name;
}

function referenceText(known: number, format: Hardware['format']): string {
  if (known === 0)
    return `a reference value: the policy lists none for ${format === 'snp' ? 'SEV-SNP' : 'TDX'}`;
  return known === 1
    ? 'the one reference value of the policy'
    : `one of the ${known} reference values of the policy`;
}

/** P5, P6. Every model of the server must be listed, so that whatever a request names, a proven model answers or none. */
function applyModels(t: Transcript, document: AttestationDocument, policy: Policy): void {
  const { models } = policy;
  if (models === undefined) {
    t.skip(RULES.models, 'any model is allowed: which model answers is not proven');
    t.skip(RULES.modelDigests, 'any model is allowed');
    return;
  }
  const served = document.models.map(({ id, sha256: digest }) => [id, toHex(digest)] as const);
  const unlisted = served.filter(([id]) => !models.has(id));
  if (unlisted.length === 0) t.pass(RULES.models, served.map(([id]) => id).join(', '));
  else {
    const some = unlisted.slice(0, 8).map(([id, digest]) => `${JSON.stringify(id)} (sha256 ${digest})`);
    t.fail(
      RULES.models,
      `served and not listed: ${some.join(', ')}${unlisted.length > 8 ? ` and ${unlisted.length - 8} more` : ''}`,
      {
        expected: [...models.keys()].slice(0, 8).join(', ') || 'a listed model',
        actual: unlisted
          .map(([id]) => id)
          .slice(0, 8)
          .join(', '),
      },
    );
  }
  const wrong = served.find(([id, digest]) => models.has(id) && models.get(id) !== digest);
  if (wrong === undefined) t.pass(RULES.modelDigests, 'as listed');
  else {
    const expected = models.get(wrong[0]) ?? '';
    t.fail(RULES.modelDigests, `${JSON.stringify(wrong[0])} has sha256 ${wrong[1]}, expected ${expected}`, {
      expected,
      actual: wrong[1],
    });
  }
}

function isReference(reference: Reference, hardware: Hardware): boolean {
  if ('measurement' in reference)
    return hardware.format === 'snp' && reference.measurement === toHex(hardware.measurement);
  if (hardware.format !== 'tdx' || reference.mrTd !== toHex(hardware.measurement)) return false;
  return [reference.rtmr0, reference.rtmr1, reference.rtmr2, reference.rtmr3].every(
    (expected, i) => expected === undefined || expected === toHex(hardware.rtmr?.[i] ?? new Uint8Array()),
  );
}

function describeSoftware(hardware: Hardware): string {
  if (hardware.format === 'snp') return `MEASUREMENT ${toHex(hardware.measurement)}`;
  return `MRTD ${toHex(hardware.measurement)}, RTMR0–2 digest ${toHex(sha256(concatBytes(...(hardware.rtmr ?? []).slice(0, 3)))).slice(0, 16)}…`;
}

interface Findings {
  readonly document: AttestationDocument;
  readonly options: Pick<VerifyOptions, 'now'>;
  readonly hardware: Hardware;
  readonly claims: Claims | undefined;
  readonly certificateAlone: boolean;
  readonly build: string | undefined;
}

async function conclude(t: Transcript, findings: Findings): Promise<AttestationResult> {
  const result = Object.freeze(await resultOf(t, findings)) as AttestationResult;
  results.add(result);
  return result;
}

/** The fields of a result, once nothing failed. */
async function resultOf(
  t: Transcript,
  { document, options, hardware, claims, certificateAlone, build }: Findings,
): Promise<Omit<AttestationResult, typeof verified>> {
  const failure = t.firstFailure;
  if (failure !== undefined || !hardware.accepted || claims === undefined) throw await refusal(t, failure);
  return {
    teeType: document.teeType,
    simulated: document.teeType === 'simulated',
    certificateAlone,
    measurement: toHex(hardware.measurement),
    build,
    product: hardware.product,
    chip: hardware.chip,
    models: new Map(document.models.map(({ id, sha256: digest }) => [id, toHex(digest)])),
    config: toHex(claims.config),
    receiptKey: toHex(claims.receiptKey),
    hpkeKey: toHex(claims.hpkeKey),
    tlsSpki: toHex(claims.tlsSpki),
    issuedAt: claims.issuedAt,
    verifiedAt: options.now,
    evidence: hardware.evidence,
    transcript: Object.freeze([...t.checks]),
  };
}

async function refusal(t: Transcript, failure: Check | undefined): Promise<AttestationError> {
  if (failure?.code === undefined)
    return new AttestationError(
      'refused',
      'internal',
      'the evidence was not accepted, and no rule says why',
      { transcript: t.checks },
    );
  const hintOf = await hintsOnDemand();
  return refused(failure.code, `not shown: ${failure.title} (${failure.detail})`, {
    check: failure.id,
    expected: failure.expected,
    actual: failure.actual,
    hint: hintOf(failure.code),
    transcript: t.checks,
  });
}
