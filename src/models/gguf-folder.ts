// The model in a folder of GGUF files: one file, or the parts of a split model, and the projector beside it.
// Refuses: a folder without a model, or with several.

import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ApiError } from '../base/errors.ts';
import { nameOfPart, namesOfParts, partOf } from './gguf/part-name.ts';
import { chooseProjector, isProjectorName } from './gguf/projector-name.ts';

export interface FolderModel {
  /** Paths, in order. */
  readonly parts: readonly string[];
  readonly projector: string | undefined;
}

const MAX_ENTRIES = 10_000;
const MAX_NAMED = 8;

/** 400 file_not_found, ambiguous_quantization, path_not_allowed. */
export async function modelInFolder(folder: string): Promise<FolderModel> {
  const entries = await readdir(folder);
  if (entries.length > MAX_ENTRIES)
    throw new ApiError('path_not_allowed', `the folder has more than ${MAX_ENTRIES} entries`, {
      param: 'path',
    });
  const files = entries.filter((name) => name.toLowerCase().endsWith('.gguf')).toSorted();
  const projectors = files.filter((name) => isProjectorName(name)).map((name) => ({ name }));
  const models = new Set(files.filter((name) => !isProjectorName(name)).map((name) => firstOf(name)));
  const [model, ...others] = models;
  if (model === undefined)
    throw new ApiError('file_not_found', 'the folder has no model in a .gguf file', { param: 'path' });
  if (others.length > 0) {
    const named = [model, ...others].slice(0, MAX_NAMED).join(', ');
    throw new ApiError(
      'ambiguous_quantization',
      `the folder has ${models.size} models (${named}): give the path of one`,
      { param: 'path' },
    );
  }
  const projector = chooseProjector(projectors)?.name;
  return {
    parts: namesOfParts(join(folder, model)),
    projector: projector === undefined ? undefined : join(folder, projector),
  };
}

function firstOf(name: string): string {
  const part = partOf(name);
  return part === undefined ? name : nameOfPart(part, 1);
}
