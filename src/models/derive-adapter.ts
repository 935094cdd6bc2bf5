// A PEFT folder becomes a GGUF adapter of its base in the confined process that converts. The bytes depend on
// the folder's files and the base's kind alone. What that process wrote is checked as any adapter is.

import { open, rm } from 'node:fs/promises';
import { storageError } from '../base/durable-files.ts';
import { ApiError } from '../base/errors.ts';
import type { ConvertedBase } from '../engine/seam/convert.ts';
import type { ConvertModel } from '../engine/seam/converters.ts';
import { checkModel } from './gguf/check.ts';
import type { GgufHeader } from './gguf/header.ts';
import { measureFile } from './measure.ts';
import type { ModelFolder } from './model-folder.ts';

export interface AdapterFolder {
  readonly folder: ModelFolder;
  readonly base: ConvertedBase;
  /** A new file, the caller's if this resolves. */
  readonly path: string;
  readonly signal: AbortSignal;
}

/** Resolves with the digest of the file. Refuses as models/convert/adapter does; 507 storage_full. */
export async function deriveAdapter(
  { folder, base, path, signal }: AdapterFolder,
  convert: ConvertModel,
): Promise<string> {
  try {
    const output = await open(path, 'wx', 0o600);
    try {
      const sources = folder.sources.map(({ name, size, handle }) => ({ name, size, fd: handle.fd }));
      const { unopened } = folder;
      await convert({ type: 'f32', base, sources, unopened, outputFd: output.fd, signal });
    } finally {
      await output.close();
    }
    return (await measureFile(path, { signal })).sha256;
  } catch (error) {
    await rm(path, { force: true });
    throw storageError(error, 'the adapter that is converted');
  }
}

/** The facts of a base's header that decide how its adapters are written. 400 unsupported_model_format. */
export function convertedBaseOf(header: GgufHeader): ConvertedBase {
  const { architecture, blockCount, headCount, headCountKv } = checkModel(header);
  for (const name of ['head_count', 'head_count_kv'])
    if (header.metadata.get(`${architecture}.attention.${name}`)?.type === 'array')
      throw new ApiError(
        'unsupported_model_format',
        `the layers of the base differ in ${name}: of its adapters only GGUF files are taken`,
      );
  return { architecture, layers: blockCount, heads: headCount, headsKv: headCountKv };
}
