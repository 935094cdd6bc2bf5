// Inputs that lie on a hub, as the configuration has it: off unless `workshop.pull`, and then only with the
// audit log, which has a line of every name that leaves.

import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { Audit, EgressRecord } from '../audit/write.ts';
import { systemClock } from '../base/clock.ts';
import { ConfigError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { WorkshopConfig } from '../config/workshop-section.ts';
import { DEFAULT_HUB } from './publishing.ts';
import { openHubInputs, type HubInputs, type PullLine } from './pulls/inputs.ts';
import { shownRepository } from './pulls/name.ts';

export interface PullingOptions {
  readonly workshop: WorkshopConfig;
  readonly audit: Audit | null;
  /** Of the workshop. */
  readonly folder: string;
  readonly log: Log;
}

/** Null where it is off. Throws ConfigError. */
export async function openPulling({
  workshop: { config, workshop },
  audit,
  folder,
  log,
}: PullingOptions): Promise<HubInputs | null> {
  if (!workshop.pull) return null;
  if (audit === null)
    throw new ConfigError(
      'workshop.pull needs the audit log, which has a line of every name that leaves: set audit.enabled',
      'workshop.pull',
    );
  if (!config.models.pullEnabled)
    throw new ConfigError('workshop.pull is on, and models.pull_enabled is off', 'workshop.pull');
  const { httpProxy, httpsProxy, noProxy } = config.network;
  return openHubInputs({
    endpoint: config.models.hub ?? DEFAULT_HUB,
    allowPrivate: config.models.hubPrivate,
    token: config.models.hubToken,
    proxy: { http: httpProxy, https: httpsProxy, no: noProxy },
    folder: join(folder, 'hub'),
    maxBytes: workshop.pullCacheBytes,
    clock: systemClock,
    egress: async (line) => {
      const record = pullRecord(line);
      await audit.egress(record);
      const { phase, host, repository, files, bytes, error } = record;
      log.info({ msg: 'pull', phase, host, repository, bytes, files, code: error ?? undefined });
    },
  });
}

/** As many digests as a line of the audit log lists. */
const LISTED = 64;

function pullRecord({ phase, host, name, files, commit, error }: PullLine): EgressRecord {
  const digests = files.map(({ sha256 }) => sha256);
  return {
    direction: 'in',
    phase,
    host,
    repository: shownRepository(name),
    revision: name.revision,
    files: files.length,
    bytes: files.reduce((sum, { bytes }) => sum + bytes, 0),
    filesSha256: createHash('sha256').update(digests.join('\n')).digest('hex'),
    sha256: digests.slice(0, LISTED),
    sizes: files.slice(0, LISTED).map(({ bytes }) => bytes),
    commit: commit ?? null,
    error: error ?? null,
  };
}
