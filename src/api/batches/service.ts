// The batches of a server: which there are, whose turn it is, when they end. The batches of one key run one
// after the other; keys take turns line by line (fair-slots). A fault of the disk or of the server is tried
// again until the batch's window ends, and no line is lost meanwhile.

import { ApiError } from '../../base/errors.ts';
import { framesOf } from '../../base/log.ts';
import { ENDED, type StoredBatch } from '../../files/batch-store.ts';
import type { Files } from '../../files/open.ts';
import { newId } from '../../files/ids.ts';
import { SealedError } from '../../files/sealed/format.ts';
import type { BackgroundWork, Route } from '../../http/route.ts';
import { FairSlots } from './fair-slots.ts';
import { BatchRun, Ending, NO_USAGE, type RunContext } from './run.ts';

export interface NewBatch {
  readonly owner: string;
  readonly endpoint: string;
  readonly inputFileId: string;
  readonly metadata: Readonly<Record<string, string>> | undefined;
  readonly outputExpiresAfterMs: number | undefined;
  readonly models: Readonly<Record<string, string>>;
  readonly evidence: StoredBatch['evidence'];
  readonly sealedRequest: StoredBatch['sealedRequest'];
  readonly receipts: boolean;
}

export const WINDOW_MS = 86_400_000;
/** Of one key; the oldest is forgotten, its files stay. */
const MAX_ENDED = 1000;
const RETRY_MS = 30_000;

interface Entry {
  readonly run: BatchRun;
  readonly release: () => void;
  readonly cancelExpiry: () => void;
  started: boolean;
}

class Stopped extends Error {
  override readonly name = 'Stopped';
}

export class BatchService {
  readonly #files: Files;
  readonly #work: BackgroundWork;
  readonly #context: RunContext;
  /** By id. */
  readonly #batches = new Map<string, StoredBatch>();
  /** Those that are not over, by id, oldest first. */
  readonly #entries = new Map<string, Entry>();
  /** Owners with a batch under way. */
  readonly #busy = new Set<string>();
  readonly #driven = new Set<Promise<void>>();
  /** Ends the pause of each batch that waits for another try. */
  readonly #pauses = new Set<() => void>();
  #stopping = false;
  #listening = false;

