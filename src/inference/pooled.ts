// Embeddings and reranking: whole inputs in, one vector (or score) each out. Inputs of all waiting requests are packed
// together into decodes of about `goodTokens`. First come, first served; cancelled requests are skipped.
import type { Context } from './llama-context.ts';

export interface PooledRequest {
  readonly id: number;
  readonly inputs: readonly (readonly number[])[];
  readonly done: (outputs: readonly Float32Array[]) => void;
}

export interface Pooler {
  /** False when the queue is full. Every input has 1…batchTokens tokens. */
  submit(request: PooledRequest): boolean;
  cancel(id: number): void;
  readonly queued: number;
  readonly steps: number;
  readonly tokens: number;
  run(): Promise<never>;
}

/**
 * Tokens of a decode beyond which packing more costs instead of saving: the matrices are as fast as they get, and attention goes
 * over all tokens of the batch, those of other inputs only to be masked (measured: 1088 tokens at once take a tenth longer).
 */
const goodTokens = 256;

export function createPooler(context: Context, options: { readonly sequences: number; readonly maxQueued: number }): Pooler {
  const waiting: { readonly request: PooledRequest; next: number; readonly outputs: Float32Array[] }[] = [];
  let wake: (() => void) | null = null;
  let steps = 0;
  let tokens = 0;

  const step = async (): Promise<void> => {
    context.clearBatch();
    context.clearMemory();
    const placed: { readonly entry: (typeof waiting)[number]; readonly sequence: number }[] = [];
    const left = waiting.reduce(
      (sum, { request, next }) => request.inputs.slice(next).reduce((tokensOf, input) => tokensOf + input.length, sum),
      0,
    );
    const share = left / Math.ceil(left / goodTokens);
    packing: for (const entry of waiting) {
      for (let i = entry.next + placed.filter((each) => each.entry === entry).length; i < entry.request.inputs.length; i += 1) {
        const input = entry.request.inputs[i] ?? [];
        if (placed.length === options.sequences || context.batchLength >= share) break packing;
        if (context.batchLength + input.length > context.batchTokens) break packing;
        const sequence = placed.length;
        input.forEach((token, position) => context.add(token, position, sequence, true));
        placed.push({ entry, sequence });
      }
    }
    tokens += context.batchLength;
    const code = await context.decode();
    if (code !== 0) throw new Error(`llama_decode failed with ${code}`);
    steps += 1;
    for (const { entry, sequence } of placed) {
      entry.outputs.push(context.pooled(sequence));
      entry.next += 1;
    }
    for (const entry of new Set(placed.map((each) => each.entry))) {
      if (entry.next < entry.request.inputs.length) continue;
      const at = waiting.indexOf(entry);
      if (at < 0) continue; // cancelled meanwhile
      waiting.splice(at, 1);
      entry.request.done(entry.outputs);
    }
  };

  return {
    submit(request) {
      if (waiting.length >= options.maxQueued) return false;
      waiting.push({ request, next: 0, outputs: [] });
      wake?.();
      wake = null;
      return true;
    },
    cancel(id) {
      const at = waiting.findIndex((entry) => entry.request.id === id);
      if (at >= 0) waiting.splice(at, 1);
    },
    get queued() {
      return waiting.length;
    },
    get steps() {
      return steps;
    },
    get tokens() {
      return tokens;
    },
    async run() {
      for (;;) {
        if (waiting.length > 0) await step();
        else
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
      }
    },
  };
}
