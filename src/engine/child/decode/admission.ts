// Slots for requests: seats waiting ones, and takes sequences out again when the KV memory is full or their
// reader is behind. When the memory is full, kept prefixes go first, then the youngest sequence gives its
// memory back and is read again later.

import type { DecodeContext, Request, Sequence } from './batch.ts';
import { createChoice, type Choice } from './choice.ts';
import { PromptLookup } from './prompt-lookup.ts';
import { positionAt } from './media-span.ts';
import type { RequestQueues } from './request-queues.ts';
import { createSlots, type Slots } from './slots.ts';

export interface AdmissionOptions {
  readonly slots: number;
  readonly contextLength: number;
  readonly reusePrefixes: boolean;
}

/** Callbacks for the results of admission. */
export interface AdmissionEvents {
  /** The first choice of a request has a slot. */
  started(promptTokens: number, cachedTokens: number): void;
  /** A sequence whose whole prompt is in the memory can write at once. */
  ready(sequence: Sequence, logits: Float32Array): void;
}

export class SlotAdmission {
  readonly live: Sequence[] = [];
  readonly #context: DecodeContext;
  readonly #queues: RequestQueues;
  readonly #contextLength: number;
  readonly #events: AdmissionEvents;
  readonly #slots: Slots;
  #order = 0;
  /**
   * A sequence lost its memory: none is admitted until another has ended, or they would
   * evict each other without end.
   */
  #crowded = false;

  constructor(
    context: DecodeContext,
    queues: RequestQueues,
    options: AdmissionOptions,
    events: AdmissionEvents,
  ) {
    this.#context = context;
    this.#queues = queues;
    this.#contextLength = options.contextLength;
    this.#events = events;
    this.#slots = createSlots(options.slots, options.reusePrefixes);
  }

  get freeSlots(): number {
    return this.#slots.free;
  }

  /** Tokens each choice of a request may write. */
  limitOf({ job }: Request): number {
    return Math.min(job.maxTokens ?? Infinity, this.#contextLength - job.prompt.length);
  }

  admitAll(): void {
    if (this.#crowded && this.live.length > 0) return;
    this.#queues.serve(
      () => this.#slots.free > 0,
      (request) => this.#admit(request),
    );
  }

  /** A sequence has ended or was cancelled; its KV cells may serve later requests. */
  release(sequence: Sequence): void {
    this.#crowded = false;
    this.#vacate(sequence);
    sequence.choice.free();
  }

  /** Frees KV cells after a decode found no room; false when only one sequence is left. */
  makeRoom(): boolean {
    const idle = this.#slots.oldestIdle();
    if (idle !== null) {
      this.#context.removeTail(idle.id, 0);
      idle.tokens = [];
      return true;
    }
    if (this.live.length < 2) return false;
    const youngest = this.live.reduce((a, b) => (b.order > a.order ? b : a));
    this.#crowded = true;
    this.#context.removeTail(youngest.slot.id, 0);
    youngest.slot.tokens = [];
    this.#putBack(youngest);
    return true;
  }

  /**
   * A request whose client stopped reading yields its slots to those that wait; its KV cells are
   * kept until they are needed.
   */
  clearForWaiting(): void {
    this.#clearBackground();
    const paused = this.live.filter((each) => each.request.paused);
    if (paused.length === 0) return;
    const waiting = this.#queues.wanting();
    if (waiting === 0 || (this.#crowded && paused.length < this.live.length)) return;
    for (const sequence of paused) if (this.#crowded || this.#slots.free < waiting) this.#putBack(sequence);
    this.#crowded = false;
  }

  /** Background work gives its slots to requests that wait, the youngest first; it goes on later. */
  #clearBackground(): void {
    const background = this.live.filter(({ request }) => request.job.background === true);
    if (this.#crowded || background.length === 0) return;
    const missing = this.#queues.wantingInForeground() - this.#slots.free;
    if (missing <= 0) return;
    for (const sequence of background.toSorted((a, b) => b.order - a.order).slice(0, missing))
      this.#putBack(sequence);
  }

  /** Starts the next waiting choice of a request; false when no slot is free. */
  #admit(request: Request): boolean {
    const { job } = request;
    const again = request.preempted[0];
    if (again !== undefined) {
      const sequence = this.#seat(request, again.choice, again.tokens, true);
      if (sequence === null) return false;
      request.preempted.shift();
      this.#beginIfRead(sequence);
      return true;
    }
    if (this.#slots.free === 0) return false;
    const index = request.nextChoice;
    const limit = this.limitOf(request);
    const choice = createChoice({ ...job.choice(index), index, limit, emit: job.emit });
    const sequence = this.#seat(request, choice, [...job.prompt], !(job.echo && index === 0));
    if (sequence === null) return false;
    request.nextChoice += 1;
    const cachedTokens = sequence.slot.tokens.length;
    if (!request.started) {
      request.started = true;
      this.#events.started(job.prompt.length, cachedTokens);
      job.emit({ kind: 'start', promptTokens: job.prompt.length, cachedTokens, ...job.receipt });
    }
    this.#beginIfRead(sequence);
    return true;
  }

  /** A choice whose whole prompt is shared writes its first token without a decode. */
  #beginIfRead(sequence: Sequence): void {
    const { request, slot, tokens } = sequence;
    if (request.promptLogits !== null && slot.tokens.length === tokens.length)
      this.#events.ready(sequence, request.promptLogits);
  }

  /** Puts a sequence into a slot; `share`: with the longest kept prefix of its scope and adapter. */
  #seat(request: Request, choice: Choice, tokens: number[], share: boolean): Sequence | null {
    const { scope, adapter = 0, prompt, media } = request.job;
    // The last token is always read again, for its logits — unless those of the whole prompt are kept.
    const ready = request.promptLogits !== null && tokens.length === prompt.length;
    const placement = this.#slots.place(
      tokens,
      { scope, adapter },
      share ? tokens.length - (ready ? 0 : 1) : 0,
      media,
    );
    if (placement === null) return null;
    const { slot, source } = placement;
    let { shared } = placement;
    const end = positionAt(media, shared);
    if (source !== null && source !== slot) {
      if (slot.tokens.length > 0) this.#context.removeTail(slot.id, 0);
      this.#context.copySequence(source.id, slot.id, end);
    } else if (slot.tokens.length > shared && !this.#context.removeTail(slot.id, end)) shared = 0;
    slot.tokens = tokens.slice(0, shared);
    slot.scope = scope;
    slot.adapter = adapter;
    slot.busy = true;
    this.#slots.touch(slot);
    this.#order += 1;
    const sequence: Sequence = {
      request,
      choice,
      slot,
      tokens,
      order: this.#order,
      turn: 0,
      output: -1,
      batched: 0,
      echoed: null,
      guessed: [],
      lookup: new PromptLookup(),
    };
    this.live.push(sequence);
    request.running += 1;
    return sequence;
  }

  /** Takes a sequence out of its slot and back to the queue, where it waits with its text so far. */
  #putBack(sequence: Sequence): void {
    const { request, choice, tokens } = sequence;
    this.#vacate(sequence);
    request.preempted.push({ choice, tokens });
    this.#queues.putBack(request);
  }

  #vacate(sequence: Sequence): void {
    this.live.splice(this.live.indexOf(sequence), 1);
    sequence.slot.busy = false;
    this.#slots.touch(sequence.slot);
    sequence.request.running -= 1;
  }
}
