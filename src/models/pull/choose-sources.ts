// The files of a repository that a conversion reads: descriptions, tokenizer, and all weights in safetensors.
// Refuses: more of them than an attestation can name, a name that means a file.

import { ApiError } from '../../base/errors.ts';
import { MAX_PARTS } from '../gguf/part-name.ts';
import type { ListedFile } from './choose.ts';
import type { PullName } from './name.ts';

/** By name; undefined where the repository has no weights for a conversion. */
export function chooseSources(
  files: readonly ListedFile[],
  { want }: PullName,
): readonly ListedFile[] | undefined {
  if (want.kind === 'file' || !files.some(({ name }) => name.endsWith('.safetensors'))) return undefined;
  if (files.length > MAX_PARTS)
    throw new ApiError(
      'unsupported_model_format',
      `the repository has ${files.length} files of a model, at most ${MAX_PARTS} are converted`,
      { param: 'name' },
    );
  return files.toSorted((a, b) => (a.name < b.name ? -1 : 1));
}
