// Continuous batching. Each step is one decode over every live sequence: one token for each that is writing, and with the
// room left a chunk of the prompts being read, small enough that writers do not stall. Requests wait in per-scope queues that
// are served in turn. When the KV pool is full, kept prefixes go first, then the youngest sequence gives its memory back and
// is read again later. Every queue is bounded; a cancelled request is gone at the next step.
// It decides and counts, nothing else: tokens are picked by decode/choice, memory is moved by the context it is given.

import { ApiError } from '../../../base/errors.ts';
import { fillBatch, type DecodeContext, type Job, type Request, type Sequence } from './batch.ts';
import { createChoice, describe, type Choice } from './choice.ts';
import { createPace } from './turn-taking.ts';
import { createSlots } from './slots.ts';
import { createTextStream } from './text-stream.ts';

export interface SchedulerOptions {
  readonly slots: number;
  readonly contextLength: number;
  readonly maxQueued: number;
  readonly reusePrefixes: boolean;
  /** Milliseconds a prompt chunk may delay running streams. */
  readonly stallMs: number;
  /** Lets writers decode in turn where that measures faster than together. */
  readonly pacing?: boolean | undefined;
  /**
   * Decodes expected to take longer run beside the event loop. Under it they run on its thread: whatever comes meanwhile
   * could only count at the next step, and two thread changes per token cost more, most of all on a busy machine.
   */
  readonly asyncAboveMs?: number | undefined;
  /** Prompt tokens in one step, whatever the time; tests set it. */
  readonly maxChunk?: number | undefined;
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

export interface Scheduler {
  /** False when the queue is full. */
  submit(job: Job): boolean;
  cancel(id: number): void;
  /** Stops decoding for a request whose reader is behind; its memory is kept. */
  pause(id: number): void;
  resume(id: number): void;
  stats(): SchedulerStats;
  /** Rejects when a decode fails in a way the context cannot recover from. */
  run(): Promise<never>;
}

const DEFAULT_ASYNC_ABOVE_MS = 40;

export function createScheduler(context: DecodeContext, options: SchedulerOptions): Scheduler {
  const slots = createSlots(options.slots, options.reusePrefixes);
  const pace = options.pacing === true ? createPace() : null;
  const requests = new Map<number, Request>();
  const queues = new Map<string, Request[]>();
  const live: Sequence[] = [];
  const stats: SchedulerStats = {
    queued: 0,
    active: 0,
    promptTokens: 0,
    completionTokens: 0,
    cachedTokens: 0,
    decodeSteps: 0,
  };
  let order = 0;
  let wake: (() => void) | null = null;
  // Running means of what a step costs: fixed part and per prompt token. They choose chunk sizes and sync or async decoding.
  let msPerStep = 10;
  let msPerToken = 1;
  let decoding = false;
  // A sequence was pushed out of memory: nobody is let in until another has ended, or all would push each other for ever.
  let crowded = false;

  const queuedCount = (): number => {
    let count = 0;
    for (const queue of queues.values()) count += queue.length;
    return count;
  };
  const signal = (): void => {
    wake?.();
    wake = null;
  };
  const enqueue = (request: Request, first: boolean): void => {
    const queue = queues.get(request.job.scope) ?? [];
    if (first) queue.unshift(request);
    else queue.push(request);
    queues.set(request.job.scope, queue);
  };

  const finishRequest = (request: Request): void => {
    requests.delete(request.job.id);
    for (const waiting of request.preempted) waiting.choice.free();
    request.preempted.length = 0;
    const queue = queues.get(request.job.scope);
    if (queue === undefined) return;
    const at = queue.indexOf(request);
    if (at >= 0) queue.splice(at, 1);
    if (queue.length === 0) queues.delete(request.job.scope);
  };

  const release = (sequence: Sequence): void => {
    live.splice(live.indexOf(sequence), 1);
    crowded = false;
    sequence.slot.busy = false;
    slots.touch(sequence.slot);
    sequence.choice.free();
    sequence.request.running -= 1;
  };
  const completed = (sequence: Sequence): void => {
    release(sequence);
    stats.completionTokens += sequence.choice.written;
    sequence.request.finished += 1;
    if (sequence.request.finished === sequence.request.job.n) finishRequest(sequence.request);
  };

  const choiceOf = (request: Request, index: number): Choice => {
    const { job } = request;
    const limit = Math.min(job.maxTokens ?? Infinity, options.contextLength - job.prompt.length);
    return createChoice({ ...job.choice(index), index, limit, emit: job.emit });
  };

  /** Puts a sequence into a slot, sharing the longest kept prefix of its scope. */
  const seat = (request: Request, choice: Choice, tokens: number[], share: boolean): Sequence | null => {
    // The last token is always read anew, for its logits — unless those of the whole prompt are at hand.
    const ready = request.promptLogits !== null && tokens.length === request.job.prompt.length;
    const placement = slots.place(tokens, request.job.scope, share ? tokens.length - (ready ? 0 : 1) : 0);
    if (placement === null) return null;
    const { slot, source } = placement;
    let { shared } = placement;
    if (source !== null && source !== slot) {
      if (slot.tokens.length > 0) context.removeTail(slot.id, 0);
      context.copySequence(source.id, slot.id, shared);
    } else if (slot.tokens.length > shared && !context.removeTail(slot.id, shared)) shared = 0;
    slot.tokens = tokens.slice(0, shared);
    slot.scope = request.job.scope;
    slot.busy = true;
    slots.touch(slot);
    const sequence: Sequence = {
      request,
      choice,
      slot,
      tokens,
      order: (order += 1),
      turn: 0,
      output: -1,
      batched: 0,
      echoed: null,
    };
    live.push(sequence);
    request.running += 1;
    return sequence;
  };

  /** Starts the next waiting choice of a request; false when no slot is free. */
  const admit = (request: Request): boolean => {
    const { job } = request;
    const again = request.preempted[0];
    if (again !== undefined) {
      if (seat(request, again.choice, again.tokens, true) === null) return false;
      request.preempted.shift();
      return true;
    }
    if (slots.free === 0) return false;
    const index = request.nextChoice;
    const sequence = seat(request, choiceOf(request, index), [...job.prompt], !(job.echo && index === 0));
    if (sequence === null) return false;
    request.nextChoice += 1;
    if (!request.started) {
      request.started = true;
      stats.promptTokens += job.prompt.length;
      stats.cachedTokens += sequence.slot.tokens.length;
      job.emit({ type: 'start', promptTokens: job.prompt.length, cachedTokens: sequence.slot.tokens.length });
    }
    if (request.promptLogits !== null && sequence.slot.tokens.length === job.prompt.length)
      write(sequence, request.promptLogits);
    return true;
  };

  /** A request waits while it has choices to start; later choices wait for the first one's prompt. */
  const wants = (request: Request): boolean =>
    !request.paused &&
    !request.cancelled &&
    (request.preempted.length > 0 ||
      (request.nextChoice < request.job.n && (request.nextChoice === 0 || request.promptLogits !== null)));

  const admitAll = (): void => {
    if (crowded && live.length > 0) return;
    // One from each scope in turn; the map keeps the order, a served scope goes to its end.
    for (let idle = 0; slots.free > 0 && idle < queues.size;) {
      const next = queues.entries().next();
      if (next.done === true) return;
      const [scope, queue] = next.value;
      queues.delete(scope);
      queues.set(scope, queue);
      const request = queue.find(wants);
      if (request === undefined || !admit(request)) {
        idle += 1;
        continue;
      }
      idle = 0;
      if (request.preempted.length === 0 && request.nextChoice === request.job.n) {
        const at = queue.indexOf(request);
        if (at >= 0) queue.splice(at, 1);
        if (request.promptLogits !== null) request.promptLogits = null;
      }
      if (queue.length === 0) queues.delete(scope);
    }
  };

  const dropCancelled = (): void => {
    for (const sequence of live.filter((each) => each.request.cancelled)) release(sequence);
    for (const request of requests.values()) if (request.cancelled) finishRequest(request);
  };

  /** Frees KV cells after a decode found no room: kept prefixes first, then the youngest sequence. */
  const makeRoom = (): boolean => {
    const idle = slots.oldestIdle();
    if (idle !== null) {
      context.removeTail(idle.id, 0);
      idle.tokens = [];
      return true;
    }
    if (live.length < 2) return false;
    const youngest = live.reduce((a, b) => (b.order > a.order ? b : a));
    crowded = true;
    context.removeTail(youngest.slot.id, 0);
    youngest.slot.tokens = [];
    putBack(youngest);
    return true;
  };

  /** Takes a sequence out of its slot and back to the queue, where it waits with what it has written. */
  const putBack = (sequence: Sequence): void => {
    const { request, slot } = sequence;
    live.splice(live.indexOf(sequence), 1);
    slot.busy = false;
    slots.touch(slot);
    request.running -= 1;
    request.preempted.push({ choice: sequence.choice, tokens: sequence.tokens });
    const queue = queues.get(request.job.scope);
    if (queue === undefined || !queue.includes(request)) enqueue(request, true);
  };

  /** Who does not read gives the slot to whoever waits; what is in its memory stays until somebody needs that as well. */
  const clearForWaiting = (): void => {
    const paused = live.filter((each) => each.request.paused);
    if (paused.length === 0) return;
    let waiting = 0;
    for (const queue of queues.values()) waiting += queue.filter(wants).length;
    if (waiting === 0 || (crowded && paused.length < live.length)) return;
    for (const sequence of paused) if (crowded || slots.free < waiting) putBack(sequence);
    crowded = false;
  };

  /** Echo: the prompt's text, with the logprob of each token given those before it (none for the first: NaN). */
  const echo = (sequence: Sequence, from: number, indexes: readonly number[]): void => {
    const { job } = sequence.request;
    const parts = job.choice(sequence.choice.index);
    const stream = createTextStream([]);
    for (let choice = 0; choice < job.n; choice += 1) {
      if (parts.logprobs === undefined) break;
      const first =
        from === 0
          ? [
              {
                ...describe(new Float32Array([0]), 0, 0, () => parts.rawPiece(job.prompt[0]!)),
                logprob: NaN,
                top: [],
              },
            ]
          : [];
      const rest = indexes.flatMap((index, i) => {
        const token = job.prompt[from + i + 1];
        return token === undefined
          ? []
          : [describe(context.logits(index), token, parts.logprobs ?? 0, parts.rawPiece)];
      });
      job.emit({ type: 'delta', index: choice, text: '', logprobs: [...first, ...rest] });
    }
    if (from + indexes.length === job.prompt.length) {
      let text = '';
      for (const token of job.prompt) text += stream.push(parts.piece(token));
      text += stream.flush();
      for (let choice = 0; choice < job.n; choice += 1) job.emit({ type: 'delta', index: choice, text });
    }
  };

  /** A choice that can go no further (undefined) ends its request like a cancel, and says why. */
  const next = ({ request, choice }: Sequence, logits: Float32Array): number | null | undefined => {
    try {
      return choice.next(logits);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      request.cancelled = true;
      stats.completionTokens += choice.written;
      request.job.fail(error);
      return undefined;
    }
  };

  /** Lets a choice pick its next token and ends it where it must. */
  const write = (sequence: Sequence, logits: Float32Array): void => {
    const { request, choice } = sequence;
    const limit = Math.min(
      request.job.maxTokens ?? Infinity,
      options.contextLength - request.job.prompt.length,
    );
    if (limit <= 0) {
      choice.finishByLength();
      completed(sequence);
      return;
    }
    const token = next(sequence, logits);
    if (token === undefined) return;
    if (token === null) completed(sequence);
    else sequence.tokens.push(token);
  };

  const collect = (): void => {
    for (const sequence of live.slice()) {
      if (sequence.batched === 0) continue;
      const { slot, tokens, request } = sequence;
      for (let i = 0; i < sequence.batched; i += 1) slot.tokens.push(tokens[slot.tokens.length]!);
      if (request.cancelled) continue;
      if (sequence.echoed !== null) echo(sequence, sequence.echoed.from, sequence.echoed.indexes);
      if (sequence.output < 0) continue;
      const logits = context.logits(sequence.output);
      if (
        request.nextChoice < request.job.n &&
        request.promptLogits === null &&
        tokens.length === request.job.prompt.length
      ) {
        request.promptLogits = logits.slice();
      }
      write(sequence, logits);
    }
  };

  /**
   * Prompt tokens beside that many writers: what may hold them up. More who read than are held up may hold them up for longer in
   * proportion, if then all have read: whoever comes in a burst decodes together from there on, not a few steps apart.
   */
  const chunk = (writers: number, readers: number, remaining: number): number => {
    if (writers === 0) return Infinity;
    const polite = Math.max(16, Math.floor(options.stallMs / msPerToken));
    return readers > writers && remaining <= (polite * readers) / writers ? remaining : polite;
  };

  const step = async (): Promise<void> => {
    dropCancelled();
    clearForWaiting();
    admitAll();
    // A choice that was just admitted may have failed its request.
    dropCancelled();
    const { prompt, writers } = fillBatch(context, live, {
      step: stats.decodeSteps + 1,
      takeTurns: (count) => pace?.takeTurns(count) === true,
      promptTokens: (writing, reading, remaining) =>
        Math.min(options.maxChunk ?? Infinity, chunk(writing, reading, remaining)),
    });
    // What was admitted may have ended at once (a second choice of one token); its events must still leave.
    if (context.batchLength === 0) {
      options.onStep?.();
      return;
    }
    const started = options.now();
    decoding = true;
    const code =
      msPerStep + prompt * msPerToken > (options.asyncAboveMs ?? DEFAULT_ASYNC_ABOVE_MS)
        ? await context.decode()
        : context.decodeSync();
    decoding = false;
    const took = options.now() - started;
    if (code === 0) {
      stats.decodeSteps += 1;
      // A decode step measures the fixed part, a step with many prompt tokens the part per token.
      if (prompt === 0) {
        msPerStep = Math.min(took, msPerStep * 1.05 + 0.01); // near the best of late: a busy moment says little
        pace?.record(writers, took);
      }
      if (prompt >= 16)
        msPerToken += 0.3 * (Math.max(took - (writers > 0 ? msPerStep : 0), 0.001) / prompt - msPerToken);
      collect();
    } else if (code === 1) {
      if (!makeRoom()) throw new Error('the KV memory has no room for one sequence');
    } else if (code === 2) {
      for (const sequence of live)
        if (sequence.batched > 0 && !context.removeTail(sequence.slot.id, sequence.slot.tokens.length))
          sequence.slot.tokens = [];
    } else throw new Error(`llama_decode failed with ${code}`);
    options.onStep?.();
  };

  const idle = (): boolean => {
    if ([...requests.values()].some((request) => request.cancelled)) return false;
    if (live.some((sequence) => !sequence.request.paused)) return false;
    // Nobody is running: a slot is free, or one whose reader is behind can be had.
    for (const queue of queues.values()) if (queue.some(wants)) return false;
    return true;
  };

  return {
    submit(job) {
      if (job.prompt.length === 0) throw new RangeError('a prompt has at least one token');
      if (queuedCount() >= options.maxQueued) return false;
      const request: Request = {
        job,
        cancelled: false,
        paused: false,
        started: false,
        nextChoice: 0,
        running: 0,
        finished: 0,
        promptLogits: null,
        preempted: [],
      };
      requests.set(job.id, request);
      enqueue(request, false);
      signal();
      return true;
    },
    cancel(id) {
      const request = requests.get(id);
      if (request === undefined) return;
      request.cancelled = true;
      // A long prompt nobody else rides with is cut off inside the decode; others would have to repeat the step.
      if (decoding && live.every((sequence) => sequence.batched === 0 || sequence.request.cancelled))
        context.abort();
      signal();
    },
    pause(id) {
      const request = requests.get(id);
      if (request !== undefined) request.paused = true;
    },
    resume(id) {
      const request = requests.get(id);
      if (request === undefined) return;
      request.paused = false;
      signal();
    },
    stats: () => ({ ...stats, queued: queuedCount(), active: live.length }),
    async run() {
      for (;;) {
        if (idle()) {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        } else {
          await step();
          await options.turn();
        }
      }
    },
  };
}
