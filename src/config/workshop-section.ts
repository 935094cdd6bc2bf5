// The table `[workshop]` of a workshop's configuration. The other tables are the server's: address, keys,
// TLS, TEE, files, limits and the log mean the same there (docs/workshop.md). The server itself refuses
// this table.

import { createHash } from 'node:crypto';
import { boolean, measured, oneOf, operator, path, strings, whole } from './fields.ts';
import { configDigest, readConfig, type Config, type ConfigSources } from './read.ts';
import type { Section, Values } from './schema.ts';
import { flatten, type Flat } from './sources.ts';
import { valueOf } from './value.ts';
import { camel } from './keys.ts';

const GI_B = 1024 * 1024 * 1024;
const MAX = Number.MAX_SAFE_INTEGER;

export const workshopSection = {
  folder: measured(path('folder of jobs and their outputs; unset: `workshop` in the data folder')),
  roots: measured(strings(100, 'folders whose files and models jobs may take as inputs', { path: true })),
  network: measured(boolean('whether jobs of kinds that need the network get it', false)),
  publish: measured(
    boolean(
      'whether results may be sent to a hub (`models.hub`); needs `audit.enabled`, which has a line of what leaves',
      false,
    ),
  ),
  pull: measured(
    boolean(
      'whether inputs of jobs may be repositories of a hub (`models.hub`), by name; needs `audit.enabled`, which has a line of each name that leaves',
      false,
    ),
  ),
  pull_cache_bytes: operator(
    whole(1024, MAX, 'files of hubs that are kept for further jobs, half of them of one caller', 64 * GI_B),
  ),
  pickles: measured(
    oneOf(
      ['refuse', 'jail'],
      'models as pickles that run code when they are read: `refuse`, or `jail`: they run it in the jail of their job, and only where no file, process or network outside can be reached',
      { default: 'refuse' },
    ),
  ),
  python: measured(path('the managed Python environment; unset: `~/.cache/assay/python`')),
  catalog_signature: measured(
    path('signature of the catalogue of assets, as `scripts/catalog.ts --sign` writes it'),
  ),
  allow_weaker_jail: measured(
    boolean(
      'start where jobs cannot be kept from other files and processes of this machine; kinds that require it are refused',
      false,
    ),
  ),
  first_uid: measured(
    whole(1000, 4_000_000_000, 'as root: the first of the users jobs run as, one for each place', 990_000),
  ),
  max_running: operator(whole(1, 64, 'jobs that run at once', 1)),
  max_queued: operator(
    whole(
      1,
      10_000,
      'jobs that may wait, half of them for one caller; more are answered 429 too_many_jobs',
      32,
    ),
  ),
  max_kept: operator(
    whole(1, 100_000, 'jobs kept with their outputs and records; the oldest that is over makes room', 1000),
  ),
  max_kept_per_key: operator(whole(1, 100_000, 'the same of one key', 200)),
  threads: operator(whole(1, 1024, 'threads a job is told to use; unset: half of the processors')),
  max_job_seconds: operator(
    whole(1, 30 * 86_400, 'the longest a job may run; kinds have lower limits of their own', 12 * 3600),
  ),
  max_job_memory_bytes: operator(
    whole(
      64 * 1024 * 1024,
      MAX,
      'memory of all processes of a job; kinds have lower limits of their own',
      16 * GI_B,
    ),
  ),
  max_job_output_bytes: operator(
    whole(1024, MAX, 'output of a job; kinds have lower limits of their own', 64 * GI_B),
  ),
} as const satisfies Section;

export type WorkshopValues = Values<typeof workshopSection>;

export interface WorkshopConfig {
  readonly config: Config;
  readonly workshop: WorkshopValues;
  /** Claim 5: the digest of both. */
  readonly digest: Uint8Array;
}

const NAME = 'workshop';

/** Throws ConfigError. A flag or variable cannot set these: they are of the file. */
export function readWorkshopConfig(sources: ConfigSources): WorkshopConfig {
  const beside = { [NAME]: workshopSection };
  const config = readConfig({ ...sources, beside });
  const { file, operator: unmeasured } = sources;
  const flat: Flat = new Map([
    ...(unmeasured === undefined ? [] : flatten(unmeasured, 'operator', beside)),
    ...(file === undefined ? [] : flatten(file, 'file', beside)),
  ]);
  const values: Record<string, unknown> = {};
  for (const [key, field] of Object.entries(workshopSection))
    values[camel(key)] = valueOf(field, `${NAME}.${key}`, flat.get(`${NAME}.${key}`));
  // Each value was read by its field.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  const workshop = values as WorkshopValues;
  const own = createHash('sha256')
    .update(configDigest(config))
    .update(JSON.stringify(Object.entries(values).toSorted(([a], [b]) => (a < b ? -1 : 1))));
  return { config, workshop, digest: new Uint8Array(own.digest()) };
}
