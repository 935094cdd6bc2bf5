// Which models are loaded, and since when: loaded on first request, unloaded when idle for keep_alive, least recently used
// out first when room is needed, never one with work in flight. Generic over the engine, because models and inference do not
// import each other; main wires them.
// Fairness: loads that need room wait in one first-in-first-out queue. For its head the least recently used model is drained:
// it finishes what it has, and requests that come for it meanwhile queue up behind. So a swap under load loses no request and
// no model starves another.

import type { Clock } from '../base/clock.ts';
import { ApiError } from '../base/errors.ts';
import { parseKeepAlive } from './keep-alive.ts';
import type { RegisteredModel } from './model.ts';
import type { ModelStatus, Lease, AcquireOptions } from './seam.ts';

/** What a loaded model must be able to do; inference's Engine does. */
export interface Closable {
  /** Settles when it is gone: null after close(), else why. */
  readonly closed: Promise<Error | null>;
  close(): Promise<void>;
}

export type LifecycleEvent =
  | { readonly type: 'loading'; readonly id: string; readonly fraction: number }
  | { readonly type: 'loaded'; readonly id: string; readonly milliseconds: number }
  | { readonly type: 'load_failed'; readonly id: string; readonly error: unknown }
  | {
      readonly type: 'unloaded';
      readonly id: string;
      readonly reason: 'idle' | 'evicted' | 'asked' | 'shutdown';
    }
  | { readonly type: 'crashed'; readonly id: string; readonly error: Error };

export interface LifecycleDeps<E extends Closable> {
  /** Stages, measures and loads; rejects with an ApiError. */
  readonly open: (
    model: RegisteredModel,
    options: { readonly signal: AbortSignal; readonly onProgress: (fraction: number) => void },
  ) => Promise<E>;
  /** Bytes a model will take once loaded. */
  readonly estimate: (model: RegisteredModel) => number;
  readonly maxLoaded: number;
  readonly memoryBudgetBytes: number;
  /** For requests that give none. */
  readonly keepAlive: string | number;
  /** Requests that may wait for one model. */
  readonly maxWaiting: number;
  readonly loadTimeoutMs: number;
  readonly clock: Clock;
  readonly onEvent?: ((event: LifecycleEvent) => void) | undefined;
}

export interface Lifecycle<E extends Closable> {
  acquire(model: RegisteredModel, options: AcquireOptions): Promise<Lease<E>>;
  /** Ends a loaded model once its work is done; false when it is neither loaded nor loading. */
  unload(id: string): Promise<boolean>;
  isLoaded(id: string): boolean;
  status(id: string): Pick<ModelStatus, 'loaded' | 'loading' | 'loadedAt' | 'expiresAt' | 'inFlight'>;
  /** Refuses new work, waits for leases until `signal` aborts, then ends every engine. */
  close(signal: AbortSignal): Promise<void>;
}

interface Waiter<E> {
  readonly resolve: (lease: Lease<E>) => void;
  readonly reject: (error: unknown) => void;
  readonly stay: Stay;
}

/** How long a request wants the model to stay. */
type Stay = Pick<AcquireOptions, 'keepAlive' | 'keepAliveUpToMs'>;

/** One per model that is loaded, loading, or waited for. */
interface Slot<E> {
  model: RegisteredModel;
  state: 'waiting' | 'loading' | 'loaded' | 'closing';
  engine: E | undefined;
  readonly waiters: Set<Waiter<E>>;
  inFlight: number;
  /** Set when something waits for it to be gone: no new leases. */
  draining: 'evicted' | 'asked' | 'shutdown' | undefined;
  fraction: number;
  loadedAt: number;
  lastUsed: number;
  keepAliveMs: number;
  expiresAt: number | null;
  cancelTimer: (() => void) | undefined;
  bytes: number;
  readonly gone: Set<() => void>;
}

