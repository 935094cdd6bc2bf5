// Whether a model may be served by what is known of its making: its files must be outputs of a job whose
// record the server trusts (docs/workshop.md, "Admission"). The digests compared are those that loading
// enforces, so a file that is replaced later is refused there.

import { ApiError } from '../base/errors.ts';
import type { JobOrigin, JobProof, RegistryEntry } from './model.ts';

/** A record that holds, of a job that is done. */
export interface JudgedJob {
  readonly origin: JobOrigin;
  /** SHA-256 of every output, lower-case hex. */
  readonly outputs: ReadonlySet<string>;
}

export interface Provenance {
  /** Models without a record are refused. */
  readonly required: boolean;
  /** 400 job_record_refused, unsupported_parameter where the server trusts no job. */
  judge(proof: JobProof): Promise<JudgedJob>;
}

/** The entry as it may be registered. 400 job_record_required, and as `judge`. */
export async function admittedEntry(
  entry: RegistryEntry,
  proof: JobProof | undefined,
  provenance: Provenance | undefined,
): Promise<RegistryEntry> {
  if (proof === undefined) {
    if (provenance?.required === true) throw recordRequired();
    return entry;
  }
  if (provenance === undefined)
    throw new ApiError('unsupported_parameter', 'this server trusts no job: see [provenance]', {
      param: 'job_record',
    });
  const { origin, outputs } = await provenance.judge(proof);
  // Of what the server converts itself, the files it converted.
  const files = entry.model.derived?.sources ?? entry.files;
  const foreign = files.find(({ sha256 }) => !outputs.has(sha256));
  if (foreign !== undefined)
    throw new ApiError(
      'job_record_refused',
      `the job ${origin.id} made no file with the sha256 ${foreign.sha256}, which is one of the model`,
      { param: 'job_record' },
    );
  return { ...entry, model: { ...entry.model, job: origin }, jobProof: proof };
}

export function recordRequired(): ApiError {
  return new ApiError(
    'job_record_required',
    'this server takes only models that come with the record of a job it trusts',
    { param: 'job_record' },
  );
}
