// The files of a folder of safetensors, fetched as those of a model are, and the model that is made of them.
// The fetched files are removed once the model is in the store, or when they can never be one.

import { ApiError } from '../../base/errors.ts';
import type { GgufInfo } from '../gguf/read.ts';
import type { ManifestBlob, ManifestDerivation } from '../store/manifest.ts';
import type { StoredBlob } from '../store/store.ts';
import { dropEmpty, fetchMissing, keyOf, type Fetching, type FetchOptions } from './fetch-model.ts';
import type { HubFile } from './hub.ts';

/** Makes models of files. */
export interface PullDeriver {
  /** Whether a conversion reads a file of this name of a repository. */
  isSource(name: string): boolean;
  /** 400 unsupported_parameter for a tag that is no type to quantise to. */
  checkTag(tag: string): void;
  derive(request: DerivePulled): Promise<DerivedModel>;
}

export interface DerivePulled {
  readonly files: readonly { readonly name: string; readonly path: string }[];
  /** The type to quantise to; absent: none. */
  readonly tag: string | undefined;
  readonly signal: AbortSignal;
}

export interface DerivedModel {
  /** Leased. */
  readonly blob: StoredBlob;
  readonly info: GgufInfo;
  /** Of role `source`. */
  readonly sources: readonly ManifestBlob[];
  readonly derived: ManifestDerivation;
}

export interface FetchFolderOptions extends FetchOptions {
  readonly deriver: PullDeriver;
  readonly tag: string | undefined;
}

/** The caller releases the blob, and calls `forget` once the model is registered. */
export async function fetchFolder(
  job: Fetching,
  files: readonly HubFile[],
  options: FetchFolderOptions,
): Promise<DerivedModel & { readonly forget: () => Promise<void> }> {
  const { deriver, tag, partials } = options;
  const { records } = partials;
  if (tag !== undefined) deriver.checkTag(tag);
  const forget = async (): Promise<void> => {
    for (const file of files) await records.removePart(keyOf(file));
    job.parts = [];
  };
  try {
    await fetchMissing(job, files, options);
    const named = files.map((file) => ({ name: file.file, path: records.partPath(keyOf(file)) }));
    const { signal } = job.abort;
    const made = await deriver.derive({ files: named, tag, signal }).catch(async (error: unknown) => {
      // Files with the promised digests that are no usable model never will be one.
      if (error instanceof ApiError && error.status === 400) await forget();
      throw error;
    });
    return { ...made, forget };
  } finally {
    for (const file of files) await dropEmpty(job, keyOf(file), options);
  }
}
