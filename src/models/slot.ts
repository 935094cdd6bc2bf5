// One model that is loaded, loading, or waited for, with its transitions: waiting → loading → loaded →
// closing. The adapters of the model are loaded with it: those that are registered when its load begins. A
// slot grants leases on its engine, unloads it when idle for its keep-alive time, and ends the engine once it
// is drained.

import type { Clock } from '../base/clock.ts';
import { ApiError } from '../base/errors.ts';
import { parseKeepAlive } from './keep-alive.ts';
import type { EngineInfo, ToolFormat } from '../engine/seam/engine.ts';
import type { RegisteredModel, RegistryEntry } from './model.ts';
import type { AcquireOptions, Lease } from './seam.ts';

/** Abilities of a loaded model; the engine seam's Engine does. */
export interface Closable {
  /** Settles when it has ended: null after close(), else the reason. */
  readonly closed: Promise<Error | null>;
  close(): Promise<void>;
  /** Of an engine: its kind, and how it writes tool calls. */
  readonly info?: Pick<EngineInfo, 'type' | 'toolFormat'> | undefined;
}

export type UnloadReason = 'idle' | 'evicted' | 'asked' | 'shutdown';

export type LifecycleEvent =
  | { readonly kind: 'loading'; readonly id: string; readonly fraction: number }
  | { readonly kind: 'loaded'; readonly id: string; readonly milliseconds: number }
  | { readonly kind: 'load_failed'; readonly id: string; readonly error: unknown }
  | { readonly kind: 'unloaded'; readonly id: string; readonly reason: UnloadReason }
  | { readonly kind: 'crashed'; readonly id: string; readonly error: Error };

/** Stages, measures and loads; rejects with an ApiError. */
export type OpenModel<E> = (
  model: RegisteredModel,
  options: {
    readonly signal: AbortSignal;
    readonly onProgress: (fraction: number) => void;
    readonly adapters: readonly RegistryEntry[];
  },
) => Promise<E>;

export interface SlotOptions<E extends Closable> {
  readonly open: OpenModel<E>;
  /** The adapters of a model that can be loaded with it now. */
  readonly adaptersOf: (model: RegisteredModel) => readonly RegistryEntry[];
  readonly loadTimeoutMs: number;
  /** For models whose requests give no keep_alive. */
  readonly keepAliveMs: number;
  readonly clock: Clock;
  /** Aborts loads. */
  readonly stop: AbortSignal;
  readonly emit: (event: LifecycleEvent) => void;
  /** Room may have become free, or a model idle. */
  readonly onChange: () => void;
  /** The engine has ended or never started. Requests that still wait need a new slot. */
  readonly onGone: (slot: ModelSlot<E>) => void;
}

/** How long a request wants the model to stay. */
type Stay = Pick<AcquireOptions, 'keepAlive' | 'keepAliveUpToMs'>;

export interface Waiter<E> {
  /** The registration the request was decided for; only an engine of that model is granted to it. */
  readonly model: RegisteredModel;
  /** The adapter of it that the request is for. */
  readonly adapter: RegisteredModel | undefined;
  readonly stay: Stay;
  readonly resolve: (lease: Lease<E>) => void;
  readonly reject: (error: unknown) => void;
}

export class ModelSlot<E extends Closable> {
  /** Requests that wait for an engine, oldest first. */
  readonly waiters: Set<Waiter<E>>;
  readonly #ownBytes: number;
  /** Known once its load has begun. */
  #adapters: readonly RegistryEntry[] | undefined;
  #model: RegisteredModel;
  #state: 'waiting' | 'loading' | 'loaded' | 'closing' = 'waiting';
  #engine: E | undefined;
  #inFlight = 0;
  /** Set when the engine has to end: no new leases. */
  #draining: UnloadReason | undefined;
  #fraction = 0;
  #loadedAt = 0;
  #lastUsed = 0;
  #keepAliveMs: number;
  #expiresAt: number | null = null;
  #cancelTimer: (() => void) | undefined;
  readonly #gone: Promise<void>;
  #settleGone: () => void = () => undefined;
  readonly #options: SlotOptions<E>;

