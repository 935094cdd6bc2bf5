// The jobs of a workshop: a bounded queue with a share for each caller, a few places, and the folder that
// outlives the process. A job that was queued when the process ended waits again; one that ran is
// `interrupted`. Every job that is over has a record, signed before its state says so.

import { ApiError } from '../../base/errors.ts';
import { shareOf } from '../../http/admission/permits.ts';
import type { Clock } from '../../base/clock.ts';
import type { JobKind, JobPlan } from '../kind.ts';
import { sweep } from '../jail/sweep.ts';
import { JobFolder, newJobId } from './folder.ts';
import { assertInput } from './inputs.ts';
import { LogTail } from './lines.ts';
import type { RunTool, Signer } from './record.ts';
import { cancelled, interrupted, noSuchJob, notOver } from './endings.ts';
import { writtenEnd } from './finish.ts';
import { assertConfined, markOf, type JobContext, ranAs, type RunReport, runJob, toolOf } from './run.ts';
import { isOver, type StoredJob } from './state.ts';

export interface JobsOptions {
  readonly context: Omit<JobContext, 'folder'>;
  readonly folder: string;
  readonly kinds: ReadonlyMap<string, JobKind>;
  readonly signer: Signer;
  /** Of a job that never came to run its program. */
  readonly ownTool: RunTool;
  readonly clock: Clock;
  readonly limits: {
    readonly running: number;
    readonly queued: number;
    /** Kept altogether, and of one caller; the oldest that is over makes room. */
    readonly kept: number;
    readonly keptPerCaller: number;
  };
  readonly log: { info(fields: object): void; error(fields: object): void };
}

interface Live {
  job: StoredJob;
  readonly tail: LogTail;
  readonly abort: AbortController;
  readonly over: Promise<StoredJob>;
  readonly settle: (job: StoredJob) => void;
  /** Its state is on the disk; until then it is not started, and ended by `submit` alone. */
  durable: boolean;
  progress: number;
  stage: string | null;
}

/** Why a running job ends early; the state it gets. */
type Stop = 'cancelled' | 'interrupted';

export class Jobs {
  readonly #options: JobsOptions;
  readonly #folder: JobFolder;
  readonly #jobs = new Map<string, StoredJob>();
  /** Queued and running. */
  readonly #live = new Map<string, Live>();
  readonly #queue: string[] = [];
  readonly #places: boolean[];
  #closed = false;

  private constructor(options: JobsOptions) {
    this.#options = options;
    this.#folder = new JobFolder(options.folder);
    this.#places = Array.from({ length: options.limits.running }, () => false);
  }

  static async open(options: JobsOptions): Promise<Jobs> {
    const jobs = new Jobs(options);
    await jobs.#restore();
    return jobs;
  }

