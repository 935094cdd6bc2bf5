// The verdict (docs/protocol.md §7): document × policy × this connection × now → an AttestationResult, which
// only this module makes, or an AttestationError with the complete transcript. Reads as six calls. No
// network, no clock, no randomness here. Refused: any failed rule. A rule that was skipped is never a pass,
// and those that must hold fail instead of being skipped.

import { type CloudVerifier, type Hardware, type HardwareOptions, verifyHardware } from './hardware.ts';
import { bindChannel, bindClaims, bindModels, bindSealed, compareRepeats } from './bind.ts';
import { toHex } from '../encoding/bytes.ts';
import { type Check, Transcript } from '../transcript/checks.ts';
import type { Claims } from '../protocol/claims.ts';
import type { AttestationDocument, TeeType } from '../protocol/document.ts';
import { AttestationError, refused, withTranscript } from '../transcript/errors.ts';
import { type AppraisalPolicy, type Policy, parsePolicy } from './policy.ts';
import { admitTee, applyPolicy } from './policy-rules.ts';
import { hintsOnDemand } from './hints-on-demand.ts';
import { RULES } from './rules.ts';
import { type SoftwareRoot, softwareRootOf } from './software-root.ts';
import type { TimeWindow } from '../x509/path.ts';

/** The values {@link verify} compares a document with: this connection, this moment and the policy. */
export interface VerifyOptions extends HardwareOptions {
  /** The challenge this verifier drew for this connection. */
  readonly nonce: Uint8Array;
  /**
   * 32 bytes of TLS exporter, label EXPORTER-assay-attestation-v1, context = nonce;
   * undefined where there is none.
   */
  readonly exporter: Uint8Array | undefined;
  /** DER SubjectPublicKeyInfo of the peer, read from the socket. */
  readonly peerSpki: Uint8Array;
  /**
   * TLS version and resumption as the socket reports them; absent where the platform does not report them.
   */
  readonly tls?: { readonly version: string; readonly resumed: boolean } | undefined;
  readonly policy: AppraisalPolicy | Policy;
  /** The model id that was asked for; default all models. */
  readonly model?: string | undefined;
  readonly channel?: 'exporter' | undefined;
}

/** The same for sealed bodies (docs/sealed.md §2), which prove a key and no TLS connection. */
export interface SealedVerifyOptions
  extends HardwareOptions, Pick<VerifyOptions, 'nonce' | 'policy' | 'model'> {
  readonly channel: 'sealed';
}

export type { CloudContext, CloudVerifier, EndorsementRequest, EndorsementSource } from './hardware.ts';

declare const verified: unique symbol;

