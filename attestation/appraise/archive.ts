// Archives of evidence, `assay/archive/v1`: what a connection was shown, kept so that it can be judged again
// years later, offline and at its own time. Nonce, exporter, TLS key and the time are the archiver's word
// then: their rules are skips, and the outcome is an ArchivedResult, a type no connection accepts. Its
// receipts are judged by receipt-verdict.ts.

import { type Json, type JsonObject, shapeReaders } from '../encoding/json.ts';
import { type AttestationDocument, isCloudTee, parseDocument } from '../protocol/document.ts';
import { AttestationError, malformed, unsupported } from '../transcript/errors.ts';
import { type ArchivedResult, verifyArchived } from './appraise.ts';
import type { CloudVerifier } from './hardware.ts';
import {
  allowAnyModel,
  allowSimulated,
  type Dangers,
  observingPolicy,
  parsePolicy,
  type Policy,
} from './policy.ts';

export const ARCHIVE_FORMAT = 'assay/archive/v1';

const shape = shapeReaders('malformed_evidence');
const MAX_ENTRIES = 64;
const ENTRY = [
  'origin',
  'at',
  'accepted',
  'code',
  'nonce',
  'exporter',
  'tls_spki_sha256',
  'policy_sha256',
  'policy',
  'allowed',
  'document',
];

/** Time and policy to judge an archive by, in place of the archiver's. */
export interface ArchiveJudge {
  readonly now?: Date | undefined;
  readonly policy?: Json | undefined;
  /** `() => import('@assay/attestation/vtpm')`; without it evidence of the clouds is refused. */
  readonly clouds?: (() => Promise<{ readonly vtpm: CloudVerifier }>) | undefined;
}

export interface JudgedEntry {
  readonly origin: string;
  readonly at: Date;
  readonly outcome: { readonly result: ArchivedResult } | { readonly error: AttestationError };
}

export interface ArchivedDocument {
  readonly document: AttestationDocument;
  /** Milliseconds since 1970, the archiver's word. */
  readonly at: number;
}

/**
 * The documents of an archive without the archiver's policy and verdict. @throws as judgeArchive does
 */
export function archivedDocuments(json: Json): readonly ArchivedDocument[] {
  return entriesOf(json).map((entry) => ({
    document: parseDocument(entry['document'] ?? null),
    at: timeOf(entry).getTime(),
  }));
}

/** Judges every entry again. @throws malformed_evidence and the codes of documents and policies */
export async function judgeArchive(json: Json, judge: ArchiveJudge): Promise<readonly JudgedEntry[]> {
  const judged: JudgedEntry[] = [];
  for (const entry of entriesOf(json)) judged.push(await judgeEntry(entry, judge));
  return judged;
}

function entriesOf(json: Json): readonly JsonObject[] {
  const archive = shape.object(json, 'archive', ['format', 'evidence'], ['receipts', 'now', 'policy']);
  const format = shape.string(archive['format'], 'format', 64);
  if (format !== ARCHIVE_FORMAT)
    throw unsupported('malformed_evidence', `archive format is ${JSON.stringify(format)}`, {
      expected: ARCHIVE_FORMAT,
      actual: format,
    });
  const receipts = archive['receipts'] ?? [];
  if (!Array.isArray(receipts)) throw malformed('malformed_evidence', 'receipts is not a list');
  const entries = shape.list(archive['evidence'], 'evidence', 1, MAX_ENTRIES);
  return entries.map((entry, i) => shape.object(entry, `evidence[${i}]`, ENTRY, []));
}

function timeOf(entry: JsonObject): Date {
  const time = new Date(shape.string(entry['at'], 'at', 64));
  if (Number.isNaN(time.getTime())) throw malformed('malformed_evidence', 'at is not a time');
  return time;
}

async function judgeEntry(entry: JsonObject, judge: ArchiveJudge): Promise<JudgedEntry> {
  const time = timeOf(entry);
  const policy = policyOfEntry(entry, judge.policy);
  const document = parseDocument(entry['document'] ?? null);
  const now = (judge.now ?? time).getTime();
  const origin = shape.string(entry['origin'], 'origin', 1024);
  const clouds = isCloudTee(document.teeType) ? await judge.clouds?.() : undefined;
  try {
    const result = await verifyArchived(document, { policy, now, vtpm: clouds?.vtpm });
    return { origin, at: time, outcome: { result } };
  } catch (error) {
    if (error instanceof AttestationError) return { origin, at: time, outcome: { error } };
    throw error;
  }
}

/**
 * The judge's policy, else the archiver's, with what flags allowed then. Stapled
 * endorsements are all there is.
 */
function policyOfEntry(entry: JsonObject, given: Json | undefined): Policy {
  const allowed = shape.object(entry['allowed'] ?? {}, 'allowed', [], ['any_model', 'simulated']);
  const simulated = allowed['simulated'];
  const dangers: Dangers = {
    [allowAnyModel]: allowed['any_model'] === true ? true : undefined,
    [allowSimulated]: simulatedDanger(simulated),
  };
  const policy = given ?? entry['policy'] ?? null;
  if (policy === null) return observingPolicy(dangers);
  const stapled = { ...shape.object(policy, 'policy', [], Object.keys(policy)), endorsements: 'stapled' };
  return parsePolicy(JSON.stringify(stapled), dangers);
}

function simulatedDanger(value: Json | undefined): Dangers[typeof allowSimulated] {
  if (value === true) return true;
  return typeof value === 'string' ? { root: value } : undefined;
}
