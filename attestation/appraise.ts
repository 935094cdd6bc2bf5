// The verdict (docs/protocol.md §7): document × policy × this connection × now → an AttestationResult, which nothing else can
// make, or an AttestationError with the complete transcript. Reads as six calls. No network, no clock, no randomness here.
// Refused: any failed rule. A rule that was skipped is never a pass, and those that must hold fail instead of being skipped.

import { sha256 } from '@noble/hashes/sha2.js';
import { bindChannel, bindClaims, bindModels, compareRepeats, type SignedFields } from './bind.ts';
import { concatBytes, fromBase64, toHex } from './bytes.ts';
import { type Check, Transcript } from './checks.ts';
import type { Claims } from './claims.ts';
import type { AttestationDocument, SnpEndorsements, TdxEndorsements, TeeType } from './document.ts';
import { AttestationError, refused } from './errors.ts';
import type { RollbackMemory } from './memory.ts';
import { type AppraisalPolicy, type Policy, PRODUCTS, parsePolicy, type Reference } from './policy.ts';
import { RULES } from './rules.ts';
import type { SnpPolicy } from './snp/policy.ts';
import { AMD_ROOTS } from './snp/roots.ts';
import { caRole } from './snp/vek.ts';
import { verifySnp } from './snp/verify.ts';
import { INTEL_ROOT_DER_SHA256 } from './tdx/roots.ts';
import type { TdxPolicy } from './tdx/policy.ts';
import { verifyTdx } from './tdx/verify.ts';
import { type KeyCache, parseCertificate } from './x509.ts';

/** Where endorsements come from when the document's own are missing, not wanted or do not do. Nothing it gives is trusted. */
export type EndorsementSource = (request: EndorsementRequest) => Promise<SnpEndorsements | TdxEndorsements>;
export type EndorsementRequest =
  { readonly format: 'snp'; readonly report: Uint8Array } | { readonly format: 'tdx'; readonly report: Uint8Array };

export interface VerifyOptions {
  /** The challenge this verifier drew for this connection. */
  readonly nonce: Uint8Array;
  /** 32 bytes of TLS exporter, label EXPORTER-assay-attestation-v1, context = nonce; undefined where there is none. */
  readonly exporter: Uint8Array | undefined;
  /** DER SubjectPublicKeyInfo of the peer, read from the socket. */
  readonly peerSpki: Uint8Array;
  /** What the socket says of its handshake; absent where the platform does not tell. */
  readonly tls?: { readonly version: string; readonly resumed: boolean };
  readonly policy: AppraisalPolicy | Policy;
  /** Milliseconds since 1970; the only clock. */
  readonly now: number;
  /** The model id that was asked for; default all models. */
  readonly model?: string;
  /** Remembers CRL and collateral numbers between verifications. */
  readonly memory?: RollbackMemory;
  readonly endorsements?: EndorsementSource;
  /** Keeps imported vendor keys between verifications. */
  readonly keys?: KeyCache;
}

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

export function isAttestationResult(value: unknown): value is AttestationResult {
  return typeof value === 'object' && value !== null && results.has(value);
}

/** @throws AttestationError `refused` with the transcript; `malformed` or `unsupported` for evidence that cannot be read. */
export async function verify(document: AttestationDocument, options: VerifyOptions): Promise<AttestationResult> {
  const policy = parsePolicy(options.policy);
  const t = new Transcript();
  const admitted = admitTee(t, document, policy);
  const hardware = await verifyHardware(t, document, policy, options, admitted);
  const claims = bindClaims(t, document, hardware);
  compareRepeats(t, document, hardware, claims);
  bindModels(t, document, claims, options.model);
  recordHandshake(t, options.tls);
  const certificateAlone = bindChannel(t, claims, { ...options, certificateAlone: policy.danger.certificateChannel });
  const build = applyPolicy(t, document, policy, hardware, claims);
  return conclude(t, { document, options, hardware, claims, certificateAlone, build });
}

