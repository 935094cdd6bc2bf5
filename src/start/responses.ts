// The store of responses as configured, in a folder of the data folder, sealed with the key of `files.key`.
// Expired ones are removed every hour.

import { join } from 'node:path';
import { ResponseStore } from '../files/response-store.ts';
import type { Clock } from '../base/clock.ts';
import type { Log } from '../base/log.ts';
import type { Config } from '../config/read.ts';
import { openSealedFolder } from '../files/sealed/folder.ts';
import { keySource } from './files.ts';
import { dataDir, type Tee } from './tee.ts';

const EXPIRE_EVERY_MS = 3_600_000;
const DAY_MS = 86_400_000;
const ENTRIES = 'stored';

export interface OpenedResponses {
  readonly store: ResponseStore;
  close(): void;
}

/** Null: `responses.store` is off. The caller owns the data folder. */
export async function openResponses(
  config: Config,
  tee: Tee | null,
  clock: Clock,
  log: Log,
): Promise<OpenedResponses | null> {
  const { responses } = config;
  if (!responses.store) return null;
  const folder = join(dataDir(config), 'responses');
  const { key, removed } = await openSealedFolder(folder, keySource(config, tee), [ENTRIES]);
  if (removed > 0) log.info({ msg: 'stored responses of an earlier start removed', keys: removed });
  const store = await ResponseStore.open({
    folder: join(folder, ENTRIES),
    key,
    now: clock.now,
    limits: {
      maxCount: responses.maxPerKey,
      maxBytesPerKey: responses.maxBytesPerKey,
      maxBytes: responses.maxBytes,
      expiryMs: responses.expiryDays * DAY_MS,
    },
  });
  let cancel = (): void => undefined;
  const later = (): void => {
    cancel = clock.after(EXPIRE_EVERY_MS, () => {
      store.expire().catch((error: unknown) => log.error({ msg: 'expired responses remain', err: error }));
      later();
    });
  };
  later();
  return { store, close: () => cancel() };
}