export function createLifecycle<E extends Closable>(deps: LifecycleDeps<E>): Lifecycle<E> {
  const slots = new Map<string, Slot<E>>();
  /** Loads waiting for room, oldest first. */
  const queue: Slot<E>[] = [];
  const stop = new AbortController();
  const defaultKeepAliveMs = parseKeepAlive(deps.keepAlive);
  const emit = (event: LifecycleEvent): void => deps.onEvent?.(event);

  function acquire(model: RegisteredModel, options: AcquireOptions): Promise<Lease<E>> {
    if (stop.signal.aborted) return Promise.reject(shuttingDown());
    options.signal.throwIfAborted();
    if (options.keepAlive !== undefined) parseKeepAlive(options.keepAlive);
    let slot = slots.get(model.id);
    if (slot?.state === 'loaded' && slot.draining === undefined) return Promise.resolve(lease(slot, options));
    if (slot === undefined) {
      slot = newSlot(model, deps.estimate(model));
      if (slot.bytes > deps.memoryBudgetBytes) return Promise.reject(tooLarge(slot, deps.memoryBudgetBytes));
      slots.set(model.id, slot);
      queue.push(slot);
    }
    if (slot.waiters.size >= deps.maxWaiting) {
      return Promise.reject(
        new ApiError('engine_overloaded', `${slot.waiters.size} requests already wait for ${model.id}`, {
          retryAfterSeconds: 5,
        }),
      );
    }
    const waited = wait(slot, options);
    advance();
    return waited;
  }

  function wait(slot: Slot<E>, options: AcquireOptions): Promise<Lease<E>> {
    return new Promise<Lease<E>>((resolve, reject) => {
      const leave = (): void => {
        if (!slot.waiters.delete(waiter)) return;
        reject(options.signal.reason as Error);
        // A load that has begun goes on: what it did is useful to the next request. One that has not is dropped.
        const current = slots.get(slot.model.id);
        if (current?.waiters.size === 0 && current.state === 'waiting') forget(current);
        advance();
      };
      const waiter: Waiter<E> = {
        stay: options,
        resolve: (granted) => {
          options.signal.removeEventListener('abort', leave);
          resolve(granted);
        },
        reject: (error) => {
          options.signal.removeEventListener('abort', leave);
          reject(error);
        },
      };
      slot.waiters.add(waiter);
      options.signal.addEventListener('abort', leave, { once: true });
    });
  }

  /** Starts whatever load has room now, and drains for the first that has not. Never overtakes the head of the queue. */
  function advance(): void {
    while (!stop.signal.aborted) {
      const next = queue[0];
      if (next === undefined) return undrain();
      if (hasRoom(next)) {
        queue.shift();
        void load(next);
        continue;
      }
      const present = [...slots.values()].filter(
        (slot) => slot.state === 'loaded' || slot.state === 'closing' || slot.state === 'loading',
      );
      // What is already on its way out may be enough; only drain one more when it is not.
      if (
        fits(
          next,
          present.filter((slot) => slot.state !== 'closing' && slot.draining === undefined),
        )
      )
        return;
      const victim = leastRecentlyUsed(present);
      if (victim === undefined) return;
      victim.draining = 'evicted';
      if (victim.inFlight === 0) void end(victim, 'evicted');
    }
  }

  /** Nobody waits for room any more: what was drained for them stays, and serves who queued behind. */
  function undrain(): void {
    for (const slot of slots.values()) {
      if (slot.state !== 'loaded' || slot.draining !== 'evicted') continue;
      slot.draining = undefined;
      admit(slot);
    }
  }

  function admit(slot: Slot<E>): void {
    const waiters = [...slot.waiters];
    slot.waiters.clear();
    for (const waiter of waiters) waiter.resolve(lease(slot, waiter.stay));
  }

  function hasRoom(next: Slot<E>): boolean {
    return fits(
      next,
      [...slots.values()].filter((slot) => slot.state !== 'waiting'),
    );
  }

  function fits(next: Slot<E>, others: readonly Slot<E>[]): boolean {
    const bytes = others.reduce((sum, slot) => sum + slot.bytes, next.bytes);
    return others.length < deps.maxLoaded && bytes <= deps.memoryBudgetBytes;
  }

  async function load(slot: Slot<E>): Promise<void> {
    slot.state = 'loading';
    const started = deps.clock.now();
    const timeout = new AbortController();
    const cancel = deps.clock.after(deps.loadTimeoutMs, () =>
      timeout.abort(
        new ApiError(
          'model_load_failed',
          `loading ${slot.model.id} took longer than ${deps.loadTimeoutMs} ms`,
        ),
      ),
    );
    let tenths = -1;
    try {
      const engine = await deps.open(slot.model, {
        signal: AbortSignal.any([timeout.signal, stop.signal]),
        onProgress: (fraction) => {
          slot.fraction = Math.min(1, Math.max(slot.fraction, fraction));
          if (Math.floor(slot.fraction * 10) <= tenths) return;
          tenths = Math.floor(slot.fraction * 10);
          emit({ type: 'loading', id: slot.model.id, fraction: slot.fraction });
        },
      });
      cancel();
      opened(slot, engine, started);
    } catch (error) {
      cancel();
      emit({ type: 'load_failed', id: slot.model.id, error });
      forget(slot);
      for (const waiter of slot.waiters) waiter.reject(error);
      slot.waiters.clear();
    }
    advance();
  }

  function opened(slot: Slot<E>, engine: E, started: number): void {
    slot.engine = engine;
    slot.state = 'loaded';
    slot.loadedAt = slot.lastUsed = deps.clock.now();
    slot.keepAliveMs = defaultKeepAliveMs;
    emit({ type: 'loaded', id: slot.model.id, milliseconds: slot.loadedAt - started });
    void watch(slot, engine);
    admit(slot);
    if (slot.inFlight === 0) idle(slot);
  }

  /** An engine that ends by itself is gone from the books at once; the next request loads a new one. */
  async function watch(slot: Slot<E>, engine: E): Promise<void> {
    const error = await engine.closed;
    if (slot.state !== 'loaded') return;
    slot.state = 'closing';
    if (error !== null) emit({ type: 'crashed', id: slot.model.id, error });
    finished(slot);
  }

  function lease(slot: Slot<E>, { keepAlive, keepAliveUpToMs }: Stay): Lease<E> {
    const { engine } = slot;
    if (engine === undefined) throw new Error('lease of a model that is not loaded');
    slot.inFlight += 1;
    slot.cancelTimer?.();
    slot.cancelTimer = undefined;
    slot.lastUsed = deps.clock.now();
    slot.expiresAt = null;
    if (keepAlive !== undefined) {
      const asked = parseKeepAlive(keepAlive);
      slot.keepAliveMs =
        keepAliveUpToMs === undefined ? asked : Math.max(slot.keepAliveMs, Math.min(asked, keepAliveUpToMs));
    }
    let held = true;
    return {
      model: slot.model,
      engine,
      release() {
        if (!held) return;
        held = false;
        slot.inFlight -= 1;
        slot.lastUsed = deps.clock.now();
        if (slot.inFlight === 0 && slot.state === 'loaded') idle(slot);
      },
    };
  }

  function idle(slot: Slot<E>): void {
    if (slot.draining !== undefined) {
      void end(slot, slot.draining);
    } else if (slot.keepAliveMs === 0) {
      void end(slot, 'idle');
    } else if (slot.keepAliveMs !== Number.POSITIVE_INFINITY) {
      slot.expiresAt = deps.clock.now() + slot.keepAliveMs;
      slot.cancelTimer = deps.clock.after(slot.keepAliveMs, () => {
        if (slot.inFlight === 0 && slot.state === 'loaded') void end(slot, 'idle');
      });
    }
    advance();
  }

  async function end(slot: Slot<E>, reason: 'idle' | 'evicted' | 'asked' | 'shutdown'): Promise<void> {
    if (slot.state !== 'loaded' || slot.engine === undefined) return;
    slot.state = 'closing';
    slot.cancelTimer?.();
    try {
      await slot.engine.close();
    } catch (error) {
      emit({
        type: 'crashed',
        id: slot.model.id,
        error: error instanceof Error ? error : new Error('the engine did not close'),
      });
    }
    emit({ type: 'unloaded', id: slot.model.id, reason });
    finished(slot);
  }

  /** The engine is gone. Whoever came for the model meanwhile queues for a new one. */
  function finished(slot: Slot<E>): void {
    slot.cancelTimer?.();
    forget(slot);
    if (slot.waiters.size > 0 && !stop.signal.aborted) {
      const next = newSlot(slot.model, slot.bytes, slot.waiters);
      slots.set(next.model.id, next);
      queue.push(next);
    }
    advance();
  }

  function forget(slot: Slot<E>): void {
    if (slots.get(slot.model.id) === slot) slots.delete(slot.model.id);
    const at = queue.indexOf(slot);
    if (at >= 0) queue.splice(at, 1);
    for (const done of slot.gone) done();
    slot.gone.clear();
  }

  async function unload(id: string): Promise<boolean> {
    const slot = slots.get(id);
    if (slot === undefined || slot.state === 'waiting') return false;
    const gone = new Promise<void>((resolve) => slot.gone.add(resolve));
    slot.draining ??= 'asked';
    if (slot.state === 'loaded' && slot.inFlight === 0) void end(slot, 'asked');
    await gone;
    return true;
  }

  async function close(signal: AbortSignal): Promise<void> {
    stop.abort(shuttingDown());
    for (const slot of slots.values()) {
      for (const waiter of slot.waiters) waiter.reject(shuttingDown());
      slot.waiters.clear();
      if (slot.state === 'waiting') forget(slot);
    }
    const leaving = [...slots.values()].map((slot) => new Promise<void>((resolve) => slot.gone.add(resolve)));
    for (const slot of slots.values()) {
      slot.draining = 'shutdown';
      if (slot.state === 'loaded' && slot.inFlight === 0) void end(slot, 'shutdown');
    }
    const force = (): void => {
      for (const slot of slots.values()) void end(slot, 'shutdown');
    };
    if (signal.aborted) force();
    else signal.addEventListener('abort', force, { once: true });
    await Promise.all(leaving);
    signal.removeEventListener('abort', force);
  }

  return {
    acquire,
    unload,
    close,
    isLoaded: (id) => slots.get(id)?.state === 'loaded',
    status(id) {
      const slot = slots.get(id);
      if (slot === undefined) return { loaded: false, inFlight: 0 };
      const loaded = slot.state === 'loaded';
      return {
        loaded,
        inFlight: slot.inFlight,
        ...(slot.state === 'loading' ? { loading: { fraction: slot.fraction } } : {}),
        ...(loaded ? { loadedAt: slot.loadedAt, expiresAt: slot.expiresAt } : {}),
      };
    },
  };
}

