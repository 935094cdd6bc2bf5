// Decides which models are loaded: loads on first request, unloads when idle for keep_alive, and evicts the
// least recently used when room is needed, never one with work in flight. Generic over the engine: start/
// wires models and engine. Fairness: loads that need room wait in one first-in-first-out queue. For its head
// the least recently used model is drained: it finishes its requests, and new requests for it queue up
// behind. So a swap under load loses no request, and no model starves another.

import type { Clock } from '../base/clock.ts';
import { ApiError, overloaded, shuttingDown } from '../base/errors.ts';
import { parseKeepAlive } from './keep-alive.ts';
import type { RegisteredModel, RegistryEntry } from './model.ts';
import type { AcquireOptions, Lease, ModelStatus } from './seam.ts';
import {
  ModelSlot,
  replaced,
  type Closable,
  type LifecycleEvent,
  type OpenModel,
  type Waiter,
} from './slot.ts';

export interface LifecycleOptions<E extends Closable> {
  readonly open: OpenModel<E>;
  /** The adapters of a model that can be loaded with it now. */
  readonly adaptersOf?: ((model: RegisteredModel) => readonly RegistryEntry[]) | undefined;
  /** Bytes a model will take once loaded, without adapters. */
  readonly estimate: (model: RegisteredModel) => number;
  readonly maxLoaded: number;
  readonly memoryBudgetBytes: number;
  /** For requests without keep_alive. */
  readonly keepAlive: string | number;
  /** Requests that may wait for one model. */
  readonly maxWaiting: number;
  readonly loadTimeoutMs: number;
  readonly clock: Clock;
  readonly onEvent?: ((event: LifecycleEvent) => void) | undefined;
}

export class Lifecycle<E extends Closable> {
  readonly #options: LifecycleOptions<E>;
  readonly #keepAliveMs: number;
  /** By model id. */
  readonly #slots = new Map<string, ModelSlot<E>>();
  /** Loads waiting for room, oldest first. */
  readonly #queue: ModelSlot<E>[] = [];
  readonly #stop = new AbortController();

  constructor(options: LifecycleOptions<E>) {
    this.#options = options;
    this.#keepAliveMs = parseKeepAlive(options.keepAlive);
  }

