// Messages to a model that makes vectors or scores: inputs are tokenized in slices and packed
// together by decode/pooled.

import { ApiError, queueFull } from '../../base/errors.ts';
import { assertFits, callPlaces, paramOf, type ContextRoom } from '../seam/context-limits.ts';
import type { EngineStats } from '../seam/engine.ts';
import type { ToChild } from '../seam/wire.ts';
import { createPooler } from './decode/pooled.ts';
import { tokenListsDigest } from './decode/token-digest.ts';
import { assertMayFit, checkTokens, rankTokens } from './prompt.ts';
import { answering, answerText, isText, replyError, wrongType, type Serving } from './replies.ts';
import { createTurns } from './time-slices.ts';

export const POOLED_SEQUENCES = 64;

export function servePooling(serving: Serving): (message: ToChild) => void {
  const { model, context, info, load, send } = serving;
  const inputLength = Math.min(info.contextLength, context.batchTokens);
  const pooler = createPooler(context, {
    sequences: POOLED_SEQUENCES,
    maxQueued: callPlaces(load.maxQueued),
  });
  pooler.run().catch(serving.fatal);
  const stats = (): EngineStats => ({
    queued: pooler.queued,
    active: pooler.queued > 0 ? 1 : 0,
    promptTokens: pooler.tokens,
    completionTokens: 0,
    cachedTokens: 0,
    decodeSteps: pooler.steps,
  });

  /** Vectors need no room for an answer. */
  const roomFor = (param: string): ContextRoom => ({ contextLength: inputLength, param, answer: 0 });
  const sendStats = (): void => send({ kind: 'events', events: [], stats: stats() });

  // One input at a slice.
  function* embed(message: Extract<ToChild, { kind: 'embed' }>): Generator<void, void> {
    if (info.type !== 'embedding') throw wrongType(info.type, 'it cannot do embeddings');
    const inputs: (readonly number[])[] = [];
    const param = (i: number): string => paramOf('input', i, message.inputs.length);
    for (const [i, input] of message.inputs.entries())
      if (typeof input === 'string') assertMayFit(model, [input], roomFor(param(i)));
    for (const [i, input] of message.inputs.entries()) {
      if (typeof input !== 'string') checkTokens(model, input, param(i));
      const tokens = typeof input === 'string' ? model.tokenize(input, true, false) : input;
      if (tokens.length === 0)
        throw new ApiError('invalid_input', `${param(i)} is empty`, { param: param(i) });
      assertFits(tokens.length, roomFor(param(i)));
      inputs.push(tokens);
      yield;
    }
    submit(message, inputs, normalised);
  }
  function* rank(message: Extract<ToChild, { kind: 'rank' }>): Generator<void, void> {
    if (info.type !== 'rerank') throw wrongType(info.type, 'it cannot do reranking');
    const { query, documents } = message;
    assertMayFit(model, [query], roomFor('query'));
    const param = (i: number): string => `documents[${i}]`;
    for (const [i, document] of documents.entries())
      assertMayFit(model, [query, document], roomFor(param(i)));
    const join = rankTokens(model, query);
    const inputs: (readonly number[])[] = [];
    for (const [i, document] of documents.entries()) {
      const tokens = join(document);
      assertFits(tokens.length, roomFor(param(i)));
      inputs.push(tokens);
      yield;
    }
    submit(message, inputs, (vector) => vector.subarray(0, 1));
  }
  const submit = (
    { id, scope }: Extract<ToChild, { kind: 'embed' | 'rank' }>,
    inputs: readonly (readonly number[])[],
    shape: (vector: Float32Array) => Float32Array,
  ): void => {
    const tokens = inputs.reduce((sum, input) => sum + input.length, 0);
    const inputsSha256 = tokenListsDigest(inputs);
    const done = (outputs: readonly Float32Array[]): void => {
      const vectors = outputs.map(shape);
      const size = vectors[0]?.length ?? 0;
      const raw = new Float32Array(size * vectors.length);
      vectors.forEach((vector, i) => raw.set(vector, i * size));
      const answer = { kind: 'vectors', id, count: vectors.length, size, tokens, inputsSha256 } as const;
      send(answer, new Uint8Array(raw.buffer));
      sendStats();
    };
    if (inputs.length === 0) done([]);
    else if (!pooler.submit({ id, scope, inputs, done })) throw queueFull();
  };

  const turns = createTurns(setImmediate, (id, error) => replyError(send, id, error));
  return (message) =>
    answering(send, message, () => {
      if (message.kind === 'ping') send({ kind: 'pong', id: message.id });
      else if (isText(message)) turns.add(message.id, () => answerText(serving, message));
      else if (message.kind === 'embed') turns.add(message.id, slices(embed(message)));
      else if (message.kind === 'rank') turns.add(message.id, slices(rank(message)));
      else if (message.kind === 'cancel') {
        turns.cancel(message.id);
        pooler.cancel(message.id);
        sendStats();
        send({ kind: 'dropped', id: message.id });
      } else if (message.kind === 'generate') throw wrongType(info.type, 'it cannot do text generation');
    });
}

/** Up to the next `yield` at a time. */
function slices(work: Generator<void, void>): () => boolean {
  return () => work.next().done !== true;
}

/** To length 1; a zero vector stays zero. */
function normalised(vector: Float32Array): Float32Array {
  let sum = 0;
  for (const value of vector) sum += value * value;
  const norm = Math.sqrt(sum);
  return norm > 0 ? vector.map((value) => value / norm) : vector;
}
