// Continuous batching. Each step is one decode over every live sequence: one token for each that is writing,
// and with the room left a chunk of the prompts being read, small enough that writers do not stall. Every
// queue is bounded; a cancelled request leaves at the next step. It only decides and counts: decode/choice
// picks tokens, decode/admission assigns slots, and the context moves memory. A decode has one adapter for
// all its sequences, so requests for different adapters of the model take turns, step by step.

import { ApiError } from '../../../base/errors.ts';
import { AdapterTurns } from './adapter-turns.ts';
import { SlotAdmission } from './admission.ts';
import {
  adapterOf,
  clearMarks,
  fillBatch,
  positionOf,
  type DecodeContext,
  type Job,
  type Request,
  type Sequence,
} from './batch.ts';
import type { DecodeTurns } from './decode-turns.ts';
import { emitEcho } from './echo.ts';
import { wholeRuns } from './media-span.ts';
import { MediaReader } from './media.ts';
import { DraftPolicy } from './prompt-lookup.ts';
import { RequestQueues } from './request-queues.ts';
import { StepCost } from './step-cost.ts';
import { createPace, type Pace } from './turn-taking.ts';

export interface SchedulerOptions {
  readonly slots: number;
  readonly contextLength: number;
  readonly maxQueued: number;
  readonly reusePrefixes: boolean;
  /** Milliseconds a prompt chunk may delay running streams. */
  readonly stallMs: number;
  /** How long an adapter keeps its turn while others wait, since a switch costs; absent: one decode. */
  readonly adapterTurnMs?: number | undefined;
  /** Lets writers decode in turn where that measures faster than together. */
  readonly pacing?: boolean | undefined;
  /** Lets a text that is written alone be guessed from what it repeats, where that measures faster. */
  readonly drafting?: boolean | undefined;
  /**
   * Decodes expected to take longer run beside the event loop. Shorter ones run on its thread: messages
   * that arrive meanwhile could only count at the next step, and two thread changes per token cost more,
   * most of all on a busy machine.
   */
  readonly asyncAboveMs?: number | undefined;
  /** Most prompt tokens of one step, regardless of time; tests set it. */
  readonly maxChunk?: number | undefined;
  /** Where other schedulers of this process decode too; absent: none does. */
  readonly decodes?: DecodeTurns | undefined;
  readonly now: () => number;
  /** Lets other work of the process run. */
  readonly turn: () => Promise<void>;
  /** Called once per step, after its events. */
  readonly onStep?: (() => void) | undefined;
}

export interface SchedulerStats {
  queued: number;
  active: number;
  promptTokens: number;
  completionTokens: number;
  cachedTokens: number;
  decodeSteps: number;
}