function newSlot<E>(model: RegisteredModel, bytes: number, waiters = new Set<Waiter<E>>()): Slot<E> {
  return {
    model,
    state: 'waiting',
    engine: undefined,
    waiters,
    inFlight: 0,
    draining: undefined,
    fraction: 0,
    loadedAt: 0,
    lastUsed: 0,
    keepAliveMs: 0,
    expiresAt: null,
    cancelTimer: undefined,
    bytes,
    gone: new Set(),
  };
}

/** Idle models first; with none idle, the one whose last request is oldest is drained, not interrupted. */
function leastRecentlyUsed<E>(slots: readonly Slot<E>[]): Slot<E> | undefined {
  const candidates = slots.filter((slot) => slot.state === 'loaded' && slot.draining === undefined);
  const idle = candidates.filter((slot) => slot.inFlight === 0);
  return (idle.length > 0 ? idle : candidates).toSorted((a, b) => a.lastUsed - b.lastUsed)[0];
}

function tooLarge<E>(slot: Slot<E>, budget: number): ApiError {
  return new ApiError(
    'model_load_failed',
    `${slot.model.id} needs about ${slot.bytes} bytes, the memory budget is ${budget}`,
    { status: 503, shouldRetry: false },
  );
}

function shuttingDown(): ApiError {
  return new ApiError('server_shutting_down', 'the server is shutting down', { retryAfterSeconds: 5 });
}