interface Hardware extends SignedFields {
  readonly format: 'snp' | 'tdx';
  readonly transcript: Transcript;
  readonly accepted: boolean;
  readonly product: string | undefined;
  readonly chip: string | undefined;
  readonly evidence: Readonly<Record<string, unknown>>;
}

// --- 1: may this kind of TEE be accepted at all, and is it what it says --------------------------------------------

/** P1, P2, D13. Returns the roots that replace the pinned ones: only for simulated evidence that was allowed. */
function admitTee(t: Transcript, document: AttestationDocument, policy: Policy): readonly Uint8Array[] | undefined {
  const { teeType } = document;
  if (teeType !== 'simulated') {
    t.expect(RULES.tee, policy.tee.includes(teeType), teeType, { expected: policy.tee.join(' or '), actual: teeType });
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
  else if (simulated === false) t.fail(RULES.simulated, detail, { expected: 'real hardware', actual: 'simulated' });
  else t.fail(RULES.simulated, detail, { expected: String(simulated), actual: digest ?? 'no root' });
  const isVendors =
    digest !== undefined && (AMD_ROOTS.some(({ derSha256 }) => derSha256 === digest) || INTEL_ROOT_DER_SHA256.includes(digest));
  t.expect(RULES.teeRepeated, !isVendors, isVendors ? 'document says simulated, its root is a vendor’s' : 'simulated');
  return allowed && root !== undefined ? [root] : undefined;
}

function simulatedRoot(endorsements: SnpEndorsements | TdxEndorsements): Uint8Array | undefined {
  if ('vek' in endorsements) return endorsements.chain.at(-1);
  const last = [...endorsements.tcbInfoIssuerChain.matchAll(/-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----/g)].at(
    -1,
  );
  return last?.[1] === undefined ? undefined : fromBase64(last[1].replace(/\s/g, ''), 'tcb_info_issuer_chain');
}

// --- 2: the vendor's signature and everything it vouches for -------------------------------------------------------

async function verifyHardware(
  t: Transcript,
  document: AttestationDocument,
  policy: Policy,
  options: VerifyOptions,
  roots: readonly Uint8Array[] | undefined,
): Promise<Hardware> {
  const format =
    document.teeType === 'simulated' ? ('vek' in document.endorsements ? 'snp' : 'tdx') : document.teeType === 'tdx' ? 'tdx' : 'snp';
  const attempt = async (endorsements: SnpEndorsements | TdxEndorsements): Promise<Hardware> =>
    'vek' in endorsements
      ? verifySnpDocument(document, endorsements, policy, options, roots)
      : verifyTdxDocument(document, endorsements, policy, options, roots);
  const stapled = policy.endorsements === 'offline' && document.teeType !== 'simulated' ? undefined : document.endorsements;
  let hardware = stapled === undefined ? undefined : await attempt(stapled);
  if (hardware?.accepted !== true && document.teeType !== 'simulated' && policy.endorsements !== 'stapled') {
    const fetched = await fetchEndorsements(format, document, options, hardware !== undefined);
    if (fetched !== undefined) hardware = await attempt(fetched);
  }
  if (hardware === undefined) {
    throw refused('endorsements_missing', 'document has no endorsements, and the policy lets none be fetched', {
      hint: 'set endorsements to "fetch" or "offline" in the policy, or have the server staple them',
    });
  }
  // S32 and T27 compare report_data with a value a policy gives; here it is judged in full, as D4 and D5.
  t.checks.push(...hardware.transcript.checks.filter(({ id, status }) => status !== 'skip' || (id !== 'S32' && id !== 'T27')));
  return hardware;
}

/** Undefined when stapled ones were tried already and fetching fails too: their transcript says more than the network. */
async function fetchEndorsements(
  format: 'snp' | 'tdx',
  document: AttestationDocument,
  options: VerifyOptions,
  tried: boolean,
): Promise<SnpEndorsements | TdxEndorsements | undefined> {
  const source = options.endorsements;
  if (source === undefined) {
    if (tried) return undefined;
    throw refused('endorsements_missing', 'no endorsements are stapled and no source of others was given');
  }
  try {
    const fetched = await source({ format, report: document.report });
    if ((format === 'snp') === 'vek' in fetched) return fetched;
    throw new AttestationError('internal', 'internal', `endorsement source gave others than for ${format}`);
  } catch (error) {
    if (tried && error instanceof AttestationError) return undefined;
    throw error;
  }
}

async function verifySnpDocument(
  document: AttestationDocument,
  endorsements: SnpEndorsements,
  policy: Policy,
  options: VerifyOptions,
  roots: readonly Uint8Array[] | undefined,
): Promise<Hardware> {
  const { vek, chain, crl } = endorsements;
  const evidence = { report: document.report, vek, chain, ...(crl === undefined ? {} : { crl }) };
  // The minimum is per product. The root names it here; rule S10 makes sure that everything else agrees.
  const line = caRole(parseCertificate(chain.at(-1) ?? vek, 'ARK').subject.commonName)?.line;
  const product = PRODUCTS.find((known) => known === line);
  const minimum = product === undefined ? undefined : policy.minimumTcb[product];
  const found = await verifySnp(
    evidence,
    { ...snpPolicy(policy), ...(minimum === undefined ? {} : { minimumTcb: minimum }) },
    { now: new Date(options.now), roots, memory: options.memory, keys: options.keys },
  );
  return {
    format: 'snp',
    transcript: found.transcript,
    accepted: found.accepted,
    reportData: found.report.reportData,
    measurement: found.report.measurement,
    product: found.product,
    chip: /^0*$/.test(String(found.claims['chipId'])) ? undefined : String(found.claims['chipId']),
    evidence: found.claims,
  };
}

function snpPolicy(policy: Policy): SnpPolicy {
  const measurements = policy.measurements.flatMap((reference) => ('measurement' in reference ? [reference.measurement] : []));
  const chips = policy.chips?.filter((chip) => chip.length === 128) ?? [];
  return {
    ...(measurements.length === 0 ? {} : { measurement: measurements }),
    ...(chips.length === 0 ? {} : { chipIds: chips }),
    ...(policy.hostData === undefined ? {} : { hostData: policy.hostData }),
    ...(policy.idKeyDigests === undefined ? {} : { idKeyDigest: policy.idKeyDigests }),
    ...(policy.authorKeyDigests === undefined ? {} : { authorKeyDigest: policy.authorKeyDigests }),
    guestPolicy: policy.guestPolicy,
    vmpl: policy.vmpl,
    products: policy.products,
  };
}

async function verifyTdxDocument(
  document: AttestationDocument,
  endorsements: TdxEndorsements,
  policy: Policy,
  options: VerifyOptions,
  roots: readonly Uint8Array[] | undefined,
): Promise<Hardware> {
  const { pckChain: _pckChain, ...collateral } = endorsements;
  const eventLog = 'eventLog' in document && document.eventLog !== undefined ? { eventLog: document.eventLog } : {};
  const found = await verifyTdx({ quote: document.report, collateral, ...eventLog }, tdxPolicy(policy), {
    now: new Date(options.now),
    ...(roots === undefined ? {} : { roots }),
    ...(options.memory === undefined ? {} : { memory: options.memory }),
    ...(options.keys === undefined ? {} : { keys: options.keys }),
  });
  const { body } = found.quote;
  return {
    format: 'tdx',
    transcript: found.transcript,
    accepted: found.accepted,
    reportData: body.reportData,
    measurement: body.mrTd,
    rtmr: [body.rtmr0, body.rtmr1, body.rtmr2, body.rtmr3],
    product: undefined,
    chip: typeof found.claims['ppid'] === 'string' ? found.claims['ppid'] : undefined,
    evidence: found.claims,
  };
}

function tdxPolicy(policy: Policy): TdxPolicy {
  const mrTd = policy.measurements.flatMap((reference) => ('mrTd' in reference ? [reference.mrTd] : []));
  const ppid = policy.chips?.filter((chip) => chip.length === 32) ?? [];
  return {
    ...(mrTd.length === 0 ? {} : { mrTd }),
    ...(ppid.length === 0 ? {} : { ppid }),
    ...(policy.mrSeam === undefined ? {} : { mrSeam: policy.mrSeam }),
    ...(policy.minimumTcbEvaluationDataNumber === undefined
      ? {}
      : { minimumTcbEvaluationDataNumber: policy.minimumTcbEvaluationDataNumber }),
    tcbStatus: policy.tcbStatus,
  };
}

/** C6, C7: a caller with a socket has refused a bad one before it sent anything; here it becomes part of the record. */
function recordHandshake(t: Transcript, tls: VerifyOptions['tls']): void {
  if (tls === undefined) {
    t.skip(RULES.session, 'the caller does not know its handshake');
    t.skip(RULES.tlsVersion, 'the caller does not know its handshake');
    return;
  }
  t.expect(RULES.session, !tls.resumed, tls.resumed ? 'resumed' : 'full handshake');
  t.expect(RULES.tlsVersion, tls.version === 'TLSv1.3', tls.version, { expected: 'TLSv1.3', actual: tls.version });
}

// --- 6: what the relying party lists -------------------------------------------------------------------------------

/** P4–P8. Returns what the policy calls the build. */
function applyPolicy(
  t: Transcript,
  document: AttestationDocument,
  policy: Policy,
  hardware: Hardware,
  claims: Claims | undefined,
): string | undefined {
  const reference = policy.measurements.find((candidate) => isReference(candidate, hardware));
  const found = describeSoftware(hardware);
  const known = policy.measurements.filter((candidate) => 'measurement' in candidate === (hardware.format === 'snp')).length;
  if (reference !== undefined) t.pass(RULES.measurement, reference.name ?? found);
  else
    t.fail(RULES.measurement, `${found} is not a reference value (${known} known)`, { expected: `one of ${known} known`, actual: found });

  applyModels(t, document, policy);

  if (policy.chips === undefined) t.skip(RULES.chips, 'no allow-list in the policy: any genuine machine will do');
  else {
    const listed = hardware.chip !== undefined && policy.chips.includes(hardware.chip);
    t.expect(RULES.chips, listed, hardware.chip ?? 'the evidence names no chip');
  }
  if (policy.configs === undefined) t.skip(RULES.configs, 'no allow-list in the policy');
  else if (claims === undefined) t.fail(RULES.configs, 'the claims could not be read');
  else t.expect(RULES.configs, policy.configs.includes(toHex(claims.config)), toHex(claims.config));
  if (claims?.gpu !== undefined) t.skip(RULES.gpu, 'the claims name GPU evidence, which this document does not carry and nobody judged');
  return reference?.name;
}

/** P5, P6. Every model of the server must be listed, so that whatever a request names, a proven model answers or none. */
function applyModels(t: Transcript, document: AttestationDocument, policy: Policy): void {
  const { models } = policy;
  if (models === undefined) {
    t.skip(RULES.models, 'accepted by [allowAnyModel]: which model answers is not proven');
    t.skip(RULES.modelDigests, 'accepted by [allowAnyModel]');
    return;
  }
  const served = document.models.map(({ id, sha256: digest }) => [id, toHex(digest)] as const);
  const unlisted = served.filter(([id]) => !models.has(id));
  if (unlisted.length === 0) t.pass(RULES.models, served.map(([id]) => id).join(', '));
  else {
    const some = unlisted.slice(0, 8).map(([id, digest]) => `${JSON.stringify(id)} (sha256 ${digest})`);
    t.fail(RULES.models, `served and not listed: ${some.join(', ')}${unlisted.length > 8 ? ` and ${unlisted.length - 8} more` : ''}`, {
      expected: [...models.keys()].slice(0, 8).join(', ') || 'a listed model',
      actual: unlisted
        .map(([id]) => id)
        .slice(0, 8)
        .join(', '),
    });
  }
  const wrong = served.find(([id, digest]) => models.has(id) && models.get(id) !== digest);
  if (wrong === undefined) t.pass(RULES.modelDigests, 'as listed');
  else {
    const expected = models.get(wrong[0]) ?? '';
    t.fail(RULES.modelDigests, `${JSON.stringify(wrong[0])} has sha256 ${wrong[1]}, expected ${expected}`, { expected, actual: wrong[1] });
  }
}

function isReference(reference: Reference, hardware: Hardware): boolean {
  if ('measurement' in reference) return hardware.format === 'snp' && reference.measurement === toHex(hardware.measurement);
  if (hardware.format !== 'tdx' || reference.mrTd !== toHex(hardware.measurement)) return false;
  return [reference.rtmr0, reference.rtmr1, reference.rtmr2, reference.rtmr3].every(
    (expected, i) => expected === undefined || expected === toHex(hardware.rtmr?.[i] ?? new Uint8Array()),
  );
}

function describeSoftware(hardware: Hardware): string {
  if (hardware.format === 'snp') return `MEASUREMENT ${toHex(hardware.measurement)}`;
  return `MRTD ${toHex(hardware.measurement)}, RTMR0–2 digest ${toHex(sha256(concatBytes(...(hardware.rtmr ?? []).slice(0, 3)))).slice(0, 16)}…`;
}

// --- the verdict ---------------------------------------------------------------------------------------------------

interface Findings {
  readonly document: AttestationDocument;
  readonly options: VerifyOptions;
  readonly hardware: Hardware;
  readonly claims: Claims | undefined;
  readonly certificateAlone: boolean;
  readonly build: string | undefined;
}

function conclude(t: Transcript, { document, options, hardware, claims, certificateAlone, build }: Findings): AttestationResult {
  const failure = t.firstFailure;
  if (failure !== undefined || !hardware.accepted || claims === undefined) throw refusal(t, failure);
  const result = Object.freeze({
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
  }) as Omit<AttestationResult, typeof verified> as AttestationResult;
  results.add(result);
  return result;
}

function refusal(t: Transcript, failure: Check | undefined): AttestationError {
  if (failure?.code === undefined)
    return new AttestationError('refused', 'internal', 'the evidence was not accepted, and no rule says why', { transcript: t.checks });
  const hint = HINTS[failure.code];
  return refused(failure.code, `not shown: ${failure.title} (${failure.detail})`, {
    check: failure.id,
    ...(failure.expected === undefined ? {} : { expected: failure.expected }),
    ...(failure.actual === undefined ? {} : { actual: failure.actual }),
    ...(hint === undefined ? {} : { hint }),
    transcript: t.checks,
  });
}

const HINTS: Readonly<Record<string, string>> = {
  simulated_refused: 'for trying things out, allow it in code with [allowSimulated] or with --allow-simulated; never for real prompts',
  snp_measurement: 'compare with the measurement published for the release you expect; list it only after reproducing it',
  measurement_not_listed: 'compare with the measurement published for the release you expect; list it only after reproducing it',
  model_not_listed: 'add the model and its sha256 to the policy, or stop serving it',
  model_digest_mismatch: 'compare with `sha256sum` of the file you expect; the server reads other bytes',
  exporter_mismatch: 'something between you and the guest terminates TLS; connect to the guest directly',
  tls_key_mismatch: 'something between you and the guest terminates TLS; connect to the guest directly',
  nonce_mismatch: 'the evidence was made for someone else or earlier; it may have been replayed',
  snp_guest_policy: 'the guest was launched with a weaker policy than this one; see guestPolicy',
  tdx_tcb_status: 'the platform needs an update; see tcbStatus',
};
