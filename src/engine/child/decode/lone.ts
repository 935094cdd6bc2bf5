// Requests that run alone (docs/receipts.md §5, class 2). Each gets a lane: a context and a scheduler of its
// own, with one sequence, where a decode never holds anything else and the prompt is read from 0 in chunks of
// one size. Lanes and the scheduler of all other requests take turns, decode by decode. Of one scope (one per
// API key) one request runs at a time; the others wait in its queue, and the scopes are served in turn.

import type { DecodeContext, Job } from './batch.ts';
import { Scheduler, type SchedulerOptions, type SchedulerStats } from './scheduler.ts';

/** The context of a lane. */
export interface LaneContext extends DecodeContext {
  /** Forgets all of the request before, and overwrites it. */
  wipe(): void;
  /** Gives its memory back. */
  free(): void;
}

export interface LoneOptions {
  /** Lanes at once. */
  readonly lanes: number;
  /** Throws where there is no memory for one. */
  readonly open: () => LaneContext;
  readonly scheduler: Pick<SchedulerOptions, 'contextLength' | 'now' | 'turn' | 'decodes' | 'onStep'>;
  readonly maxQueued: number;
  readonly fatal: (error: unknown) => void;
}

interface Lane {
  readonly context: LaneContext;
  readonly scheduler: Scheduler;
  /** Of the request that runs; null: none. */
  scope: string | null;
}

const NOTHING: SchedulerStats = {
  queued: 0,
  active: 0,
  promptTokens: 0,
  completionTokens: 0,
  cachedTokens: 0,
  decodeSteps: 0,
};

export class LoneRequests {
  readonly #options: LoneOptions;
  readonly #lanes = new Set<Lane>();
  /** Waiting jobs of each scope, oldest first; the scopes in the order of their turns. */
  readonly #waiting = new Map<string, Job[]>();
  readonly #running = new Map<number, Lane>();
  /** Of lanes that are gone. */
  #past = NOTHING;

  constructor(options: LoneOptions) {
    this.#options = options;
  }

  /** False when the queue is full. Throws where no lane can be opened. */
  submit(job: Job): boolean {
    if (this.#queued >= this.#options.maxQueued) return false;
    const jobs = this.#waiting.get(job.scope);
    if (jobs === undefined) this.#waiting.set(job.scope, [job]);
    else jobs.push(job);
    try {
      this.#serve();
    } catch (error) {
      this.#takeOut(job.id);
      throw error;
    }
    return true;
  }

  holds(id: number): boolean {
    return this.#running.get(id)?.scheduler.holds(id) === true || this.#find(id) !== undefined;
  }

  cancel(id: number): void {
    const job = this.#takeOut(id);
    if (job === undefined) this.#running.get(id)?.scheduler.cancel(id);
    else job.release?.();
  }

  pause(id: number): void {
    this.#running.get(id)?.scheduler.pause(id);
  }

  resume(id: number): void {
    this.#running.get(id)?.scheduler.resume(id);
  }

  stats(): SchedulerStats {
    const all = [...this.#lanes].map(({ scheduler }) => scheduler.stats());
    const sum = all.reduce(sumOfStats, this.#past);
    return { ...sum, queued: sum.queued + this.#queued };
  }

  get #queued(): number {
    let count = 0;
    for (const jobs of this.#waiting.values()) count += jobs.length;
    return count;
  }

  #find(id: number): Job | undefined {
    for (const jobs of this.#waiting.values()) {
      const found = jobs.find((job) => job.id === id);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  #takeOut(id: number): Job | undefined {
    const job = this.#find(id);
    if (job === undefined) return undefined;
    const left = (this.#waiting.get(job.scope) ?? []).filter((each) => each !== job);
    if (left.length === 0) this.#waiting.delete(job.scope);
    else this.#waiting.set(job.scope, left);
    return job;
  }

  /** Starts waiting jobs of scopes that have none running, as far as there are lanes. */
  #serve(): void {
    // A scope that comes back to the end is passed over: its request runs.
    for (const scope of this.#waiting.keys()) {
      if ([...this.#lanes].some((lane) => lane.scope === scope)) continue;
      const lane = [...this.#lanes].find((each) => each.scope === null) ?? this.#opened();
      if (lane === undefined) return;
      const [job, ...left] = this.#waiting.get(scope) ?? [];
      this.#waiting.delete(scope);
      // A served scope goes to the end.
      if (left.length > 0) this.#waiting.set(scope, left);
      if (job !== undefined) this.#start(lane, job);
    }
  }

  #opened(): Lane | undefined {
    const { lanes, open, scheduler: common, fatal } = this.#options;
    if (this.#lanes.size >= lanes) return undefined;
    const context = contextOrWait(open, this.#lanes.size === 0);
    if (context === undefined) return undefined;
    const scheduler = new Scheduler(context, {
      ...common,
      slots: 1,
      maxQueued: 1,
      reusePrefixes: false,
      // No other sequence of the lane has to wait for a chunk.
      stallMs: Infinity,
      maxChunk: context.batchTokens,
    });
    scheduler.run().catch(fatal);
    const lane: Lane = { context, scheduler, scope: null };
    this.#lanes.add(lane);
    return lane;
  }

  #start(lane: Lane, job: Job): void {
    lane.scope = job.scope;
    lane.context.wipe();
    this.#running.set(job.id, lane);
    const release = (): void => {
      job.release?.();
      void this.#over(lane, job.id);
    };
    lane.scheduler.submit({ ...job, background: false, release });
  }

  async #over(lane: Lane, id: number): Promise<void> {
    // The step that ended it still uses the context.
    await this.#options.scheduler.turn();
    this.#running.delete(id);
    lane.scope = null;
    this.#serve();
    // #serve may have given it the next request.
    if ((lane.scope as string | null) !== null) return;
    this.#past = sumOfStats(this.#past, { ...lane.scheduler.stats(), queued: 0, active: 0 });
    this.#lanes.delete(lane);
    lane.context.free();
  }
}

/** Undefined: no memory for a further one, so a request waits for the lanes there are. */
function contextOrWait(open: LoneOptions['open'], first: boolean): LaneContext | undefined {
  try {
    return open();
  } catch (error) {
    if (first) throw error;
    return undefined;
  }
}

export function sumOfStats(a: SchedulerStats, b: SchedulerStats): SchedulerStats {
  return {
    queued: a.queued + b.queued,
    active: a.active + b.active,
    promptTokens: a.promptTokens + b.promptTokens,
    completionTokens: a.completionTokens + b.completionTokens,
    cachedTokens: a.cachedTokens + b.cachedTokens,
    decodeSteps: a.decodeSteps + b.decodeSteps,
  };
}
