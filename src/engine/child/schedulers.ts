// The scheduler of requests that share decodes, and the lanes of those that run alone, as one.

import { ApiError } from '../../base/errors.ts';
import type { Job } from './decode/batch.ts';
import { DecodeTurns } from './decode/decode-turns.ts';
import { sumOfStats, LoneRequests } from './decode/lone.ts';
import { Scheduler, type SchedulerOptions, type SchedulerStats } from './decode/scheduler.ts';
import type { Serving } from './replies.ts';

/** Milliseconds a prompt may hold up running streams per step. */
const STALL_MS = 60;

/**
 * Measured on demo-context: with a switch at every decode three adapters together take 2.6 times as long as
 * one after another; with turns of this length they take as long.
 */
const ADAPTER_TURN_MS = 20;

export class Schedulers {
  readonly #shared: Scheduler;
  /** Null: no request can run alone. */
  readonly #lone: LoneRequests | null;

  constructor({ model, info, load, context, lanes, fatal }: Serving, onStep: () => void) {
    const common: Pick<SchedulerOptions, 'contextLength' | 'now' | 'turn' | 'decodes' | 'onStep'> = {
      contextLength: info.contextLength,
      decodes: new DecodeTurns(),
      now: () => performance.now(),
      turn: () => new Promise((resolve) => setImmediate(resolve)),
      onStep,
    };
    this.#shared = new Scheduler(context, {
      ...common,
      slots: info.slots,
      maxQueued: load.maxQueued,
      reusePrefixes: load.reusePrefixes && !model.recurrent,
      stallMs: STALL_MS,
      adapterTurnMs: ADAPTER_TURN_MS,
      pacing: true,
      // A recurrent memory cannot forget the tokens of a wrong guess.
      drafting:
        !model.recurrent && (load.drafting === 'always' || (load.drafting === 'exact' && context.exact)),
      maxChunk: load.maxChunk,
    });
    this.#shared.run().catch(fatal);
    const { maxQueued } = load;
    this.#lone =
      lanes === null
        ? null
        : new LoneRequests({ lanes: lanes.most, open: lanes.open, scheduler: common, maxQueued, fatal });
  }

  /** False when the queue is full. Throws ApiError alone_unavailable. */
  submit(job: Job): boolean {
    if (job.alone !== true) return this.#shared.submit(job);
    if (this.#lone === null) throw notAlone('this model cannot run a request alone here');
    try {
      return this.#lone.submit(job);
    } catch {
      throw notAlone('there is no memory for a request that runs alone');
    }
  }

  /** Whether a request still has a slot or a place in a queue. */
  holds(id: number): boolean {
    return this.#shared.holds(id) || this.#lone?.holds(id) === true;
  }

  cancel(id: number): void {
    this.#shared.cancel(id);
    this.#lone?.cancel(id);
  }

  pause(id: number): void {
    this.#shared.pause(id);
    this.#lone?.pause(id);
  }

  resume(id: number): void {
    this.#shared.resume(id);
    this.#lone?.resume(id);
  }

  stats(): SchedulerStats {
    const shared = this.#shared.stats();
    return this.#lone === null ? shared : sumOfStats(shared, this.#lone.stats());
  }
}

export function notAlone(why: string): ApiError {
  return new ApiError('alone_unavailable', why, { param: 'assay-receipts' });
}
