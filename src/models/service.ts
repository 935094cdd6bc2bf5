// The model service behind the routes: registry (what there is), lifecycle (what is loaded), store and pull (where it comes
// from). Failures are ApiErrors. Paths given by callers must resolve, links included, to below a configured model root.

import { realpath } from 'node:fs/promises';
import { sep } from 'node:path';
import type { Clock } from '../clock.ts';
import { ApiError } from '../errors.ts';
import {
  createLifecycle,
  type Closable,
  type LifecycleEvent,
  type ModelService,
  type ModelStatus,
  type PullEvent,
  type PullStatus,
} from './lifecycle.ts';
import { inspectModel } from './inspect.ts';
import { identityOf, measure, openRegular, sameFile, stagingRoom } from './measure.ts';
import { estimateBytes, openModel, type OpenSpec } from './open.ts';
import {
  checkModelId,
  createRegistry,
  describeModel,
  type ModelDefaults,
  type RegisteredModelType,
  type Registry,
  type RegistryEntry,
  type Residency,
} from './registry.ts';

export interface ServiceOptions<E extends Closable> {
  readonly openEngine: (spec: OpenSpec, signal: AbortSignal) => Promise<E>;
  readonly modelRoots: readonly string[];
  readonly residency: 'auto' | 'memory' | 'disk' | 'verity';
  /** With real hardware `auto` never means disk. */
  readonly hardware: boolean;
  readonly stagingFolder: string;
  readonly slots: number;
  readonly threads: number;
  readonly contextLength: number;
  readonly maxLoaded: number;
  readonly memoryBudgetBytes: number;
  readonly keepAlive: string;
  readonly maxWaiting: number;
  readonly loadTimeoutMs: number;
  readonly clock: Clock;
  readonly onEvent?: (event: LifecycleEvent) => void;
}

/** A model from the configuration or the command line. */
export interface ModelSource {
  readonly id: string;
  readonly path: string;
  /** Pinned: taken as given, and enforced whenever the bytes are read. */
  readonly sha256?: string;
  readonly type?: RegisteredModelType;
  readonly contextLength?: number;
  readonly defaults?: ModelDefaults;
  readonly chatTemplate?: string;
}

export interface Models<E extends Closable> extends ModelService<E> {
  readonly registry: Registry;
  /** Reads, measures (unless pinned) and registers a file without any rule about where it may be. */
  add(source: ModelSource, signal: AbortSignal): Promise<RegistryEntry>;
  close(signal: AbortSignal): Promise<void>;
}

