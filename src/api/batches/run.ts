// One batch from its state to its end: check, lines, files. Each step begins by writing the state it is in
// and can be done again after a kill: results are read from their log, files are made under ids chosen
// before. Stops with the reason of its signal: an Ending ends the batch early, anything else leaves it for
// the next start.

import { setMaxListeners } from 'node:events';
import type { ReceiptChannel } from '@assay/attestation/receipt';
import type { Clock } from '../../base/clock.ts';
import type { ApiError } from '../../base/errors.ts';
import { entryOf } from '../../base/api-codes.ts';
import {
  type BatchStore,
  type BatchUsage,
  ENDED,
  encodeResult,
  type LineResult,
  type StoredBatch,
} from '../../files/batch-store.ts';
import type { FileStore } from '../../files/file-store.ts';
import { newId } from '../../files/ids.ts';
import type { SealedLog } from '../../files/sealed/log.ts';
import type { Principal } from '../../http/admission/auth.ts';
import type { Replay, Replayed, Route } from '../../http/route.ts';
import type { KeptReceipt } from '../../receipts/kept.ts';
import type { FairSlots } from './fair-slots.ts';
import { isRequest, type LineRequest, inputLines, lineId, type RawLine, readLine } from './lines.ts';
import { checkInput } from './validate.ts';
import { writeFiles } from './write-files.ts';

export interface RunContext {
  readonly store: FileStore;
  readonly batches: BatchStore;
  readonly clock: Clock;
  readonly slots: FairSlots;
  readonly replay: Replay;
  /** By path: the routes a batch may name. */
  readonly routes: ReadonlyMap<string, Route>;
  /** Lines of one batch under way at once. */
  readonly concurrency: number;
  readonly maxLineBytes: number;
}

/** Ends a batch before all of its lines ran. */
export class Ending extends Error {
  override readonly name = 'Ending';
  readonly as: 'cancelled' | 'expired';

  constructor(as: 'cancelled' | 'expired') {
    super(`the batch is ${as}`);
    this.as = as;
  }
}

export interface RunOptions {
  /** Null: the key that made it is no longer configured. */
  readonly principal: Principal | null;
  /** The state as it is now; called before each write. */
  readonly onChange: (batch: StoredBatch) => void;
}

/** A line that a fault of the server keeps from an answer is tried so often. */
const MAX_TRIES = 5;
/** The most results that a power cut takes from the log, and the longest time. */
const SYNC_RESULTS = 64;
const SYNC_MS = 1000;

export class BatchRun {
  readonly #context: RunContext;
  readonly #options: RunOptions;
  #batch: StoredBatch;
  #log: SealedLog | undefined;
  #unsynced = 0;
  #cancelSync: (() => void) | undefined;
  readonly #end = new AbortController();
  /** States are written one after the other. */
  #written: Promise<void> = Promise.resolve();
  /** Another than the batch has: its writing failed. */
  #storedStatus: StoredBatch['status'];

  constructor(context: RunContext, batch: StoredBatch, options: RunOptions) {
    this.#context = context;
    this.#batch = batch;
    this.#storedStatus = batch.status;
    this.#options = options;
  }

  get batch(): StoredBatch {
    return this.#batch;
  }

  /** Stops its lines. An Ending ends the batch; any other reason leaves it as it is, for the next start. */
  stop(reason: Error): void {
    this.#end.abort(reason);
  }

  /** Resolves when it is known, durably, that the batch ends early. */
  async cancel(): Promise<void> {
    const written = this.#change({ status: 'cancelling', cancellingAt: this.#context.clock.now() });
    this.stop(new Ending('cancelled'));
    await written;
  }

  /** The batch cannot go on. */
  async fail(code: string, message: string): Promise<void> {
    const errors = [{ code, message, param: null, line: null }];
    await this.#change({ status: 'failed', failedAt: this.#context.clock.now(), errors });
    // No file will be made of them.
    await this.#context.batches.removeResults(this.#batch.id);
  }

