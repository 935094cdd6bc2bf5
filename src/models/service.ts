// The model service behind the routes: registry (known models), lifecycle (loaded ones), store and pull
// (their origin, and what survives a restart). Failures are ApiErrors. A decision by id is carried out in
// the same step, or names the registration it was made for: between a wait and an action another request
// may have replaced the model. Models of the configuration are not written to the store; they come back
// with the configuration.

import { ApiError } from '../base/errors.ts';
import { adapterEntry } from './adapters.ts';
import { AdapterUses, Bases } from './bases.ts';
import { allInsideRoots, residencyOf } from './describe.ts';
import { describeSource, type ModelToAdd } from './model-source.ts';
import { KeyedQueue } from './keyed-queue.ts';
import { Lifecycle } from './lifecycle.ts';
import { estimateBytes, openModel } from './load.ts';
import type { JobProof } from '../base/job-proof.ts';
import type { FileIdentity, ModelFile, RegisteredModel, RegistryEntry } from './model.ts';
import { admittedEntry, checkShown } from './provenance.ts';
import { eventOfPull, statusOfPull, untilAborted } from './pull-answers.ts';
import { plainPullName } from './pull/name.ts';
import type { PullService } from './pull/pull.ts';
import { createRegistry, type Registry } from './registry.ts';
import type { AcquireOptions, Lease, ModelService, ModelStatus, PullEvent, PullStatus } from './seam.ts';
import type { ServiceOptions } from './service-options.ts';
import { replaced, type Closable, type OpenModel } from './slot.ts';
import { parseModelName } from './store/names.ts';
import type { ModelStore } from './store/store.ts';
import { entryOfManifest, manifestOf, proofOf, type RestoreOptions } from './stored-model.ts';

export interface ConfiguredModel extends ModelToAdd {
  readonly job?: JobProof | undefined;
}

export interface Models<E extends Closable> extends ModelService<E> {
  readonly registry: Registry;
  /**
   * Reads, measures (unless pinned) and registers a file of the configuration, without any rule about where
   * it may be. Its id stays the configuration's, also while it is deleted: what another took there would be
   * gone after a restart.
   */
  add(source: ConfiguredModel, signal: AbortSignal): Promise<RegistryEntry>;
  /** Registers the models of the store. Resolves with those it could not register, by manifest file. */
  restore(): Promise<readonly { readonly file: string; readonly reason: string }[]>;
  close(signal: AbortSignal): Promise<void>;
}

export function createModels<E extends Closable>(options: ServiceOptions<E>): Models<E> {
  return new ModelRegistrar(options);
}

class ModelRegistrar<E extends Closable> implements Models<E> {
  readonly registry = createRegistry();
  readonly #bases: Bases;
  readonly #options: ServiceOptions<E>;
  /** Models of the configuration, by id. What was made of their folders is held as long as this lives. */
  readonly #configured = new Map<string, RegistryEntry>();
  readonly #store: ModelStore;
  readonly #lifecycle: Lifecycle<E>;
  /** By id: registry and store change together, one step at a time. */
  readonly #changes = new KeyedQueue();
  /** So that a file used in place is hashed once per boot, not once per load. */
  readonly #measuredInPlace = new WeakMap<RegisteredModel, FileIdentity>();
  readonly #uses = new AdapterUses();
  /** Each running pull has a follower of the service, so that registration needs no watching client. */
  readonly #followers = new Map<string, Promise<void>>();

