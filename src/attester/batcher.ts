// One hardware report answers many nonces: requests that wait while a report is made become the leaves of the
// next one's Merkle tree (docs/protocol.md §2). A quote takes tens of milliseconds, and the device makes one
// at a time: without batches a few clients could block the endpoint. Bounds: requests waiting (429
// attestation_rate_limited), requests of one client per minute (429), leaves of one report. A request that is
// aborted leaves the queue; its quota stays spent.

import {
  leafHash,
  MAX_TREE_SIZE,
  reportData,
  type AttestationDocument,
  type AttestedModel,
} from '@assay/attestation';
import { merkleTree, type MerkleTree } from '@assay/attestation/issue';
import type { GpuSection, GpuSource } from './gpu/source.ts';
import { ApiError, overloaded } from '../base/errors.ts';
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
  /** Evidence of GPUs to bind as claim 9; each nonce is answered by all of them. */
  readonly gpu?: GpuSource | undefined;
  readonly context: ClaimContext;
  /** All models that can be served now. */
  readonly models: () => readonly AttestedModel[];
  /** Unix milliseconds. */
  readonly now: () => number;
  /** Seconds of sealed time, which evidence for sealed bodies is dated by; default `now`. */
  readonly sealedNow?: (() => number) | undefined;
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

interface Asked {
  readonly subject: Subject;
  /** Both absent: for the certificate; no exporter alone: for sealed bodies. */
  readonly nonce: Uint8Array | undefined;
  readonly exporter: Uint8Array | undefined;
  readonly signal: AbortSignal;
  /** Of this program: waits however long the queue is. */
  readonly own: boolean;
}

/** Devices answer one nonce at a time, in tenths of a second: a report waits for no more of them. */
const GPU_BATCH_MAX = 4;

/** Clients remembered for the per-minute budget; the least recently seen is forgotten first. */
const MAX_CLIENTS = 10_000;

export function createBatcher(options: BatcherOptions): BatchingAttester {
  return new Batcher(options);
}

class Batcher implements BatchingAttester {
  readonly teeType: BatchingAttester['teeType'];
  readonly #options: BatcherOptions;
  readonly #queue: Waiting[] = [];
  readonly #budget: { take(client: string): number };
  readonly #counts = { reports: 0, answered: 0, failed: 0 };
  readonly #stop = new AbortController();
  #running: Promise<void> | undefined;
  #lastReportMs = 50;
  /**
   * The digest over all models, kept while the list stays the same, so that the cost does
   * not grow with the models.
   */
  #everything: Subject | undefined;

  constructor(options: BatcherOptions) {
    this.teeType = options.source.teeType;
    this.#options = options;
    this.#budget = createBudget(options.perMinute, options.now);
  }

  async attest(request: AttestRequest): Promise<AttestationDocument> {
    request.signal.throwIfAborted();
    const { clientId, nonce, exporter, signal } = request;
    const wait = clientId === null ? 0 : this.#budget.take(clientId);
    if (wait > 0) throw limited('this client asks for attestations too often', Math.ceil(wait / 1000));
    const subject = this.#subject(request.modelId);
    return this.#enqueue({ subject, nonce, exporter, signal, own: clientId === null });
  }