  /** Resolves when the batch has ended; rejects with the reason it stopped for. */
  async run(): Promise<void> {
    if (this.#options.principal === null && !this.#isEnding())
      return this.fail('invalid_api_key', 'the API key of this batch is no longer known');
    // Files are made under ids that are stored: a kill would leave others behind.
    if (this.#batch.status !== this.#storedStatus) await this.#change({});
    if (ENDED.has(this.#batch.status)) return this.#context.batches.removeResults(this.#batch.id);
    try {
      if (this.#batch.status === 'validating') await this.#check();
      if (this.#batch.status === 'in_progress') await this.#runLines();
    } catch (error) {
      if (!(error instanceof Ending)) throw error;
      if (this.#batch.status !== 'finalizing') await this.#finalize(error.as);
    }
    if (this.#batch.status === 'cancelling') await this.#finalize('cancelled');
    if (this.#batch.status === 'finalizing') await this.#finish();
    return undefined;
  }

  #isEnding(): boolean {
    return this.#batch.status === 'cancelling' || this.#batch.status === 'finalizing';
  }

  async #change(change: Partial<StoredBatch>): Promise<void> {
    this.#batch = { ...this.#batch, ...change };
    this.#options.onChange(this.#batch);
    const written = this.#written.then(() => this.#store());
    this.#written = written.catch(() => undefined);
    await written;
  }

  async #store(): Promise<void> {
    const batch = this.#batch;
    await this.#context.batches.write(batch);
    this.#storedStatus = batch.status;
  }

  async #check(): Promise<void> {
    const { owner, inputFileId, endpoint, models } = this.#batch;
    const { store, clock, maxLineBytes } = this.#context;
    const { total, errors } = await checkInput(store.read(owner, inputFileId), {
      endpoint,
      maxLineBytes,
      models: new Set(Object.keys(models)),
      signal: this.#end.signal,
    });
    this.#end.signal.throwIfAborted();
    if (errors.length > 0) await this.#change({ status: 'failed', failedAt: clock.now(), errors, total: 0 });
    else await this.#change({ status: 'in_progress', inProgressAt: clock.now(), total });
  }

  async #runLines(): Promise<void> {
    const { batches, store, concurrency, maxLineBytes } = this.#context;
    const { id, owner, inputFileId } = this.#batch;
    const done = new Set<number>();
    let counts = { completed: 0, failed: 0, usage: NO_USAGE };
    const log = await batches.openResults(id, (result) => {
      done.add(result.line);
      counts = counted(counts, result);
    });
    this.#log = log;
    this.#tell(counts);
    const under = new Set<Promise<void>>();
    // The first failure of a line stops the others: it is one of the log, or the end.
    const failure = new AbortController();
    const signal = AbortSignal.any([this.#end.signal, failure.signal]);
    // Each line listens: more of them than Node takes for a leak.
    setMaxListeners(concurrency + 1, signal);
    try {
      for await (const raw of inputLines(store.read(owner, inputFileId), maxLineBytes)) {
        if (done.has(raw.line)) continue;
        if (under.size >= concurrency) await Promise.race(under);
        signal.throwIfAborted();
        const line = this.#runLine(raw, signal)
          .catch((error: unknown) => failure.abort(error))
          .finally(() => under.delete(line));
        under.add(line);
      }
      await Promise.all(under);
      signal.throwIfAborted();
    } finally {
      failure.abort(new Error('the batch stopped'));
      await Promise.all(under);
      this.#cancelSync?.();
      this.#log = undefined;
      try {
        await log.sync();
      } finally {
        await log.close();
      }
    }
    await this.#finalize('completed');
  }

  async #runLine(raw: RawLine, signal: AbortSignal): Promise<void> {
    const read = readLine(raw, this.#batch.endpoint);
    // Checked before the first line ran; the content is authenticated.
    if (!isRequest(read)) throw new Error('a line has changed');
    const replayed = await this.#answered(read, signal);
    const good = replayed.status < 400;
    const { promptTokens, cachedTokens, completionTokens, reasoningTokens } = replayed.usage;
    await this.#record({
      line: raw.line,
      good,
      usage: {
        input: promptTokens,
        cached: cachedTokens,
        output: completionTokens,
        reasoning: reasoningTokens,
      },
      text: resultText(this.#batch, raw.line, read.customId, replayed),
    });
  }

  /** Tries again what a wait helps: a limit as long as the batch lives, a fault of the server a few times. */
  async #answered({ body, raw, bytes, heapBytes }: LineRequest, signal: AbortSignal): Promise<Replayed> {
    const { slots, replay, routes, clock } = this.#context;
    const { owner, endpoint, models } = this.#batch;
    const channel = channelOf(this.#batch);
    const route = routes.get(endpoint);
    const { principal } = this.#options;
    if (route === undefined || principal === null) throw new TypeError('a batch of a route that is none');
    const shown = new Map(Object.entries(models));
    for (let tries = 1; ; tries++) {
      const release = await slots.take(owner, signal);
      let replayed: Replayed;
      try {
        replayed = await replay({
          route,
          body,
          raw,
          bodyBytes: bytes,
          heapBytes,
          principal,
          shown,
          channel,
          signal,
        });
      } finally {
        release();
      }
      const { error } = replayed;
      if (error === null || !isWorthAgain(error, tries)) return replayed;
      await waited(clock, Math.max(1, error.retryAfterSeconds ?? 1) * 1000, signal);
    }
  }

  async #record(result: LineResult): Promise<void> {
    await this.#log?.append(encodeResult(result));
    // Read after the wait: other lines end meanwhile.
    this.#tell(counted(this.#batch, result));
    this.#unsynced += 1;
    if (this.#unsynced >= SYNC_RESULTS) await this.#sync();
    else
      this.#cancelSync ??= this.#context.clock.after(SYNC_MS, () => void this.#sync().catch(() => undefined));
  }

  async #sync(): Promise<void> {
    this.#cancelSync?.();
    this.#cancelSync = undefined;
    this.#unsynced = 0;
    await this.#log?.sync();
  }

  /** Progress is told, and written with the next state: the log has it. */
  #tell(counts: Pick<StoredBatch, 'completed' | 'failed' | 'usage'>): void {
    this.#batch = { ...this.#batch, ...counts };
    this.#options.onChange(this.#batch);
  }

  async #finalize(endsAs: 'completed' | 'cancelled' | 'expired'): Promise<void> {
    const now = this.#context.clock.now();
    await this.#change({
      status: 'finalizing',
      finalizingAt: now,
      endsAs,
      outputFileId: newId('file-', now),
      errorFileId: newId('file-', now),
    });
  }

