// Fields of a registration that say which job of a workshop made its files (docs/workshop.md, "Admission").

import { MAX_EVIDENCE, MAX_RECORD } from '../../base/job-proof.ts';
import { optional, refuse, text } from '../../base/shape.ts';
import type { JobProof } from '../../base/job-proof.ts';

export const JOB_FIELDS = {
  job_record: optional(
    text({
      min: 1,
      max: MAX_RECORD,
      pattern: /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/,
      form: 'base64',
      about: 'The signed record of the job that made the files, as a workshop gives it, in base64.',
    }),
  ),
  job_evidence: optional(
    text({
      min: 1,
      max: MAX_EVIDENCE,
      about: 'The text of the evidence that a workshop gives with the record.',
    }),
  ),
};

export function jobProof(given: {
  readonly job_record?: string | undefined;
  readonly job_evidence?: string | undefined;
}): JobProof | undefined {
  const { job_record: record, job_evidence: evidence } = given;
  if (record !== undefined) return { record, evidence };
  if (evidence !== undefined)
    throw refuse('missing_required_parameter', 'job_record', 'job_evidence goes with job_record');
  return undefined;
}
