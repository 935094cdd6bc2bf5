// The vendor's half of a verdict: takes the evidence and its endorsements out of a document, or from a source
// of them, has the SNP or TDX verifier judge it by the part of the policy that is theirs, and returns the
// signed fields the protocol uses. Refused: evidence without endorsements where the policy lets none be
// fetched. Only accepted evidence is remembered.

import type { SignedFields } from './bind.ts';
import { isZero, toHex } from '../encoding/bytes.ts';
import type { Transcript } from '../transcript/checks.ts';
import {
  type AttestationDocument,
  isCloudTee,
  type SnpEndorsements,
  type TdxEndorsements,
} from '../protocol/document.ts';
import { AttestationError, refused } from '../transcript/errors.ts';
import { type RollbackMemory, stagedMemory } from '../transcript/rollback-memory.ts';
import type { Policy } from './policy.ts';
import type { SnpContext } from '../snp/subject.ts';
import { verifySnp } from '../snp/verify.ts';
import type { TdxContext } from '../tdx/subject.ts';
import { verifyTdx } from '../tdx/verify.ts';
import type { TimeWindow } from '../x509/path.ts';
import type { KeyCache } from '../x509/signature.ts';

/**
 * Fetches endorsements when the document's own are missing, not wanted or not accepted. Its answers are
 * verified, never trusted.
 */
export type EndorsementSource = (request: EndorsementRequest) => Promise<SnpEndorsements | TdxEndorsements>;
/** The evidence that needs endorsements: the raw SNP report, 1184 bytes, or the raw TDX quote. */
export interface EndorsementRequest {
  readonly format: 'snp' | 'tdx';
  readonly report: Uint8Array;
}

/** The part of `VerifyOptions` that hardware is verified with. */
export interface HardwareOptions {
  /** Milliseconds since 1970; the only clock. */
  readonly now: number;
  /** Remembers CRL and collateral numbers between verifications. */
  readonly memory?: RollbackMemory | undefined;
  readonly endorsements?: EndorsementSource | undefined;
  /** Keeps imported vendor keys between verifications. */
  readonly keys?: KeyCache | undefined;
  /** From `@assay/attestation/vtpm`: judges evidence of the clouds, which is refused without it. */
  readonly vtpm?: CloudVerifier | undefined;
}

/** Judges the evidence of a cloud's TEE; made by `@assay/attestation/vtpm` alone. */
export interface CloudVerifier {
  /** Other roots than the vendors' are trusted: no property of hardware is proven. */
  readonly rootsReplaced: boolean;
  verify(
    document: AttestationDocument,
    endorsements: SnpEndorsements | TdxEndorsements | undefined,
    policy: Policy,
    context: CloudContext,
  ): Promise<Hardware>;
}

/** Clock, memory and key cache of a cloud's verifier. */
export interface CloudContext {
  readonly now: Date;
  readonly memory?: RollbackMemory | undefined;
  readonly keys?: KeyCache | undefined;
}

/** The findings of the vendor's verifier. */
export interface Hardware extends SignedFields {
  /** `nitro`: no CPU signed it. */
  readonly format: 'snp' | 'tdx' | 'nitro';
  readonly transcript: Transcript;
  readonly accepted: boolean;
  /** Whether a trusted signature covers the fields; else anyone can have written them. */
  readonly authentic: boolean;
  readonly product: string | undefined;
  readonly chip: string | undefined;
  /** A cloud's only: values of the PCRs that are authentic, by index. */
  readonly pcrs?: ReadonlyMap<number, Uint8Array> | undefined;
  /** A cloud's verifier was given other roots. */
  readonly rootsReplaced?: boolean | undefined;
  /** The cloud endorsed the firmware that was measured. */
  readonly endorsedFirmware?: boolean | undefined;
  /** In which all endorsements are valid together; undefined where they were not accepted. */
  readonly window: TimeWindow | undefined;
  readonly evidence: Readonly<Record<string, unknown>>;
}

/** By which policy and options evidence is judged; `roots` replace the pinned ones. */
export interface HardwareJudgement {
  readonly policy: Policy;
  readonly options: HardwareOptions;
  readonly roots: readonly Uint8Array[] | undefined;
}