export function createModels<E extends Closable>(options: ServiceOptions<E>): Models<E> {
  const registry = createRegistry();
  const lifecycle = createLifecycle<E>({
    open: (model, { signal, onProgress }) =>
      openModel(entryOf(model.id), {
        openEngine: options.openEngine,
        stagingFolder: options.stagingFolder,
        slots: options.slots,
        signal,
        onProgress,
        ...(options.threads === 0 ? {} : { threads: options.threads }),
      }),
    estimate: (model) => estimateBytes(entryOf(model.id), options.slots),
    maxLoaded: options.maxLoaded,
    memoryBudgetBytes: options.memoryBudgetBytes,
    keepAlive: options.keepAlive,
    maxWaiting: options.maxWaiting,
    loadTimeoutMs: options.loadTimeoutMs,
    clock: options.clock,
    ...(options.onEvent === undefined ? {} : { onEvent: options.onEvent }),
  });

  function entryOf(id: string): RegistryEntry {
    const entry = registry.get(id);
    if (entry === undefined) throw notFound();
    return entry;
  }

  function statusOf(entry: RegistryEntry): ModelStatus {
    return { ...entry.model, ...lifecycle.status(entry.model.id) };
  }

  async function add(source: ModelSource, signal: AbortSignal): Promise<RegistryEntry> {
    checkModelId(source.id);
    const file = await openRegular(source.path);
    try {
      // What is checked and what is hashed is the same open, unchanged file.
      const before = await identityOf(file);
      const summary = await inspectModel(file);
      const measured = source.sha256 === undefined ? await measure(file, { signal }) : undefined;
      if (measured !== undefined && !sameFile(before, measured.identity)) {
        throw new ApiError(500, 'model_file_changed', 'the model file changed while it was registered', { shouldRetry: true });
      }
      const size = Number(before.size);
      const weights = { role: 'weights' as const, path: source.path, size, sha256: measured?.sha256 ?? source.sha256 ?? '' };
      return registry.add(
        describeModel({
          id: source.id,
          created: Math.floor(options.clock.now() / 1000),
          files: [measured === undefined ? weights : { ...weights, identity: measured.identity }],
          summary,
          residency: await residencyFor(size),
          contextLength: source.contextLength ?? options.contextLength,
          defaults: source.defaults ?? {},
          hashed: measured !== undefined,
          ...(source.type === undefined ? {} : { type: source.type }),
          ...(source.chatTemplate === undefined ? {} : { chatTemplate: source.chatTemplate }),
        }),
      );
    } finally {
      await file.close();
    }
  }

  async function residencyFor(size: number): Promise<Residency> {
    if (options.residency !== 'auto') return options.residency;
    if (options.hardware) return 'memory';
    const room = await stagingRoom(options.stagingFolder);
    return room !== null && room.total / 2 >= size ? 'memory' : 'disk';
  }

  async function register(request: {
    readonly name: string;
    readonly path: string;
    readonly format?: string;
    readonly defaultParameters?: ModelDefaults;
  }): Promise<ModelStatus> {
    checkModelId(request.name);
    if (request.format !== undefined && request.format !== 'gguf') {
      throw new ApiError(400, 'unsupported_model_format', 'only the format "gguf" can be registered', { param: 'format' });
    }
    const path = await insideRoots(request.path, options.modelRoots);
    const source = { id: request.name, path, ...(request.defaultParameters === undefined ? {} : { defaults: request.defaultParameters }) };
    return statusOf(await add(source, new AbortController().signal));
  }

  async function remove(id: string): Promise<void> {
    entryOf(id);
    registry.remove(id);
    await lifecycle.unload(id);
  }

  return {
    registry,
    add,
    register,
    remove,
    list: () => registry.list().map(statusOf),
    get(id) {
      const entry = registry.get(id);
      return entry === undefined ? undefined : statusOf(entry);
    },
    async acquire(id, acquireOptions) {
      return lifecycle.acquire(entryOf(id).model, acquireOptions);
    },
    async load(id, signal, loadOptions = {}) {
      const { model } = entryOf(id);
      const already = lifecycle.isLoaded(id);
      const lease = await lifecycle.acquire(model, { signal, ...loadOptions });
      lease.release();
      return already ? 'already_loaded' : 'loaded';
    },
    async unload(id) {
      entryOf(id);
      if (!(await lifecycle.unload(id))) throw new ApiError(404, 'model_not_loaded', 'the model is not loaded', { param: 'name' });
    },
    pull: (): AsyncIterable<PullEvent> => {
      throw new ApiError(403, 'pull_disabled', 'this server does not fetch models');
    },
    pullStatus: (): Promise<PullStatus | undefined> => Promise.resolve(undefined),
    cancelPull: () => Promise.resolve(false),
    close: (signal) => lifecycle.close(signal),
  };
}

/** The real path, when it is below a root; 400 otherwise. The message does not say what exists outside the roots. */
async function insideRoots(path: string, roots: readonly string[]): Promise<string> {
  if (path === '' || path.length > 4096 || path.includes('\0')) {
    throw new ApiError(400, 'file_not_found', 'path is not a usable file name', { param: 'path' });
  }
  const outside = new ApiError(400, 'path_not_allowed', 'path is not below a configured model root', { param: 'path' });
  let real: string;
  try {
    real = await realpath(path);
  } catch (error) {
    const named = roots.some((root) => path.startsWith(root + sep) && !path.split(sep).includes('..'));
    throw named ? new ApiError(400, 'file_not_found', 'there is no such file', { param: 'path', cause: error }) : outside;
  }
  for (const root of roots) {
    const base = await realpath(root).catch(() => undefined);
    if (base !== undefined && real.startsWith(base + sep)) return real;
  }
  throw outside;
}

function notFound(): ApiError {
  return new ApiError(404, 'model_not_found', 'no model of that name is registered', { param: 'model' });
}
