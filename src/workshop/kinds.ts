// Every kind of job, and the routes that tell of them without a job. A new kind is a file of its own and a
// line here.

import type { Route } from '../http/route.ts';
import { convertKind } from './gguf/convert.ts';
import { imatrixKind, inspectKind, mergeKind, mergeLoraKind, splitKind } from './gguf/file-kinds.ts';
import { quantizeKind } from './gguf/quantize.ts';
import { pipelineStatus } from './gguf/status.ts';
import type { JobKind } from './kind.ts';
import type { Jobs } from './jobs/jobs.ts';
import type { PythonEnvironment } from './python/environment.ts';
import type { Allowed } from './python/pickles.ts';
import { crossKind, litertKind, trainKind } from './python/kinds.ts';
import { pythonRoutes } from './python/routes.ts';

/** By name. */
export function allKinds(
  python: PythonEnvironment,
  allowed: Allowed = { pickles: false },
): ReadonlyMap<string, JobKind> {
  const kinds = [
    quantizeKind,
    convertKind,
    inspectKind,
    splitKind,
    mergeKind,
    mergeLoraKind,
    imatrixKind,
    crossKind(python, allowed),
    litertKind(python, allowed),
    trainKind(python),
  ];
  return new Map(kinds.map((kind) => [kind.name, kind]));
}

/** Beside the routes of the kinds themselves. */
export function familyRoutes(
  kinds: ReadonlyMap<string, JobKind>,
  python: PythonEnvironment,
  jobs: Jobs,
): readonly Route[] {
  return [pipelineStatus(new Set(kinds.keys())), ...pythonRoutes(python, jobs)];
}
