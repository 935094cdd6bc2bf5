// Why a job is not done, or a request about one is refused, in words.

import { ApiError } from '../../base/errors.ts';
import type { StoredJob } from './state.ts';

type JobError = NonNullable<StoredJob['error']>;

export const NO_RECORD: JobError = {
  code: 'record_failed',
  message: 'its record could not be made or signed',
  param: null,
};

export function cancelled(): JobError {
  return { code: 'job_cancelled', message: 'the job was cancelled', param: null };
}

export function interrupted(): JobError {
  return { code: 'job_interrupted', message: 'the workshop ended while it ran', param: null };
}

/** A job whose record could not be made is not done. */
export function unrecorded(job: StoredJob): StoredJob {
  const state = job.state === 'done' ? 'failed' : job.state;
  return { ...job, state, outputs: [], result: null, error: job.error ?? NO_RECORD };
}

export function noSuchJob(): ApiError {
  return new ApiError('no_such_job', 'there is no such job, or it is not of this API key');
}

export function notOver(): ApiError {
  return new ApiError('job_not_over', 'the job is not over');
}