  /** Codes of the kinds and of `assertInput`; 403, 404, 429, 503. Resolves once it is durable. */
  async submit(owner: string, kind: JobKind, plan: JobPlan): Promise<StoredJob> {
    const { clock, limits, context } = this.#options;
    if (this.#closed)
      throw new ApiError('server_shutting_down', 'the workshop is shutting down', { retryAfterSeconds: 5 });
    if (kind.network && !context.network)
      throw new ApiError(
        'network_disabled',
        'this kind of job needs the network, which is off (workshop.network)',
      );
    const missing = await kind.missing();
    if (missing !== null) throw new ApiError('tool_unavailable', missing);
    assertConfined(kind, context.build);
    for (const ref of plan.inputs) await assertInput(ref, { owner, sources: context.sources });
    this.#admit(owner, limits.queued);
    const job: StoredJob = {
      version: 1,
      id: newJobId(kind.idPrefix ?? 'job-', clock.now()),
      owner,
      kind: kind.name,
      state: 'queued',
      created: clock.now(),
      started: null,
      finished: null,
      progress: 0,
      stage: null,
      error: null,
      plan,
      inputs: [],
      outputs: [],
      barriers: [],
      tool: undefined,
      result: null,
      log: [],
      recorded: false,
    };
    // Taken before it is written: two requests at once must not both get the last place.
    const live = this.#enqueue(job, false);
    try {
      await this.#makeRoom(owner);
      await this.#folder.create(job);
    } catch (error) {
      this.#forget(job.id);
      await this.#folder.remove(job.id);
      throw error;
    }
    live.durable = true;
    if (live.abort.signal.aborted) await this.#cancelWaiting(live);
    this.#next();
    return live.job;
  }

  list(owner: string): readonly StoredJob[] {
    return [...this.#jobs.values()].filter((job) => job.owner === owner).map((job) => this.#shown(job));
  }

  /** 404 no_such_job. */
  get(owner: string, id: string): StoredJob {
    const job = this.#jobs.get(id);
    if (job?.owner !== owner) throw noSuchJob();
    return this.#shown(job);
  }

  /** Resolves once it is over, or with its state when the signal aborts. */
  async wait(owner: string, id: string, signal: AbortSignal): Promise<StoredJob> {
    const job = this.get(owner, id);
    const live = this.#live.get(id);
    if (live === undefined) return job;
    let leave = (): void => undefined;
    const left = new Promise<void>((resolve) => (leave = resolve));
    signal.addEventListener('abort', leave, { once: true });
    if (signal.aborted) leave();
    await Promise.race([live.over, left]);
    // A signal with a listener is kept until its time is over.
    signal.removeEventListener('abort', leave);
    return this.get(owner, id);
  }

  /** Resolves once all of it has ended; a job that is over stays as it is. */
  async cancel(owner: string, id: string): Promise<StoredJob> {
    this.get(owner, id);
    const live = this.#live.get(id);
    if (live === undefined) return this.get(owner, id);
    live.abort.abort('cancelled' satisfies Stop);
    if (live.durable && this.#queue.includes(id)) await this.#cancelWaiting(live);
    await live.over;
    return this.get(owner, id);
  }

  async #cancelWaiting(live: Live): Promise<void> {
    this.#queue.splice(this.#queue.indexOf(live.job.id), 1);
    await this.#finish(live, { state: 'cancelled', error: cancelled() });
  }

  /** 409 job_not_over. */
  async remove(owner: string, id: string): Promise<void> {
    if (!isOver(this.get(owner, id))) throw notOver();
    this.#jobs.delete(id);
    await this.#folder.remove(id);
  }

  /** The path of an output, or of a folder of outputs; undefined when there is none of that name. */
  outputOf(owner: string, id: string, name: string): string | undefined {
    const job = this.#jobs.get(id);
    if (job?.owner !== owner || job.state !== 'done') return undefined;
    const isThere = job.outputs.some((output) => output.name === name || output.name.startsWith(`${name}/`));
    return isThere ? this.#folder.of(id, 'out', name) : undefined;
  }

  async record(owner: string, id: string): Promise<Buffer | undefined> {
    if (!isOver(this.get(owner, id))) throw notOver();
    return this.#folder.record(id);
  }

  async evidence(owner: string, id: string): Promise<Buffer | undefined> {
    if (!isOver(this.get(owner, id))) throw notOver();
    return this.#folder.evidence(id);
  }

  /** Running jobs end as interrupted; queued ones wait for the next start. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#queue.length = 0;
    const running = [...this.#live.values()].filter(({ job }) => job.state === 'running');
    for (const { abort } of running) abort.abort('interrupted' satisfies Stop);
    await Promise.all(running.map(({ over }) => over));
  }

  async #restore(): Promise<void> {
    const { context, log } = this.#options;
    const left = await sweep(
      markOf(context.instance, ''),
      () => new Promise((resolve) => setTimeout(resolve, 20)),
    );
    if (left > 0)
      throw new Error('processes of jobs of an earlier start are still there and cannot be ended');
    for (const job of await this.#folder.open((what) => log.error({ msg: 'a job cannot be read', what }))) {
      this.#jobs.set(job.id, job);
      if (isOver(job)) continue;
      const live = this.#enqueue(job, true);
      if (job.state === 'queued' && this.#options.kinds.has(job.kind)) continue;
      this.#queue.splice(this.#queue.indexOf(job.id), 1);
      await this.#finish(live, { state: 'interrupted', error: interrupted() });
    }
    this.#next();
  }

  #admit(owner: string, most: number): void {
    const waiting = this.#queue.map((id) => this.#jobs.get(id));
    const own = waiting.filter((job) => job?.owner === owner).length;
    if (waiting.length >= most || own >= Math.max(1, shareOf(most)))
      throw new ApiError('too_many_jobs', 'as many jobs wait as may', { retryAfterSeconds: 30 });
  }

  /** The oldest job that is over makes room for a new one. */
  async #makeRoom(owner: string): Promise<void> {
    const { kept, keptPerCaller } = this.#options.limits;
    const all = [...this.#jobs.values()];
    const own = all.filter((job) => job.owner === owner);
    const victims = [
      ...own.filter(isOver).slice(0, Math.max(0, own.length - keptPerCaller)),
      ...all.filter(isOver).slice(0, Math.max(0, all.length - kept)),
    ];
    for (const { id } of new Set(victims)) {
      this.#jobs.delete(id);
      await this.#folder.remove(id);
    }
  }

  #enqueue(job: StoredJob, durable: boolean): Live {
    let settle: (job: StoredJob) => void = () => undefined;
    const over = new Promise<StoredJob>((resolve) => (settle = resolve));
    const live: Live = {
      job,
      tail: new LogTail(job.log),
      abort: new AbortController(),
      over,
      settle,
      durable,
      progress: 0,
      stage: null,
    };
    this.#jobs.set(job.id, job);
    this.#live.set(job.id, live);
    this.#queue.push(job.id);
    return live;
  }

  /** Of one that never came to be; a wait for its end is answered. */
  #forget(id: string): void {
    const live = this.#live.get(id);
    this.#jobs.delete(id);
    this.#live.delete(id);
    const at = this.#queue.indexOf(id);
    if (at >= 0) this.#queue.splice(at, 1);
    live?.settle(live.job);
  }

