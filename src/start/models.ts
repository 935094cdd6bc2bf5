// The model service's part of the configuration.

import { readFile } from 'node:fs/promises';
import { totalmem } from 'node:os';
import type { Clock } from '../base/clock.ts';
import type { Config } from '../config/read.ts';
import type { Engine, OpenEngine } from '../engine/seam/engine.ts';
import type { Log } from '../base/log.ts';
import type { LifecycleEvent } from '../models/slot.ts';
import { createModels, type Models } from '../models/service.ts';
import { createPulls, type PullService } from '../models/pull/pull.ts';
import { openStore, type ModelStore } from '../models/store/store.ts';
import { dataDir } from './tee.ts';

/** Registers every model of the configuration; one that cannot be read ends the start. */
export async function createConfiguredModels(
  config: Config,
  openEngine: OpenEngine,
  hardware: boolean,
  clock: Clock,
  log: Log,
  onEvent: (event: LifecycleEvent) => void,
): Promise<Models<Engine>> {
  const store = await openStore({ folder: dataDir(config) });
  const models = createModels<Engine>({
    openEngine,
    store,
    pulls: config.models.pullEnabled ? await openPulls(config, store, clock) : null,
    modelRoots: config.store.modelRoots,
    residency: config.store.residency,
    ...(config.store.verityFolder === undefined ? {} : { verityFolder: config.store.verityFolder }),
    hardware,
    stagingFolder: config.store.stagingFolder,
    ...config.models,
    memoryBudgetBytes: config.models.memoryBudgetBytes || Math.floor(memoryBytes() * 0.8),
    clock,
    onEvent: (event) => {
      logLifecycle(log, event);
      onEvent(event);
    },
  });
  const { signal } = new AbortController();
  for (const [id, entry] of config.modelEntries) {
    await models.add(
      {
        id,
        path: entry.path,
        defaults: {
          ...(entry.defaultTemperature === undefined ? {} : { temperature: entry.defaultTemperature }),
          ...(entry.defaultTopP === undefined ? {} : { topP: entry.defaultTopP }),
          ...(entry.defaultMaxTokens === undefined ? {} : { maxTokens: entry.defaultMaxTokens }),
          ...(entry.dimensions === undefined ? {} : { dimensions: entry.dimensions }),
        },
        ...(entry.sha256 === undefined ? {} : { sha256: entry.sha256 }),
        ...(entry.type === undefined ? {} : { type: entry.type }),
        ...(entry.contextLength === undefined ? {} : { contextLength: entry.contextLength }),
        ...(entry.chatTemplate === undefined
          ? {}
          : { chatTemplate: await readFile(entry.chatTemplate, 'utf8') }),
      },
      signal,
    );
  }
  for (const { file, reason } of await models.restore())
    log.warn({ msg: 'a stored model cannot be served', file, reason });
  return models;
}

const DEFAULT_HUB = 'https://huggingface.co';

function openPulls({ models, network }: Config, store: ModelStore, clock: Clock): Promise<PullService> {
  return createPulls({
    store,
    clock,
    endpoint: models.hub ?? DEFAULT_HUB,
    allowPrivate: models.hubPrivate,
    ...(models.hubToken === undefined ? {} : { token: models.hubToken }),
    proxy: {
      ...(network.httpProxy === undefined ? {} : { http: network.httpProxy }),
      ...(network.httpsProxy === undefined ? {} : { https: network.httpsProxy }),
      ...(network.noProxy === undefined ? {} : { no: network.noProxy }),
    },
  });
}

function logLifecycle(log: Log, event: LifecycleEvent): void {
  const { kind, id } = event;
  if (kind === 'loading')
    log.info({ msg: 'model loading', model: id, fraction: Math.round(event.fraction * 100) / 100 });
  else if (kind === 'loaded') log.info({ msg: 'model loaded', model: id, milliseconds: event.milliseconds });
  else if (kind === 'unloaded') log.info({ msg: 'model unloaded', model: id, reason: event.reason });
  else
    log.error({
      msg: kind === 'crashed' ? 'engine crashed' : 'model load failed',
      model: id,
      err: event.error,
    });
}

/** What this process may use: the limit of its control group when there is one. */
function memoryBytes(): number {
  const limit = process.constrainedMemory();
  return limit > 0 && limit < totalmem() ? limit : totalmem();
}
