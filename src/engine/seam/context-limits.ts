// Refusals of texts that a model's context cannot hold. The server checks before it sends a request,
// the child after tokenizing.

import { ApiError } from '../../base/errors.ts';

/** The name refusals give to one of several inputs: `input[17]`, or `input` where there is only one. */
export function paramOf(field: string, index: number, count: number): string {
  return count === 1 ? field : `${field}[${index}]`;
}

export interface ContextRoom {
  readonly contextLength: number;
  /** The field of the request that refusals name. */
  readonly param: string;
  /** Tokens that must be left for an answer; 1 by default. */
  readonly answer?: number | undefined;
}

/**
 * Calls (tokens, vectors, scores) one engine may hold at once: as many as may wait for a slot, but two at
 * least, so that a model without a queue answers calls of one caller, and of another beside it.
 */
export function callPlaces(maxQueued: number): number {
  return Math.max(2, maxQueued);
}

/**
 * The message has both phrases that agents look for. `prefix`: 'at least ' where `count` is a lower bound.
 */
export function assertFits(count: number, room: ContextRoom, prefix = ''): void {
  const { contextLength, param, answer = 1 } = room;
  if (count + answer <= contextLength) return;
  throw new ApiError(
    'context_length_exceeded',
    `this model's maximum context length is ${contextLength} tokens; the request has ${prefix}${count} tokens, which exceeds the available context size`,
    { param },
  );
}

/**
 * Tokens /v1/tokenize may give and /v1/detokenize may take, in contexts: a few, so that texts too long for
 * the model can still be counted and cut, and their answers have a bound.
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
