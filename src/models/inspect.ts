// From the facts of the strict GGUF reader to the summary the registry keeps.

import type { FileHandle } from 'node:fs/promises';
import { basename } from 'node:path';
import { fileSource, inspectParts, readGguf, type GgufInfo } from './gguf/read.ts';
import type { ModelSummary } from './model.ts';

/** Reads and checks the header of an open file. 400 invalid_gguf. */
export async function inspectModel(file: FileHandle): Promise<ModelSummary> {
  return summaryOf(await readGguf(file));
}

/**
 * The model in one open file, or in the parts of a split one, in order. 400 invalid_gguf, naming the part.
 */
export async function inspectFiles(
  files: readonly { readonly path: string; readonly file: FileHandle }[],
): Promise<ModelSummary> {
  const [only] = files;
  if (only !== undefined && files.length === 1) return inspectModel(only.file);
  const sources = [];
  for (const { path, file } of files) sources.push({ name: basename(path), source: await fileSource(file) });
  return summaryOf(await inspectParts(sources));
}

export function summaryOf(info: GgufInfo): ModelSummary {
  return {
    type: info.type,
    architecture: info.architecture,
    parameters: info.parameters,
    quantization: info.quantization,
    contextLength: info.contextLength,
    hasChatTemplate: info.chatTemplate !== undefined,
    tokenizer: info.tokenizer ?? 'none',
    cacheBytesPerToken: info.cacheBytesPerToken,
    headWidths: info.headWidths,
    layers: info.blockCount,
  };
}
