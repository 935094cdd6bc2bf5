// Publishing as the configuration has it: off unless `workshop.publish`, and then only with the audit log,
// which has a line of everything that leaves.

import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Audit } from '../audit/write.ts';
import { systemClock } from '../base/clock.ts';
import { ConfigError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { WorkshopConfig } from '../config/workshop-section.ts';
import { removeOldJournals } from './hub/journal.ts';
import { Publications } from './hub/publications.ts';
import { openPublisher } from './hub/publish.ts';
import { egressRecord } from './hub/routes.ts';
import type { InputSources } from './jobs/inputs.ts';
import type { Jobs } from './jobs/jobs.ts';

export const DEFAULT_HUB = 'https://huggingface.co';

export interface PublishingOptions {
  readonly workshop: WorkshopConfig;
  readonly audit: Audit | null;
  readonly sources: InputSources;
  readonly jobs: Pick<Jobs, 'record' | 'evidence'>;
  /** Of the workshop. */
  readonly folder: string;
  readonly log: Log;
}

export interface Publishing {
  readonly publications: Publications;
  close(): Promise<void>;
}

/** Of a journal that no upload has added to: the addresses in it are over long before. */
const JOURNAL_LIFE_MS = 7 * 86_400_000;

/** Throws ConfigError. */
export async function openPublishing({
  workshop: given,
  audit,
  sources,
  jobs,
  folder,
  log,
}: PublishingOptions): Promise<Publishing> {
  const { config, workshop } = given;
  if (workshop.publish && audit === null)
    throw new ConfigError(
      'workshop.publish needs the audit log, which has a line of everything that leaves: set audit.enabled',
      'workshop.publish',
    );
  const { httpProxy, httpsProxy, noProxy } = config.network;
  const journals = join(folder, 'publish');
  // A process that was killed left copies of stored files.
  const staging = join(folder, 'publish-staging');
  await rm(staging, { recursive: true, force: true });
  await removeOldJournals(journals, systemClock.now() - JOURNAL_LIFE_MS);
  const publisher = openPublisher({
    enabled: workshop.publish,
    endpoint: config.models.hub ?? DEFAULT_HUB,
    allowPrivate: config.models.hubPrivate,
    proxy: { http: httpProxy, https: httpsProxy, no: noProxy },
    folder: journals,
    clock: systemClock,
    egress: async (line) => {
      if (audit === null) throw new TypeError('nothing leaves without the audit log');
      await audit.egress(egressRecord(line));
      const { phase, host, kind, repo, bytes, files, error } = line;
      log.info({ msg: 'egress', phase, host, kind, repo, bytes, files: files.length, code: error });
    },
  });
  const publications = new Publications({
    publisher,
    sources,
    proofOf: async (owner, id) => {
      const record = await jobs.record(owner, id);
      return record && { record, evidence: await jobs.evidence(owner, id) };
    },
    staging,
    clock: systemClock,
    onError: (error) => log.error({ msg: 'a publication failed', err: error }),
  });
  return {
    publications,
    async close() {
      await publications.close();
      await publisher.close();
    },
  };
}
