// Writes the audit log: key name, route, model digest, status, tokens, evidence hash; never content. Its form
// and check are in log.ts. Lines are written in batches, fsynced, then the head, signed with the attested
// receipt key; so after a crash the log may be ahead of its head, never behind. A full segment is set aside
// under a number, and the chain goes on in a new one. Requests without a key are counted, one line for many,
// so that strangers cannot fill the disk. One process owns the folder.

import { createHash, createPublicKey, type KeyObject } from 'node:crypto';
import { closeSync, fsync, ftruncate, openSync } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import {
  HeadWriter,
  openPatiently,
  sync,
  writeAll,
  type HeadOptions,
  type SignedEnd,
} from './head-writer.ts';
import { LOG, readLog, segmentName, segmentNumber, type Found, type Segment } from './log.ts';
import { isFull, storageError } from '../base/durable-files.ts';
import { ConfigError } from '../base/errors.ts';
import { lockFolder, type FolderLock } from '../base/folder-lock.ts';

export { verifyAudit, type AuditVerdict } from './log.ts';

/** One finished request; the audit log takes no other field. No content, no addresses. */
export interface RequestRecord {
  readonly requestId: string;
  /** Name of the key, null without one. */
  readonly key: string | null;
  /** It was admitted to a route that needs a key: with one, or because the server requires none. */
  readonly admitted: boolean;
  readonly method: string;
  /** The route's pattern, never the URL. */
  readonly route: string;
  readonly status: number;
  readonly modelSha256: string | null;
  readonly promptTokens: number;
  readonly completionTokens: number;
  /** SHA-256 of the evidence handed out, on /v1/attestation. */
  readonly evidenceSha256: string | null;
  /** SHA-256 of the answer's receipt; null without one. */
  readonly receiptSha256?: string | null | undefined;
  readonly milliseconds: number;
  /** The client left, or the server ended the stream with an error. */
  readonly aborted: boolean;
}

export interface AuditOptions extends HeadOptions {
  /** A segment of this many bytes is full. */
  readonly maxSegmentBytes: number;
  /**
   * Segments that are kept, the current one included; the oldest is removed for a new one. 0: all are kept.
   */
  readonly maxSegments: number;
  /** Called once when the disk refuses; the server must then stop accepting work. */
  readonly onError: (error: unknown) => void;
}

/** Bytes a workshop sends to a hub, or asks it for: what and where to, no path and no token. */
export interface EgressRecord {
  /** `out`: files are sent. `in`: the name of a repository is, and its files come. */
  readonly direction: 'out' | 'in';
  /** `begin` is written before the first byte leaves. */
  readonly phase: 'begin' | 'done' | 'failed';
  readonly host: string;
  readonly repository: string;
  readonly revision: string;
  readonly files: number;
  readonly bytes: number;
  /** SHA-256 over the digests of all files; the first of these, and the sizes of the same files. */
  readonly filesSha256: string;
  readonly sha256: readonly string[];
  readonly sizes: readonly number[];
  readonly commit: string | null;
  readonly error: string | null;
}

export interface Audit {
  /** Never blocks and never throws; the record is on disk after the next flush. */
  append(record: RequestRecord): void;
  /** Hash of the newest line, lower-case hex. */
  readonly hash: string;
  /** Resolves once it is on disk and signed; rejects when the log cannot be written. */
  egress(record: EgressRecord): Promise<void>;
  flush(): Promise<void>;
  close(): Promise<void>;
}

/** Lines that may wait for the disk; beyond that the log has failed, and the server stops. */
const MAX_PENDING = 65_536;
/** Counts are written with the next batch, or after this time. */
const COUNT_INTERVAL_MS = 60_000;

/** Work in the order of arrival: a line, or a task for when the lines before it are signed. */
type Step = string | (SignedEnd & { readonly run: () => Promise<void> });

const AUDIT_FOLDER = { prefix: 'lock-audit-', what: 'the audit folder', key: 'audit.folder' } as const;

/**
 * Continues the log of the folder, or begins one. Throws without writing when the log there does not verify.
 */
export async function openAudit(options: AuditOptions): Promise<Audit> {
  const { folder } = options;
  const lock = await lockFolder(folder, AUDIT_FOLDER);
  try {
    const found = await readLog(folder);
    if (found.problem !== null) {
      throw new ConfigError(
        `the audit log does not verify: ${found.file}: ${found.problem}; move the folder ${folder} away to begin a new log, and keep it`,
        'audit.folder',
      );
    }
    const audit = new AuditLog(options, found, lock);
    await audit.open(found);
    return audit;
  } catch (error) {
    await releaseAnyhow(lock);
    throw storageError(error, folder);
  }
}

