// The routes of a workshop: those of every kind of job, and those of jobs. A caller sees its own jobs
// alone; to all others they are not there.

import { createReadStream } from 'node:fs';
import { ApiError } from '../base/errors.ts';
import { anything, choice, flag, integer, list, object, optional, text } from '../base/shape.ts';
import { ownerOf, queryInteger } from '../file-routes/stored.ts';
import { readFormFields } from '../http/fields.ts';
import { type Call, type Route, route } from '../http/route.ts';
import { jobAnswer, wireJob } from './job-wire.ts';
import { type JobKind, PROGRAM_REFUSALS } from './kind.ts';
import type { Jobs } from './jobs/jobs.ts';
import { isOver, STATES, type StoredJob } from './jobs/state.ts';
import { MAX_WAIT_SECONDS, waitQuery } from './wait.ts';

const TAG = 'Jobs';
const MAX = Number.MAX_SAFE_INTEGER;
const jobId = text({ max: 64 });

/** The routes of all kinds, then those of jobs. */
export function workshopRoutes(jobs: Jobs, kinds: Iterable<JobKind>): readonly Route[] {
  return [...[...kinds].map((kind) => kindRoute(jobs, kind)), ...jobRoutes(jobs), ...resultRoutes(jobs)];
}

function kindRoute(jobs: Jobs, kind: JobKind): Route {
  return route({
    method: 'POST',
    path: kind.path,
    aliases: kind.aliases,
    access: 'key',
    limited: true,
    untimed: true,
    summary: kind.summary,
    tag: TAG,
    body: kind.body,
    query: waitQuery,
    fields: readFormFields,
    answer: object({ ...kind.answerFields, job_id: jobId }),
    accepted: object({ success: flag(), job_id: jobId, status: choice(STATES) }),
    errors: ['tool_unavailable', 'path_not_allowed', 'file_not_found', 'no_such_file', 'files_disabled', 'too_many_jobs', 'confinement_missing', 'network_disabled', 'job_failed', 'job_over_limit', 'job_cancelled', 'job_interrupted', 'model_file_changed', ...PROGRAM_REFUSALS], // prettier-ignore
    async handle(call) {
      const owner = ownerOf(call);
      const job = await jobs.submit(owner, kind, kind.plan(call.body));
      const wait = call.query.wait ?? (kind.answers === 'job' ? 0 : MAX_WAIT_SECONDS);
      const ended = wait === 0 ? job : await waited(jobs, call, job.id, wait);
      if (!isOver(ended)) {
        call.reply.code(202);
        return { success: true, job_id: ended.id, status: ended.state };
      }
      return answerOf(kind, ended);
    },
  });
}

async function waited(jobs: Jobs, call: Call, id: string, wait: number): Promise<StoredJob> {
  const late = AbortSignal.timeout(wait * 1000);
  const job = await jobs.wait(ownerOf(call), id, AbortSignal.any([late, call.exchange.signal]));
  call.exchange.throwIfOver();
  return job;
}

function answerOf(kind: JobKind, job: StoredJob): object {
  if (job.state !== 'done') throw failureOf(job);
  const { id, plan, outputs, result, started, finished } = job;
  const inputs = plan.inputs.map(({ name, given }) => {
    const own = job.inputs.filter((each) => each.name === name || each.name.startsWith(`${name}/`));
    return { name, given, size: own.reduce((sum, { size }) => sum + size, 0) };
  });
  const elapsedSeconds = Math.max(0, (finished ?? 0) - (started ?? 0)) / 1000;
  return {
    ...kind.answer({ id, parameters: plan.parameters, inputs, outputs, result, elapsedSeconds }),
    job_id: id,
  };
}

function failureOf({ error, id }: StoredJob): ApiError {
  const { code, message, param } = error ?? { code: 'job_failed', message: 'it failed', param: null };
  return new ApiError(code as 'job_failed', `${message} (${id})`, {
    param: param ?? undefined,
    shouldRetry: false,
  });
}

function idOf({ params }: Pick<Call, 'params'>): string {
  return params['id'] ?? '';
}