  constructor(options: ServiceOptions<E>) {
    this.#options = options;
    this.#store = options.store;
    this.#bases = new Bases(this.registry, options.adaptersAllowed);
    this.#lifecycle = new Lifecycle<E>({
      ...options,
      open: (model, load) => this.#open(model, load),
      adaptersOf: (model) => this.#bases.loadableOf(model),
      estimate: (model) => estimateBytes(this.#entryOf(model.id), options.slots),
    });
  }

  async add(source: ConfiguredModel, signal: AbortSignal): Promise<RegistryEntry> {
    try {
      const described = await describeSource(source, this.#options, signal);
      const entry = this.registry.add(await this.#admitted(described.entry, source.job));
      this.#configured.set(source.id, entry);
      return entry;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      // The operator configured the id and the path, so the error must name the model.
      const { status, code, param, shouldRetry } = error;
      const message = `model "${source.id}", ${String(source.path)}: ${error.message}`;
      throw new ApiError(code, message, { status, param: param ?? undefined, shouldRetry, cause: error });
    }
  }

  async register(
    { name, path, format, isq, defaultParameters, kvType, job }: Parameters<ModelService<E>['register']>[0],
    signal = new AbortController().signal,
  ): Promise<ModelStatus> {
    const roots = this.#options.modelRoots;
    const source = { id: name, path, format, isq, roots, defaults: defaultParameters, kvType };
    checkShown(job, this.#options.provenance);
    const { entry: described, origin, held } = await describeSource(source, this.#options, signal);
    try {
      const entry = await this.#admitted(described, job);
      return await this.#changes.run(entry.model.id, async () => {
        const existing = this.registry.get(entry.model.id);
        // Refused here when it has other bytes; the same bytes are accepted without a change.
        if (existing !== undefined) return this.#statusOf(this.registry.add(entry));
        const configured = this.#configuredAs(entry);
        if (configured !== undefined) return this.#statusOf(this.registry.add(configured));
        return this.registry.withRoom(entry.model.id, async () => {
          await this.#store.put(manifestOf(entry, { kind: 'file', path: origin }));
          return this.#statusOf(this.registry.add(entry));
        });
      });
    } finally {
      held?.release();
    }
  }

  async addAdapter(
    request: Parameters<ModelService<E>['addAdapter']>[0],
    signal: AbortSignal,
  ): Promise<{ readonly model: RegisteredModel; readonly added: boolean }> {
    this.#bases.checkAllowed();
    parseModelName(request.name, 'lora_name');
    checkShown(request.job, this.#options.provenance);
    const base = request.base === undefined ? this.#bases.only() : this.#entryOf(request.base);
    const [path = ''] = await allInsideRoots([request.path], this.#options.modelRoots);
    const { entry: described, held } = await adapterEntry({ ...request, path, base }, this.#options, signal);
    try {
      const entry = await this.#admitted(described, request.job);
      return await this.#changes.run(entry.model.id, async () => {
        if (this.#configured.has(request.name)) throw ofConfiguration(request.name);
        // Refused here when it has other bytes; the same bytes are accepted without a change.
        if (this.registry.get(request.name) !== undefined)
          return { model: this.registry.add(entry).model, added: false };
        this.#bases.checkRoom(base.model);
        return this.registry.withRoom(request.name, async () => {
          await this.#store.put(manifestOf(entry, { kind: 'file', path }));
          return { model: this.registry.add(entry).model, added: true };
        });
      });
    } finally {
      held?.release();
    }
  }

  async removeAdapter(id: string): Promise<void> {
    if (this.#entryOf(id).adapter === undefined)
      throw new ApiError('wrong_model_type', 'the model is no adapter', { param: 'lora_name' });
    await this.remove(id);
  }

  /** Removes the current registration from registry and store before it waits for the work that uses it. */
  async remove(id: string): Promise<void> {
    const unloaded = await this.#changes.run(id, async () => {
      const entry = this.#entryOf(id);
      this.#bases.checkWithout(entry.model);
      // Its room stays its own until it is gone: it comes back where the store fails.
      return this.registry.withRoom(id, async () => {
        const done = this.#take(entry);
        try {
          // Blobs that an engine still reads are leased: they are collected after its end.
          if ((await this.#store.get(id)) !== undefined) await this.#store.remove(id);
        } catch (error) {
          this.registry.add(entry);
          throw error;
        }
        return { done };
      });
    });
    await unloaded.done;
    await this.#store.collect();
  }

  list(): readonly ModelStatus[] {
    return this.registry.list().map((entry) => this.#statusOf(entry));
  }

  get(id: string): ModelStatus | undefined {
    const entry = this.registry.get(id);
    return entry === undefined ? undefined : this.#statusOf(entry);
  }

  async acquire(id: string, options: AcquireOptions): Promise<Lease<E>> {
    return this.#acquire(this.#entryOf(id), options);
  }

  async load(
    id: string,
    signal: AbortSignal,
    { keepAlive, onLoaded }: Parameters<ModelService<E>['load']>[2] = {},
  ): Promise<'loaded' | 'already_loaded'> {
    const entry = this.#entryOf(id);
    const already = this.#statusOf(entry).loadedAt;
    const lease = await this.#acquire(entry, { signal, keepAlive });
    try {
      const current = this.#entryOf(id); // 404 when it was removed while this waited
      if (current.model !== entry.model) throw replaced(entry.model);
      const status = this.#statusOf(current);
      onLoaded?.(status);
      return already !== undefined && status.loadedAt === already ? 'already_loaded' : 'loaded';
    } finally {
      lease.release();
    }
  }

  async unload(id: string): Promise<void> {
    const { model } = this.#bases.hostOf(this.#entryOf(id));
    if (!(await this.#lifecycle.unload(model.id, model)))
      throw new ApiError('model_not_loaded', 'the model is not loaded', { param: 'name' });
  }

  async restore(): Promise<readonly { readonly file: string; readonly reason: string }[]> {
    const { models, broken } = await this.#store.list();
    const failed = [...broken];
    // Adapters last: their bases may be of the store as well.
    const [own, adapters] = [models.filter((each) => !each.adapter), models.filter((each) => each.adapter)];
    for (const manifest of [...own, ...adapters]) {
      // The configuration has the last word about an id.
      if (this.registry.get(manifest.name) !== undefined) continue;
      try {
        const entry = await entryOfManifest(manifest, this.#restoreOptions());
        this.registry.add(await this.#restored(entry, proofOf(manifest)));
      } catch (error) {
        const reason = error instanceof Error ? error.message : 'cannot be registered';
        failed.push({ file: manifest.name, reason });
      }
    }
    return failed;
  }

  async *pull(asked: PullRequest, signal: AbortSignal): AsyncIterable<PullEvent> {
    const { pulls } = this.#options;
    if (pulls === null) throw new ApiError('pull_disabled', 'this server does not fetch models');
    checkShown(undefined, this.#options.provenance);
    const request = { ...asked, name: plainPullName(asked.name) };
    if (this.#configured.has(request.name)) throw ofConfiguration(request.name);
    const registered = this.#follow(pulls, request);
    for await (const event of untilAborted(pulls.pull(request), signal)) {
      if (event.kind === 'success' || event.kind === 'already_exists') await registered;
      yield eventOfPull(event);
    }
  }

  async pullStatus(given: string): Promise<PullStatus | undefined> {
    const name = plainPullName(given);
    const state = await this.#options.pulls?.status(name);
    return state === undefined ? undefined : statusOfPull(name, state);
  }

  async cancelPull(name: string): Promise<boolean> {
    return (await this.#options.pulls?.cancel(plainPullName(name))) ?? false;
  }

  async close(signal: AbortSignal): Promise<void> {
    await this.#options.pulls?.close();
    await this.#lifecycle.close(signal);
    await this.#store.close();
  }

  #admitted(entry: RegistryEntry, job: JobProof | undefined): Promise<RegistryEntry> {
    return admittedEntry(entry, job, this.#options.provenance);
  }

  /** A record that no trust is left for is only a loss where records are required. */
  #restored(entry: RegistryEntry, job: JobProof | undefined): Promise<RegistryEntry> {
    const judged = this.#admitted(entry, job);
    return this.#options.provenance?.required === true ? judged : judged.catch(() => entry);
  }

  #entryOf(id: string): RegistryEntry {
    const entry = this.registry.get(id);
    if (entry === undefined)
      throw new ApiError('model_not_found', 'no model of that name is registered', { param: 'model' });
    return entry;
  }

  /** The configured model of this id, if it is the same model; another model is refused. */
  #configuredAs({ model }: RegistryEntry): RegistryEntry | undefined {
    const configured = this.#configured.get(model.id);
    if (configured !== undefined && configured.model.sha256 !== model.sha256) throw ofConfiguration(model.id);
    return configured;
  }

  #statusOf(entry: RegistryEntry): ModelStatus {
    const { model, adapter } = entry;
    if (adapter === undefined) return { ...model, ...this.#lifecycle.status(model.id, model) };
    const base = this.#bases.baseOf(entry);
    if (base === undefined || this.#bases.isBroken(model)) return { ...model, loaded: false, inFlight: 0 };
    const status = this.#lifecycle.status(base.model.id, base.model, model);
    return { ...model, ...status, inFlight: this.#uses.countOf(model) };
  }

  async #acquire(entry: RegistryEntry, options: AcquireOptions): Promise<Lease<E>> {
    const { model, adapter } = entry;
    if (adapter === undefined) return this.#lifecycle.acquire(model, options);
    this.#bases.checkUsable(model);
    const lease = await this.#lifecycle.acquire(this.#bases.hostOf(entry).model, options, model);
    // Its file may have been found changed while the engine was loaded.
    if (this.#bases.isBroken(model)) lease.release();
    this.#bases.checkUsable(model);
    const ended = this.#uses.begin(model);
    const release = (): void => {
      ended();
      lease.release();
    };
    return { model, engine: this.#options.adapted(lease.engine, model.sha256), release };
  }

  #restoreOptions(): RestoreOptions {
    return {
      store: this.#store,
      residencyOf: (weights) => residencyOf(weights, this.#options),
      contextLength: this.#options.contextLength,
      kvType: this.#options.kvType,
      imagesAllowed: this.#options.imagesAllowed,
      entry: (id) => this.registry.get(id),
    };
  }

  /** Leaves the registry and begins to drain its engine in one turn; resolves when the engine has ended. */
  #take({ model, adapter }: RegistryEntry): Promise<unknown> {
    this.registry.remove(model.id);
    // The engine of an adapter is its base's, which goes on.
    return adapter === undefined ? this.#lifecycle.unload(model.id, model) : this.#uses.whenIdle(model);
  }

  /** The blobs stay in the store for as long as the engine lives. */
  async #open(model: RegisteredModel, load: Parameters<OpenModel<E>>[1]): Promise<E> {
    const entry = this.#entryOf(model.id);
    if (entry.model !== model) throw replaced(model);
    const { openEngine, stagingFolder, slots, threads } = this.#options;
    const files: readonly ModelFile[] = [entry, ...load.adapters].flatMap((each) => each.files);
    const held = this.#store.lease(files.map((file) => file.sha256));
    try {
      const engine = await openModel(entry, {
        ...load,
        openEngine,
        onBroken: ({ model: adapter }, error) => this.#bases.setBroken(adapter, error),
        stagingFolder,
        slots,
        threads: threads === 0 ? undefined : threads,
        known: this.#measuredInPlace.get(entry.model),
        onMeasured: (identity) => this.#measuredInPlace.set(entry.model, identity),
      });
      void engine.closed.finally(held.release);
      return engine;
    } catch (error) {
      held.release();
      throw error;
    }
  }

  /**
   * The model a finished pull wrote to the store becomes servable; other bytes under a known id replace the
   * model.
   */
  async #adoptPulled(id: string): Promise<void> {
    const unloaded = await this.#changes.run(id, async () => {
      const manifest = await this.#store.get(id);
      if (manifest === undefined)
        throw new ApiError('pull_cancelled', 'the model was removed before it was registered');
      const entry = await entryOfManifest(manifest, this.#restoreOptions());
      const existing = this.registry.get(id);
      if (existing?.model.sha256 === entry.model.sha256) return { done: undefined };
      this.#configuredAs(entry);
      const done = existing === undefined ? undefined : this.#take(existing);
      this.registry.add(entry);
      return { done };
    });
    await unloaded.done;
  }

  #follow(service: PullService, request: PullRequest): Promise<void> {
    const running = this.#followers.get(request.name);
    if (running !== undefined) return running;
    const follower = this.registry
      .withRoom(request.name, async () => {
        for await (const event of service.pull(request)) {
          if (event.kind === 'success' || event.kind === 'already_exists') await this.#adoptPulled(event.id);
        }
      })
      .finally(() => this.#followers.delete(request.name));
    this.#followers.set(request.name, follower);
    follower.catch(() => undefined); // a client that watches gets the error
    return follower;
  }
}

type PullRequest = Parameters<ModelService<unknown>['pull']>[0];

function ofConfiguration(id: string): ApiError {
  return new ApiError(
    'model_already_exists',
    `${id} is a model of the configuration, which comes back with the next start: choose another name`,
    { param: 'name' },
  );
}
