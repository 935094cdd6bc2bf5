// The routes about Python that start no job: what can be converted, what can be trained, and the jobs of
// training.

import { choice, flag, integer, list, nullable, object, optional, text } from '../../base/shape.ts';
import { ApiError } from '../../base/errors.ts';
import { ownerOf } from '../../file-routes/stored.ts';
import { type Route, route } from '../../http/route.ts';
import { jobAnswer, wireJob } from '../job-wire.ts';
import type { Jobs } from '../jobs/jobs.ts';
import { CROSS_PATH_IDS, crossPaths } from './cross-paths.ts';
import type { PythonEnvironment } from './environment.ts';
import { finetuneStatus } from './finetune-status.ts';

const MAX_JOBS = 1000;
const count = integer({ min: 0, max: 100_000 });
const COMMON = { method: 'GET', access: 'key', limited: true, tag: 'Jobs' } as const;
const words = text({ max: 4096 });
/** As Part of finetune-status. */
const part = object({ available: flag(), version: nullable(words), note: optional(words) });

export function pythonRoutes(environment: PythonEnvironment, jobs: Jobs): readonly Route[] {
  return [
    route({
      ...COMMON,
      path: '/api/convert/cross/paths',
      summary: 'The conversions between formats, which of them this workshop can do, and why not the others.',
      answer: object({
        paths: list(
          object({
            id: choice(CROSS_PATH_IDS),
            from_format: words,
            to_format: words,
            source_extensions: list(words, { max: 8 }),
            available: flag(),
            note: words,
          }),
          { max: CROSS_PATH_IDS.length },
        ),
        total: count,
        available_count: count,
      }),
      handle: () => crossPaths(environment),
    }),
    route({
      ...COMMON,
      path: '/api/finetune/status',
      summary: 'What training needs and what of it is there.',
      answer: object({
        ready: flag(),
        backend: words,
        cuda: part,
        unsloth: part,
        torch: part,
        transformers: part,
        peft: part,
        trl: part,
        bitsandbytes: part,
        export_formats: list(words, { max: 16 }),
        missing: list(words, { max: 64 }),
        command: nullable(words),
      }),
      handle: () => finetuneStatus(environment),
    }),
    route({
      ...COMMON,
      path: '/api/finetune/jobs',
      summary: 'The training jobs of this key, the newest first.',
      answer: object({ object: choice(['list']), data: list(jobAnswer, { max: MAX_JOBS }), total: count }),
      handle(call) {
        const all = jobs.list(ownerOf(call)).filter(({ kind }) => isTraining(kind));
        const data = all
          .toReversed()
          .slice(0, MAX_JOBS)
          .map((job) => wireJob(job, false));
        return Promise.resolve({ object: 'list', data, total: all.length });
      },
    }),
    route({
      ...COMMON,
      path: '/api/finetune/jobs/:id',
      summary: 'One training job.',
      answer: jobAnswer,
      errors: ['no_such_job'],
      handle(call) {
        const job = jobs.get(ownerOf(call), call.params['id'] ?? '');
        if (!isTraining(job.kind)) throw new ApiError('no_such_job', 'there is no training job of that id');
        return Promise.resolve(wireJob(job));
      },
    }),
  ];
}

function isTraining(kind: string): boolean {
  return kind === 'finetune/train';
}