  constructor(files: Files, work: BackgroundWork, routes: readonly Route[]) {
    const { files: limits, limits: sizes } = work.deps.config;
    this.#files = files;
    this.#work = work;
    this.#context = {
      store: files.store,
      batches: files.batches,
      clock: files.clock,
      slots: new FairSlots(limits.batchConcurrency),
      replay: work.replay,
      routes: new Map(routes.map((route) => [route.path, route])),
      concurrency: limits.batchConcurrency,
      maxLineBytes: sizes.maxBodyBytes,
    };
    for (const batch of files.found.toSorted((a, b) => (a.id < b.id ? -1 : 1))) this.#add(batch);
  }

  start(): void {
    this.#listening = true;
    for (const owner of new Set(Array.from(this.#entries.values(), ({ run }) => run.batch.owner)))
      this.#next(owner);
  }

  /** Lines under way are dropped and run again after the next start. */
  async stop(): Promise<void> {
    this.#stopping = true;
    for (const { run, cancelExpiry } of this.#entries.values()) {
      cancelExpiry();
      run.stop(new Stopped('the server stops'));
    }
    for (const end of this.#pauses) end();
    await Promise.all(this.#driven);
  }

  /** 404 no_such_file, 400 for a file of another purpose, 429 too_many_batches. */
  async create(asked: NewBatch): Promise<StoredBatch> {
    const { store, batches, clock } = this.#files;
    const { owner, inputFileId } = asked;
    if (store.get(owner, inputFileId).purpose !== 'batch')
      throw new ApiError('invalid_value', 'input_file_id is not a file of purpose batch', {
        param: 'input_file_id',
      });
    const own = Array.from(this.#entries.values()).filter(({ run }) => run.batch.owner === owner);
    const most = this.#work.deps.config.files.maxBatchesPerKey;
    if (own.length >= most)
      throw new ApiError('too_many_batches', `this caller has ${most} batches that are not over`, {
        retryAfterSeconds: 60,
      });
    const now = clock.now();
    const batch: StoredBatch = {
      ...asked,
      id: newId('batch_', now),
      status: 'validating',
      createdAt: now,
      expiresAt: now + WINDOW_MS,
      total: 0,
      completed: 0,
      failed: 0,
      usage: NO_USAGE,
    };
    // Entered before it is written: the limit and the hold on its input stand from now on.
    this.#add(batch);
    try {
      await batches.add(batch);
    } catch (error) {
      this.#forget(batch.id);
      this.#batches.delete(batch.id);
      throw error;
    }
    this.#next(owner);
    return batch;
  }

  /** 404 no_such_batch. */
  get(owner: string, id: string): StoredBatch {
    const batch = this.#batches.get(id);
    if (batch?.owner !== owner)
      throw new ApiError('no_such_batch', 'there is no such batch, or it is not of this API key');
    return batch;
  }

  /** Oldest first. */
  list(owner: string): readonly StoredBatch[] {
    return Array.from(this.#batches.values()).filter((batch) => batch.owner === owner);
  }

  /** 404 no_such_batch, 409 batch_ended. */
  async cancel(owner: string, id: string): Promise<StoredBatch> {
    const { status } = this.get(owner, id);
    const entry = this.#entries.get(id);
    if (entry === undefined || status === 'finalizing' || ENDED.has(status))
      throw new ApiError('batch_ended', 'the batch is over and cannot be cancelled');
    if (status !== 'cancelling') {
      await entry.run.cancel();
      this.#drive(id, entry);
    }
    return this.get(owner, id);
  }

  #add(batch: StoredBatch): void {
    this.#batches.set(batch.id, batch);
    if (ENDED.has(batch.status)) return;
    const { store, clock } = this.#files;
    const run = new BatchRun(this.#context, batch, {
      principal: this.#work.owned(batch.owner) ?? null,
      onChange: (changed) => void this.#batches.set(changed.id, changed),
    });
    const entry: Entry = {
      run,
      release: store.hold(batch.inputFileId),
      cancelExpiry: clock.after(Math.max(0, batch.expiresAt - clock.now()), () => {
        run.stop(new Ending('expired'));
        this.#drive(batch.id, entry);
      }),
      started: false,
    };
    this.#entries.set(batch.id, entry);
  }

  /** Begins the oldest batch of an owner, unless one is under way. */
  #next(owner: string): void {
    if (!this.#listening || this.#busy.has(owner)) return;
    for (const [id, entry] of this.#entries) {
      if (entry.started || entry.run.batch.owner !== owner) continue;
      this.#busy.add(owner);
      this.#drive(id, entry, () => {
        this.#busy.delete(owner);
        this.#next(owner);
      });
      return;
    }
  }

  /** A batch that ends early does not wait for its turn. */
  #drive(id: string, entry: Entry, then: () => void = () => undefined): void {
    if (entry.started || this.#stopping || !this.#listening) return;
    entry.started = true;
    const driven = this.#driveToEnd(id, entry).finally(() => {
      this.#driven.delete(driven);
      then();
    });
    this.#driven.add(driven);
  }

  async #driveToEnd(id: string, { run }: Entry): Promise<void> {
    for (;;) {
      try {
        await run.run();
        return await this.#ended(id);
      } catch (error) {
        if (this.#stopping) return;
        try {
          if (await this.#isHopeless(run, error)) return await this.#ended(id);
        } catch (other) {
          this.#logFault(other);
        }
        await this.#pause();
        if (this.#stopping) return;
      }
    }
  }

  /** Before another try; the end of the server does not wait for it. */
  async #pause(): Promise<void> {
    if (this.#stopping) return;
    await new Promise<void>((resolve) => {
      const cancel = this.#files.clock.after(RETRY_MS, () => end());
      const end = (): void => {
        cancel();
        this.#pauses.delete(end);
        resolve();
      };
      this.#pauses.add(end);
    });
  }

  /** Ends a batch whose stored input or results are gone or damaged; all else may be well a moment later. */
  async #isHopeless(run: BatchRun, error: unknown): Promise<boolean> {
    this.#logFault(error);
    if (error instanceof SealedError || (error instanceof ApiError && error.code === 'file_damaged')) {
      await run.fail('file_damaged', 'a stored file of this batch is damaged or was changed');
      return true;
    }
    if (!(error instanceof ApiError && error.code === 'no_such_file')) return false;
    await run.fail('no_such_file', 'the input file is gone');
    return true;
  }

  #logFault(error: unknown): void {
    const code = error instanceof ApiError ? error.code : undefined;
    const at = error instanceof Error ? framesOf(error).slice(0, 8) : [];
    this.#work.deps.log.error(
      { code, kind: error instanceof Error ? error.name : typeof error, at },
      'a batch stopped',
    );
  }

  async #ended(id: string): Promise<void> {
    this.#forget(id);
    const batch = this.#batches.get(id);
    if (batch === undefined) return;
    const { status, total, completed, failed } = batch;
    this.#work.deps.log.info({ batch: id, status, total, completed, failed }, 'batch');
    const ended = this.list(batch.owner).filter((each) => ENDED.has(each.status));
    for (const old of ended.slice(0, Math.max(0, ended.length - MAX_ENDED))) {
      this.#batches.delete(old.id);
      await this.#files.batches.remove(old.id);
    }
  }

  #forget(id: string): void {
    const entry = this.#entries.get(id);
    this.#entries.delete(id);
    entry?.release();
    entry?.cancelExpiry();
  }
}
