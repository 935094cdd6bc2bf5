// Which jobs of workshops the server trusts, from `[provenance]`: by the key that signed the record, or by
// evidence that binds that key and that the configured policy accepts. It fetches no file: evidence comes
// with its endorsements.

import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { allowSimulated, AttestationError, fromHex, parseJson, parsePolicy, toHex } from '@assay/attestation';
import type { JobRecord } from '@assay/attestation/job-record';
import { judgeJobRecord, type JobTrust, type JobVerdict } from '@assay/attestation/job-verdict';
import type { Clock } from '../base/clock.ts';
import { ApiError, ConfigError } from '../base/errors.ts';
import { MAX_EVIDENCE } from '../base/job-proof.ts';
import type { Config } from '../config/read.ts';
import type { JobProof } from '../base/job-proof.ts';
import type { JudgedJob, Provenance } from '../models/provenance.ts';
import { refusedValue } from './configured-paths.ts';

/** Undefined: no trust is configured. Throws ConfigError. */
export function createProvenance(config: Config, clock: Pick<Clock, 'now'>): Provenance | undefined {
  const { required, keys, policy: policyText, allowSimulated: simulated, kinds, inputs } = config.provenance;
  const trusting = keys.length > 0 || policyText !== undefined;
  if (!trusting) {
    const idle = required || simulated || kinds.length > 0 || inputs.length > 0;
    if (idle)
      throw new ConfigError(
        '[provenance] trusts no job: set provenance.keys or provenance.policy',
        'provenance.keys',
      );
    return undefined;
  }
  const policy = policyText === undefined ? undefined : policyOf(config, policyText, simulated);
  const trust = {
    policy,
    keys: keys.map((key) => fromHex(key, 'provenance.keys')),
    kinds: new Set(kinds),
    inputs: new Set(inputs),
  };
  return { required, judge: (proof) => judge(proof, trust, clock.now()) };
}

/** The files an entry of the configuration names. */
export async function jobProofOf(entry: {
  readonly jobRecord?: string | undefined;
  readonly jobEvidence?: string | undefined;
}): Promise<JobProof | undefined> {
  if (entry.jobRecord === undefined) return undefined;
  const record = (await readFile(entry.jobRecord)).toString('base64');
  if (entry.jobEvidence === undefined) return { record };
  return { record, evidence: await readFile(entry.jobEvidence, 'utf8') };
}

function policyOf(config: Config, text: string, simulated: boolean): ReturnType<typeof parsePolicy> {
  try {
    return parsePolicy(text, simulated ? { [allowSimulated]: true } : {});
  } catch (error) {
    if (!(error instanceof AttestationError)) throw error;
    throw refusedValue(config, ['provenance.policy'], error.message, error);
  }
}

interface Trust {
  readonly policy: ReturnType<typeof parsePolicy> | undefined;
  readonly keys: readonly Uint8Array[];
  readonly kinds: ReadonlySet<string>;
  readonly inputs: ReadonlySet<string>;
}

async function judge(proof: JobProof, trust: Trust, now: number): Promise<JudgedJob> {
  const bytes = new Uint8Array(Buffer.from(proof.record, 'base64'));
  const verdict = await verdictOf(bytes, proof, { trust, now });
  const { record } = verdict;
  const problem = problemOf(record, trust);
  if (problem !== undefined) throw refused(problem);
  return {
    origin: {
      id: record.id,
      kind: record.kind,
      recordSha256: createHash('sha256').update(bytes).digest('hex'),
      receiptKey: toHex(record.receiptKey),
      by: verdict.kind === 'attested' ? 'evidence' : 'key',
    },
    outputs: new Map(record.outputs.map(({ name, sha256 }) => [name, toHex(sha256)])),
  };
}

async function verdictOf(
  bytes: Uint8Array,
  { evidence }: JobProof,
  { trust: { policy, keys }, now }: { readonly trust: Trust; readonly now: number },
): Promise<JobVerdict> {
  try {
    const { record } = await judgeJobRecord(bytes, { now });
    // A key that is named needs no evidence, and none that came beside it counts against it.
    const named = keys.some((key) => toHex(key) === toHex(record.receiptKey));
    const shown: JobTrust =
      !named && evidence !== undefined && policy !== undefined
        ? { evidence: { archive: parseJson(evidence, 'job_evidence', MAX_EVIDENCE), policy }, now }
        : { keys, now };
    const verdict = await judgeJobRecord(bytes, shown);
    if (verdict.kind !== 'signed') return verdict;
  } catch (error) {
    if (!(error instanceof AttestationError)) throw error;
    throw refused(`${error.code}: ${error.message}`, error);
  }
  throw refused('no evidence came with the record, and its key is not one that is named');
}

function problemOf(record: JobRecord, { kinds, inputs }: Trust): string | undefined {
  if (record.state !== 'done') return `the job is ${record.state}, not done`;
  if (kinds.size > 0 && !kinds.has(record.kind)) return `jobs of the kind ${record.kind} are not trusted`;
  if (inputs.size > 0 && record.inputs.length === 0) return 'the record names no file the job was given';
  const foreign = record.inputs.find(({ sha256 }) => !inputs.has(toHex(sha256)));
  if (inputs.size > 0 && foreign !== undefined)
    return `the job was given a file that is not trusted, sha256 ${toHex(foreign.sha256)}`;
  return undefined;
}

function refused(message: string, cause?: unknown): ApiError {
  return new ApiError('job_record_refused', message, { param: 'job_record', cause });
}
