// The model service behind the routes: registry (what there is), lifecycle (what is loaded), store and pull (where it comes
// from and what outlives a restart). Failures are ApiErrors. Paths given by callers must resolve, links included, to below a
// configured model root. Models of the configuration are not written to the store; they come back with the configuration.

import { realpath } from 'node:fs/promises';
import { sep } from 'node:path';
import type { Clock } from '../base/clock.ts';
import { ApiError } from '../base/errors.ts';
import { inspectModel } from './inspect.ts';
import { createLifecycle, type Closable, type LifecycleEvent } from './lifecycle.ts';
import { entryOfManifest, manifestOf } from './stored-model.ts';
import { identityOf, measure, openRegular, sameFile, stagingRoom } from './measure.ts';
import { estimateBytes, openModel, type OpenSpec } from './load.ts';
import type { PullEvent as HubEvent, PullService } from './pull/pull.ts';
import { createRegistry, describeModel, type Registry } from './registry.ts';
import type { ModelStore } from './store/store.ts';
import { parseModelName } from './store/names.ts';
import type { ModelDefaults, RegisteredModelType, RegistryEntry, Residency, FileIdentity } from './model.ts';
import type { ModelService, ModelStatus, PullEvent, PullStatus } from './seam.ts';

export interface ServiceOptions<E extends Closable> {
  readonly openEngine: (spec: OpenSpec, signal: AbortSignal) => Promise<E>;
  readonly store: ModelStore;
  /** Null: this server fetches nothing. */
  readonly pulls: PullService | null;
  readonly modelRoots: readonly string[];
  readonly residency: 'auto' | 'memory' | 'disk' | 'verity';
  /** Files below it are on dm-verity devices with measured root hashes. */
  readonly verityFolder?: string | undefined;
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
  readonly onEvent?: ((event: LifecycleEvent) => void) | undefined;
}

/** A model from the configuration or the command line. */
export interface ModelSource {
  readonly id: string;
  readonly path: string;
  /** Pinned: taken as given, and enforced whenever the bytes are read. */
  readonly sha256?: string | undefined;
  readonly type?: RegisteredModelType | undefined;
  readonly contextLength?: number | undefined;
  readonly defaults?: ModelDefaults | undefined;
  readonly chatTemplate?: string | undefined;
}

export interface Models<E extends Closable> extends ModelService<E> {
  readonly registry: Registry;
  /** Reads, measures (unless pinned) and registers a file without any rule about where it may be. */
  add(source: ModelSource, signal: AbortSignal): Promise<RegistryEntry>;
  /** Registers what the store holds. Resolves with what it could not, by manifest file. */
  restore(): Promise<readonly { readonly file: string; readonly reason: string }[]>;
  close(signal: AbortSignal): Promise<void>;
}

