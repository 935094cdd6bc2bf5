// From a registered model to a running engine: stage its bytes and those of its adapters and measure them,
// hand the measured descriptors themselves to the engine, and check at the end that they did not change.
// Generic over the engine, which models do not import.

import { ApiError } from '../base/errors.ts';
import { inspectAdapter } from './gguf/adapter.ts';
import { readHeader } from './gguf/header.ts';
import { checkProjector, fileSource } from './gguf/read.ts';
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
  readonly adapters: readonly { readonly key: string; readonly fd: number; readonly scale: number }[];
  readonly projector?:
    { readonly fd: number; readonly vectorPixels: number; readonly grid: boolean } | undefined;
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
  readonly adapters?: readonly RegistryEntry[] | undefined;
  /** An adapter whose file is not what it was: the model is loaded without it. */
  readonly onBroken?: ((adapter: RegistryEntry, error: ApiError) => void) | undefined;
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
  const adapters: StagedAdapter[] = [];
  let projector: StagedProjector | undefined;
  try {
    // Again, with the very bytes the engine will read: the file of a pinned model may not have existed
    // before.
    await inspectModel(staged.file);
    for (const adapter of options.adapters ?? []) {
      try {
        adapters.push(await stageAdapter(adapter, staged, options));
      } catch (error) {
        if (!(error instanceof ApiError) || !BROKEN.has(error.code)) throw error;
        options.onBroken?.(adapter, error);
      }
    }
    projector = entry.model.vision === true ? await stageProjector(entry, options) : undefined;
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
        adapters: adapters.map(({ key, scale, ready }) => ({ key, scale, fd: ready.fd })),
        projector: projector === undefined ? undefined : { fd: projector.ready.fd, ...projector.facts },
        onProgress: (fraction) => options.onProgress(0.7 + 0.3 * fraction),
      },
      options.signal,
    );
    try {
      for (const { check } of filesOf(staged, adapters, projector)) await check();
      if (staged.identity !== undefined) options.onMeasured?.(staged.identity);
    } catch (error) {
      await engine.close();
      throw error;
    }
    return engine;
  } finally {
    for (const { close } of filesOf(staged, adapters, projector)) await close();
  }
}

function filesOf(
  model: ReadyFile,
  adapters: readonly StagedAdapter[],
  projector: StagedProjector | undefined,
): readonly ReadyFile[] {
  return [
    model,
    ...adapters.map(({ ready }) => ready),
    ...(projector === undefined ? [] : [projector.ready]),
  ];
}

interface StagedProjector {
  readonly facts: { readonly vectorPixels: number; readonly grid: boolean };
  readonly ready: ReadyFile;
}

/** Measured, and checked again with the very bytes the engine will read. */
async function stageProjector<E>(
  { model, files }: RegistryEntry,
  { stagingFolder, signal }: LoadOptions<E>,
): Promise<StagedProjector> {
  const file = files.find(({ role }) => role === 'projector');
  if (file === undefined)
    throw new ApiError('model_load_failed', `${model.id} has no projector`, { shouldRetry: false });
  const { sha256, path, identity: known } = file;
  const place = { residency: model.residency, stagingFolder, name: `the projector of ${model.id}` };
  const ready = await stageFile(path, { ...place, sha256, signal, known });
  try {
    const { vectorPixels, grid } = await checkProjector(ready.file);
    return { facts: { vectorPixels, grid }, ready };
  } catch (error) {
    await ready.close();
    throw error;
  }
}

/** Errors of an adapter's file, which leave the model to be loaded; any other ends the load. */
const BROKEN: ReadonlySet<string> = new Set([
  'file_not_found',
  'model_digest_mismatch',
  'invalid_gguf',
  'adapter_mismatch',
]);

interface StagedAdapter {
  /** As requests name it to the engine: the digest of the composed model. */
  readonly key: string;
  readonly scale: number;
  readonly ready: ReadyFile;
}

/** Measured, and checked against the very bytes of the base that the engine will read. */
async function stageAdapter<E>(
  { model, files: [file], adapter }: RegistryEntry,
  base: ReadyFile,
  { stagingFolder, signal }: LoadOptions<E>,
): Promise<StagedAdapter> {
  if (file === undefined || adapter === undefined)
    throw new ApiError('model_load_failed', `${model.id} has no adapter`, { shouldRetry: false });
  const { sha256, path, identity: known } = file;
  const place = { residency: adapter.residency, stagingFolder, name: model.id };
  const ready = await stageFile(path, { ...place, sha256, signal, known });
  try {
    await inspectAdapter(await fileSource(ready.file), await readHeader(await fileSource(base.file)));
    return { key: model.sha256, scale: adapter.scale, ready };
  } catch (error) {
    await ready.close();
    throw error;
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
 * Bytes a model takes once loaded, without adapters: weights, key-value cache of all slots, and what an
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
  if (model.type === 'transcription') return HEARING_BYTES;
  return generates ? Math.ceil(summary.cacheBytesPerToken * part) * model.contextLength * slots : 0;
}

/**
 * Of a model that hears: the samples and the spectrum of a long sound, and the keys and values of both
 * halves.
 */
const HEARING_BYTES = 384 * 1024 * 1024;

/** Measured: an engine process with a model of a few megabytes has about this much resident. */
const ENGINE_BYTES = 96 * 1024 * 1024;
