// From a nonce to a document: claims, report_data, one report over them (docs/protocol.md §2–§4). Only this
// file decides the layout of report_data: a caller's bytes are never signed raw. ReportSource is the seam to
// the makers of reports: configfs-tsm, or the simulation.

import {
  ALL_MODELS_ID,
  allModelsDigest,
  formatTimestamp,
  reportData,
  type AttestationDocument,
  type AttestedModel,
  type ModelClaim,
  type SnpEndorsements,
  type TdxEndorsements,
  type TeeType,
} from '@assay/attestation';
import { encodeClaims } from '@assay/attestation/issue';
import { ApiError } from '../base/errors.ts';
import { confirmCbor } from './cbor-cross-check.ts';

/** One report with its measurement, event log and endorsements. */
export interface Report {
  /** The raw SNP report or TDX quote. */
  readonly report: Uint8Array;
  /** 48 bytes: MEASUREMENT or MRTD. */
  readonly measurement: Uint8Array;
  readonly rtmr?: readonly Uint8Array[] | undefined;
  readonly eventLog?: Uint8Array | undefined;
  /** A cloud's: what its TPM and firmware say, as `encodePlatform` writes it. */
  readonly platform?: Uint8Array | undefined;
  readonly endorsements?: SnpEndorsements | TdxEndorsements | undefined;
}

/** Makes reports. Its owner makes one call at a time; rejects with TsmError or any Error. */
export interface ReportSource {
  readonly teeType: TeeType;
  report(reportData: Uint8Array, signal: AbortSignal): Promise<Report>;
  /** False after an error that no retry can recover from. */
  readonly available: boolean;
  /** Of the endorsements stapled now. */
  endorsementsExpireAt(): number | null;
  endorsementsError(): string | null;
  close(): Promise<void>;
}

/** Fields that are the same in all claims of this boot, but for the key of sealed bodies, which rotates. */
export interface ClaimContext {
  /** SHA-256 of the TLS leaf's SubjectPublicKeyInfo. */
  readonly tlsSpki: Uint8Array;
  readonly config: Uint8Array;
  readonly receiptKey: Uint8Array;
  readonly hpkeKey: () => Uint8Array;
}

/** The models one document speaks of. */
export interface Subject {
  readonly claim: ModelClaim;
  readonly models: readonly AttestedModel[];
}

/** One model, or all that can be served. 404 model_not_found. */
export function subjectOf(models: readonly AttestedModel[], modelId: string | undefined): Subject {
  if (modelId === undefined)
    return { claim: { kind: 'all', id: ALL_MODELS_ID, sha256: allModelsDigest(models) }, models };
  const model = models.find((candidate) => candidate.id === modelId);
  if (model === undefined)
    throw new ApiError('model_not_found', 'no model of that id can be served', { param: 'model' });
  return { claim: { kind: model.kind, id: model.id, sha256: model.sha256 }, models: [model] };
}

export interface Challenge {
  readonly nonce: Uint8Array;
  /** Absent for sealed bodies. */
  readonly exporter: Uint8Array | undefined;
}

/** Claims bytes; `challenge` is absent in the certificate's evidence only. `issuedAt` in seconds. */
export function claimsFor(
  context: ClaimContext,
  subject: Subject,
  issuedAt: number,
  challenge?: Challenge,
): Uint8Array {
  const hpkeKey = context.hpkeKey();
  return confirmCbor(
    encodeClaims({ ...context, hpkeKey, model: subject.claim, issuedAt, ...challenge }),
    'claims',
  );
}

export interface DocumentParts {
  readonly teeType: TeeType;
  readonly made: Report;
  readonly root: Uint8Array;
  readonly subject: Subject;
  readonly claims: Uint8Array;
  readonly issuedAt: number;
  readonly nonce?: Uint8Array | undefined;
  readonly inclusion: AttestationDocument['inclusion'];
}

export function documentOf(parts: DocumentParts): AttestationDocument {
  const { made } = parts;
  const fields = {
    version: '1' as const,
    report: made.report,
    reportData: reportData(parts.root, parts.subject.claim.sha256),
    measurement: made.measurement,
    timestamp: formatTimestamp(parts.issuedAt),
    nonce: parts.nonce === undefined ? undefined : Buffer.from(parts.nonce).toString('hex'),
    claims: parts.claims,
    inclusion: parts.inclusion,
    models: parts.subject.models,
  };
  const { endorsements } = made;
  const snp = endorsements !== undefined && 'vek' in endorsements ? endorsements : undefined;
  const tdx = endorsements !== undefined && 'tcbInfo' in endorsements ? endorsements : undefined;
  switch (parts.teeType) {
    case 'sev-snp':
      return { ...fields, teeType: 'sev-snp', endorsements: snp };
    case 'azure-sev-snp':
    case 'gcp-sev-snp':
      return { ...fields, teeType: parts.teeType, platform: made.platform, endorsements: snp };
    case 'azure-tdx':
      return { ...fields, teeType: parts.teeType, platform: made.platform, endorsements: tdx };
    case 'gcp-tdx':
      return {
        ...fields,
        teeType: parts.teeType,
        rtmr: made.rtmr,
        eventLog: made.eventLog,
        platform: made.platform,
        endorsements: tdx,
      };
    case 'aws-nitrotpm':
      return { ...fields, teeType: parts.teeType };
    case 'simulated':
      // A simulated document shows the vendor of its report by its endorsements alone.
      if (endorsements === undefined) throw new TypeError('simulated evidence always has endorsements');
      return { ...fields, teeType: 'simulated', endorsements };
    case 'tdx':
      return {
        ...fields,
        teeType: 'tdx',
        rtmr: made.rtmr,
        eventLog: made.eventLog,
        endorsements: tdx,
      };
  }
}
