// The models as the routes see them: the service, the lease on a loaded engine, the events of a pull. Types
// only.

import type { ToolFormat } from '../engine/seam/engine.ts';
import type { JobProof } from '../base/job-proof.ts';
import type { KvCacheType, ModelDefaults, ModelFormat, RegisteredModel } from './model.ts';

export interface ModelStatus extends RegisteredModel {
  readonly loaded: boolean;
  /** Present while the model is being staged and loaded; 0…1. */
  readonly loading?: { readonly fraction: number } | undefined;
  /** Unix milliseconds. */
  readonly loadedAt?: number | undefined;
  /** Unix milliseconds when it is unloaded unless in use; null: never. */
  readonly expiresAt?: number | null | undefined;
  /** How it writes tool calls; of a loaded model that makes text. */
  readonly toolFormat?: ToolFormat['kind'] | undefined;
  /** Leases held at present. */
  readonly inFlight: number;
}

/** A loaded model that stays loaded until `release` (idempotent). */
export interface Lease<E> {
  readonly model: RegisteredModel;
  readonly engine: E;
  release(): void;
}

export type PullEvent =
  | { readonly status: 'resuming'; readonly offset: number; readonly total: number }
  | { readonly status: 'downloading'; readonly completed: number; readonly total: number }
  | { readonly status: 'verifying' }
  | { readonly status: 'success'; readonly id: string; readonly object: 'model' }
  | { readonly status: 'already_exists'; readonly id: string; readonly object: 'model' }
  | {
      readonly status: 'error';
      readonly code: string;
      readonly message: string;
      /** The HTTP status of such an error; not part of the event as clients get it. */
      readonly httpStatus?: number | undefined;
    };

export interface PullStatus {
  readonly name: string;
  readonly status: 'pulling' | 'done' | 'failed';
  readonly completed: number;
  readonly total: number;
  readonly error: string | null;
  /** ISO 8601. */
  readonly started_at: string;
  readonly finished_at: string | null;
}

/**
 * `keepAlive` as requests give it: seconds, "30s", "5m", "1h", "0" (unload when idle), "-1" (never unload).
 */
export interface AcquireOptions {
  readonly keepAlive?: string | number | undefined;
  /**
   * Given for callers that share the model: they may extend its stay up to this many
   * milliseconds, never shorten it.
   */
  readonly keepAliveUpToMs?: number | undefined;
  readonly signal: AbortSignal;
}

/** Everything the routes may ask of models. Failures are ApiErrors. */
export interface ModelService<E> {
  list(): readonly ModelStatus[];
  get(id: string): ModelStatus | undefined;
  /**
   * Loads on first use; waits its turn when room must be made. 404 model_not_found, 429
   * engine_overloaded, 500 model_load_failed.
   */
  acquire(id: string, options: AcquireOptions): Promise<Lease<E>>;
  /** 404 model_not_found, 503 model_replaced, also when either happens during the wait for the load. */
  load(
    id: string,
    signal: AbortSignal,
    options?: {
      readonly keepAlive?: string | number | undefined;
      /** Called while the model is certainly loaded; later another request may have unloaded it. */
      readonly onLoaded?: ((model: ModelStatus) => void) | undefined;
    },
  ): Promise<'loaded' | 'already_loaded'>;
  /** Waits for work in flight to end, then ends the engine; 404 model_not_loaded when it is not loaded. */
  unload(id: string): Promise<void>;
  /**
   * 400 file_not_found, invalid_gguf, invalid_safetensors, invalid_model_config, path_not_allowed,
   * unsupported_model_format, invalid_value (kv_type), unsupported_parameter (isq); 409 model_already_exists,
   * too_many_models; 507 storage_full. An abort ends a conversion and removes its files.
   */
  register(
    request: {
      readonly name: string;
      /** A file, the first part of a split model, its parts in order, or the folder of a model. */
      readonly path: string | readonly string[];
      readonly format?: ModelFormat | undefined;
      /** The type a folder's weights are quantised to. */
      readonly isq?: string | undefined;
      readonly defaultParameters?: ModelDefaults | undefined;
      readonly kvType?: KvCacheType | undefined;
      readonly job?: JobProof | undefined;
    },
    signal?: AbortSignal,
  ): Promise<RegisteredModel>;
  /**
   * Registers a LoRA adapter of a model as a model of its own; its engine is its base's. Without `base`: of
   * the only model it can be for. 400 file_not_found · path_not_allowed · invalid_gguf · adapter_mismatch ·
   * wrong_model_type · missing_required_parameter, 404 model_not_found, 409 model_already_exists ·
   * too_many_adapters · too_many_models.
   */
  addAdapter(
    request: {
      readonly name: string;
      readonly base?: string | undefined;
      readonly path: string;
      readonly scale: number;
      readonly job?: JobProof | undefined;
    },
    signal: AbortSignal,
  ): Promise<{ readonly model: RegisteredModel; readonly added: boolean }>;
  /** Takes an adapter back at once, and waits for the requests that use it. 400 wrong_model_type. */
  removeAdapter(id: string): Promise<void>;
  /** Unloads, deregisters, and collects blobs no manifest names. 409 model_has_adapters. */
  remove(id: string): Promise<void>;
  pull(
    request: {
      readonly name: string;
      readonly force?: boolean | undefined;
      readonly token?: string | undefined;
    },
    signal: AbortSignal,
  ): AsyncIterable<PullEvent>;
  pullStatus(name: string): Promise<PullStatus | undefined>;
  /** False when no pull of that name is under way. */
  cancelPull(name: string): Promise<boolean>;
}