  /**
   * With an adapter of the model: an engine that has it. One that was loaded before the adapter was
   * registered finishes its requests and is loaded again.
   */
  async acquire(
    model: RegisteredModel,
    options: AcquireOptions,
    adapter?: RegisteredModel,
  ): Promise<Lease<E>> {
    if (this.#stop.signal.aborted) throw shuttingDown();
    options.signal.throwIfAborted();
    if (options.keepAlive !== undefined) parseKeepAlive(options.keepAlive);
    const slot = this.#slotFor(model, adapter);
    if (slot.canServeNow(model, adapter)) return slot.lease(model, options);
    if (slot.waiters.size >= this.#options.maxWaiting)
      throw overloaded('engine_overloaded', `${slot.waiters.size} requests already wait for ${model.id}`, 5);
    const waited = this.#wait(slot, { model, adapter }, options);
    this.#advance();
    return waited;
  }

  /**
   * Ends a loaded model once its work is done; false when it (given the model: that registration)
   * is not loaded or loading.
   */
  async unload(id: string, model?: RegisteredModel): Promise<boolean> {
    const slot = this.#slots.get(id);
    if (slot === undefined || slot.state === 'waiting') return false;
    if (model !== undefined && !slot.serves(model)) return false;
    slot.drain('asked');
    await slot.whenGone();
    return true;
  }

  isLoaded(id: string): boolean {
    return this.#slots.get(id)?.state === 'loaded';
  }

  /** Given the model: only of that registration, not of one it replaced; given an adapter: only with it. */
  status(
    id: string,
    model?: RegisteredModel,
    adapter?: RegisteredModel,
  ): Pick<ModelStatus, 'loaded' | 'loading' | 'loadedAt' | 'expiresAt' | 'inFlight' | 'toolFormat'> {
    const slot = this.#slots.get(id);
    if (slot === undefined || (model !== undefined && !slot.serves(model, adapter)))
      return { loaded: false, inFlight: 0 };
    const { inFlight, loadedAt, expiresAt, toolFormat } = slot;
    if (slot.state === 'loaded') return { loaded: true, inFlight, loadedAt, expiresAt, toolFormat };
    if (slot.state === 'loading') return { loaded: false, inFlight, loading: { fraction: slot.fraction } };
    return { loaded: false, inFlight };
  }

  /** Refuses new work, waits for leases until `signal` aborts, then ends every engine. */
  async close(signal: AbortSignal): Promise<void> {
    this.#stop.abort(shuttingDown());
    for (const slot of this.#slots.values()) {
      slot.rejectWaiters(shuttingDown());
      if (slot.state === 'waiting') this.#forget(slot);
    }
    const leaving = [...this.#slots.values()].map((slot) => slot.whenGone());
    for (const slot of this.#slots.values()) slot.drain('shutdown');
    const force = (): void => {
      for (const slot of this.#slots.values()) void slot.end('shutdown');
    };
    if (signal.aborted) force();
    else signal.addEventListener('abort', force, { once: true });
    await Promise.all(leaving);
    signal.removeEventListener('abort', force);
  }

  /**
   * The slot in which requests for the model wait or are served. A slot of another
   * registration of its id is drained.
   */
  #slotFor(model: RegisteredModel, adapter: RegisteredModel | undefined): ModelSlot<E> {
    const slot = this.#slots.get(model.id);
    if (slot === undefined) return this.#enqueue(model);
    if (slot.serves(model, adapter)) return slot;
    if (slot.state !== 'waiting') {
      slot.drain('asked');
      return slot;
    }
    slot.rejectWaiters(replaced(model));
    this.#forget(slot);
    return this.#enqueue(model);
  }

  /** A new slot at the end of the queue. */
  #enqueue(model: RegisteredModel, waiters?: Set<Waiter<E>>): ModelSlot<E> {
    const { open, loadTimeoutMs, clock, onEvent, memoryBudgetBytes, adaptersOf = () => [] } = this.#options;
    const slot = new ModelSlot<E>(
      model,
      this.#options.estimate(model),
      {
        open,
        adaptersOf,
        loadTimeoutMs,
        keepAliveMs: this.#keepAliveMs,
        clock,
        stop: this.#stop.signal,
        emit: (event) => onEvent?.(event),
        onChange: () => this.#advance(),
        onGone: (gone) => this.#replace(gone),
      },
      waiters,
    );
    if (slot.bytes > memoryBudgetBytes) throw tooLarge(slot, memoryBudgetBytes);
    this.#slots.set(model.id, slot);
    this.#queue.push(slot);
    return slot;
  }

  #wait(
    slot: ModelSlot<E>,
    { model, adapter }: Pick<Waiter<E>, 'model' | 'adapter'>,
    options: AcquireOptions,
  ): Promise<Lease<E>> {
    return new Promise<Lease<E>>((resolve, reject) => {
      const leave = (): void => {
        if (!slot.waiters.delete(waiter)) return;
        reject(options.signal.reason as Error);
        // A load that has begun goes on: the next request can use it. One that has not begun is dropped.
        const current = this.#slots.get(model.id);
        if (current?.waiters.size === 0 && current.state === 'waiting') this.#forget(current);
        this.#advance();
      };
      const stayed = (): void => options.signal.removeEventListener('abort', leave);
      const waiter: Waiter<E> = {
        model,
        adapter,
        stay: options,
        resolve: (granted) => {
          stayed();
          resolve(granted);
        },
        reject: (error) => {
          stayed();
          reject(error);
        },
      };
      slot.waiters.add(waiter);
      options.signal.addEventListener('abort', leave, { once: true });
    });
  }

  /**
   * Starts every load that has room now, and drains models for the first without. Never
   * overtakes the head of the queue.
   */
  #advance(): void {
    while (!this.#stop.signal.aborted) {
      const next = this.#queue[0];
      if (next === undefined) {
        for (const slot of this.#slots.values()) slot.undrain();
        return;
      }
      const { memoryBudgetBytes } = this.#options;
      if (next.bytes > memoryBudgetBytes) {
        // Adapters came while it waited.
        next.rejectWaiters(tooLarge(next, memoryBudgetBytes));
        this.#forget(next);
        continue;
      }
      const present = [...this.#slots.values()].filter((slot) => slot.state !== 'waiting');
      if (this.#fits(next, present)) {
        this.#queue.shift();
        void next.load();
        continue;
      }
      // Models already on their way out may be enough; only drain one more when it is not.
      const staying = present.filter((slot) => slot.state !== 'closing' && slot.draining === undefined);
      if (this.#fits(next, staying)) return;
      const victim = leastRecentlyUsed(present);
      if (victim === undefined) return;
      victim.drain('evicted');
    }
  }

  #fits(next: ModelSlot<E>, others: readonly ModelSlot<E>[]): boolean {
    const bytes = others.reduce((sum, slot) => sum + slot.bytes, next.bytes);
    return others.length < this.#options.maxLoaded && bytes <= this.#options.memoryBudgetBytes;
  }

  /**
   * Removes the slot. Requests that came for its id meanwhile queue for a new one, of the newest
   * registration.
   */
  #replace(slot: ModelSlot<E>): void {
    this.#forget(slot);
    const newest = [...slot.waiters].at(-1)?.model;
    if (newest !== undefined && !this.#stop.signal.aborted) {
      try {
        const next = this.#enqueue(newest, slot.waiters);
        next.rejectWaiters(replaced(newest), (waiter) => !next.serves(waiter.model, waiter.adapter));
      } catch (error) {
        slot.rejectWaiters(error);
      }
    }
    this.#advance();
  }

  #forget(slot: ModelSlot<E>): void {
    if (this.#slots.get(slot.model.id) === slot) this.#slots.delete(slot.model.id);
    const at = this.#queue.indexOf(slot);
    if (at >= 0) this.#queue.splice(at, 1);
    slot.drop();
  }
}

/** Idle models first; with none idle, the one whose last request is oldest is drained, not interrupted. */
function leastRecentlyUsed<E extends Closable>(slots: readonly ModelSlot<E>[]): ModelSlot<E> | undefined {
  const candidates = slots.filter((slot) => slot.state === 'loaded' && slot.draining === undefined);
  const idle = candidates.filter((slot) => slot.inFlight === 0);
  return (idle.length > 0 ? idle : candidates).toSorted((a, b) => a.lastUsed - b.lastUsed)[0];
}

function tooLarge({ model, bytes }: Pick<ModelSlot<Closable>, 'model' | 'bytes'>, budget: number): ApiError {
  return new ApiError(
    'model_load_failed',
    `${model.id} needs about ${bytes} bytes, the memory budget is ${budget}`,
    { status: 503, shouldRetry: false },
  );
}
