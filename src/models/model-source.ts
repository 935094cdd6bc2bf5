// From what a configuration or a request names to a described model: a GGUF file, the parts of a split one, a
// folder of GGUF files, or a folder as it is published on a hub, of which a GGUF file is made first.

import { readdir, stat } from 'node:fs/promises';
import { ApiError } from '../base/errors.ts';
import { allInsideRoots, describeFile, type DescribeFileOptions, type ModelSettings } from './describe.ts';
import type { Deriver } from './deriver.ts';
import { invalidGguf } from './gguf/bytes.ts';
import { modelInFolder } from './gguf-folder.ts';
import { SERVED_KINDS } from './gguf/projector.ts';
import { namesOfParts } from './gguf/part-name.ts';
import { typeOfIsq } from './isq.ts';
import { openModelFolder } from './model-folder.ts';
import type { ModelFormat, RegistryEntry } from './model.ts';
import { parseModelName } from './store/names.ts';
import type { BlobLease } from './store/store.ts';
import { invalidWhisperModel } from './whisper/read.ts';

/** A model from the configuration, the command line or a request. */
export interface ModelToAdd extends ModelSettings {
  /** A file, the first part of a split model, a folder, or the parts of a split model in order. */
  readonly path: string | readonly string[];
  /** Absent: gguf or whisper, as the file has it. */
  readonly format?: ModelFormat | undefined;
  /** A type as other servers name it; for a folder that is converted. */
  readonly isq?: string | undefined;
  /** Where it may be, links resolved; absent: anywhere. */
  readonly roots?: readonly string[] | undefined;
}

export interface SourceOptions extends DescribeFileOptions {
  readonly deriver: Deriver;
}

export interface DescribedSource {
  readonly entry: RegistryEntry;
  /** The real path that was named. */
  readonly origin: string;
  /** Of what was made of a folder: the caller releases it. */
  readonly held?: BlobLease | undefined;
}

/** Throws as `describeFile` and `Deriver`; refusals that concern the path name it. */
export async function describeSource(
  source: ModelToAdd,
  options: SourceOptions,
  signal: AbortSignal,
): Promise<DescribedSource> {
  parseModelName(source.id);
  const { format = 'gguf' } = source;
  if (format === 'gguf' || format === 'whisper')
    return assertFormat(await describeGguf(source, options, signal), source);
  if (format === 'vision') return describeVision(source, options, signal);
  return describeDerived(source, { folder: await folderOf(source), sees: false }, options, signal);
}

/** The folder that the path is. */
async function folderOf({ path, roots, format = 'gguf' }: ModelToAdd): Promise<string> {
  const [folder] = typeof path === 'string' ? await permitted([path], roots) : [];
  if (folder === undefined || !(await isFolder(folder)))
    throw new ApiError('file_not_found', `path is no folder, as the format ${format} has it`, {
      param: 'path',
    });
  return folder;
}

/** A folder as a hub has it, of which the files of the model are made first. */
async function describeDerived(
  source: ModelToAdd,
  { folder, sees }: { readonly folder: string; readonly sees: boolean },
  options: SourceOptions,
  signal: AbortSignal,
): Promise<DescribedSource> {
  const isq = source.isq === undefined ? undefined : typeOfIsq(source.isq);
  const open = (): ReturnType<typeof openModelFolder> => openModelFolder(folder, sees ? 'vision' : 'model');
  const made = await options.deriver.derive({ open, isq, sees, signal }).catch((error: unknown) => {
    throw ofPath(error);
  });
  const { blob, projector, derivation: derived, folder: files } = made;
  const held = {
    release: (): void => {
      blob.release();
      projector?.release();
    },
  };
  try {
    const paths = { path: blob.path, projector: projector?.path, derived };
    const entry = await describeFile({ ...source, ...paths }, options, signal);
    if (sees) mustSee(entry);
    return { entry: { ...entry, folder: files }, origin: folder, held };
  } catch (error) {
    held.release();
    throw error;
  }
}

function notSeeing(why: string): ApiError {
  return new ApiError('unsupported_model_format', `not a model that sees here: ${why}`, { param: 'format' });
}

/**
 * A folder of a model in GGUF and its projector, or of safetensors, of which both are made.
 * 400 unsupported_model_format for what it lacks, by name.
 */
async function describeVision(
  source: ModelToAdd,
  options: SourceOptions,
  signal: AbortSignal,
): Promise<DescribedSource> {
  const folder = await folderOf(source);
  if (options.imagesAllowed !== true)
    throw notSeeing('this server has no libmtmd (`make native` builds it), or computes on a graphics card');
  const names = await readdir(folder);
  if (names.includes('config.json') && !names.some((name) => name.toLowerCase().endsWith('.gguf')))
    return describeDerived(source, { folder, sees: true }, options, signal);
  const described = await describeGguf(source, options, signal);
  mustSee(described.entry);
  return described;
}

function mustSee({ projector, model }: RegistryEntry): void {
  if (projector === undefined) throw notSeeing('the folder has no projector (`mmproj-*.gguf`)');
  if (!projector.served)
    throw notSeeing(`a projector of kind ${projector.kind}; served are ${SERVED_KINDS.join(', ')}`);
  if (model.vision !== true) throw notSeeing(`a model of type ${model.type}`);
}

/** A format that was named is what the file must have; unnamed, the file says it. */
function assertFormat(described: DescribedSource, { format }: ModelToAdd): DescribedSource {
  const found = described.entry.model.format;
  if (format === undefined || format === found) return described;
  if (format === 'whisper') throw invalidWhisperModel('it does not begin with "ggml"');
  throw invalidGguf('it is a whisper model');
}

async function describeGguf(
  source: ModelToAdd,
  options: SourceOptions,
  signal: AbortSignal,
): Promise<DescribedSource> {
  const { path, isq, roots } = source;
  if (isq !== undefined)
    throw new ApiError('unsupported_parameter', 'isq is for folders of safetensors', {
      param: 'default_parameters.isq',
    });
  // Names of parts are told from the path as given: a link to a file of another name resolves to that name.
  const given = typeof path === 'string' ? namesOfParts(path) : path;
  const named = await permitted(given, roots);
  const origin = named[0]!;
  if (typeof path !== 'string' || !(await isFolder(origin)))
    return {
      entry: await describeFile({ ...source, path: origin, parts: named }, options, signal),
      origin,
    };
  const found = await modelInFolder(origin);
  const parts = await permitted(found.parts, roots);
  const [projector] = found.projector === undefined ? [] : await permitted([found.projector], roots);
  const entry = await describeFile({ ...source, path: parts[0]!, parts, projector }, options, signal);
  return { entry, origin };
}

async function permitted(
  paths: readonly string[],
  roots: readonly string[] | undefined,
): Promise<readonly string[]> {
  return roots === undefined ? paths : allInsideRoots(paths, roots);
}

async function isFolder(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch {
    return false;
  }
}

/** Refusals of a folder name a file in it; the field of the request is its path. */
function ofPath(error: unknown): unknown {
  if (!(error instanceof ApiError) || error.status !== 400 || error.param !== null) return error;
  return new ApiError(error.code, error.message, { param: 'path', cause: error });
}
