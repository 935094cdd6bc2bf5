// Describes a file as a model: reads and measures it (unless its digest is pinned), and decides its
// residency. Paths given by callers must resolve, links included, to below a configured model root.

import { realpath, type FileHandle } from 'node:fs/promises';
import { basename, sep } from 'node:path';
import { attestedModel, fromHex, toHex } from '@assay/attestation';
import type { Clock } from '../base/clock.ts';
import { ApiError } from '../base/errors.ts';
import { namesOfParts } from './gguf/part-name.ts';
import { checkProjector } from './gguf/read.ts';
import { inspectFiles } from './inspect.ts';
import { identityOf, measure, openRegular, sameFile, stagingRoom } from './measure.ts';
import type {
  Derivation,
  KvCacheType,
  ModelDefaults,
  ModelFile,
  RegisteredModelType,
  RegistryEntry,
  Residency,
} from './model.ts';
import { describeModel } from './registry.ts';
import { parseModelName } from './store/names.ts';

/** The files of a model, as they lie. */
export interface ModelToDescribe extends ModelSettings {
  /** A file, or the first part of a split model, whose name tells the others. */
  readonly path: string;
  /** The parts of a split model, in order, where they are not those that `path` tells. */
  readonly parts?: readonly string[] | undefined;
  readonly projector?: string | undefined;
  /** Of files that were made of a folder; their digests are enforced whenever the bytes are read. */
  readonly derived?: Derivation | undefined;
}

export interface ModelSettings {
  readonly id: string;
  /**
   * A pinned digest, as the model is attested with: that of its file, not computed here but enforced whenever
   * the bytes are read; or that of the manifest of its files and sources.
   */
  readonly sha256?: string | undefined;
  readonly type?: RegisteredModelType | undefined;
  readonly contextLength?: number | undefined;
  readonly defaults?: ModelDefaults | undefined;
  readonly kvType?: KvCacheType | undefined;
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
  /** For models that generate and have none of their own. */
  readonly kvType?: KvCacheType | undefined;
  /** Whether engines can be given a projector here; absent: they cannot. */
  readonly imagesAllowed?: boolean | undefined;
  readonly clock: Clock;
}

/**
 * Throws 400 file_not_found · invalid_gguf · invalid_model_name, 500 model_file_changed ·
 * model_digest_mismatch.
 */
export async function describeFile(
  source: ModelToDescribe,
  options: DescribeFileOptions,
  signal: AbortSignal,
): Promise<RegistryEntry> {
  parseModelName(source.id);
  const { derived, projector } = source;
  const paths = source.parts ?? namesOfParts(source.path);
  const opened: OpenedFile[] = [];
  try {
    for (const path of paths)
      opened.push({ role: 'weights', path, file: await namingPart(paths, path, openRegular(path)) });
    if (projector !== undefined)
      opened.push({ role: 'projector', path: projector, file: await openRegular(projector) });
    // Open, unchanged files are both checked and hashed.
    const before = await Promise.all(opened.map(({ file }) => identityOf(file)));
    const summary = await inspectFiles(opened.filter(({ role }) => role === 'weights'));
    const beside = opened.find(({ role }) => role === 'projector');
    const facts = beside === undefined ? undefined : await checkProjector(beside.file);
    const single = opened.length === 1 && derived === undefined ? source.sha256 : undefined;
    const files: ModelFile[] = [];
    for (const [i, { role, path, file }] of opened.entries()) {
      const pinned = single ?? (role === 'projector' ? derived?.projector : derived)?.sha256;
      const measured = pinned === undefined ? await measure(file, { signal }) : undefined;
      const { size } = before[i]!;
      if (measured !== undefined && !sameFile(before[i]!, measured.identity)) {
        throw new ApiError('model_file_changed', 'the model file changed while it was registered', {
          shouldRetry: true,
        });
      }
      const sha256 = measured?.sha256 ?? pinned ?? '';
      files.push({ role, path, size: Number(size), sha256, identity: measured?.identity });
    }
    if (source.sha256 !== undefined && single === undefined) enforcePin(files, source);
    return describeModel({
      id: source.id,
      created: Math.floor(options.clock.now() / 1000),
      files,
      summary,
      residency: await residencyOf(
        files.filter(({ role }) => role === 'weights'),
        options,
      ),
      contextLength: source.contextLength ?? options.contextLength,
      defaults: source.defaults ?? {},
      hashed: single === undefined && derived === undefined,
      type: source.type,
      chatTemplate: source.chatTemplate,
      derived: source.derived,
      projector: facts,
      imagesAllowed: options.imagesAllowed,
      kvType: source.kvType,
      defaultKvType: options.kvType,
    });
  } finally {
    for (const { file } of opened) await file.close();
  }
}

interface OpenedFile {
  readonly role: 'weights' | 'projector';
  readonly path: string;
  readonly file: FileHandle;
}

function enforcePin(files: readonly ModelFile[], { sha256: pinned, derived }: ModelToDescribe): void {
  const sources = derived?.sources.map((source) => ({ role: 'source', ...source })) ?? [];
  const blobs = [...files, ...sources].map(({ role, sha256, size }) => ({
    role,
    sha256: fromHex(sha256),
    size,
  }));
  const actual = toHex(attestedModel('parts', blobs).sha256);
  if (actual === pinned) return;
  const what = derived === undefined ? `its ${files.length} parts` : 'its weights and sources';
  throw new ApiError(
    'model_digest_mismatch',
    `the manifest of ${what} has sha256 ${actual}, expected ${pinned}`,
    { shouldRetry: false },
  );
}

/** Of a model by its weights. The parts of a split model are always joined in guest memory. */
export async function residencyOf(
  weights: readonly Pick<ModelFile, 'path' | 'size'>[],
  options: ResidencyOptions,
): Promise<Residency> {
  const found = await Promise.all(weights.map(({ path, size }) => residencyFor(path, size, options)));
  return found.length === 1 ? found[0]! : 'memory';
}

/** Where the engine will read from. A file counts as on verity only if it really is below that folder. */
async function residencyFor(
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

/** The real paths of all files of a model. 400 path_not_allowed · file_not_found, naming the part. */
export async function allInsideRoots(
  paths: readonly string[],
  roots: readonly string[],
): Promise<readonly string[]> {
  const real: string[] = [];
  for (const path of paths) real.push(await namingPart(paths, path, insideRoots(path, roots)));
  return real;
}

/** A refusal of one file of several says which. */
async function namingPart<T>(paths: readonly string[], path: string, task: Promise<T>): Promise<T> {
  try {
    return await task;
  } catch (error) {
    if (!(error instanceof ApiError) || error.code !== 'file_not_found' || paths.length === 1) throw error;
    const place = `part ${paths.indexOf(path) + 1} of ${paths.length} (${basename(path)})`;
    throw new ApiError(error.code, `${place}: ${error.message}`, { param: 'path', cause: error });
  }
}

/**
 * The real path, when it is below a root; 400 otherwise. The message does not reveal what
 * exists outside the roots.
 */
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