  async attestCertificate(signal: AbortSignal): Promise<AttestationDocument> {
    return this.#enqueue({
      subject: this.#subject(undefined),
      nonce: undefined,
      exporter: undefined,
      signal,
      own: true,
    });
  }

  status(): AttesterStatus {
    const { source } = this.#options;
    return {
      teeType: this.teeType,
      available: source.available,
      queued: this.#queue.length,
      ...this.#counts,
      endorsementsExpireAt: source.endorsementsExpireAt(),
      endorsementsError: source.endorsementsError(),
    };
  }

  async close(): Promise<void> {
    this.#stop.abort(new Error('the attester is closed'));
    for (const waiting of this.#queue.splice(0)) waiting.reject(failed('the server is shutting down'));
    await this.#running;
    await this.#options.source.close();
    await this.#options.gpu?.close();
  }

  #subject(modelId: string | undefined): Subject {
    const models = this.#options.models();
    if (modelId !== undefined) return subjectOf(models, modelId);
    if (this.#everything?.models !== models) this.#everything = subjectOf(models, undefined);
    return this.#everything;
  }

  #enqueue({ subject, nonce, exporter, signal, own }: Asked): Promise<AttestationDocument> {
    const queue = this.#queue;
    const { source, maxQueue, batchMax } = this.#options;
    if (!source.available)
      return Promise.reject(failed('the TEE no longer makes reports; the machine must be restarted'));
    // A queue filled by strangers must keep neither the certificate from being renewed nor a job from its
    // record.
    if (!own && queue.length >= maxQueue) {
      const seconds = Math.ceil((Math.ceil(queue.length / batchMax) * this.#lastReportMs) / 1000);
      return Promise.reject(limited('too many attestations are waiting', seconds));
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
      const waiting: Waiting = {
        group: `${subject.claim.id}\0${Buffer.from(subject.claim.sha256).toString('hex')}`,
        subject,
        nonce,
        exporter,
        resolve: settle(resolve),
        reject: settle(reject),
        gone: false,
      };
      signal.addEventListener('abort', leave, { once: true });
      queue.push(waiting);
      this.#running ??= this.#run();
    });
  }

  /** One report at a time until the queue is empty. */
  async #run(): Promise<void> {
    // Requests that arrive in this turn of the event loop join the first batch.
    await new Promise<void>((resolve) => setImmediate(resolve));
    while (this.#queue.length > 0) await this.#answer(this.#takeBatch());
    this.#running = undefined;
  }

  /**
   * The oldest request and all that ask for the same model, up to the limit: they share the
   * second half of report_data.
   */
  #takeBatch(): Waiting[] {
    const first = this.#queue[0];
    if (first === undefined) return [];
    const batch: Waiting[] = [];
    const rest: Waiting[] = [];
    const most = this.#options.gpu === undefined ? MAX_TREE_SIZE : GPU_BATCH_MAX;
    const limit = Math.min(this.#options.batchMax, most);
    for (const waiting of this.#queue) {
      (waiting.group === first.group && batch.length < limit ? batch : rest).push(waiting);
    }
    this.#queue.splice(0, this.#queue.length, ...rest);
    return batch;
  }

  async #answer(batch: readonly Waiting[]): Promise<void> {
    const { now, context, onReport, sealedNow } = this.#options;
    const started = now();
    const seconds = Math.floor(started / 1000);
    const issued = batch.map(({ nonce, exporter }) =>
      nonce !== undefined && exporter === undefined ? (sealedNow?.() ?? seconds) : seconds,
    );
    try {
      const gpus = await this.#gpuEvidence(batch);
      const claims = batch.map(({ subject, nonce, exporter }, i) => {
        const challenge = nonce === undefined ? undefined : { nonce, exporter, gpu: gpus[i]?.claim };
        return claimsFor(context, subject, issued[i] ?? seconds, challenge);
      });
      const tree = treeOf(claims);
      const made = await this.#makeReport(reportData(tree.root, batch[0]!.subject.claim.sha256));
      this.#counts.reports += 1;
      this.#lastReportMs = now() - started;
      for (const [i, waiting] of batch.entries()) {
        if (waiting.gone) continue;
        this.#counts.answered += 1;
        waiting.resolve(
          documentOf({
            teeType: this.teeType,
            made,
            root: tree.root,
            subject: waiting.subject,
            claims: claims[i]!,
            issuedAt: issued[i] ?? seconds,
            inclusion: { index: i, size: batch.length, path: tree.paths[i]! },
            nonce: waiting.nonce,
            gpu: gpus[i]?.section,
          }),
        );
      }
      onReport?.({ answered: batch.length, milliseconds: this.#lastReportMs });
    } catch (error) {
      this.#counts.failed += 1;
      onReport?.({ answered: 0, milliseconds: now() - started, error });
      for (const waiting of batch) waiting.reject(failed('the TEE did not make a report', error));
    }
  }

  /** One section for each nonce; the certificate's evidence, which has none, names no GPU. */
  async #gpuEvidence(batch: readonly Waiting[]): Promise<readonly (GpuSection | undefined)[]> {
    const { gpu } = this.#options;
    const sections: (GpuSection | undefined)[] = [];
    for (const { nonce } of batch)
      sections.push(
        gpu === undefined || nonce === undefined
          ? undefined
          : await this.#inTime((signal) => gpu.evidence(nonce, signal)),
      );
    return sections;
  }

  #makeReport(data: Uint8Array): Promise<Report> {
    return this.#inTime((signal) => this.#options.source.report(data, signal));
  }

  async #inTime<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    // Not AbortSignal.timeout: `any` holds its parts weakly, and one that was garbage
    // collected never fires (Node 20).
    const late = new AbortController();
    const timer = setTimeout(
      () => late.abort(new DOMException('no report in time', 'TimeoutError')),
      this.#options.timeoutMs,
    );
    const signal = AbortSignal.any([this.#stop.signal, late.signal]);
    try {
      return await raced(work(signal), signal);
    } finally {
      clearTimeout(timer);
    }
  }
}

/** The tree over claims: one hash per node, whatever the number of nonces. */
export function treeOf(entries: readonly Uint8Array[]): MerkleTree {
  return merkleTree(entries.map(leafHash));
}

/**
 * Token bucket per client. `take` spends a token and returns 0, or returns the
 * milliseconds until one is available.
 */
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

/** Rejects on the signal even if the source ignores it, so that it cannot hold the queue. */
function raced<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason as Error);
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}

function failed(message: string, cause?: unknown): ApiError {
  return new ApiError('attestation_failed', message, { cause });
}

function limited(message: string, seconds: number): ApiError {
  return overloaded('attestation_rate_limited', message, Math.max(1, seconds));
}
