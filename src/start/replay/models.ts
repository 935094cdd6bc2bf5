// The model of a replay: found by its digest among those of this configuration, under the id of the receipt,
// with the receipt's sampling where the request leaves it open, and with the context and slots that answered.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { toHex } from '@assay/attestation';
import type { FinalReceipt } from '@assay/attestation/receipt';
import { systemClock } from '../../base/clock.ts';
import { ApiError, ConfigError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import type { Config } from '../../config/read.ts';
import type { Converters } from '../../engine/seam/converters.ts';
import type { Engine, OpenEngine } from '../../engine/seam/engine.ts';
import type { RegisteredModel } from '../../models/model.ts';
import type { ModelService, ModelStatus } from '../../models/seam.ts';
import type { Models } from '../../models/service.ts';
import { createConfiguredModels } from '../models.ts';

export interface ReplayModelsOptions {
  readonly config: Config;
  readonly receipt: FinalReceipt;
  /** A file of a LoRA adapter that the configuration does not have. */
  readonly adapter: string | undefined;
  readonly openEngine: OpenEngine;
  readonly checkTemplate: (source: string) => Promise<string | null>;
  readonly converters: Converters;
  readonly log: Log;
}

export interface ReplayModels {
  /** The model of a receipt. */
  of(receipt: FinalReceipt): {
    /** Undefined: no model here has these bytes. */
    readonly service: ModelService<Engine> | undefined;
    /** The digest of the model of the same id, lower-case hex; undefined: there is none. */
    readonly sameId: string | undefined;
  };
  close(): Promise<void>;
}

/** Types of models that an adapter can be for. */
const WRITING: ReadonlySet<string> = new Set(['chat', 'completion']);
const NOT_ITS_BASE: ReadonlySet<string> = new Set(['adapter_mismatch', 'too_many_adapters']);

/** Models that stay open for further receipts. */
const MOST_HELD = 4;

/** Models stay open for the next receipt of the same model, scales, context and slots. */
export class ReplayModelsCache {
  /** The longest unused first. */
  readonly #held = new Map<string, ReplayModels>();

  async of(options: ReplayModelsOptions): Promise<ReplayModels> {
    const { model, engine } = options.receipt;
    const scales = model.adapters.map(({ scale }) => scale);
    const key = JSON.stringify([model.id, engine.context, engine.batch, options.adapter ?? null, scales]);
    const held = this.#held.get(key);
    this.#held.delete(key);
    if (this.#held.size >= MOST_HELD) await this.#drop([...this.#held.keys()].slice(0, 1));
    const models = held ?? (await openReplayModels(options));
    this.#held.set(key, models);
    return models;
  }

  close(): Promise<void> {
    return this.#drop([...this.#held.keys()]);
  }

  async #drop(keys: readonly string[]): Promise<void> {
    for (const key of keys) {
      const models = this.#held.get(key);
      this.#held.delete(key);
      await models?.close();
    }
  }
}

async function openReplayModels(options: ReplayModelsOptions): Promise<ReplayModels> {
  const folder = await mkdtemp(join(tmpdir(), 'assay-replay-'));
  const remove = (): Promise<void> => rm(folder, { recursive: true, force: true });
  let models: Models<Engine>;
  try {
    models = await configured(options, folder);
  } catch (error) {
    await remove();
    throw error;
  }
  const close = async (): Promise<void> => {
    await models.close(AbortSignal.abort());
    await remove();
  };
  try {
    if (options.adapter !== undefined) await addAdapter(models, options.receipt, options.adapter);
  } catch (error) {
    await close();
    throw error;
  }
  return {
    of(receipt) {
      const { id } = receipt.model;
      const digest = toHex(receipt.model.sha256);
      const all = models.list();
      const sameId = all.find((each) => each.id === id);
      const found = sameId?.sha256 === digest ? sameId : all.find(({ sha256 }) => sha256 === digest);
      return { service: found && serviceOf(models, found.id, receipt), sameId: sameId?.sha256 };
    },
    close,
  };
}

/** The store of the data folder, unless a server is using it: then only the models of the configuration. */
async function configured(options: ReplayModelsOptions, folder: string): Promise<Models<Engine>> {
  const { openEngine, checkTemplate, converters, log } = options;
  const common = {
    openEngine,
    checkTemplate,
    converters,
    hardware: false,
    clock: systemClock,
    log,
    onEvent: () => undefined,
    signal: new AbortController().signal,
    unwritten: true,
  };
  const config = configOf(options);
  try {
    return await createConfiguredModels({ ...common, config });
  } catch (error) {
    if (!(error instanceof ConfigError && error.key === 'store.data_dir')) throw error;
    const { store } = config;
    return createConfiguredModels({ ...common, config: { ...config, store: { ...store, dataDir: folder } } });
  }
}

function configOf({ config, receipt, adapter }: ReplayModelsOptions): Config {
  const { context, batch } = receipt.engine;
  const { id } = receipt.model;
  const own = config.modelEntries.get(id);
  // Of the other models of the configuration none is measured where this one is named.
  const entries =
    own === undefined || receipt.model.adapters.length > 0 ? [...config.modelEntries] : [[id, own] as const];
  return {
    ...config,
    models: {
      ...config.models,
      contextLength: context,
      slots: Math.max(1, batch),
      pullEnabled: false,
      preload: [],
      drafting: 'off',
      keepAlive: '-1',
    },
    store: {
      ...config.store,
      modelRoots: [...config.store.modelRoots, ...(adapter === undefined ? [] : [dirname(adapter)])],
    },
    modelEntries: new Map(entries.map(([name, entry]) => [name, { ...entry, contextLength: context }])),
  };
}

/** Over each model that it can be for, until one is the model of the receipt. */
async function addAdapter(models: Models<Engine>, { model }: FinalReceipt, path: string): Promise<void> {
  const [applied] = model.adapters;
  if (applied === undefined || model.adapters.length > 1)
    throw new ConfigError('--adapter goes with a receipt of one adapter');
  const { scale } = applied;
  const signal = new AbortController().signal;
  const bases = models.list().filter(({ parent, type }) => parent === undefined && WRITING.has(type));
  for (const [i, { id: base }] of bases.entries()) {
    try {
      const { model: added } = await models.addAdapter({ name: `replay-${i}`, base, path, scale }, signal);
      if (added.sha256 === toHex(model.sha256)) return;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (!NOT_ITS_BASE.has(error.code)) throw new ConfigError(`--adapter: ${error.message} (${error.code})`);
    }
  }
}

/** One model, under the id of the receipt. */
function serviceOf(models: Models<Engine>, own: string, receipt: FinalReceipt): ModelService<Engine> {
  const { id } = receipt.model;
  const named = <M extends RegisteredModel>(model: M): M => ({
    ...model,
    id,
    defaults: defaultsOf(receipt, model),
  });
  const status = (asked: string): ModelStatus | undefined => {
    const found = asked === id ? models.get(own) : undefined;
    return found && named(found);
  };
  const refused = (): never => {
    throw new ApiError('model_not_found', 'a replay has the model of its receipt', { param: 'model' });
  };
  return {
    list: () => [status(id)].filter((each) => each !== undefined),
    get: status,
    async acquire(asked, options) {
      if (asked !== id) refused();
      const lease = await models.acquire(own, options);
      return { model: named(lease.model), engine: lease.engine, release: () => lease.release() };
    },
    load: async () => refused(),
    unload: async () => refused(),
    register: async () => refused(),
    addAdapter: async () => refused(),
    removeAdapter: async () => refused(),
    remove: async () => refused(),
    pull: () => refused(),
    pullStatus: async () => undefined,
    cancelPull: async () => false,
  };
}

/** Sampling that a request leaves to its server is as the receipt says it was applied. */
function defaultsOf({ sampling }: FinalReceipt, { defaults }: RegisteredModel): RegisteredModel['defaults'] {
  if (sampling === null) return defaults;
  const { temperature, topP, topK, minP, repeatPenalty, maxTokens } = sampling;
  return {
    ...defaults,
    temperature,
    topP,
    topK,
    minP,
    repeatPenalty,
    maxTokens: maxTokens ?? undefined,
  };
}
