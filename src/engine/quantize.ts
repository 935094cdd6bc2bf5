// The server's half of quantising: hands the descriptors of a GGUF file and of an output to the confined
// process that quantises. The type is one of the table.

import { fileURLToPath } from 'node:url';
import type { QuantizeModel } from './seam/converters.ts';
import type { Fallback } from './seam/quantize.ts';
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
const REFUSALS: ReadonlySet<string> = new Set(['unsupported_parameter', 'storage_full']);

export function openQuantizer({
  launchEntry,
  threads: usual = 1,
  timeoutMs = DEFAULT_TIMEOUT_MS,
}: QuantizerOptions): QuantizeModel {
  const entry = typeof launchEntry === 'string' ? launchEntry : fileURLToPath(launchEntry);
  return async ({ type, sourceFd, outputFd, threads = usual, onProgress, signal }) => {
    const { fallbacks } = await runTask({
      what: 'the quantiser',
      command: [entry],
      fds: [outputFd, sourceFd],
      order: { type, threads },
      heapMib: HEAP_MIB,
      timeoutMs,
      refusals: REFUSALS,
      onProgress,
      signal,
    });
    return { fallbacks: Array.isArray(fallbacks) ? fallbacks.map(fallbackOf) : [] };
  };
}

function fallbackOf(value: unknown): Fallback {
  const field = (name: string): unknown =>
    typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined;
  return {
    tensor: String(field('tensor')).slice(0, 64),
    columns: Number(field('columns')),
    wanted: String(field('wanted')).slice(0, 16),
    used: String(field('used')).slice(0, 16),
  };
}
