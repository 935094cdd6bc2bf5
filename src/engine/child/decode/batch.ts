// The contents of the next decode: a token for every sequence that is writing, and prompt tokens of those
// that are read, within the room and the outputs of a batch. All are of one adapter; the adapters take turns.

import type { ApiError } from '../../../base/errors.ts';
import type { GenerateEvent } from '../../seam/engine.ts';
import type { RowsPlace } from '../llama/native-batch.ts';
import type { Choice, ChoiceOptions } from './choice.ts';
import { positionAt, spanAt, tokensToSpan, type MediaSpan } from './media-span.ts';
import type { PromptLookup } from './prompt-lookup.ts';
import type { Slot } from './slots.ts';

/** The part of a llama context that the scheduler uses; tests drive it with a fake. */
export interface DecodeContext {
  readonly batchTokens: number;
  readonly maxOutputs: number;
  readonly batchLength: number;
  clearBatch(): void;
  /** The adapter of the decodes to come; 0: none. */
  useAdapter(adapter: number): void;
  add(token: number, position: number, sequence: number, output: boolean): number;
  /** Replaces the batch by vectors in the place of tokens. */
  addRows(rows: Float32Array, place: RowsPlace): void;
  decodeSync(): number;
  decode(): Promise<number>;
  abort(): void;
  logits(index: number): Float32Array;
  /** Positions from `from` on. */
  removeTail(sequence: number, from: number): boolean;
  /** Positions below `end`. */
  copySequence(from: number, to: number, end: number): void;
}

export interface Job {
  readonly id: number;
  readonly scope: string;
  /** Which adapter of the model writes; 0 and absent: none. */
  readonly adapter?: number | undefined;
  /** Yields to every job that is not. */
  readonly background?: boolean | undefined;
  /** At least one token. Negative ones stand where an image has its vectors. */
  readonly prompt: readonly number[];
  /** The runs of those, in order. */
  readonly media?: readonly MediaSpan[] | undefined;
  /** Called once, when the request is over. */
  readonly release?: (() => void) | undefined;
  readonly n: number;
  /** In a context of its own. */
  readonly alone?: boolean | undefined;
  /** Fields of its `start` event that a receipt commits to. */
  readonly receipt?:
    | { readonly promptSha256: string; readonly seed: number; readonly alone?: boolean | undefined }
    | undefined;
  readonly echo: boolean;
  /** Makes the writer of choice `index`, once its turn has come. */
  readonly choice: (index: number) => Omit<ChoiceOptions, 'index' | 'limit' | 'emit'>;
  readonly maxTokens: number | undefined;
  readonly emit: (event: GenerateEvent) => void;
  /** Ends the request when a choice cannot go on; called at most once, after all its events. */
  readonly fail: (error: ApiError) => void;
}

/** One completion in a slot. */
export interface Sequence {
  readonly request: Request;
  readonly choice: Choice;
  readonly slot: Slot;
  /** Prompt and completion; before each pick all but the last token must be in the KV memory. */
  readonly tokens: number[];
  readonly order: number;
  /** Step of its last decode. */
  turn: number;
  /** Batch index of its logits in this step, −1 when none. */
  output: number;
  /** Its tokens in this batch. */
  batched: number;
  echoed: { from: number; indexes: number[] } | null;
  /** Tokens guessed to follow the last one, in this batch behind it. */
  guessed: readonly number[];
  readonly lookup: PromptLookup;
}

export interface Request {
  readonly job: Job;
  cancelled: boolean;
  paused: boolean;
  started: boolean;
  nextChoice: number;
  running: number;
  finished: number;
  /** Logits after the prompt, kept while choices wait for a slot. */
  promptLogits: Float32Array | null;
  /** Sequences that lost their memory and wait to be read again. */
  readonly preempted: { choice: Choice; tokens: number[] }[];
}

export interface BatchPlan {
  /** Number of this step, to tell which sequence waited longest. */
  readonly step: number;
  /** Which of the adapters that have work is served. */
  adapterInTurn(waiting: readonly number[]): number | undefined;
  /** Whether that many writers decode one after another rather than together. */
  takeTurns(writers: number): boolean;
  /**
   * Prompt tokens a step may read while `writers` wait, those of other adapters too, when `readers` still
   * have `remaining` tokens to read.
   */
  promptTokens(writers: number, readers: number, remaining: number): number;
  /** Tokens that the only sequence of a step may go on with; at most `room`. */
  guess(sequence: Sequence, room: number): readonly number[];
}

/** Appends what the writer may go on with; returns the outputs it asks for. */
function addGuess(context: DecodeContext, writer: Sequence, plan: BatchPlan): number {
  const room = Math.min(context.maxOutputs, context.batchTokens) - 1;
  writer.guessed = plan.guess(writer, room);
  const position = positionOf(writer, writer.tokens.length);
  for (const [i, token] of writer.guessed.entries()) context.add(token, position + i, writer.slot.id, true);
  return writer.guessed.length;
}