  /** Starts what waits, the caller with fewest running jobs first. */
  #next(): void {
    for (;;) {
      const place = this.#places.indexOf(false);
      if (this.#closed || place < 0 || this.#queue.length === 0) return;
      const running = (owner: string): number =>
        [...this.#live.values()].filter(({ job }) => job.state === 'running' && job.owner === owner).length;
      const [first] = this.#queue
        .filter((id) => this.#live.get(id)?.durable === true)
        .toSorted(
          (a, b) => running(this.#jobs.get(a)?.owner ?? '') - running(this.#jobs.get(b)?.owner ?? ''),
        );
      const live = first === undefined ? undefined : this.#live.get(first);
      if (first === undefined || live === undefined) return;
      this.#queue.splice(this.#queue.indexOf(first), 1);
      this.#places[place] = true;
      live.job = { ...live.job, state: 'running', started: this.#options.clock.now() };
      this.#jobs.set(first, live.job);
      void this.#run(live, place).finally(() => {
        this.#places[place] = false;
        this.#next();
      });
    }
  }

  async #run(live: Live, place: number): Promise<void> {
    const { context, kinds } = this.#options;
    const { abort, tail } = live;
    const { id, owner, plan } = live.job;
    const report: RunReport = { inputs: [], origins: {}, tool: undefined, barriers: [] };
    const kind = kinds.get(live.job.kind);
    try {
      await this.#folder.write(live.job);
      if (kind === undefined) throw new ApiError('kind_disabled', 'this kind of job is gone');
      const run = {
        id,
        owner,
        kind,
        plan,
        place,
        signal: abort.signal,
        onProgress: (progress: number, stage: string | undefined): void => {
          live.progress = progress;
          if (stage !== undefined && stage !== live.stage) tail.add((live.stage = stage));
        },
        onLog: (line: string): void => tail.add(line),
        onKnown: async (): Promise<void> => {
          live.job = { ...live.job, ...ranAs(report) };
          this.#jobs.set(id, live.job);
          await this.#folder.write(live.job);
        },
      };
      const { outputs, result } = await runJob({ ...context, folder: this.#folder }, run, report);
      await this.#finish(live, { state: 'done', outputs, result, progress: 1, report });
    } catch (error) {
      await this.#finish(live, { ...this.#failure(error, abort.signal), report });
    }
  }

  #failure(error: unknown, signal: AbortSignal): Ending {
    if (signal.aborted && signal.reason === 'interrupted')
      return { state: 'interrupted', error: interrupted() };
    if (signal.aborted) return { state: 'cancelled', error: cancelled() };
    if (error instanceof ApiError) {
      const { code, message, param } = error;
      return { state: 'failed', error: { code, message, param } };
    }
    this.#options.log.error({ msg: 'a job failed by a fault of the workshop', err: error });
    return {
      state: 'failed',
      error: { code: 'internal_error', message: 'the workshop failed to run it', param: null },
    };
  }

  /** Record first, state last. Never throws: a job that cannot be written stays over in memory. */
  async #finish(live: Live, ending: Ending): Promise<void> {
    const { clock, log, signer, ownTool } = this.#options;
    const { report, ...end } = ending;
    const tool = report?.tool ?? toolOf(live.job) ?? ownTool;
    const ran = report === undefined ? live.job : { ...live.job, ...ranAs(report) };
    const { plan } = ran;
    let job: StoredJob = {
      ...ran,
      plan: { ...plan, parameters: { ...plan.parameters, ...report?.origins } },
      progress: live.progress,
      stage: live.stage,
      outputs: [],
      result: null,
      ...end,
      started: live.job.started,
      finished: clock.now(),
      log: live.tail.lines,
    };
    job = await writtenEnd(job, { folder: this.#folder, signer, tool, log });
    live.job = job;
    this.#jobs.set(job.id, job);
    this.#live.delete(job.id);
    log.info({
      msg: 'job',
      job: job.id,
      kind: job.kind,
      state: job.state,
      code: job.error?.code,
      ms: clock.now() - (job.started ?? job.created),
    });
    live.settle(job);
  }

  #shown(job: StoredJob): StoredJob {
    const live = this.#live.get(job.id);
    if (live === undefined) return job;
    return { ...job, progress: live.progress, stage: live.stage, log: live.tail.lines };
  }
}

type Ending = Pick<StoredJob, 'state'> &
  Partial<Pick<StoredJob, 'error' | 'outputs' | 'result' | 'progress'>> & {
    readonly report?: RunReport | undefined;
  };
