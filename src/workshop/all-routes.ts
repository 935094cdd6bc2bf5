// Every route of a workshop, in the order of docs/workshop.md; docs/workshop-openapi.json is made of them.

import { FILE_ROUTES } from '../file-routes/route.ts';
import { attestation } from '../http/attestation.ts';
import type { Route } from '../http/route.ts';
import { type AssetOptions, assetRoutes } from './catalog/routes.ts';
import { pipelineStatus } from './gguf/status.ts';
import type { Publications } from './hub/publications.ts';
import { publishRoutes } from './hub/routes.ts';
import type { Jobs } from './jobs/jobs.ts';
import type { JobKind } from './kind.ts';
import type { PythonEnvironment } from './python/environment.ts';
import { pythonRoutes } from './python/routes.ts';
import { workshopRoutes } from './routes.ts';

export interface WorkshopParts {
  readonly kinds: ReadonlyMap<string, JobKind>;
  readonly jobs: Jobs;
  readonly python: PythonEnvironment;
  readonly publications: Publications;
  readonly assets: AssetOptions;
}

export function allWorkshopRoutes(parts: WorkshopParts): readonly Route[] {
  const { kinds, jobs, python, publications, assets } = parts;
  return [
    ...workshopRoutes(jobs, kinds.values()),
    pipelineStatus(new Set(kinds.keys())),
    ...pythonRoutes(python, jobs),
    ...publishRoutes(publications),
    ...assetRoutes(assets),
    ...FILE_ROUTES,
    attestation,
  ];
}