/** If this fails, the end of the process releases the folder. */
function releaseAnyhow(lock: FolderLock): Promise<void> {
  return lock.release().catch(() => undefined);
}

class AuditLog implements Audit {
  readonly #options: AuditOptions;
  readonly #lock: FolderLock;
  readonly #publicKey: string;
  readonly #headWriter: HeadWriter;
  #file: number | null;
  /** A name made or changed in a folder survives a loss of power once the folder was synced. */
  readonly #names: number;
  /** Of the lines so far, waiting ones included. */
  #count: number;
  #hash: string;
  /** Number of this run's first line. */
  readonly #opened: number;
  /** Of the current segment. */
  #bytes: number;
  readonly #older: Segment[];
  #current: Segment;
  #nextNumber: number;
  #counted = noneCounted();
  #cancelInterval: (() => void) | undefined;
  #pending: Step[] = [];
  #flushing: Promise<void> | undefined;
  #failure: unknown;

  constructor(options: AuditOptions, found: Found, lock: FolderLock) {
    this.#options = options;
    this.#lock = lock;
    this.#publicKey = rawEd25519(options.privateKey);
    this.#headWriter = new HeadWriter(options, this.#publicKey);
    this.#file = openSync(join(options.folder, LOG), 'a', 0o600);
    this.#names = openSync(options.folder, 'r');
    this.#count = this.#opened = found.count;
    this.#hash = found.hash;
    this.#bytes = found.goodBytes;
    this.#older = found.segments.filter((segment) => segment.name !== LOG);
    this.#current = found.segments.find((segment) => segment.name === LOG) ?? {
      name: LOG,
      first: found.count,
      prev: found.hash,
    };
    this.#nextNumber = Math.max(0, ...this.#older.map((segment) => segmentNumber(segment.name))) + 1;
  }

  /** Cuts off the half line a crash left, and writes the first line. */
  async open(found: Found): Promise<void> {
    // A log that has lines has a head from the beginning, so lines without one never come from a crash.
    if (found.count === 0) await this.#headWriter.write(found);
    await promisify(fsync)(this.#names);
    if (found.tornBytes > 0) await promisify(ftruncate)(this.#file!, found.goodBytes);
    this.#line({
      event: 'open',
      receipt_key: this.#publicKey,
      previous: found.count === 0 ? null : found.head,
      ...(found.tornBytes > 0 ? { torn_bytes: found.tornBytes } : {}),
    });
    await this.#flushing;
    if (this.#failure === undefined) return;
    if (isFull(this.#failure)) throw this.#failure;
    throw new Error(`the audit log in ${this.#options.folder} cannot be written`, { cause: this.#failure });
  }

  get hash(): string {
    return this.#hash;
  }

  append(record: RequestRecord): void {
    if (standsAlone(record)) this.#line(requestLine(record));
    else this.#countOnly(record);
  }

  async egress({ filesSha256, ...record }: EgressRecord): Promise<void> {
    this.#line({ event: 'egress', ...record, files_sha256: filesSha256 });
    await this.flush();
    if (this.#failure !== undefined)
      throw new Error(`the audit log in ${this.#options.folder} cannot be written`, { cause: this.#failure });
  }

  async flush(): Promise<void> {
    for (;;) {
      if (this.#counted.count > 0 && this.#failure === undefined) this.#flushing ??= this.#drain();
      if (this.#flushing === undefined) return;
      await this.#flushing;
    }
  }

  async close(): Promise<void> {
    this.#writeCounted();
    this.#line({ event: 'close' });
    await this.flush();
    this.#cancelInterval?.();
    if (this.#file !== null) closeSync(this.#file);
    this.#file = null;
    closeSync(this.#names);
    await this.#headWriter.close();
    await releaseAnyhow(this.#lock);
  }

  #push(fields: Readonly<Record<string, unknown>>): void {
    const text = JSON.stringify({
      seq: this.#count,
      prev: this.#hash,
      time: time(this.#options.clock.now()),
      ...fields,
    });
    this.#count += 1;
    this.#hash = sha256(text);
    this.#bytes += Buffer.byteLength(text) + 1;
    this.#pending.push(text);
  }

  #line(fields: Readonly<Record<string, unknown>>): void {
    if (this.#failure !== undefined) return;
    if (this.#pending.length >= MAX_PENDING)
      return this.#fail(new Error('too many audit records are waiting for the disk'));
    if (this.#bytes >= this.#options.maxSegmentBytes && this.#count > this.#opened) this.#beginSegment();
    this.#push(fields);
    this.#flushing ??= this.#drain();
  }

  #beginSegment(): void {
    const { folder, maxSegments } = this.#options;
    const full = { ...this.#current, name: segmentName(this.#nextNumber) };
    this.#nextNumber += 1;
    this.#afterLines(() => this.#setAside(full.name));
    this.#older.push(full);
    this.#current = { name: LOG, first: this.#count, prev: this.#hash };
    this.#bytes = 0;
    this.#push({ event: 'segment', receipt_key: this.#publicKey, opened: this.#opened });
    const tooMany = maxSegments === 0 ? 0 : this.#older.length + 1 - maxSegments;
    if (tooMany <= 0) return;
    const gone = this.#older.splice(0, tooMany);
    const kept = this.#older[0] ?? this.#current;
    this.#push({ event: 'dropped', first: kept.first, next: kept.prev });
    this.#afterLines(() => removeAll(gone.map((segment) => join(folder, segment.name))));
  }

  /** Runs once the lines so far are on disk and signed. */
  #afterLines(run: () => Promise<void>): void {
    this.#pending.push({ count: this.#count, hash: this.#hash, run });
  }

  async #setAside(name: string): Promise<void> {
    const path = join(this.#options.folder, LOG);
    await rename(path, join(this.#options.folder, name));
    if (this.#file !== null) closeSync(this.#file);
    this.#file = null;
    this.#file = await openPatiently(path, 'a', this.#options.clock);
    await promisify(fsync)(this.#names);
  }

  #fail(error: unknown): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#cancelInterval?.();
    // The error of a write through an open file does not name the file.
    this.#options.onError(storageError(error, this.#options.folder));
  }

  async #drain(): Promise<void> {
    // Other records of this turn of the event loop share one fsync.
    await new Promise<void>((resolve) => setImmediate(resolve));
    try {
      this.#writeCounted();
      while (this.#pending.length > 0) {
        const steps = this.#pending;
        const end = { count: this.#count, hash: this.#hash };
        this.#pending = [];
        let lines: string[] = [];
        for (const step of steps) {
          if (typeof step === 'string') {
            lines.push(step);
            continue;
          }
          await this.#put(lines, step);
          lines = [];
          await step.run();
        }
        await this.#put(lines, end);
      }
    } catch (error) {
      this.#fail(error);
    }
    this.#flushing = undefined;
  }

  async #put(lines: readonly string[], end: SignedEnd): Promise<void> {
    if (lines.length === 0 || this.#file === null) return;
    await writeAll(this.#file, `${lines.join('\n')}\n`);
    await sync(this.#file);
    await this.#headWriter.write(end);
  }

  #countOnly(record: RequestRecord): void {
    if (this.#failure !== undefined) return;
    const { clock } = this.#options;
    if (this.#counted.count === 0) {
      this.#counted.from = clock.now();
      this.#cancelInterval = clock.after(COUNT_INTERVAL_MS, () => void (this.#flushing ??= this.#drain()));
    }
    this.#counted.count += 1;
    this.#counted.statuses.set(record.status, (this.#counted.statuses.get(record.status) ?? 0) + 1);
  }

  #writeCounted(): void {
    if (this.#counted.count === 0 || this.#failure !== undefined) return;
    this.#cancelInterval?.();
    const { count: requests, from, statuses } = this.#counted;
    this.#counted = noneCounted();
    this.#line({
      event: 'keyless',
      count: requests,
      statuses: Object.fromEntries(statuses),
      from: time(from),
      to: time(this.#options.clock.now()),
    });
  }
}

/** Requests with a key, requests let in without one, and evidence handed out have a line each. */
function standsAlone(record: RequestRecord): boolean {
  return record.key !== null || record.admitted || record.evidenceSha256 !== null;
}

function requestLine(record: RequestRecord): Readonly<Record<string, unknown>> {
  return {
    event: 'request',
    request_id: record.requestId.slice(0, 128),
    key: record.key?.slice(0, 200) ?? null,
    method: record.method,
    route: record.route.slice(0, 200),
    status: record.status,
    model_sha256: record.modelSha256,
    prompt_tokens: record.promptTokens,
    completion_tokens: record.completionTokens,
    evidence_sha256: record.evidenceSha256,
    receipt_sha256: record.receiptSha256 ?? null,
    milliseconds: Math.round(record.milliseconds),
    aborted: record.aborted,
  };
}

interface Counted {
  count: number;
  from: number;
  readonly statuses: Map<number, number>;
}

function noneCounted(): Counted {
  return { count: 0, from: 0, statuses: new Map() };
}

async function removeAll(paths: readonly string[]): Promise<void> {
  for (const path of paths) await rm(path, { force: true });
}

function time(milliseconds: number): string {
  return new Date(milliseconds).toISOString();
}

function rawEd25519(privateKey: KeyObject): string {
  return createPublicKey(privateKey).export({ format: 'der', type: 'spki' }).subarray(12).toString('hex');
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