  async #finish(): Promise<void> {
    const { batches, clock } = this.#context;
    const written = await writeFiles(this.#context, this.#batch);
    const { endsAs = 'completed' } = this.#batch;
    const now = clock.now();
    await this.#change({
      status: endsAs,
      ...written,
      [endsAs === 'completed' ? 'completedAt' : `${endsAs}At`]: now,
    });
    await batches.removeResults(this.#batch.id);
  }
}

export const NO_USAGE: BatchUsage = { input: 0, cached: 0, output: 0, reasoning: 0 };

type Counts = Pick<StoredBatch, 'completed' | 'failed' | 'usage'>;

function counted({ completed, failed, usage }: Counts, result: LineResult): Counts {
  return {
    completed: completed + Number(result.good),
    failed: failed + Number(!result.good),
    usage: {
      input: usage.input + result.usage.input,
      cached: usage.cached + result.usage.cached,
      output: usage.output + result.usage.output,
      reasoning: usage.reasoning + result.usage.reasoning,
    },
  };
}

function resultText(
  { id, receipts }: StoredBatch,
  line: number,
  customId: string,
  { status, requestId, body, receipt }: Replayed,
): string {
  const head = JSON.stringify({ id: lineId(id, line), custom_id: customId }).slice(0, -1);
  const made = receipts === true && receipt !== null ? `,"receipt":${receiptText(receipt)}` : '';
  const response = `{"status_code":${status},"request_id":${JSON.stringify(requestId)}${made},"body":${body}}`;
  return `${head},"response":${response},"error":null}`;
}

/** As GET /v1/receipts/{id} gives it. */
function receiptText({ receipt, salt }: KeptReceipt): string {
  const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
  return JSON.stringify({ receipt: base64(receipt), salt: base64(salt) });
}

function channelOf({ evidence, sealedRequest }: StoredBatch): ReceiptChannel {
  const bytes = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex, 'hex'));
  if (sealedRequest !== undefined) return { kind: 'sealed', request: bytes(sealedRequest) };
  if (evidence === undefined) return { kind: 'none' };
  return { kind: 'attested', claims: bytes(evidence.claims), report: bytes(evidence.report) };
}

function isWorthAgain({ code, status }: ApiError, tries: number): boolean {
  if (code === 'attestation_stale' || entryOf(code).act !== 'wait') return false;
  return status === 429 || tries < MAX_TRIES;
}

function waited(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason as Error);
    const leave = (): void => {
      cancel();
      reject(signal.reason as Error);
    };
    const cancel = clock.after(ms, () => {
      signal.removeEventListener('abort', leave);
      resolve();
    });
    signal.addEventListener('abort', leave, { once: true });
    return undefined;
  });
}