export class Scheduler {
  readonly #context: DecodeContext;
  readonly #options: SchedulerOptions;
  readonly #queues = new RequestQueues();
  readonly #adapters = new AdapterTurns();
  /** The adapter of the last decode, and when its turn began. */
  #turn = { adapter: 0, began: -Infinity };
  readonly #admission: SlotAdmission;
  readonly #cost: StepCost;
  readonly #pace: Pace | null;
  readonly #drafts: DraftPolicy | null;
  readonly #media: MediaReader;
  readonly #stats: SchedulerStats = {
    queued: 0,
    active: 0,
    promptTokens: 0,
    completionTokens: 0,
    cachedTokens: 0,
    decodeSteps: 0,
  };
  #wake: (() => void) | null = null;
  #decoding = false;
  /** The last decode found no room: the next one is without a guess. */
  #tight = false;

  constructor(context: DecodeContext, options: SchedulerOptions) {
    this.#context = context;
    this.#options = options;
    this.#cost = new StepCost(options.stallMs, options.asyncAboveMs);
    this.#pace = options.pacing === true ? createPace() : null;
    this.#drafts = options.drafting === true ? new DraftPolicy() : null;
    this.#media = new MediaReader(context, {
      wake: () => this.#signal(),
      failed: ({ request }) => {
        request.cancelled = true;
        request.job.fail(new ApiError('engine_failed', 'the engine could not read an image'));
      },
    });
    this.#admission = new SlotAdmission(context, this.#queues, options, {
      started: (promptTokens, cachedTokens) => {
        this.#stats.promptTokens += promptTokens;
        this.#stats.cachedTokens += cachedTokens;
      },
      ready: (sequence, logits) => this.#write(sequence, logits),
    });
  }

  /** False when the queue is full. */
  submit(job: Job): boolean {
    if (job.prompt.length === 0) throw new RangeError('a prompt has at least one token');
    // Those that the next step seats do not wait.
    // Background work takes no place in the queue from other requests.
    const ahead = job.background === true ? this.#queues.length : this.#queues.foregroundLength;
    if (ahead >= this.#options.maxQueued + this.#admission.freeSlots) return false;
    this.#queues.add({
      job,
      cancelled: false,
      paused: false,
      started: false,
      nextChoice: 0,
      running: 0,
      finished: 0,
      promptLogits: null,
      preempted: [],
    });
    this.#signal();
    return true;
  }

  /** Whether a request still has a slot or a place in the queue. */
  holds(id: number): boolean {
    return this.#queues.get(id) !== undefined;
  }

  cancel(id: number): void {
    const request = this.#queues.get(id);
    if (request === undefined) return;
    request.cancelled = true;
    // A long prompt that shares its step with no other request is cut off inside the decode;
    // others would repeat the step.
    const alone = this.#admission.live.every(
      (sequence) => sequence.batched === 0 || sequence.request.cancelled,
    );
    if (this.#decoding && alone) this.#context.abort();
    this.#signal();
  }

  /** Stops decoding for a request whose reader is behind; its memory is kept. */
  pause(id: number): void {
    const request = this.#queues.get(id);
    if (request !== undefined) request.paused = true;
  }

  resume(id: number): void {
    const request = this.#queues.get(id);
    if (request === undefined) return;
    request.paused = false;
    this.#signal();
  }

  stats(): SchedulerStats {
    return { ...this.#stats, queued: this.#queues.length, active: this.#admission.live.length };
  }

  /** Rejects when a decode fails in a way the context cannot recover from. */
  async run(): Promise<never> {
    for (;;) {
      if (this.#idle()) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      } else {
        await this.#step();
        await this.#options.turn();
      }
    }
  }

  #signal(): void {
    this.#wake?.();
    this.#wake = null;
  }

  #idle(): boolean {
    for (const request of this.#queues.all()) if (request.cancelled) return false;
    const working = this.#admission.live.filter((sequence) => !sequence.request.paused);
    if (working.some((sequence) => !this.#media.waits(sequence))) return false;
    // No sequence runs: a slot is free, or can be taken from a request whose reader is behind.
    return !this.#queues.someWant();
  }

  async #step(): Promise<void> {
    const admission = this.#admission;
    this.#dropCancelled();
    admission.clearForWaiting();
    admission.admitAll();
    // The choice just admitted may have failed its request.
    this.#dropCancelled();
    this.#media.start(admission.live);
    const pictured = this.#media.turn(admission.live);
    if (pictured === null) await this.#stepTokens();
    else await this.#stepVectors(pictured);
    this.#options.onStep?.();
  }

  async #stepVectors({ sequence, rows }: NonNullable<ReturnType<MediaReader['turn']>>): Promise<void> {
    const { live } = this.#admission;
    clearMarks(live);
    this.#context.useAdapter(adapterOf(sequence));
    const writers = live.filter((each) => !each.request.paused && each.choice.written > 0).length;
    const polite = this.#cost.promptTokens(writers, 1, sequence.tokens.length);
    const count = this.#media.fill(sequence, rows, Math.min(this.#options.maxChunk ?? Infinity, polite));
    sequence.turn = this.#stats.decodeSteps + 1;
    await this.#decode(count, 0);
    this.#media.read(sequence);
  }

  async #stepTokens(): Promise<void> {
    const admission = this.#admission;
    const { prompt, writers } = fillBatch(this.#context, admission.live, {
      step: this.#stats.decodeSteps + 1,
      adapterInTurn: (waiting) => this.#adapterInTurn(waiting),
      takeTurns: (count) => this.#pace?.takeTurns(count) === true,
      promptTokens: (writing, reading, remaining) =>
        Math.min(this.#options.maxChunk ?? Infinity, this.#cost.promptTokens(writing, reading, remaining)),
      guess: (sequence, room) => this.#guess(sequence, room),
    });
    // Without a batch: an admitted choice may have ended at once (a second choice of one token); its
    // events must still leave.
    if (this.#context.batchLength > 0) await this.#decode(prompt, writers);
  }

  #adapterInTurn(waiting: readonly number[]): number | undefined {
    const { adapter, began } = this.#turn;
    const now = this.#options.now();
    if (waiting.includes(adapter) && now - began < (this.#options.adapterTurnMs ?? 0)) return adapter;
    const next = this.#adapters.next(waiting);
    if (next !== undefined) this.#turn = { adapter: next, began: now };
    return next;
  }

  async #decode(prompt: number, writers: number): Promise<void> {
    const { decodes } = this.#options;
    if (decodes !== undefined && !decodes.tryEnter()) await decodes.enter();
    const started = this.#options.now();
    this.#decoding = true;
    const code = this.#cost.isLong(prompt) ? await this.#context.decode() : this.#context.decodeSync();
    this.#decoding = false;
    decodes?.leave();
    const took = this.#options.now() - started;
    const guessed = this.#context.batchLength - prompt - writers;
    if (code === 0) {
      this.#stats.decodeSteps += 1;
      this.#tight = false;
      if (guessed === 0) {
        this.#cost.record(prompt, writers, took);
        if (prompt === 0) this.#pace?.record(writers, took);
        if (prompt === 0 && writers === 1) this.#drafts?.alone(took);
      }
      this.#collect(took);
    } else if (code === 1) {
      if (guessed > 0) this.#tight = true;
      else if (!this.#admission.makeRoom()) throw new Error('the KV memory has no room for one sequence');
    } else if (code === 2) this.#forgetBatch();
    else throw new Error(`llama_decode failed with ${code}`);
  }

  /**
   * After an aborted decode it is unknown how much of the batch was processed, so all of it is read again.
   */
  #forgetBatch(): void {
    for (const sequence of this.#admission.live) {
      const { batched, slot, request } = sequence;
      if (batched === 0) continue;
      slot.tokens.length = wholeRuns(request.job.media, slot.tokens.length);
      if (!this.#keepBegun(sequence)) slot.tokens = [];
    }
  }

  /** Forgets what the memory has behind the tokens of a slot; false when all of it is lost. */
  #keepBegun(sequence: Sequence): boolean {
    const { slot } = sequence;
    return this.#context.removeTail(slot.id, positionOf(sequence, slot.tokens.length));
  }

  #dropCancelled(): void {
    const { live } = this.#admission;
    for (const sequence of live.filter((each) => each.request.cancelled)) this.#admission.release(sequence);
    for (const request of this.#queues.all()) if (request.cancelled) this.#queues.remove(request);
  }

  #guess({ request, choice, tokens, lookup }: Sequence, room: number): readonly number[] {
    if (this.#drafts === null || this.#tight) return [];
    // The last token it may write is not read again.
    const left = this.#admission.limitOf(request) - choice.written - 1;
    const length = this.#drafts.length(lookup.follow(tokens), Math.min(room, left));
    const guess = length === 0 ? [] : lookup.guess(tokens, length);
    // A text never goes on with an image.
    const end = guess.findIndex((token) => token < 0);
    return end < 0 ? guess : guess.slice(0, end);
  }

  #collect(took: number): void {
    for (const sequence of this.#admission.live.slice()) {
      if (sequence.batched === 0) continue;
      const { slot, tokens, request } = sequence;
      for (let i = 0; i < sequence.batched; i += 1) slot.tokens.push(tokens[slot.tokens.length]!);
      if (request.cancelled) continue;
      if (sequence.echoed !== null)
        emitEcho(sequence, sequence.echoed, (index) => this.#context.logits(index));
      if (sequence.output < 0) continue;
      const logits = this.#context.logits(sequence.output);
      if (needsPromptLogits(request) && tokens.length === request.job.prompt.length)
        request.promptLogits = logits.slice();
      if (sequence.guessed.length > 0) this.#writeGuessed(sequence, took);
      else this.#write(sequence, logits);
    }
  }

  /** Lets a choice pick tokens for as long as they are those guessed, and one more. */
  #writeGuessed(sequence: Sequence, took: number): void {
    const { slot, tokens, guessed, output } = sequence;
    let accepted = 0;
    let token = this.#next(sequence, this.#context.logits(output));
    while (typeof token === 'number' && token === guessed[accepted]) {
      tokens.push(token);
      slot.tokens.push(token);
      accepted += 1;
      token = this.#next(sequence, this.#context.logits(output + accepted));
    }
    this.#drafts?.guessed(guessed.length, accepted, took);
    const kept = accepted === guessed.length || this.#keepBegun(sequence);
    if (!kept) slot.tokens = [];
    if (token === null) this.#completed(sequence);
    else if (token !== undefined) tokens.push(token);
  }

  /** Lets a choice pick its next token and ends it where it must. */
  #write(sequence: Sequence, logits: Float32Array): void {
    if (this.#admission.limitOf(sequence.request) <= 0) {
      sequence.choice.finishByLength();
      this.#completed(sequence);
      return;
    }
    const token = this.#next(sequence, logits);
    if (token === undefined) return;
    if (token === null) this.#completed(sequence);
    else sequence.tokens.push(token);
  }

  /** A choice that cannot go on (undefined) ends its request like a cancel, with an error. */
  #next({ request, choice }: Sequence, logits: Float32Array): number | null | undefined {
    try {
      return choice.next(logits);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      request.cancelled = true;
      this.#stats.completionTokens += choice.written;
      request.job.fail(error);
      return undefined;
    }
  }

  #completed(sequence: Sequence): void {
    this.#admission.release(sequence);
    this.#stats.completionTokens += sequence.choice.written;
    const { request } = sequence;
    request.finished += 1;
    if (request.finished === request.job.n) this.#queues.remove(request);
  }
}

/** Later choices begin from the logits after the prompt. */
function needsPromptLogits(request: Request): boolean {
  return request.nextChoice < request.job.n && request.promptLogits === null;
}