/** Judges the evidence and adds its rules to the transcript. */
export async function verifyHardware(
  transcript: Transcript,
  document: AttestationDocument,
  { policy, options, roots }: HardwareJudgement,
): Promise<Hardware> {
  const format = formatOf(document);
  const cloud = isCloudTee(document.teeType);
  if (cloud && options.vtpm === undefined)
    throw refused('vtpm_not_given', `evidence of ${document.teeType} is judged by @assay/attestation/vtpm`);
  const attempt = async (endorsements: SnpEndorsements | TdxEndorsements | undefined): Promise<Hardware> => {
    const memory = options.memory && stagedMemory(options.memory);
    const context = { now: new Date(options.now), roots, memory, keys: options.keys };
    const found =
      cloud && options.vtpm !== undefined
        ? await options.vtpm.verify(document, endorsements, policy, context)
        : await verifyVendors(document, endorsements, policy, context);
    if (found.accepted) await memory?.commit();
    return found;
  };
  const stapled =
    policy.endorsements === 'offline' && document.teeType !== 'simulated' ? undefined : document.endorsements;
  const others =
    format !== undefined && document.teeType !== 'simulated' && policy.endorsements !== 'stapled';
  let unreadable: AttestationError | undefined;
  let hardware: Hardware | undefined;
  try {
    if (stapled !== undefined || format === undefined) hardware = await attempt(stapled);
  } catch (error) {
    // Stapled endorsements are a convenience: where others can be fetched, unreadable ones count as missing.
    if (!others || !(error instanceof AttestationError)) throw error;
    unreadable = error;
  }
  if (others && format !== undefined && hardware?.accepted !== true) {
    const fetched = await fetchEndorsements(format, document, options, stapled !== undefined);
    if (fetched !== undefined) hardware = await attempt(fetched);
  }
  if (hardware === undefined) {
    if (unreadable !== undefined) throw unreadable;
    throw refused(
      'endorsements_missing',
      'document has no endorsements, and the policy lets none be fetched',
      {
        hint: 'set endorsements to "fetch" or "offline" in the policy, or have the server staple them',
      },
    );
  }
  // S32 and T27 compare report_data with a value a policy gives; here it is judged in full, as D4 and D5.
  transcript.checks.push(
    ...hardware.transcript.checks.filter(
      ({ id, status }) => status !== 'skip' || (id !== 'S32' && id !== 'T27'),
    ),
  );
  return hardware;
}

/**
 * Undefined when stapled ones were tried already and fetching fails too: their transcript
 * says more than the network.
 */
async function fetchEndorsements(
  format: 'snp' | 'tdx',
  document: AttestationDocument,
  options: HardwareOptions,
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

/** Undefined: the document brings all there is to it. */
function formatOf(document: AttestationDocument): 'snp' | 'tdx' | undefined {
  const { teeType } = document;
  if (teeType === 'aws-nitrotpm') return undefined;
  if (teeType !== 'simulated') return teeType.endsWith('tdx') ? 'tdx' : 'snp';
  return 'vek' in document.endorsements ? 'snp' : 'tdx';
}

async function verifyVendors(
  document: AttestationDocument,
  endorsements: SnpEndorsements | TdxEndorsements | undefined,
  policy: Policy,
  context: SnpContext & TdxContext,
): Promise<Hardware> {
  if (endorsements === undefined) throw new AttestationError('internal', 'internal', 'no endorsements');
  return 'vek' in endorsements
    ? await verifySnpDocument(document, endorsements, policy, context)
    : await verifyTdxDocument(document, endorsements, policy, context);
}

async function verifySnpDocument(
  document: AttestationDocument,
  { vek, chain, crl }: SnpEndorsements,
  policy: Policy,
  context: SnpContext,
): Promise<Hardware> {
  const found = await verifySnp({ report: document.report, vek, chain, crl }, policy.decided.snp, context);
  return {
    format: 'snp',
    transcript: found.transcript,
    accepted: found.accepted,
    authentic: found.authentic,
    reportData: found.report.reportData,
    measurement: found.report.measurement,
    product: found.product,
    chip: isZero(found.report.chipId) ? undefined : toHex(found.report.chipId),
    window: found.window,
    evidence: found.claims,
  };
}

async function verifyTdxDocument(
  document: AttestationDocument,
  collateral: TdxEndorsements,
  policy: Policy,
  context: TdxContext,
): Promise<Hardware> {
  const eventLog = 'eventLog' in document ? document.eventLog : undefined;
  const found = await verifyTdx(
    { quote: document.report, collateral, eventLog },
    policy.decided.tdx,
    context,
  );
  const { body } = found.quote;
  return {
    format: 'tdx',
    transcript: found.transcript,
    accepted: found.accepted,
    authentic: found.authentic,
    reportData: body.reportData,
    measurement: body.mrTd,
    rtmr: [body.rtmr0, body.rtmr1, body.rtmr2, body.rtmr3],
    product: undefined,
    chip: typeof found.claims['ppid'] === 'string' ? found.claims['ppid'] : undefined,
    window: found.window,
    evidence: found.claims,
  };
}
