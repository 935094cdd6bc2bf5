// Refusals of texts that a model's context cannot hold. The server asks them before it sends a request, the child after tokenizing.

import { ApiError } from '../../base/errors.ts';

/** The name refusals give to one of several inputs: `input[17]`, or `input` where there is only one. */
export function paramOf(field: string, index: number, count: number): string {
  return count === 1 ? field : `${field}[${index}]`;
}

/**
 * Calls (tokens, vectors, scores) one engine may hold at once: as many as may wait for a slot, but two at least, so that a
 * model without a queue answers calls of one caller, and of another beside it.
 */
export function callPlaces(maxQueued: number): number {
  return Math.max(2, maxQueued);
}

/** Both phrases agents look for are in the message. */
export function assertFits(
  count: number,
  contextLength: number,
  param: string,
  room = 1,
  exactness = '',
): void {
  if (count + room <= contextLength) return;
  throw new ApiError(
    'context_length_exceeded',
    `this model's maximum context length is ${contextLength} tokens; the request has ${exactness}${count} tokens, which exceeds the available context size`,
    { param },
  );
}

/**
 * Tokens /v1/tokenize may give and /v1/detokenize may take, in contexts: a few, so that texts too long for the model can still
 * be counted and cut, and what is written for them has a bound.
 */
export const COUNTED_CONTEXTS = 4;

export function assertCountable(count: number, contextLength: number, param: string): void {
  if (count <= COUNTED_CONTEXTS * contextLength) return;
  throw new ApiError(
    'context_length_exceeded',
    `this model's maximum context length is ${contextLength} tokens; ${count} tokens are over ${COUNTED_CONTEXTS} times that, which exceeds the available context size`,
    { param },
  );
}
