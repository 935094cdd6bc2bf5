// Signs the record of a job with the receipt key of this boot, and asks the TEE, where there is one, for
// the evidence that binds that key. Its nonce is the SHA-256 of the record, so the evidence was also made
// for this very record; its exporter is zero, which no connection has.

import { createHash, sign, type KeyObject } from 'node:crypto';
import { encodeJobRecord, type JobParameter, type JobState } from '@assay/attestation/job-record';
import { documentToJson } from '@assay/attestation/issue';
import type { Attester } from '../../attester/attester.ts';
import { ApiError } from '../../base/errors.ts';
import type { Parameter } from '../kind.ts';
import type { StoredJob } from './state.ts';

export interface Signer {
  readonly receipt: { readonly privateKey: KeyObject; readonly publicKey: Uint8Array };
  /** Null: no TEE, records without evidence. */
  readonly attester: Pick<Attester, 'attest'> | null;
  readonly timeoutMs: number;
  readonly now: () => number;
}

export interface RunTool {
  readonly name: string;
  readonly version: string;
  readonly sha256: Uint8Array;
}

/** A record has at most 512 KiB; outputs and parameters take less than 200 of them. */
const MAX_INPUT_BYTES = 288 * 1024;
const MAX_INPUTS = 2048;
/** Of one input beside its name: the digest, and what CBOR adds. */
const ENTRY_BYTES = 40;

/** Before the program runs, whose work would be lost otherwise. 400 invalid_value. */
export function assertRecordable(inputs: StoredJob['inputs']): void {
  const bytes = inputs.reduce((sum, { name }) => sum + name.length + ENTRY_BYTES, 0);
  if (bytes > MAX_INPUT_BYTES || inputs.length > MAX_INPUTS)
    throw new ApiError('invalid_value', 'the inputs are more files than a record can name');
}

/** The job must be over. The evidence is an archive (assay/archive/v1) of one document. */
export async function signRecord(
  { receipt, attester, timeoutMs, now }: Signer,
  job: StoredJob,
  tool: RunTool,
): Promise<{ readonly record: Uint8Array; readonly evidence: string | undefined }> {
  const record = encodeJobRecord(
    {
      receiptKey: receipt.publicKey,
      kind: job.kind,
      id: job.id,
      inputs: sorted(job.inputs).map(({ name, sha256 }) => ({ name, sha256: bytesOf(sha256) })),
      tool,
      parameters: new Map(
        Object.entries(job.plan.parameters).map(([name, value]) => [name, recorded(value)]),
      ),
      outputs: sorted(job.outputs).map(({ name, sha256, size }) => ({ name, sha256: bytesOf(sha256), size })),
      startedAt: job.started ?? job.created,
      finishedAt: Math.max(job.finished ?? 0, job.started ?? job.created),
      state: stateOf(job),
      code: job.error?.code ?? null,
      barriers: job.barriers.toSorted(),
    },
    (bytes) => new Uint8Array(sign(null, bytes, receipt.privateKey)),
  );
  if (attester === null) return { record, evidence: undefined };
  const nonce = new Uint8Array(createHash('sha256').update(record).digest());
  const document = await attester.attest({
    nonce,
    exporter: new Uint8Array(32),
    clientId: null,
    signal: AbortSignal.timeout(timeoutMs),
  });
  const entry = {
    origin: `job:${job.id}`,
    at: new Date(now()).toISOString(),
    accepted: false,
    code: null,
    nonce: Buffer.from(nonce).toString('hex'),
    exporter: '00'.repeat(32),
    tls_spki_sha256: null,
    policy_sha256: null,
    policy: null,
    allowed: {},
    document: documentToJson(document),
  };
  const archive = { format: 'assay/archive/v1', evidence: [entry], receipts: [] };
  return { record, evidence: JSON.stringify(archive) };
}

function stateOf({ state }: StoredJob): JobState {
  if (state === 'queued' || state === 'running') throw new TypeError('a job that is not over has no record');
  return state;
}

/** Deterministic CBOR has no fractions and no negative numbers. */
function recorded(value: Parameter): JobParameter {
  if (typeof value === 'number') return Number.isSafeInteger(value) && value >= 0 ? value : String(value);
  if (Array.isArray(value)) return (value as readonly Parameter[]).map(recorded);
  return value;
}

function sorted<T extends { readonly name: string }>(items: readonly T[]): readonly T[] {
  return items.toSorted((a, b) => (a.name < b.name ? -1 : 1));
}

function bytesOf(hex: string): Uint8Array {
  return new Uint8Array(Buffer.from(hex, 'hex'));
}