  constructor(model: RegisteredModel, bytes: number, options: SlotOptions<E>, waiters?: Set<Waiter<E>>) {
    this.#model = model;
    this.#ownBytes = bytes;
    this.#options = options;
    this.#keepAliveMs = options.keepAliveMs;
    this.waiters = waiters ?? new Set();
    this.#gone = new Promise((resolve) => (this.#settleGone = resolve));
  }

  get model(): RegisteredModel {
    return this.#model;
  }

  /** Bytes it takes once loaded, its adapters included. */
  get bytes(): number {
    const adapters = this.#adapters ?? this.#options.adaptersOf(this.#model);
    return adapters.reduce((sum, { files }) => sum + (files[0]?.size ?? 0), this.#ownBytes);
  }

  get state(): 'waiting' | 'loading' | 'loaded' | 'closing' {
    return this.#state;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  get draining(): UnloadReason | undefined {
    return this.#draining;
  }

  get fraction(): number {
    return this.#fraction;
  }

  get loadedAt(): number {
    return this.#loadedAt;
  }

  /** Of a loaded model that makes text. */
  get toolFormat(): ToolFormat['kind'] | undefined {
    const info = this.#engine?.info;
    return info?.type === 'chat' || info?.type === 'completion' ? info.toolFormat.kind : undefined;
  }

  get lastUsed(): number {
    return this.#lastUsed;
  }

  get expiresAt(): number | null {
    return this.#expiresAt;
  }

  /**
   * Whether an engine of this slot answers for that registration of the model: same bytes, used in the same
   * way; and for the adapter, if one is asked for.
   */
  serves(model: RegisteredModel, adapter?: RegisteredModel): boolean {
    const own = this.#model;
    const same =
      own === model ||
      (own.sha256 === model.sha256 && own.contextLength === model.contextLength && own.type === model.type);
    return same && this.#has(adapter);
  }

  /** True before the load begins: it takes what is registered then. */
  #has(adapter: RegisteredModel | undefined): boolean {
    if (adapter === undefined || this.#adapters === undefined) return true;
    return this.#adapters.some((each) => each.model.sha256 === adapter.sha256);
  }

  canServeNow(model: RegisteredModel, adapter?: RegisteredModel): boolean {
    return this.#state === 'loaded' && this.#draining === undefined && this.serves(model, adapter);
  }

  /** Resolves once the slot has ended. */
  whenGone(): Promise<void> {
    return this.#gone;
  }

  /** No model was loaded: ends the slot. */
  drop(): void {
    this.#settleGone();
  }

  async load(): Promise<void> {
    const { open, clock, stop, loadTimeoutMs, emit } = this.#options;
    this.#state = 'loading';
    const adapters = this.#options.adaptersOf(this.#model);
    this.#adapters = adapters;
    this.rejectWaiters(replaced(this.#model), ({ adapter }) => !this.#has(adapter));
    const started = clock.now();
    const timeout = new AbortController();
    const cancel = clock.after(loadTimeoutMs, () =>
      timeout.abort(
        new ApiError('model_load_failed', `loading ${this.#model.id} took longer than ${loadTimeoutMs} ms`),
      ),
    );
    try {
      const engine = await open(this.#model, {
        signal: AbortSignal.any([timeout.signal, stop]),
        onProgress: this.#progress(),
        adapters,
      });
      cancel();
      this.#opened(engine, started);
    } catch (error) {
      cancel();
      emit({ kind: 'load_failed', id: this.#model.id, error });
      this.#failed(error);
    }
    this.#options.onChange();
  }

  /** Reports every tenth once. */
  #progress(): (fraction: number) => void {
    let tenths = -1;
    return (fraction) => {
      this.#fraction = Math.min(1, Math.max(this.#fraction, fraction));
      if (Math.floor(this.#fraction * 10) <= tenths) return;
      tenths = Math.floor(this.#fraction * 10);
      this.#options.emit({ kind: 'loading', id: this.#model.id, fraction: this.#fraction });
    };
  }

  #opened(engine: E, started: number): void {
    this.#engine = engine;
    this.#state = 'loaded';
    this.#loadedAt = this.#lastUsed = this.#options.clock.now();
    const milliseconds = this.#loadedAt - started;
    this.#options.emit({ kind: 'loaded', id: this.#model.id, milliseconds });
    void this.#watch(engine);
    this.admit();
    if (this.#inFlight === 0) this.#idle();
  }

  #failed(error: unknown): void {
    this.rejectWaiters(error, (waiter) => this.serves(waiter.model, waiter.adapter));
    this.#over();
  }

  rejectWaiters(error: unknown, which: (waiter: Waiter<E>) => boolean = () => true): void {
    for (const waiter of [...this.waiters].filter(which)) {
      this.waiters.delete(waiter);
      waiter.reject(error);
    }
  }

  /** An engine that ends by itself is gone at once; the next request loads a new one. */
  async #watch(engine: E): Promise<void> {
    const error = await engine.closed;
    if (this.#state !== 'loaded') return;
    this.#state = 'closing';
    if (error !== null) this.#options.emit({ kind: 'crashed', id: this.#model.id, error });
    this.#over();
  }

  /**
   * Grants leases to the waiters of this model. Those of another registration wait until this one is gone.
   */
  admit(): void {
    for (const waiter of this.waiters) {
      if (!this.serves(waiter.model, waiter.adapter)) continue;
      this.waiters.delete(waiter);
      waiter.resolve(this.lease(waiter.model, waiter.stay));
    }
  }

  lease(model: RegisteredModel, { keepAlive, keepAliveUpToMs }: Stay): Lease<E> {
    const engine = this.#engine;
    if (engine === undefined) throw new Error('lease of a model that is not loaded');
    this.#inFlight += 1;
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#lastUsed = this.#options.clock.now();
    this.#expiresAt = null;
    if (keepAlive !== undefined) {
      const asked = parseKeepAlive(keepAlive);
      this.#keepAliveMs =
        keepAliveUpToMs === undefined ? asked : Math.max(this.#keepAliveMs, Math.min(asked, keepAliveUpToMs));
    }
    let held = true;
    const release = (): void => {
      if (!held) return;
      held = false;
      this.#inFlight -= 1;
      this.#lastUsed = this.#options.clock.now();
      if (this.#inFlight === 0 && this.#state === 'loaded') this.#idle();
    };
    return { model, engine, release };
  }

  #idle(): void {
    if (this.#draining !== undefined) {
      void this.end(this.#draining);
    } else if (this.#keepAliveMs === 0) {
      void this.end('idle');
    } else if (this.#keepAliveMs !== Number.POSITIVE_INFINITY) {
      this.#expiresAt = this.#options.clock.now() + this.#keepAliveMs;
      this.#cancelTimer = this.#options.clock.after(this.#keepAliveMs, () => {
        if (this.#inFlight === 0 && this.#state === 'loaded') void this.end('idle');
      });
    }
    this.#options.onChange();
  }

  /** No new leases; ends when the last one is released. */
  drain(reason: UnloadReason): void {
    // Only an eviction can be revoked.
    if (this.#draining === undefined || this.#draining === 'evicted' || reason === 'shutdown')
      this.#draining = reason;
    if (this.#state === 'loaded' && this.#inFlight === 0) void this.end(this.#draining);
  }

  /**
   * Revokes an eviction whose room is no longer needed: the model stays and serves the requests queued
   * behind.
   */
  undrain(): void {
    if (this.#state !== 'loaded' || this.#draining !== 'evicted') return;
    this.#draining = undefined;
    this.admit();
  }

  async end(reason: UnloadReason): Promise<void> {
    if (this.#state !== 'loaded' || this.#engine === undefined) return;
    this.#state = 'closing';
    this.#cancelTimer?.();
    try {
      await this.#engine.close();
    } catch (thrown) {
      const error = thrown instanceof Error ? thrown : new Error('the engine did not close');
      this.#options.emit({ kind: 'crashed', id: this.#model.id, error });
    }
    this.#options.emit({ kind: 'unloaded', id: this.#model.id, reason });
    this.#over();
  }

  #over(): void {
    this.#cancelTimer?.();
    this.#options.onGone(this);
    this.#settleGone();
  }
}

/** The error of a request that waited for another registration of the id, or an adapter that is gone. */
export function replaced({ id }: RegisteredModel): ApiError {
  return new ApiError('model_replaced', `${id} was replaced by another model`, { retryAfterSeconds: 1 });
}