export function createModels<E extends Closable>(options: ServiceOptions<E>): Models<E> {
  const registry = createRegistry();
  const { store, pulls } = options;
  const lifecycle = createLifecycle<E>({
    open: openLeased,
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

  /** So that a file used in place is hashed once per boot, not once per load. */
  const measuredInPlace = new WeakMap<RegistryEntry['model'], FileIdentity>();

  /** The blobs stay in the store for as long as the engine lives. */
  async function openLeased(
    model: RegistryEntry['model'],
    load: { readonly signal: AbortSignal; readonly onProgress: (fraction: number) => void },
  ): Promise<E> {
    const entry = entryOf(model.id);
    if (entry.model !== model)
      throw new ApiError('model_replaced', `${model.id} was replaced by another model`, {
        retryAfterSeconds: 1,
      });
    const known = measuredInPlace.get(entry.model);
    const held = store.lease(entry.files.map((file) => file.sha256));
    try {
      const engine = await openModel(entry, {
        openEngine: options.openEngine,
        stagingFolder: options.stagingFolder,
        slots: options.slots,
        ...load,
        ...(known === undefined ? {} : { known }),
        onMeasured: (identity) => measuredInPlace.set(entry.model, identity),
        ...(options.threads === 0 ? {} : { threads: options.threads }),
      });
      void engine.closed.finally(held.release);
      return engine;
    } catch (error) {
      held.release();
      throw error;
    }
  }

  function statusOf(entry: RegistryEntry): ModelStatus {
    return { ...entry.model, ...lifecycle.status(entry.model.id) };
  }

  async function describe(source: ModelSource, signal: AbortSignal): Promise<RegistryEntry> {
    parseModelName(source.id);
    const file = await openRegular(source.path);
    try {
      // What is checked and what is hashed is the same open, unchanged file.
      const before = await identityOf(file);
      const summary = await inspectModel(file);
      const measured = source.sha256 === undefined ? await measure(file, { signal }) : undefined;
      if (measured !== undefined && !sameFile(before, measured.identity)) {
        throw new ApiError('model_file_changed', 'the model file changed while it was registered', {
          shouldRetry: true,
        });
      }
      const size = Number(before.size);
      const weights = {
        role: 'weights' as const,
        path: source.path,
        size,
        sha256: measured?.sha256 ?? source.sha256 ?? '',
      };
      return describeModel({
        id: source.id,
        created: Math.floor(options.clock.now() / 1000),
        files: [measured === undefined ? weights : { ...weights, identity: measured.identity }],
        summary,
        residency: await residencyFor(source.path, size),
        contextLength: source.contextLength ?? options.contextLength,
        defaults: source.defaults ?? {},
        hashed: measured !== undefined,
        ...(source.type === undefined ? {} : { type: source.type }),
        ...(source.chatTemplate === undefined ? {} : { chatTemplate: source.chatTemplate }),
      });
    } finally {
      await file.close();
    }
  }

  /** Where the engine will read from. A file is on verity only if it really is below that folder; never taken on trust. */
  async function residencyFor(path: string, size: number): Promise<Residency> {
    const { residency, verityFolder } = options;
    if (
      verityFolder !== undefined &&
      (await isBelow(path, verityFolder)) &&
      (residency === 'auto' || residency === 'verity')
    )
      return 'verity';
    if (residency === 'verity')
      throw new ApiError('path_not_allowed', 'the model is not on a measured device', { param: 'path' });
    if (residency !== 'auto') return residency;
    if (options.hardware) return 'memory';
    const room = await stagingRoom(options.stagingFolder);
    return room !== null && room.total / 2 >= size ? 'memory' : 'disk';
  }

  async function register(request: {
    readonly name: string;
    readonly path: string;
    readonly format?: string | undefined;
    readonly defaultParameters?: ModelDefaults | undefined;
  }): Promise<ModelStatus> {
    parseModelName(request.name);
    if (request.format !== undefined && request.format !== 'gguf') {
      throw new ApiError('unsupported_model_format', 'only the format "gguf" can be registered', {
        param: 'format',
      });
    }
    const path = await insideRoots(request.path, options.modelRoots);
    const source = {
      id: request.name,
      path,
      ...(request.defaultParameters === undefined ? {} : { defaults: request.defaultParameters }),
    };
    const entry = await describe(source, new AbortController().signal);
    const existing = registry.get(entry.model.id);
    const registered = registry.add(entry);
    if (existing !== undefined) return statusOf(registered);
    try {
      await store.put(manifestOf(entry, { kind: 'file', path }));
    } catch (error) {
      registry.remove(entry.model.id);
      throw error;
    }
    return statusOf(registered);
  }

  async function remove(id: string): Promise<void> {
    const entry = entryOf(id);
    registry.remove(id);
    await lifecycle.unload(id);
    if ((await store.get(entry.model.id)) !== undefined) await store.remove(id);
  }

  async function restore(): Promise<readonly { readonly file: string; readonly reason: string }[]> {
    const { models, broken } = await store.list();
    const failed = [...broken];
    for (const manifest of models) {
      // The configuration has the last word about an id.
      if (registry.get(manifest.name) !== undefined) continue;
      try {
        registry.add(
          await entryOfManifest(manifest, { store, residencyFor, contextLength: options.contextLength }),
        );
      } catch (error) {
        failed.push({
          file: manifest.name,
          reason: error instanceof Error ? error.message : 'cannot be registered',
        });
      }
    }
    return failed;
  }

  /** What a finished pull wrote to the store becomes servable; other bytes under a known id replace the model. */
  async function adoptPulled(id: string): Promise<void> {
    const manifest = await store.get(id);
    if (manifest === undefined) throw new ApiError('pull_failed', 'the pulled model is not in the store');
    const entry = await entryOfManifest(manifest, {
      store,
      residencyFor,
      contextLength: options.contextLength,
    });
    const existing = registry.get(id);
    if (existing?.model.sha256 === entry.model.sha256) return;
    if (existing !== undefined) {
      registry.remove(id);
      await lifecycle.unload(id);
    }
    registry.add(entry);
  }

  /** Registration does not depend on anybody watching: each running pull has one follower of our own. */
  const followers = new Map<string, Promise<void>>();

  function follow(service: PullService, request: PullRequest): Promise<void> {
    const running = followers.get(request.name);
    if (running !== undefined) return running;
    const follower = (async () => {
      try {
        for await (const event of service.pull(request)) {
          if (event.type === 'success' || event.type === 'already_exists') await adoptPulled(event.id);
        }
      } finally {
        followers.delete(request.name);
      }
    })();
    followers.set(request.name, follower);
    follower.catch(() => undefined); // whoever watches gets the error; nobody else needs it
    return follower;
  }

  async function* pull(request: PullRequest, signal: AbortSignal): AsyncIterable<PullEvent> {
    if (pulls === null) throw new ApiError('pull_disabled', 'this server does not fetch models');
    const registered = follow(pulls, request);
    for await (const event of untilAborted(pulls.pull(request), signal)) {
      if (event.type === 'success' || event.type === 'already_exists') await registered;
      yield wireEvent(event);
    }
  }

  return {
    registry,
    add: async (source, signal) => registry.add(await describe(source, signal)),
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
      if (!(await lifecycle.unload(id)))
        throw new ApiError('model_not_loaded', 'the model is not loaded', { param: 'name' });
    },
    restore,
    pull,
    async pullStatus(name): Promise<PullStatus | undefined> {
      const state = await pulls?.status(name);
      if (state === undefined) return undefined;
      const { status, completed, total, error } = state;
      const error_ = error === null ? null : `${error.code}: ${error.message}`;
      return {
        name,
        status,
        completed,
        total,
        error: error_,
        started_at: state.startedAt,
        finished_at: state.finishedAt,
      };
    },
    cancelPull: async (name) => (await pulls?.cancel(name)) ?? false,
    async close(signal) {
      await pulls?.close();
      await lifecycle.close(signal);
      await store.close();
    },
  };
}

interface PullRequest {
  readonly name: string;
  readonly force?: boolean | undefined;
  readonly token?: string | undefined;
}

function wireEvent(event: HubEvent): PullEvent {
  switch (event.type) {
    case 'resuming':
      return { status: 'resuming', offset: event.offset, total: event.total };
    case 'downloading':
      return { status: 'downloading', completed: event.completed, total: event.total };
    case 'verifying':
      return { status: 'verifying' };
    case 'success':
    case 'already_exists':
      return { status: event.type, id: event.id, object: 'model' };
    case 'error':
      return { status: 'error', code: event.code, message: event.message };
  }
}

/** Leaves the iterable when the watcher goes; the pull itself goes on. */
async function* untilAborted<T>(events: AsyncIterable<T>, signal: AbortSignal): AsyncIterable<T> {
  const iterator = events[Symbol.asyncIterator]();
  const gone = new Promise<never>((_, reject) =>
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true }),
  );
  gone.catch(() => undefined);
  try {
    signal.throwIfAborted();
    for (;;) {
      const next = await Promise.race([iterator.next(), gone]);
      if (next.done === true) return;
      yield next.value;
    }
  } finally {
    void iterator.return?.();
  }
}

/** The real path, when it is below a root; 400 otherwise. The message does not say what exists outside the roots. */
async function insideRoots(path: string, roots: readonly string[]): Promise<string> {
  if (path === '' || path.length > 4096 || path.includes('\0')) {
    throw new ApiError('file_not_found', 'path is not a usable file name', { param: 'path' });
  }
  const outside = new ApiError('path_not_allowed', 'path is not below a configured model root', {
    param: 'path',
  });
  let real: string;
  try {
    real = await realpath(path);
  } catch (error) {
    const named = roots.some((root) => path.startsWith(root + sep) && !path.split(sep).includes('..'));
    throw named
      ? new ApiError('file_not_found', 'there is no such file', { param: 'path', cause: error })
      : outside;
  }
  for (const root of roots) if (await isBelow(real, root)) return real;
  throw outside;
}

/** Links resolved on both sides. */
async function isBelow(path: string, folder: string): Promise<boolean> {
  try {
    return (await realpath(path)).startsWith((await realpath(folder)) + sep);
  } catch {
    return false;
  }
}

function notFound(): ApiError {
  return new ApiError('model_not_found', 'no model of that name is registered', { param: 'model' });
}