function jobRoutes(jobs: Jobs): readonly Route[] {
  return [
    route({
      method: 'GET',
      path: '/api/jobs',
      access: 'key',
      limited: true,
      summary: 'The jobs of this key, the newest first.',
      tag: TAG,
      query: object({ limit: optional(queryInteger({ min: 1, max: 1000 })) }),
      answer: object({
        object: choice(['list']),
        data: list(jobAnswer, { max: 1000 }),
        total: integer({ min: 0, max: MAX }),
      }),
      handle(call) {
        const all = jobs.list(ownerOf(call)).toReversed();
        const data = all.slice(0, call.query.limit ?? 100).map((job) => wireJob(job, false));
        return Promise.resolve({ object: 'list', data, total: all.length });
      },
    }),
    route({
      method: 'GET',
      path: '/api/jobs/:id',
      access: 'key',
      limited: true,
      untimed: true,
      summary: 'One job: its state, progress and the end of its log.',
      tag: TAG,
      query: waitQuery,
      answer: jobAnswer,
      errors: ['no_such_job'],
      async handle(call) {
        const { wait = 0 } = call.query;
        const owner = ownerOf(call);
        return wireJob(wait === 0 ? jobs.get(owner, idOf(call)) : await waited(jobs, call, idOf(call), wait));
      },
    }),
    route({
      method: 'POST',
      path: '/api/jobs/:id/cancel',
      access: 'key',
      limited: true,
      summary: 'End a job and everything it started; answered once all of it has ended.',
      tag: TAG,
      answer: jobAnswer,
      errors: ['no_such_job'],
      async handle(call) {
        return wireJob(await jobs.cancel(ownerOf(call), idOf(call)));
      },
    }),
    route({
      method: 'DELETE',
      path: '/api/jobs/:id',
      access: 'key',
      limited: true,
      summary: 'Remove a job that is over, with its outputs and its record.',
      tag: TAG,
      answer: object({ id: text({ max: 64 }), object: choice(['job']), deleted: flag() }),
      errors: ['no_such_job', 'job_not_over'],
      async handle(call) {
        await jobs.remove(ownerOf(call), idOf(call));
        return { id: idOf(call), object: 'job', deleted: true };
      },
    }),
  ];
}

const RECORD_TYPE = 'application/vnd.assay.job+cbor';
const BYTES = { method: 'GET', access: 'key', limited: true, untimed: true, tag: TAG, errors: ['no_such_job', 'job_not_over'] } as const; // prettier-ignore

/** Record, evidence and outputs of a job that is over. */
function resultRoutes(jobs: Jobs): readonly Route[] {
  return [
    route({
      ...BYTES,
      path: '/api/jobs/:id/record',
      summary: 'The signed record of a job (application/vnd.assay.job+cbor).',
      bytes: RECORD_TYPE,
      async handle(call) {
        return send(call, await jobs.record(ownerOf(call), idOf(call)), RECORD_TYPE);
      },
    }),
    route({
      ...BYTES,
      path: '/api/jobs/:id/evidence',
      summary: 'The evidence that binds the key of the record (assay/archive/v1).',
      answer: object({ format: choice(['assay/archive/v1']), evidence: anything, receipts: anything }),
      async handle(call) {
        const bytes = await jobs.evidence(ownerOf(call), idOf(call));
        return send(call, bytes, 'application/json; charset=utf-8');
      },
    }),
    route({
      ...BYTES,
      path: '/api/jobs/:id/output/*',
      summary: 'An output of a job, by its name.',
      bytes: 'application/octet-stream',
      handle(call) {
        const owner = ownerOf(call);
        const name = call.params['*'] ?? '';
        const { outputs } = jobs.get(owner, idOf(call));
        const path = jobs.outputOf(owner, idOf(call), name);
        const size = outputs.find((output) => output.name === name)?.size;
        if (path === undefined || size === undefined) throw nothing();
        call.reply.type('application/octet-stream').header('content-length', size);
        // Ends with its last byte: a client that has them all leaves at once.
        const bytes = size === 0 ? Buffer.alloc(0) : createReadStream(path, { end: size - 1 });
        return Promise.resolve(call.reply.send(bytes));
      },
    }),
  ];
}

function send(call: Call, bytes: Buffer | undefined, type: string): unknown {
  if (bytes === undefined) throw nothing();
  return call.reply.type(type).header('content-length', bytes.length).send(bytes);
}

function nothing(): ApiError {
  return new ApiError('no_such_job', 'there is nothing of that name of this job');
}
