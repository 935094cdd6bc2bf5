// Every kind of job, and the routes that tell of them without a job. A new kind is a file of its own and a line here.

import type { Route } from '../http/route.ts';
import { convertKind } from './gguf/convert.ts';
import { imatrixKind, inspectKind, mergeKind, mergeLoraKind, splitKind } from './gguf/file-kinds.ts';
import { quantizeKind } from './gguf/quantize.ts';
import { pipelineStatus } from './gguf/status.ts';
import type { JobKind } from './kind.ts';

export const KINDS: ReadonlyMap<string, JobKind> = new Map(
  [quantizeKind, convertKind, inspectKind, splitKind, mergeKind, mergeLoraKind, imatrixKind].map((kind) => [
    kind.name,
    kind,
  ]),
);

/** Beside the routes of the kinds themselves. */
export function familyRoutes(): readonly Route[] {
  const names = new Set(KINDS.keys());
  return [pipelineStatus(names)];
}
