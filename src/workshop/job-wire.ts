// A job as the routes answer it.

import { anything, choice, decimal, flag, integer, list, nullable, object, text } from '../base/shape.ts';
import { seconds } from '../file-routes/stored.ts';
import { STATES, type StoredJob } from './jobs/state.ts';

const MAX = Number.MAX_SAFE_INTEGER;

const file = object({
  name: text({ max: 1024 }),
  sha256: text({ max: 64 }),
  bytes: integer({ min: 0, max: MAX }),
});
const time = nullable(integer({ min: 0, max: MAX }));

export const jobAnswer = object({
  id: text({ max: 64 }),
  job_id: text({ max: 64 }),
  object: choice(['job']),
  kind: text({ max: 64 }),
  status: choice(STATES),
  progress: decimal({ min: 0, max: 1 }),
  stage: nullable(text({ max: 64 })),
  created_at: integer({ min: 0, max: MAX }),
  started_at: time,
  finished_at: time,
  error: nullable(
    object({ code: text({ max: 64 }), message: text({ max: 1024 }), param: nullable(text({ max: 64 })) }),
  ),
  inputs: list(file, { max: 2048 }),
  outputs: list(file, { max: 256 }),
  result: anything,
  parameters: anything,
  log: list(text({ max: 1024 }), { max: 1000 }),
  recorded: flag('Whether GET …/record gives its signed record.'),
});

/** In lists without its log and without what its program told of the result. */
export function wireJob(job: StoredJob, whole = true): object {
  const files = job.inputs.map(({ name, sha256, size }) => ({ name, sha256, bytes: size }));
  return {
    id: job.id,
    job_id: job.id,
    object: 'job',
    kind: job.kind,
    status: job.state,
    progress: job.progress,
    stage: job.stage,
    created_at: seconds(job.created),
    started_at: job.started === null ? null : seconds(job.started),
    finished_at: job.finished === null ? null : seconds(job.finished),
    error: job.error,
    inputs: files,
    outputs: job.outputs.map(({ name, sha256, size }) => ({ name, sha256, bytes: size })),
    parameters: job.plan.parameters,
    result: whole ? job.result : null,
    log: whole ? job.log : [],
    recorded: job.recorded,
  };
}
