// The model service's part of the configuration.

import { readFile } from 'node:fs/promises';
import { totalmem } from 'node:os';
import type { Clock } from '../base/clock.ts';
import { ApiError } from '../base/errors.ts';
import type { Config } from '../config/read.ts';
import { adaptedEngine } from '../engine/adapted.ts';
import type { Engine, OpenEngine } from '../engine/seam/engine.ts';
import type { Log } from '../base/log.ts';
import type { LifecycleEvent } from '../models/slot.ts';
import { Deriver } from '../models/deriver.ts';
import type { Converters } from '../engine/seam/converters.ts';
import { nativeLibrary } from '../base/native-library.ts';
import { createPullDeriver } from '../models/pull-deriver.ts';
import { createModels, type Models } from '../models/service.ts';
import { createImageFetcher, type ImageFetcher } from '../models/pull/fetch-image.ts';
import { createPulls, type PullService } from '../models/pull/pull.ts';
import type { PullProxy } from '../models/pull/http.ts';
import { openStore, type ModelStore } from '../models/store/store.ts';
import { refusedValue } from './configured-paths.ts';
import { createProvenance, jobProofOf } from './provenance.ts';
import { dataDir } from './tee.ts';

export interface ModelsStart {
  readonly config: Config;
  readonly openEngine: OpenEngine;
  readonly checkTemplate: (source: string) => Promise<string | null>;
  readonly converters: Converters;
  /** The TEE is real: `auto` residency then never means disk. */
  readonly hardware: boolean;
  readonly clock: Clock;
  readonly log: Log;
  readonly onEvent: (event: LifecycleEvent) => void;
  /** Ends measuring, which takes as long as the files are large. */
  readonly signal: AbortSignal;
  /** Models that are added are not written down for the next start. */
  readonly unwritten?: boolean | undefined;
}

/** Registers every model of the configuration; one that cannot be read ends the start. */
export async function createConfiguredModels(options: ModelsStart): Promise<Models<Engine>> {
  const { config, openEngine, hardware, clock, log, onEvent, signal } = options;
  const opened = await openStore({ folder: dataDir(config) });
  const store = options.unwritten === true ? withoutWriting(opened) : opened;
  const deriver = new Deriver(store, options.converters);
  const models = createModels<Engine>({
    openEngine,
    adapted: adaptedEngine,
    adaptersAllowed: config.engine.backend === 'cpu',
    imagesAllowed: config.engine.backend === 'cpu' && nativeLibrary('libmtmd') !== undefined,
    store,
    deriver,
    pulls: config.models.pullEnabled ? await openPulls(config, { store, clock, deriver }) : null,
    modelRoots: config.store.modelRoots,
    residency: config.store.residency,
    verityFolder: config.store.verityFolder,
    hardware,
    stagingFolder: config.store.stagingFolder,
    ...config.models,
    memoryBudgetBytes: config.models.memoryBudgetBytes || Math.floor(memoryBytes() * 0.8),
    clock,
    provenance: createProvenance(config, clock),
    onEvent: (event) => {
      logLifecycle(log, event);
      onEvent(event);
    },
  });
  try {
    for (const [id, entry] of config.modelEntries)
      await addConfigured({ models, config, id, entry, signal, checkTemplate: options.checkTemplate });
    for (const { file, reason } of await models.restore())
      log.warn({ msg: 'a stored model cannot be served', file, reason });
    for (const id of config.models.preload)
      if (models.get(id) === undefined)
        throw refusedValue(
          config,
          ['models.preload'],
          `there is no model ${JSON.stringify(id)} (model_not_found)`,
        );
  } catch (error) {
    await models.close(AbortSignal.abort());
    throw error;
  }
  return models;
}

/** The same store, where a manifest that is put stays in memory. */
function withoutWriting(store: ModelStore): ModelStore {
  return {
    folder: store.folder,
    list: () => store.list(),
    get: (name) => store.get(name),
    put: () => Promise.resolve(),
    remove: () => Promise.reject(new TypeError('this store is not to be changed')),
    importFile: (...given) => store.importFile(...given),
    temporary: () => store.temporary(),
    adopt: (...given) => store.adopt(...given),
    blob: (sha256) => store.blob(sha256),
    lease: (sha256s) => store.lease(sha256s),
    collect: () => store.collect(),
    close: () => store.close(),
  };
}

type Entry = Config['modelEntries'] extends ReadonlyMap<string, infer E> ? E : never;

interface Configured {
  readonly models: Models<Engine>;
  readonly config: Config;
  readonly id: string;
  readonly entry: Entry;
  readonly signal: AbortSignal;
  readonly checkTemplate: ModelsStart['checkTemplate'];
}

async function addConfigured(options: Configured): Promise<void> {
  const { models, config, id, entry, signal, checkTemplate } = options;
  const { defaultTemperature, defaultTopP, defaultMaxTokens, dimensions, chatTemplate } = entry;
  const template = chatTemplate === undefined ? undefined : await readFile(chatTemplate, 'utf8');
  const problem = template === undefined ? null : await checkTemplate(template);
  if (problem !== null)
    throw refusedValue(config, ['api.models', id, 'chat_template'], `is no chat template: ${problem}`);
  try {
    await models.add(
      {
        id,
        path: entry.path,
        format: entry.format,
        isq: entry.isq,
        defaults: {
          temperature: defaultTemperature,
          topP: defaultTopP,
          maxTokens: defaultMaxTokens,
          dimensions,
        },
        sha256: entry.sha256,
        type: entry.type,
        contextLength: entry.contextLength,
        kvType: entry.kvType,
        chatTemplate: template,
        job: await jobProofOf(entry),
      },
      signal,
    );
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const key = keyAtFault(error, entry);
    throw refusedValue(config, ['api.models', id, key], `${error.message} (${error.code})`, error);
  }
}

/** The errors name fields as requests have them. */
function keyAtFault({ param }: ApiError, entry: Entry): string {
  if (param === 'job_record' && entry.jobRecord !== undefined) return 'job_record';
  if (param === 'kv_type' && entry.kvType !== undefined) return 'kv_type';
  return param === 'default_parameters.isq' ? 'isq' : 'path';
}

const DEFAULT_HUB = 'https://huggingface.co';

interface PullParts {
  readonly store: ModelStore;
  readonly clock: Clock;
  readonly deriver: Deriver;
}

function openPulls({ models, network }: Config, { store, clock, deriver }: PullParts): Promise<PullService> {
  return createPulls({
    store,
    clock,
    deriver: createPullDeriver(deriver),
    endpoint: models.hub ?? DEFAULT_HUB,
    allowPrivate: models.hubPrivate,
    token: models.hubToken,
    proxy: proxyOf(network),
  });
}

/** Null: `images.fetch` is off. */
export function openImages({ images, network }: Config): ImageFetcher | null {
  return images.fetch ? createImageFetcher({ proxy: proxyOf(network) }) : null;
}

function proxyOf({ httpProxy, httpsProxy, noProxy }: Config['network']): PullProxy {
  return { http: httpProxy, https: httpsProxy, no: noProxy };
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

/** The memory this process may use: the limit of its control group when there is one. */
function memoryBytes(): number {
  const limit = process.constrainedMemory();
  return limit > 0 && limit < totalmem() ? limit : totalmem();
}
