// Why a job is not done, or a request about one is refused, in words.

import { ApiError } from '../../base/errors.ts';
import type { StoredJob } from './state.ts';

type JobError = NonNullable<StoredJob['error']>;

const NO_RECORD: JobError = {
  code: 'record_failed',
  message: 'its record could not be made or signed',
  param: null,
};

/** A job whose record or state could not be written. */
export function unrecorded(error: unknown): JobError {
  if (!(error instanceof ApiError) || error.code !== 'storage_full') return NO_RECORD;
  return { code: error.code, message: 'there was no room for its record', param: null };
}

export function cancelled(): JobError {
  return { code: 'job_cancelled', message: 'the job was cancelled', param: null };
}

export function interrupted(): JobError {
  return { code: 'job_interrupted', message: 'the workshop ended while it ran', param: null };
}

export function noSuchJob(): ApiError {
  return new ApiError('no_such_job', 'there is no such job, or it is not of this API key');
}

export function notOver(): ApiError {
  return new ApiError('job_not_over', 'the job is not over');
}