/** The content of a verdict on either channel. */
export interface Verified {
  readonly channel: 'exporter' | 'sealed';
  readonly teeType: TeeType;
  /** Whose word it is which software runs: the CPU's own, or a cloud's that the policy accepts. */
  readonly softwareRoot: SoftwareRoot;
  /** True: the evidence proves no property of hardware. */
  readonly simulated: boolean;
  /** Freshness and connection are not proven. */
  readonly certificateAlone: boolean;
  /** Hex: MEASUREMENT or MRTD. */
  readonly measurement: string;
  /** The name the policy gives this build. */
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

/** Proof that a document passed. Only `verify` makes one; `isAttestationResult` tells it from look-alikes. */
export interface AttestationResult extends Verified {
  readonly [verified]: 'exporter';
  readonly channel: 'exporter';
}

/**
 * Proof that a document passed for sealed bodies: of a key and of no connection. Neither kind of result
 * stands for the other.
 */
export interface SealedResult extends Verified {
  readonly [verified]: 'sealed';
  readonly channel: 'sealed';
}

const results = new WeakMap<object, Verified['channel']>();

/**
 * Whether `value` is a result that {@link verify} made in this process; a copy of one, or JSON
 * of the same shape, is not.
 * @example if (!isAttestationResult(value)) throw new TypeError("this was not verified here");
 */
export function isAttestationResult(value: unknown): value is AttestationResult {
  return typeof value === 'object' && value !== null && results.get(value) === 'exporter';
}

/**
 * The same for sealed bodies: whether {@link verify} made `value` here for the channel `sealed`.
 * @example if (!isSealedResult(value)) throw new TypeError("this is no key to seal to");
 */
export function isSealedResult(value: unknown): value is SealedResult {
  return typeof value === 'object' && value !== null && results.get(value) === 'sealed';
}

/**
 * The verdict on a document for sealed bodies (docs/sealed.md §1): of a key, and of no connection.
 * @example const { hpkeKey } = await verify(document, { channel: 'sealed', nonce, policy, now: Date.now() });
 */
export function verify(document: AttestationDocument, options: SealedVerifyOptions): Promise<SealedResult>;
/**
 * The verdict on a document for this connection (docs/protocol.md §7). `now` is milliseconds since 1970.
 * @throws AttestationError `refused` with the transcript; `malformed` or `unsupported` for
 * evidence that cannot be read
 *
 * @example
 * const result = await verify(parseDocument(text), { policy, nonce, exporter, peerSpki, now: Date.now() });
 * console.log(result.build, [...result.models.keys()]);
 */
export function verify(document: AttestationDocument, options: VerifyOptions): Promise<AttestationResult>;
export async function verify(
  document: AttestationDocument,
  options: VerifyOptions | SealedVerifyOptions,
): Promise<Verified> {
  const policy = parsePolicy(options.policy);
  const transcript = new Transcript();
  try {
    return await appraise(transcript, document, policy, options);
  } catch (error) {
    // Evidence that cannot be read ends the appraisal; the checks made before belong to the refusal.
    throw error instanceof AttestationError ? withTranscript(error, [...transcript.checks]) : error;
  }
}

async function appraise(
  transcript: Transcript,
  document: AttestationDocument,
  policy: Policy,
  options: VerifyOptions | SealedVerifyOptions,
): Promise<Verified> {
  const found = await appraiseDocument(transcript, document, policy, options);
  const { hardware, claims, from } = found;
  let certificateAlone = false;
  if (options.channel === 'sealed') {
    recordHandshake(transcript, undefined);
    bindSealed(transcript, claims, { nonce: options.nonce, allowed: policy.channel === 'sealed' });
  } else {
    recordHandshake(transcript, options.tls);
    certificateAlone = bindChannel(transcript, claims, {
      ...options,
      certificateAlone: policy.danger.certificateChannel,
    });
  }
  const build = applyPolicy(transcript, document, policy, found);
  // All rules from here on rest on the report: without its signature none of their values is authentic.
  if (!hardware.authentic) transcript.unauthenticated(NO_PROVENANCE, from);
  const channel = options.channel ?? 'exporter';
  return conclude(transcript, { document, options, hardware, claims, certificateAlone, build, channel });
}

interface Appraised {
  readonly hardware: Hardware;
  readonly claims: Claims | undefined;
  /** Index in the transcript of the first rule that reads the document. */
  readonly from: number;
}

/** Hardware and claims: all that does not need the connection. */
async function appraiseDocument(
  transcript: Transcript,
  document: AttestationDocument,
  policy: Policy,
  options: HardwareOptions & Pick<VerifyOptions, 'model'>,
): Promise<Appraised> {
  const roots = admitTee(transcript, document, policy, options.vtpm?.rootsReplaced);
  const hardware = await verifyHardware(transcript, document, { policy, options, roots });
  const from = transcript.checks.length;
  const claims = bindClaims(transcript, document, hardware);
  compareRepeats(transcript, document, hardware, claims);
  bindModels(transcript, document, claims, options.model);
  return { hardware, claims, from };
}

declare const archived: unique symbol;

/** The verdict on kept evidence. Not an `AttestationResult`: it is no proof about any connection. */
export type ArchivedResult = Verified & {
  readonly [archived]: true;
  /** In which all of its endorsements were valid; `verifiedAt` is in it. Milliseconds since 1970. */
  readonly window: TimeWindow;
};

const ARCHIVED =
  'archived: nonce, exporter, TLS key and handshake are the word of the archiver, and prove nothing about a connection';

/**
 * Judges kept evidence at `now`, by what is stapled to it.
 * @throws AttestationError as `verify` does
 */
export async function verifyArchived(
  document: AttestationDocument,
  options: {
    readonly policy: AppraisalPolicy | Policy;
    readonly now: number;
    readonly vtpm?: CloudVerifier | undefined;
  },
): Promise<ArchivedResult> {
  const policy = parsePolicy(options.policy);
  const transcript = new Transcript();
  try {
    const found = await appraiseDocument(transcript, document, policy, options);
    const { hardware, claims, from } = found;
    for (const rule of CHANNEL_RULES) transcript.skip(rule, ARCHIVED);
    const build = applyPolicy(transcript, document, policy, found);
    if (!hardware.authentic) transcript.unauthenticated(NO_PROVENANCE, from);
    const findings = {
      document,
      options,
      hardware,
      claims,
      certificateAlone: true,
      build,
      channel: 'exporter',
    } as const;
    const result = await resultOf(transcript, findings);
    const { window } = hardware;
    if (window === undefined)
      throw new AttestationError('internal', 'internal', 'accepted endorsements without a window');
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the brand is a type alone: made here only
    return Object.freeze({ ...result, window }) as ArchivedResult;
  } catch (error) {
    throw error instanceof AttestationError ? withTranscript(error, [...transcript.checks]) : error;
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

/** C6 and C7 read the verifier's own handshake; all other rules after the hardware's rest on the report. */
const NO_PROVENANCE: ReadonlySet<string> = new Set(['C6', 'C7']);

/**
 * C6, C7: a caller with a socket has refused a bad one before it sent anything; here it
 * becomes part of the record.
 */
function recordHandshake(transcript: Transcript, tls: VerifyOptions['tls']): void {
  if (tls === undefined) {
    transcript.skip(RULES.session, 'the caller does not know its handshake');
    transcript.skip(RULES.tlsVersion, 'the caller does not know its handshake');
    return;
  }
  transcript.expect(RULES.session, !tls.resumed, tls.resumed ? 'resumed' : 'full handshake');
  transcript.expect(RULES.tlsVersion, tls.version === 'TLSv1.3', tls.version, {
    expected: 'TLSv1.3',
    actual: tls.version,
  });
}

interface Findings {
  readonly document: AttestationDocument;
  readonly options: Pick<VerifyOptions, 'now'>;
  readonly hardware: Hardware;
  readonly claims: Claims | undefined;
  readonly certificateAlone: boolean;
  readonly build: string | undefined;
  readonly channel: Verified['channel'];
}

async function conclude(transcript: Transcript, findings: Findings): Promise<Verified> {
  const result = Object.freeze(await resultOf(transcript, findings));
  results.set(result, findings.channel);
  return result;
}

/** The fields of a result; throws the refusal when a rule failed. */
async function resultOf(
  transcript: Transcript,
  { document, options, hardware, claims, certificateAlone, build, channel }: Findings,
): Promise<Verified> {
  const failure = transcript.firstFailure;
  if (failure !== undefined || !hardware.accepted || claims === undefined)
    throw await refusal(transcript, failure);
  return {
    channel,
    teeType: document.teeType,
    softwareRoot: softwareRootOf(document.teeType),
    simulated: document.teeType === 'simulated' || hardware.rootsReplaced === true,
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
    transcript: Object.freeze([...transcript.checks]),
  };
}

async function refusal(transcript: Transcript, failure: Check | undefined): Promise<AttestationError> {
  if (failure?.code === undefined)
    return new AttestationError(
      'refused',
      'internal',
      'the evidence was not accepted, and no rule says why',
      { transcript: transcript.checks },
    );
  const hintOf = await hintsOnDemand();
  return refused(failure.code, `not shown: ${failure.title} (${failure.detail})`, {
    check: failure.id,
    expected: failure.expected,
    actual: failure.actual,
    hint: hintOf(failure.code),
    transcript: transcript.checks,
  });
}
