// The server's half of quantising, and of collecting an importance matrix: hands the descriptors of a GGUF
// file and of an output to the confined process that does it. The type is one of the table.

import { fileURLToPath } from 'node:url';
import type { CollectMatrix, QuantizeModel } from './seam/converters.ts';
import type { CollectedEntry, Fallback } from './seam/quantize.ts';
import { runTask } from './task.ts';

export interface QuantizerOptions {
  /** The built engine/child/quantize/launch; must be JavaScript. */
  readonly launchEntry: URL | string;
  /** Of a run that asks for no number of its own; the bytes are the same for any. */
  readonly threads?: number | undefined;
  readonly timeoutMs?: number | undefined;
}

const DEFAULT_TIMEOUT_MS = 12 * 60 * 60 * 1000;
const HEAP_MIB = 256;
const REFUSALS: ReadonlySet<string> = new Set([
  'unsupported_parameter',
  'unsupported_model_format',
  'invalid_value',
  'invalid_input',
  'storage_full',
]);

export function openQuantizer({
  launchEntry,
  threads: usual = 1,
  timeoutMs = DEFAULT_TIMEOUT_MS,
}: QuantizerOptions): QuantizeModel {
  const entry = typeof launchEntry === 'string' ? launchEntry : fileURLToPath(launchEntry);
  return async ({ type, sourceFd, outputFd, threads = usual, matrix, onProgress, signal }) => {
    const { fallbacks } = await runTask({
      what: 'the quantiser',
      command: [entry],
      fds: [outputFd, sourceFd, ...(matrix === undefined ? [] : [matrix.fd])],
      order: { kind: 'quantize', type, threads, matrix: matrix?.entries },
      heapMib: HEAP_MIB,
      timeoutMs,
      refusals: REFUSALS,
      onProgress,
      signal,
    });
    return { fallbacks: Array.isArray(fallbacks) ? fallbacks.map(fallbackOf) : [] };
  };
}

/** 400 invalid_input where the text has no tokens, unsupported_model_format where the model cannot be run. */
export function openMatrixCollector({
  launchEntry,
  timeoutMs = DEFAULT_TIMEOUT_MS,
}: Pick<QuantizerOptions, 'launchEntry' | 'timeoutMs'>): CollectMatrix {
  const entry = typeof launchEntry === 'string' ? launchEntry : fileURLToPath(launchEntry);
  return async ({ sourceFd, textFd, outputFd, maxTokens, onProgress, signal }) => {
    const { entries, tokens, chunk } = await runTask({
      what: 'the process that collects an importance matrix',
      command: [entry],
      fds: [outputFd, sourceFd, textFd],
      order: { kind: 'collect', maxTokens },
      heapMib: HEAP_MIB,
      timeoutMs,
      refusals: REFUSALS,
      onProgress,
      signal,
    });
    return {
      entries: Array.isArray(entries) ? entries.map(collectedOf) : [],
      tokens: Number(tokens),
      chunk: Number(chunk),
    };
  };
}

function collectedOf(value: unknown): CollectedEntry {
  const counts = fieldOf(value, 'counts');
  return {
    name: String(fieldOf(value, 'name')).slice(0, 64),
    columns: Number(fieldOf(value, 'columns')),
    counts: Array.isArray(counts) ? counts.map(Number) : [],
  };
}

function fallbackOf(value: unknown): Fallback {
  return {
    tensor: String(fieldOf(value, 'tensor')).slice(0, 64),
    columns: Number(fieldOf(value, 'columns')),
    wanted: String(fieldOf(value, 'wanted')).slice(0, 16),
    used: String(fieldOf(value, 'used')).slice(0, 16),
  };
}

function fieldOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined;
}
