// Sent by a publication beside the outputs of a job: the job's signed record and the evidence that binds its
// key, so that those that fetch the files can judge where they came from. Refuses files that are none of the
// record's outputs.

import { openJobRecord } from '@assay/attestation/job-record';
import { ApiError } from '../../base/errors.ts';
import { EVIDENCE_FILE, RECORD_FILE } from './card.ts';
import { measureText, type MeasuredFile } from './files.ts';

export interface PublishedProof {
  readonly record: Uint8Array;
  readonly evidence?: Uint8Array | undefined;
}

/** The record first. 500 model_file_changed where one of the files is none of its outputs. */
export async function proofFiles(
  files: readonly MeasuredFile[],
  proof: PublishedProof | undefined,
): Promise<readonly MeasuredFile[]> {
  if (proof === undefined) return [];
  const { record, evidence } = proof;
  const { outputs } = await openJobRecord(new Uint8Array(record));
  const made = new Set(outputs.map(({ sha256 }) => Buffer.from(sha256).toString('hex')));
  if (!files.every(({ sha256 }) => made.has(sha256)))
    throw new ApiError('model_file_changed', 'a file is not as the record of its job has it');
  if (files.some(({ path }) => path === RECORD_FILE || path === EVIDENCE_FILE))
    throw new ApiError('path_not_allowed', `${RECORD_FILE} and ${EVIDENCE_FILE} are names of the record`, {
      param: 'path',
    });
  const beside = [measureText(RECORD_FILE, record)];
  return evidence === undefined ? beside : [...beside, measureText(EVIDENCE_FILE, evidence)];
}
