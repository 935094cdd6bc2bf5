// From the facts of the strict GGUF reader to the summary the registry keeps.

import type { FileHandle } from 'node:fs/promises';
import { readGguf, type GgufInfo } from './gguf/read.ts';
import type { ModelSummary } from './model.ts';

/** Reads and checks the header of an open file. 400 invalid_gguf. */
export async function inspectModel(file: FileHandle): Promise<ModelSummary> {
  return summaryOf(await readGguf(file));
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
    cacheBytesPerToken: cacheBytesPerToken(info),
  };
}

/** One key and one value of every layer and key-value head, 16 bits per element. */
function cacheBytesPerToken(info: GgufInfo): number {
  const headSize = info.headCount > 0 ? info.embeddingLength / info.headCount : 0;
  return Math.ceil(2 * 2 * info.blockCount * info.headCountKv * headSize);
}
