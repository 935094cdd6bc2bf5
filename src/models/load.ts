// From a registered model to a running engine: stage its bytes and measure them, hand the measured descriptor
// itself to the engine, and check at the end that they did not change. Generic over the engine, which models
// do not import.

import { ApiError } from '../base/errors.ts';
import { inspectModel } from './inspect.ts';
import type { Closable } from './slot.ts';
import { stageFile, type ReadyFile } from './measure.ts';
import { stageParts } from './stage-parts.ts';
import type { KvCacheType, RegisteredModelType, RegistryEntry, FileIdentity } from './model.ts';

/** Structurally the engine seam's LoadSpec. */
export interface OpenSpec {
  readonly path: string;
  readonly fd?: number | undefined;
  readonly type: RegisteredModelType;
  readonly contextLength: number;
  readonly slots: number;
  readonly threads?: number | undefined;
  readonly kvType?: KvCacheType | undefined;
  readonly chatTemplate?: string | undefined;
  readonly needs: { readonly weightBytes: number; readonly cacheBytes: number; readonly layers: number };
  readonly onProgress: (fraction: number) => void;
}

export interface LoadOptions<E> {
  readonly openEngine: (spec: OpenSpec, signal: AbortSignal) => Promise<E>;
  readonly stagingFolder: string;
  readonly slots: number;
  /** Absent: the engine chooses. */
  readonly threads?: number | undefined;
  readonly signal: AbortSignal;
  readonly onProgress: (fraction: number) => void;
  /** For a file used in place: its identity at its last digest, and the callback for a new one. */
  readonly known?: FileIdentity | undefined;
  readonly onMeasured?: ((identity: FileIdentity) => void) | undefined;
}

/** Where engine/seam/engine says the child finds an inherited descriptor. */
const CHILD_PATH = '/proc/self/fd/4';

export async function openModel<E extends Closable>(
  entry: RegistryEntry,
  options: LoadOptions<E>,
): Promise<E> {
  const staged = await stage(entry, options);
  try {
    // Again, with the very bytes the engine will read: the file of a pinned model may not have existed
    // before.
    await inspectModel(staged.file);
    const engine = await options.openEngine(
      {
        ...locationOf(staged, entry.files[0]!.path),
        type: entry.model.type,
        contextLength: entry.model.contextLength,
        slots: options.slots,
        threads: options.threads,
        kvType: entry.model.kvType,
        chatTemplate: entry.chatTemplate,
        needs: {
          weightBytes: entry.model.sizeBytes,
          cacheBytes: cacheBytes(entry, options.slots),
          layers: entry.summary.layers,
        },
        onProgress: (fraction) => options.onProgress(0.7 + 0.3 * fraction),
      },
      options.signal,
    );
    try {
      await staged.check();
      if (staged.identity !== undefined) options.onMeasured?.(staged.identity);
    } catch (error) {
      await engine.close();
      throw error;
    }
    return engine;
  } finally {
    await staged.close();
  }
}

async function stage<E>(entry: RegistryEntry, options: LoadOptions<E>): Promise<ReadyFile> {
  const { id: name, residency } = entry.model;
  const weights = entry.files.filter((file) => file.role === 'weights');
  const [first] = weights;
  if (first === undefined)
    throw new ApiError('model_load_failed', `${name} has no weights`, { shouldRetry: false });
  const { stagingFolder, signal } = options;
  const onProgress = (fraction: number): void => options.onProgress(fraction * 0.7);
  if (weights.length > 1) return stageParts(weights, { stagingFolder, name, signal, onProgress });
  const known = options.known ?? first.identity;
  return stageFile(first.path, {
    residency,
    stagingFolder,
    sha256: first.sha256,
    name,
    signal,
    onProgress,
    known,
  });
}

/**
 * Descriptors of other processes can be opened by path on Linux only; elsewhere there is only
 * `disk`, for development.
 */
function locationOf(
  staged: ReadyFile,
  path: string,
): { readonly path: string; readonly fd?: number | undefined } {
  return process.platform === 'linux' ? { path: CHILD_PATH, fd: staged.fd } : { path };
}

/**
 * Bytes a model takes once loaded: weights, key-value cache of all slots, and what an
 * engine process needs anyway.
 */
export function estimateBytes(entry: RegistryEntry, slots: number): number {
  return entry.model.sizeBytes + cacheBytes(entry, slots) + ENGINE_BYTES;
}

/** Keys and values of all slots. */
function cacheBytes({ model, summary }: RegistryEntry, slots: number): number {
  const generates = model.type === 'chat' || model.type === 'completion';
  // Of 32 numbers Q8_0 makes 34 bytes, F16 64.
  const part = model.kvType === 'q8_0' ? 34 / 64 : 1;
  return generates ? Math.ceil(summary.cacheBytesPerToken * part) * model.contextLength * slots : 0;
}

/** Measured: an engine process with a model of a few megabytes has about this much resident. */
const ENGINE_BYTES = 96 * 1024 * 1024;
