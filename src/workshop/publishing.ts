// Publishing as the configuration has it: off unless `workshop.publish`, and then only with the audit log,
// which has a line of everything that leaves.

import { join } from 'node:path';
import type { Audit } from '../audit/write.ts';
import { systemClock } from '../base/clock.ts';
import { ConfigError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { WorkshopConfig } from '../config/workshop-section.ts';
import type { Route } from '../http/route.ts';
import { openPublisher } from './hub/publish.ts';
import { egressRecord, publishRoutes } from './hub/routes.ts';
import type { InputSources } from './jobs/inputs.ts';

const DEFAULT_HUB = 'https://huggingface.co';

export interface PublishingOptions {
  readonly workshop: WorkshopConfig;
  readonly audit: Audit | null;
  readonly sources: InputSources;
  /** Of the workshop. */
  readonly folder: string;
  readonly log: Log;
}

export interface Publishing {
  readonly routes: readonly Route[];
  close(): Promise<void>;
}

/** Throws ConfigError. */
export function openPublishing({
  workshop: given,
  audit,
  sources,
  folder,
  log,
}: PublishingOptions): Publishing {
  const { config, workshop } = given;
  if (workshop.publish && audit === null)
    throw new ConfigError(
      'workshop.publish needs the audit log, which has a line of everything that leaves: set audit.enabled',
      'workshop.publish',
    );
  const { httpProxy, httpsProxy, noProxy } = config.network;
  const publisher = openPublisher({
    enabled: workshop.publish,
    endpoint: config.models.hub ?? DEFAULT_HUB,
    allowPrivate: config.models.hubPrivate,
    proxy: { http: httpProxy, https: httpsProxy, no: noProxy },
    folder: join(folder, 'publish'),
    clock: systemClock,
    egress: async (line) => {
      if (audit === null) throw new TypeError('nothing leaves without the audit log');
      await audit.egress(egressRecord(line));
      const { phase, host, kind, repo, bytes, files, error } = line;
      log.info({ msg: 'egress', phase, host, kind, repo, bytes, files: files.length, code: error });
    },
  });
  const routes = publishRoutes({ publisher, sources, staging: join(folder, 'staging') });
  return { routes, close: () => publisher.close() };
}
