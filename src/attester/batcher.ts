// One hardware report answers many nonces: requests that wait while a report is made become the leaves of the next one's
// Merkle tree (docs/protocol.md §2). A quote takes tens of milliseconds and they are serialised, so without this the endpoint
// would be a denial of service. Bounds: requests waiting (429 attestation_rate_limited), requests of one client per minute
// (429), leaves of one report. A request that is aborted leaves the queue; its quota stays spent.

import { createHash } from 'node:crypto';
import { MAX_TREE_SIZE, reportData, type AttestationDocument, type AttestedModel } from '@assay/attestation';
import { ApiError } from '../base/errors.ts';
import type { Attester, AttesterStatus, AttestRequest } from './attester.ts';
import {
  claimsFor,
  documentOf,
  subjectOf,
  type ClaimContext,
  type Report,
  type ReportSource,
  type Subject,
} from './assemble.ts';

export interface BatcherOptions {
  readonly source: ReportSource;
  readonly context: ClaimContext;
  /** Everything that can be served now. */
  readonly models: () => readonly AttestedModel[];
  /** Unix milliseconds. */
  readonly now: () => number;
  readonly timeoutMs: number;
  /** Leaves of one report. */
  readonly batchMax: number;
  readonly maxQueue: number;
  /** Per client; 0: no limit. */
  readonly perMinute: number;
  /** One call per report made or failed; for the log. */
  readonly onReport?:
    | ((report: {
        readonly answered: number;
        readonly milliseconds: number;
        readonly error?: unknown;
      }) => void)
    | undefined;
}

export interface BatchingAttester extends Attester {
  /** Evidence without nonce and exporter, for the certificate. */
  attestCertificate(signal: AbortSignal): Promise<AttestationDocument>;
  close(): Promise<void>;
}

interface Waiting {
  /** Model id and digest: requests with the same one can share a report. */
  readonly group: string;
  readonly subject: Subject;
  readonly nonce: Uint8Array | undefined;
  readonly exporter: Uint8Array | undefined;
  readonly resolve: (document: AttestationDocument) => void;
  readonly reject: (error: unknown) => void;
  gone: boolean;
}

/** Clients remembered for the per-minute budget; the longest unseen is forgotten first. */
const MAX_CLIENTS = 10_000;

export function createBatcher(options: BatcherOptions): BatchingAttester {
  const { source } = options;
  const queue: Waiting[] = [];
  const budget = createBudget(options.perMinute, options.now);
  const counts = { reports: 0, answered: 0, failed: 0 };
  const stop = new AbortController();
  let running: Promise<void> | undefined;
  let lastReportMs = 50;
  /** The digest over all models, kept while the list is the same one: attesting must not cost more with more models. */
  let everything: Subject | undefined;

  function subject(modelId: string | undefined): Subject {
    const models = options.models();
    if (modelId !== undefined) return subjectOf(models, modelId);
    if (everything?.models !== models) everything = subjectOf(models, undefined);
    return everything;
  }

  function enqueue(
    subject: Subject,
    nonce: Uint8Array | undefined,
    exporter: Uint8Array | undefined,
    signal: AbortSignal,
  ): Promise<AttestationDocument> {
    if (!source.available)
      return Promise.reject(failed('the TEE no longer makes reports; the machine must be restarted'));
    // Strangers who fill the queue must not keep the certificate from being renewed.
    if (nonce !== undefined && queue.length >= options.maxQueue) {
      const batches = Math.ceil(queue.length / options.batchMax);
      return Promise.reject(
        limited('too many attestations are waiting', Math.ceil((batches * lastReportMs) / 1000)),
      );
    }
    return new Promise<AttestationDocument>((resolve, reject) => {
      const leave = (): void => {
        waiting.gone = true;
        const at = queue.indexOf(waiting);
        if (at >= 0) queue.splice(at, 1);
        reject(signal.reason as Error);
      };
      const settle =
        <T>(then: (value: T) => void) =>
        (value: T): void => {
          signal.removeEventListener('abort', leave);
          then(value);
        };
      const group = `${subject.claim.id}\0${Buffer.from(subject.claim.sha256).toString('hex')}`;
      const waiting: Waiting = {
        group,
        subject,
        nonce,
        exporter,
        resolve: settle(resolve),
        reject: settle(reject),
        gone: false,
      };
      signal.addEventListener('abort', leave, { once: true });
      queue.push(waiting);
      running ??= run();
    });
  }

  /** One report at a time until nobody waits. */
  async function run(): Promise<void> {
    // What else arrives in this turn of the event loop joins the first batch.
    await new Promise<void>((resolve) => setImmediate(resolve));
    while (queue.length > 0) await answer(takeBatch());
    running = undefined;
  }

  /** The oldest request and all that ask for the same model, up to the limit: they share the second half of report_data. */
  function takeBatch(): Waiting[] {
    const first = queue[0];
    if (first === undefined) return [];
    const batch: Waiting[] = [];
    const rest: Waiting[] = [];
    const limit = Math.min(options.batchMax, MAX_TREE_SIZE);
    for (const waiting of queue) {
      (waiting.group === first.group && batch.length < limit ? batch : rest).push(waiting);
    }
    queue.splice(0, queue.length, ...rest);
    return batch;
  }

  async function answer(batch: readonly Waiting[]): Promise<void> {
    const started = options.now();
    const issuedAt = Math.floor(started / 1000);
    try {
      const claims = batch.map(({ subject, nonce, exporter }) =>
        claimsFor(
          options.context,
          subject,
          issuedAt,
          nonce === undefined || exporter === undefined ? undefined : { nonce, exporter },
        ),
      );
      const tree = treeOf(claims);
      const subject = batch[0]!.subject;
      const made = await makeReport(reportData(tree.root, subject.claim.sha256));
      counts.reports += 1;
      lastReportMs = options.now() - started;
      for (const [i, waiting] of batch.entries()) {
        if (waiting.gone) continue;
        counts.answered += 1;
        const inclusion = { index: i, size: batch.length, path: tree.paths[i]! };
        waiting.resolve(
          documentOf({
            teeType: source.teeType,
            made,
            root: tree.root,
            subject: waiting.subject,
            claims: claims[i]!,
            issuedAt,
            inclusion,
            ...(waiting.nonce === undefined ? {} : { nonce: waiting.nonce }),
          }),
        );
      }
      options.onReport?.({ answered: batch.length, milliseconds: lastReportMs });
    } catch (error) {
      counts.failed += 1;
      options.onReport?.({ answered: 0, milliseconds: options.now() - started, error });
      for (const waiting of batch) waiting.reject(failed('the TEE did not make a report', error));
    }
  }

  async function makeReport(data: Uint8Array): Promise<Report> {
    // Not AbortSignal.timeout: `any` holds its parts weakly, and one that was garbage collected never fires (Node 20).
    const late = new AbortController();
    const timer = setTimeout(
      () => late.abort(new DOMException('no report in time', 'TimeoutError')),
      options.timeoutMs,
    );
    const signal = AbortSignal.any([stop.signal, late.signal]);
    try {
      return await raced(source.report(data, signal), signal);
    } finally {
      clearTimeout(timer);
    }
  }

  return {
    teeType: source.teeType,
    async attest(request: AttestRequest) {
      request.signal.throwIfAborted();
      const wait = budget.take(request.clientId);
      if (wait > 0) throw limited('this client asks for attestations too often', Math.ceil(wait / 1000));
      return enqueue(subject(request.modelId), request.nonce, request.exporter, request.signal);
    },
    attestCertificate: async (signal) => enqueue(subject(undefined), undefined, undefined, signal),
    status: (): AttesterStatus => ({
      teeType: source.teeType,
      available: source.available,
      queued: queue.length,
      ...counts,
      endorsementsExpireAt: source.endorsementsExpireAt(),
      endorsementsError: source.endorsementsError(),
    }),
    async close() {
      stop.abort(new Error('the attester is closed'));
      for (const waiting of queue.splice(0)) waiting.reject(failed('the server is shutting down'));
      await running;
      await source.close();
    },
  };
}

