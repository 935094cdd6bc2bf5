// The server's half of a conversion: hands the descriptors of a folder and of an output to the confined
// process that converts, and gives what it made. Refusals of the folder are ApiErrors.

import { fileURLToPath } from 'node:url';
import type { ConvertModel } from './seam/converters.ts';
import { runTask } from './task.ts';

export interface ConverterOptions {
  /** The built engine/child/convert/worker; must be JavaScript. */
  readonly workerEntry: URL | string;
  readonly timeoutMs?: number | undefined;
}

/** The largest models take hours on slow disks. */
const DEFAULT_TIMEOUT_MS = 6 * 60 * 60 * 1000;
/** Values of the largest tokenizer.json with what Node needs beside; weights are never in the heap. */
const HEAP_MIB = 1024;

const REFUSALS: ReadonlySet<string> = new Set([
  'invalid_safetensors',
  'invalid_model_config',
  'unsupported_model_format',
  'storage_full',
]);

export function openConverter({
  workerEntry,
  timeoutMs = DEFAULT_TIMEOUT_MS,
}: ConverterOptions): ConvertModel {
  const entry = typeof workerEntry === 'string' ? workerEntry : fileURLToPath(workerEntry);
  return async ({ type, part, base, sources, outputFd, unopened = [], onProgress, signal }) => {
    const {
      architecture,
      type: made,
      tensors,
      bytes,
    } = await runTask({
      what: 'the converter',
      command: [entry],
      fds: [outputFd, ...sources.map(({ fd }) => fd)],
      order: { type, part, base, sources: sources.map(({ name, size }) => ({ name, size })), unopened },
      heapMib: HEAP_MIB,
      timeoutMs,
      refusals: REFUSALS,
      onProgress,
      signal,
    });
    return {
      architecture: String(architecture),
      type: String(made),
      tensors: Number(tensors),
      bytes: Number(bytes),
    };
  };
}
