// Describes a file as a model: reads and measures it (unless its digest is pinned), and decides its residency. Paths given by
// callers must resolve, links included, to below a configured model root.

import { realpath } from 'node:fs/promises';
import { sep } from 'node:path';
import type { Clock } from '../base/clock.ts';
import { ApiError } from '../base/errors.ts';
import { inspectModel } from './inspect.ts';
import { identityOf, measure, openRegular, sameFile, stagingRoom } from './measure.ts';
import type { ModelDefaults, RegisteredModelType, RegistryEntry, Residency } from './model.ts';
import { describeModel } from './registry.ts';
import { parseModelName } from './store/names.ts';

/** A model from the configuration or the command line. */
export interface ModelToAdd {
  readonly id: string;
  readonly path: string;
  /** A pinned digest: not computed here, but enforced whenever the bytes are read. */
  readonly sha256?: string | undefined;
  readonly type?: RegisteredModelType | undefined;
  readonly contextLength?: number | undefined;
  readonly defaults?: ModelDefaults | undefined;
  readonly chatTemplate?: string | undefined;
}

export interface ResidencyOptions {
  readonly residency: 'auto' | 'memory' | 'disk' | 'verity';
  /** Files below it are on dm-verity devices with measured root hashes. */
  readonly verityFolder?: string | undefined;
  /** With real hardware `auto` never means disk. */
  readonly hardware: boolean;
  readonly stagingFolder: string;
}

export interface DescribeFileOptions extends ResidencyOptions {
  readonly contextLength: number;
  readonly clock: Clock;
}

/** Throws 400 file_not_found · invalid_gguf · invalid_model_name, 500 model_file_changed. */
export async function describeFile(
  source: ModelToAdd,
  options: DescribeFileOptions,
  signal: AbortSignal,
): Promise<RegistryEntry> {
  parseModelName(source.id);
  const file = await openRegular(source.path);
  try {
    // One open, unchanged file is both checked and hashed.
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
      identity: measured?.identity,
    };
    return describeModel({
      id: source.id,
      created: Math.floor(options.clock.now() / 1000),
      files: [weights],
      summary,
      residency: await residencyFor(source.path, size, options),
      contextLength: source.contextLength ?? options.contextLength,
      defaults: source.defaults ?? {},
      hashed: measured !== undefined,
      type: source.type,
      chatTemplate: source.chatTemplate,
    });
  } finally {
    await file.close();
  }
}

/** Where the engine will read from. A file counts as on verity only if it really is below that folder. */
export async function residencyFor(
  path: string,
  size: number,
  { residency, verityFolder, hardware, stagingFolder }: ResidencyOptions,
): Promise<Residency> {
  const mayBeVerity = residency === 'auto' || residency === 'verity';
  if (mayBeVerity && verityFolder !== undefined && (await isBelow(path, verityFolder))) return 'verity';
  if (residency === 'verity')
    throw new ApiError('path_not_allowed', 'the model is not on a measured device', { param: 'path' });
  if (residency !== 'auto') return residency;
  if (hardware) return 'memory';
  const room = await stagingRoom(stagingFolder);
  return room !== null && room.total / 2 >= size ? 'memory' : 'disk';
}

/** The real path, when it is below a root; 400 otherwise. The message does not reveal what exists outside the roots. */
export async function insideRoots(path: string, roots: readonly string[]): Promise<string> {
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
