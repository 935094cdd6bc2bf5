// Echo of a prompt (legacy completions): its text, and the logprob of each token given those before it.

import type { Sequence } from './batch.ts';
import { describe } from './choice.ts';
import { createTextStream } from './text-stream.ts';

/**
 * Emits the echo of the prompt tokens that were just decoded; `indexes` are their outputs. The
 * first token's logprob is NaN.
 */
export function emitEcho(
  sequence: Sequence,
  { from, indexes }: NonNullable<Sequence['echoed']>,
  logits: (index: number) => Float32Array,
): void {
  const { job } = sequence.request;
  const parts = job.choice(sequence.choice.index);
  const { logprobs, rawPiece } = parts;
  if (logprobs !== undefined) {
    const start = {
      ...describe(new Float32Array([0]), 0, 0, () => rawPiece(job.prompt[0]!)),
      logprob: NaN,
      top: [],
    };
    const rest = indexes.flatMap((index, i) => {
      const token = job.prompt[from + i + 1];
      return token === undefined ? [] : [describe(logits(index), token, logprobs, rawPiece)];
    });
    const entries = from === 0 ? [start, ...rest] : rest;
    for (let choice = 0; choice < job.n; choice += 1)
      job.emit({ kind: 'delta', index: choice, text: '', logprobs: entries });
  }
  if (from + indexes.length < job.prompt.length) return;
  const stream = createTextStream([]);
  let text = '';
  for (const token of job.prompt) text += stream.push(parts.piece(token));
  text += stream.flush();
  for (let choice = 0; choice < job.n; choice += 1) job.emit({ kind: 'delta', index: choice, text });
}
