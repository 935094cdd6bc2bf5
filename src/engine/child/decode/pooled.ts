// Embeddings and reranking: whole inputs in, one vector (or score) each out. Inputs of all waiting requests
// are packed together into decodes of about `goodTokens`: one input of each scope (one per API key) in turn,
// and within a scope first come, first served, so that thousands of inputs of one key never hold up another
// key's. Cancelled requests are skipped.

import type { LlamaContext } from '../llama/context.ts';

export interface PooledRequest {
  readonly id: number;
  readonly scope: string;
  readonly inputs: readonly (readonly number[])[];
  readonly done: (outputs: readonly Float32Array[]) => void;
}

export interface Pooler {
  /** False when the queue is full. Takes at least one input; each has 1…batchTokens tokens. */
  submit(request: PooledRequest): boolean;
  cancel(id: number): void;
  readonly queued: number;
  readonly steps: number;
  readonly tokens: number;
  run(): Promise<never>;
}

/**
 * Tokens of a decode beyond which packing more costs instead of saving: the matrix products are at full
 * speed, and attention goes over all tokens of the batch, those of other inputs only to mask them (measured:
 * 1088 tokens at once take a tenth longer).
 */
const GOOD_TOKENS = 256;

interface Entry {
  readonly request: PooledRequest;
  /** Inputs that are decoded or being decoded. */
  taken: number;
  readonly outputs: Float32Array[];
}

export function createPooler(
  context: LlamaContext,
  options: { readonly sequences: number; readonly maxQueued: number },
): Pooler {
  /** Requests that are not done, by id. */
  const open = new Map<number, Entry>();
  /** Those with inputs left, oldest first; the scopes in the order of their turns. */
  const waiting = new Map<string, Entry[]>();
  /** Tokens of the inputs left. */
  let left = 0;
  let wake: (() => void) | null = null;
  let steps = 0;
  let tokens = 0;

  /** Fills the batch; the entry of each of its sequences. */
  const pack = (): readonly Entry[] => {
    const placed: Entry[] = [];
    const share = left / Math.ceil(left / GOOD_TOKENS);
    while (placed.length < options.sequences && context.batchLength < share) {
      const [next] = waiting;
      const entry = next?.[1][0];
      if (next === undefined || entry === undefined) break;
      const [scope, entries] = next;
      const input = entry.request.inputs[entry.taken] ?? [];
      // An input that does not fit keeps its turn.
      if (context.batchLength + input.length > context.batchTokens) break;
      const sequence = placed.length;
      input.forEach((token, position) => context.add(token, position, sequence, true));
      placed.push(entry);
      entry.taken += 1;
      left -= input.length;
      if (entry.taken === entry.request.inputs.length) entries.shift();
      waiting.delete(scope);
      if (entries.length > 0) waiting.set(scope, entries);
    }
    return placed;
  };

  const step = async (): Promise<void> => {
    context.clearBatch();
    context.clearMemory();
    const placed = pack();
    tokens += context.batchLength;
    const code = await context.decode();
    if (code !== 0) throw new Error(`llama_decode failed with ${code}`);
    steps += 1;
    placed.forEach((entry, sequence) => entry.outputs.push(context.pooled(sequence)));
    for (const entry of new Set(placed)) {
      const { id, inputs, done } = entry.request;
      // The request was cancelled meanwhile, or more of its inputs follow.
      if (open.get(id) !== entry || entry.outputs.length < inputs.length) continue;
      open.delete(id);
      done(entry.outputs);
    }
  };

  return {
    submit(request) {
      if (open.size >= options.maxQueued) return false;
      const entry: Entry = { request, taken: 0, outputs: [] };
      open.set(request.id, entry);
      const entries = waiting.get(request.scope);
      if (entries === undefined) waiting.set(request.scope, [entry]);
      else entries.push(entry);
      left += tokensOf(entry);
      wake?.();
      wake = null;
      return true;
    },
    cancel(id) {
      const entry = open.get(id);
      if (entry === undefined) return;
      open.delete(id);
      const { scope } = entry.request;
      const entries = waiting.get(scope) ?? [];
      const at = entries.indexOf(entry);
      if (at < 0) return; // its last inputs are being decoded
      left -= tokensOf(entry);
      entries.splice(at, 1);
      if (entries.length === 0) waiting.delete(scope);
    },
    get queued() {
      return open.size;
    },
    get steps() {
      return steps;
    },
    get tokens() {
      return tokens;
    },
    async run() {
      for (;;) {
        if (waiting.size > 0) await step();
        else
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
      }
    },
  };
}

/** Tokens of its inputs that are left. */
function tokensOf({ request, taken }: Entry): number {
  return request.inputs.reduce((sum, input, i) => (i < taken ? sum : sum + input.length), 0);
}
