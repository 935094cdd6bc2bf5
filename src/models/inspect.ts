// From the facts of the strict readers, of GGUF files and of whisper models, to the summary the registry
// keeps.

import type { FileHandle } from 'node:fs/promises';
import { basename } from 'node:path';
import { fileSource, inspectGguf, inspectParts, type GgufInfo } from './gguf/read.ts';
import type { ModelSummary } from './model.ts';
import { inspectWhisper, isWhisperModel, type WhisperInfo } from './whisper/read.ts';

/** Reads and checks the header of an open file. 400 invalid_gguf, invalid_whisper_model. */
export async function inspectModel(file: FileHandle): Promise<ModelSummary> {
  const source = await fileSource(file);
  return (await isWhisperModel(source))
    ? whisperSummary(await inspectWhisper(source))
    : summaryOf(await inspectGguf(source));
}

function whisperSummary(info: WhisperInfo): ModelSummary {
  return {
    type: 'transcription',
    architecture: 'whisper',
    parameters: info.parameters,
    quantization: info.quantization,
    contextLength: info.textContext,
    hasChatTemplate: false,
    tokenizer: info.multilingual ? 'multilingual' : 'english',
    cacheBytesPerToken: 0,
    headWidths: [],
    layers: info.audioLayers + info.textLayers,
  };
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
