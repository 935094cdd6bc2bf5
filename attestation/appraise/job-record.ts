// The verdict on a workshop's job record: its signature holds, and the key that signed it is one the caller
// knows, or one that evidence accepted by the caller's policy binds as claim 6 (docs/workshop.md, "Trust").
// The archive's word on what it allowed or accepted does not count here: the maker of the record also
// wrote the archive beside it.

import { equalBytes, toHex } from '../encoding/bytes.ts';
import type { Json } from '../encoding/json.ts';
import { type JobRecord, openJobRecord } from '../receipts/job.ts';
import { AttestationError, refused } from '../transcript/errors.ts';
import { type ArchivedResult, verifyArchived } from './appraise.ts';
import type { HardwareOptions } from './hardware.ts';
import { archivedDocuments } from './archive.ts';
import type { Policy } from './policy.ts';

/** Whom a caller trusts to sign records: by key, or by evidence that a policy accepts. */
export interface JobTrust {
  /** Keys that may sign without evidence, 32 bytes each. */
  readonly keys?: readonly Uint8Array[] | undefined;
  /** An archive of evidence (assay/archive/v1), and what it must show. */
  readonly evidence?:
    ({ readonly archive: Json; readonly policy: Policy } & Pick<HardwareOptions, 'vtpm'>) | undefined;
  /** Milliseconds since 1970: no evidence may be from later. */
  readonly now: number;
}

/** `signed`: the signature holds, and whose key it is remains open. Never a pass. */
export type JobVerdict =
  | { readonly kind: 'signed'; readonly record: JobRecord }
  | { readonly kind: 'key'; readonly record: JobRecord }
  | { readonly kind: 'attested'; readonly record: JobRecord; readonly result: ArchivedResult };

/**
 * @throws AttestationError malformed_record, malformed_cbor; refused record_signature, record_key, and
 * everything evidence can be refused for
 * @example const verdict = await judgeJobRecord(bytes, { evidence: { archive, policy }, now: Date.now() });
 */
export async function judgeJobRecord(bytes: Uint8Array, trust: JobTrust): Promise<JobVerdict> {
  const record = await openJobRecord(bytes);
  const { evidence, keys = [], now } = trust;
  if (evidence !== undefined) {
    const result = await binding(record, evidence, now);
    return { kind: 'attested', record, result };
  }
  const known = keys.some((key) => equalBytes(key, record.receiptKey));
  if (!known && keys.length > 0)
    throw refused('record_key', 'the record is signed by a key that is not one of those to trust', {
      actual: toHex(record.receiptKey),
      expected: keys.map(toHex).join(', '),
    });
  return { kind: known ? 'key' : 'signed', record };
}

/** Every document must be accepted and bind the key: one that does not was no part of this record. */
async function binding(
  record: JobRecord,
  { archive, policy, vtpm }: NonNullable<JobTrust['evidence']>,
  now: number,
): Promise<ArchivedResult> {
  const key = toHex(record.receiptKey);
  let last: ArchivedResult | undefined;
  for (const { document, at } of archivedDocuments(archive)) {
    if (at > now)
      throw refused(
        'record_key',
        `the evidence says that it is from ${new Date(at).toISOString()}, which is yet to come`,
      );
    // Evidence has to come with its endorsements; none is fetched here.
    last = await verifyArchived(document, { policy, now: at, vtpm });
    if (last.receiptKey !== key)
      throw refused('record_key', 'the evidence binds another key than the one that signed the record', {
        expected: key,
        actual: last.receiptKey,
      });
  }
  if (last === undefined) throw new AttestationError('internal', 'internal', 'an archive without evidence');
  return last;
}