/** Root and all inclusion paths of RFC 9162 §2.1.1 in O(n): asking leaf by leaf would hash the tree once per nonce. */
export function treeOf(entries: readonly Uint8Array[]): {
  readonly root: Uint8Array;
  readonly paths: readonly (readonly Uint8Array[])[];
} {
  const paths: Uint8Array[][] = entries.map(() => []);
  const build = (from: number, to: number): Uint8Array => {
    if (to - from === 1) return hash(0, entries[from]!);
    let split = 1;
    while (split * 2 < to - from) split *= 2;
    const left = build(from, from + split);
    const right = build(from + split, to);
    for (let i = from; i < from + split; i++) paths[i]!.push(right);
    for (let i = from + split; i < to; i++) paths[i]!.push(left);
    return hash(1, left, right);
  };
  return { root: build(0, entries.length), paths };
}

function hash(prefix: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const digest = createHash('sha256').update(Uint8Array.of(prefix));
  for (const part of parts) digest.update(part);
  return new Uint8Array(digest.digest());
}

/** Token bucket per client. `take` spends one and returns 0, or returns milliseconds until one is there. */
function createBudget(perMinute: number, now: () => number): { take(client: string): number } {
  const buckets = new Map<string, { tokens: number; at: number }>();
  return {
    take(client) {
      if (perMinute === 0) return 0;
      const time = now();
      const bucket = buckets.get(client) ?? { tokens: perMinute, at: time };
      buckets.delete(client);
      buckets.set(client, bucket);
      bucket.tokens = Math.min(
        perMinute,
        bucket.tokens + (Math.max(0, time - bucket.at) * perMinute) / 60_000,
      );
      bucket.at = time;
      if (buckets.size > MAX_CLIENTS) buckets.delete(buckets.keys().next().value!);
      if (bucket.tokens < 1) return ((1 - bucket.tokens) * 60_000) / perMinute;
      bucket.tokens -= 1;
      return 0;
    },
  };
}

/** A source that ignores its signal must not hold the queue for ever. */
function raced<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason as Error);
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}

function failed(message: string, cause?: unknown): ApiError {
  return new ApiError('attestation_failed', message, cause === undefined ? {} : { cause });
}

function limited(message: string, seconds: number): ApiError {
  return new ApiError('attestation_rate_limited', message, { retryAfterSeconds: Math.max(1, seconds) });
}