/** Fills the native batch. Writers first; readers share what is left, the oldest getting at least half. */
export function fillBatch(
  context: DecodeContext,
  live: readonly Sequence[],
  plan: BatchPlan,
): { readonly prompt: number; readonly writers: number } {
  context.clearBatch();
  let outputs = 0;
  const { readers, others, ...turn } = inTurn(context, live, plan);
  let ready = [...turn.ready];
  // The sequence that waited longest goes first, in case not all fit or they take turns.
  ready.sort((a, b) => a.turn - b.turn || a.order - b.order);
  ready = ready.slice(
    0,
    readers.length === 0 && plan.takeTurns(ready.length)
      ? 1
      : Math.min(context.maxOutputs, context.batchTokens),
  );
  // llama.cpp joins sequences into one micro-batch only while their ids ascend.
  ready.sort((a, b) => a.slot.id - b.slot.id);
  for (const sequence of ready) {
    sequence.output = context.add(
      sequence.tokens[sequence.tokens.length - 1]!,
      positionOf(sequence, sequence.tokens.length - 1),
      sequence.slot.id,
      true,
    );
    sequence.batched = 1;
    sequence.turn = plan.step;
    outputs += 1;
  }
  const [writer] = ready;
  if (writer !== undefined && ready.length === 1 && readers.length === 0)
    outputs += addGuess(context, writer, plan);
  const writers = ready.length;
  const remaining = (sequence: Sequence): number => sequence.tokens.length - sequence.slot.tokens.length;
  const unread = readers.reduce((sum, each) => sum + remaining(each), 0);
  let room = Math.min(
    context.batchTokens - context.batchLength,
    plan.promptTokens(writers + others, readers.length, unread),
  );
  const oldest = readers.reduce<Sequence | null>(
    (best, each) => (best === null || each.order < best.order ? each : best),
    null,
  );
  const shortestFirst = readers.filter((each) => each !== oldest).sort((a, b) => remaining(a) - remaining(b));
  let prompt = 0;
  const read = (sequence: Sequence, share: number): void => {
    const echo =
      sequence.request.job.echo &&
      sequence.choice.index === 0 &&
      sequence.choice.written === 0 &&
      sequence.request.job.prompt.length === sequence.tokens.length;
    const start = sequence.slot.tokens.length;
    const next = tokensToSpan(sequence.request.job.media, start);
    let count = Math.min(share, room, remaining(sequence), next);
    if (echo) count = Math.min(count, context.maxOutputs - outputs);
    const reachesEnd = start + count === sequence.tokens.length;
    if (reachesEnd && outputs >= context.maxOutputs) count -= 1;
    if (count <= 0) return;
    const indexes: number[] = [];
    const position = positionOf(sequence, start);
    for (let i = 0; i < count; i += 1) {
      const last = start + i === sequence.tokens.length - 1;
      const index = context.add(sequence.tokens[start + i]!, position + i, sequence.slot.id, last || echo);
      if (last || echo) outputs += 1;
      if (echo) indexes.push(index);
      if (last) sequence.output = index;
    }
    if (echo) sequence.echoed = { from: start, indexes };
    sequence.batched = count;
    room -= count;
    prompt += count;
  };
  if (oldest !== null) read(oldest, shortestFirst.length === 0 ? room : Math.ceil(room / 2));
  for (const sequence of shortestFirst) read(sequence, room);
  return { prompt, writers };
}

interface Turn {
  readonly readers: readonly Sequence[];
  readonly ready: readonly Sequence[];
  /** Writers of other adapters, which wait for this step. */
  readonly others: number;
}

/** The sequences with work of the adapter whose turn it is. */
function inTurn(context: DecodeContext, live: readonly Sequence[], plan: BatchPlan): Turn {
  const readers: Sequence[] = [];
  const ready: Sequence[] = [];
  clearMarks(live);
  for (const sequence of live) {
    const { job, paused } = sequence.request;
    if (paused || spanAt(job.media, sequence.slot.tokens.length) !== undefined) continue;
    const pending = sequence.tokens.length - sequence.slot.tokens.length;
    if (pending > 1 || sequence.choice.written === 0) readers.push(sequence);
    else if (pending === 1) ready.push(sequence);
  }
  const adapter = plan.adapterInTurn([...readers, ...ready].map(adapterOf)) ?? 0;
  context.useAdapter(adapter);
  const mine = (sequence: Sequence): boolean => adapterOf(sequence) === adapter;
  const writing = ready.filter(mine);
  return { readers: readers.filter(mine), ready: writing, others: ready.length - writing.length };
}

/** No sequence is in the batch. */
export function clearMarks(live: readonly Sequence[]): void {
  for (const sequence of live) {
    sequence.output = -1;
    sequence.batched = 0;
    sequence.echoed = null;
    sequence.guessed = [];
  }
}

/** The position of what stands at place `at` of a sequence. */
export function positionOf({ request }: Sequence, at: number): number {
  return positionAt(request.job.media, at);
}

export function adapterOf({ request }: Sequence): number {
  return request.job.adapter ?? 0;
}
