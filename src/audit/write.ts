// Writes the audit log: who (name of the key), what route, which model digest, status, tokens, evidence hash; never content.
// Its form and check are in audit-log.ts. Lines are written in batches, fsynced, then the head, signed with the receipt key,
// which is attested; so after a crash the log may be ahead of its head, never behind. A full segment is set aside under a
// number, and the chain goes on in a new one. What nobody with a key asked for is counted, one line for many, so that
// strangers cannot fill the disk. What it cannot detect alone: the whole folder put back to an older state (docs/audit.md).

import { createHash, createPublicKey, sign, type KeyObject } from 'node:crypto';
import { closeSync, fdatasync, fsync, ftruncate, openSync, write } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import {
  HEAD,
  LOG,
  readLog,
  segmentName,
  segmentNumber,
  signedText,
  type Head,
  type Segment,
} from './log.ts';
import type { Clock } from '../base/clock.ts';
import { ConfigError } from '../base/errors.ts';

export { verifyAudit, type AuditVerdict } from './log.ts';

/** One finished request, for the audit log, into which no other field gets. No content, no addresses. */
export interface RequestRecord {
  readonly requestId: string;
  /** Name of the key, null without one. */
  readonly key: string | null;
  /** It was let in to a route that asks for a key: with one, or because the server asks for none. */
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
  readonly milliseconds: number;
  /** The client left, or the server ended the stream with an error. */
  readonly aborted: boolean;
}

export interface AuditOptions {
  readonly folder: string;
  /** Ed25519. */
  readonly privateKey: KeyObject;
  readonly clock: Clock;
  /** A segment that has so many bytes is full. */
  readonly maxSegmentBytes: number;
  /** Segments that are kept, the current one included; the oldest is removed for a new one. 0: all are kept. */
  readonly maxSegments: number;
  /** Called once when the disk refuses; the server must then stop accepting work. */
  readonly onError: (error: unknown) => void;
}

export interface Audit {
  /** Never blocks and never throws; the record is on disk after the next flush. */
  append(record: RequestRecord): void;
  flush(): Promise<void>;
  close(): Promise<void>;
}

/** Lines waiting for the disk; with more the log has failed, and the server stops. */
const MAX_PENDING = 65_536;
/** What is only counted is written with the next batch, or after so long. */
const COUNT_INTERVAL_MS = 60_000;

/** Work in the order it came in: a line, or something to be done when the lines before are signed. */
type Step = string | { readonly count: number; readonly hash: string; readonly run: () => Promise<void> };

/** Continues the log of the folder, or begins one. Throws when what is there does not verify: nothing is appended to it. */
export async function openAudit(options: AuditOptions): Promise<Audit> {
  const { folder, clock } = options;
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const found = await readLog(folder);
  if (found.problem !== null) {
    throw new ConfigError(
      `the audit log does not verify: ${found.file}: ${found.problem}; move the folder ${folder} away to begin a new log, and keep it`,
      'audit.folder',
    );
  }
  const publicKey = rawEd25519(options.privateKey);
  const heads = openHeads(options, publicKey);
  // A log that has lines has a head: with this, lines without one are never those of a crash.
  if (found.count === 0) await heads.write(found);
  let file: number | null = openSync(join(folder, LOG), 'a', 0o600);
  // A name made or changed in a folder outlives a loss of power once the folder was synced.
  const names = openSync(folder, 'r');
  await promisify(fsync)(names);
  if (found.tornBytes > 0) await promisify(ftruncate)(file, found.goodBytes);

  let { count, hash } = found;
  const opened = count;
  let bytes = found.goodBytes;
  const older = found.segments.filter((segment) => segment.name !== LOG);
  let current: Segment = found.segments.find((segment) => segment.name === LOG) ?? {
    name: LOG,
    first: count,
    prev: hash,
  };
  let nextNumber = Math.max(0, ...older.map((segment) => segmentNumber(segment.name))) + 1;
  let counted = noneCounted();
  let cancelInterval: (() => void) | undefined;
  let pending: Step[] = [];
  let flushing: Promise<void> | undefined;
  let failed = false;

  function push(fields: Readonly<Record<string, unknown>>): void {
    const text = JSON.stringify({ seq: count, prev: hash, time: time(clock.now()), ...fields });
    count += 1;
    hash = sha256(text);
    bytes += Buffer.byteLength(text) + 1;
    pending.push(text);
  }

  function line(fields: Readonly<Record<string, unknown>>): void {
    if (failed) return;
    if (pending.length >= MAX_PENDING)
      return fail(new Error('too many audit records are waiting for the disk'));
    if (bytes >= options.maxSegmentBytes && count > opened) beginSegment();
    push(fields);
    flushing ??= drain();
  }

  function beginSegment(): void {
    const full = { ...current, name: segmentName(nextNumber) };
    nextNumber += 1;
    pending.push({ count, hash, run: () => setAside(full.name) });
    older.push(full);
    current = { name: LOG, first: count, prev: hash };
    bytes = 0;
    push({ event: 'segment', receipt_key: publicKey, opened });
    const tooMany = options.maxSegments === 0 ? 0 : older.length + 1 - options.maxSegments;
    if (tooMany <= 0) return;
    const gone = older.splice(0, tooMany);
    const kept = older[0] ?? current;
    push({ event: 'dropped', first: kept.first, next: kept.prev });
    pending.push({ count, hash, run: () => removeAll(gone.map((segment) => join(folder, segment.name))) });
  }

  async function setAside(name: string): Promise<void> {
    await rename(join(folder, LOG), join(folder, name));
    if (file !== null) closeSync(file);
    file = null;
    file = await openPatiently(join(folder, LOG), 'a', clock);
    await promisify(fsync)(names);
  }

  function fail(error: unknown): void {
    if (failed) return;
    failed = true;
    cancelInterval?.();
    options.onError(error);
  }

  async function drain(): Promise<void> {
    // What else is recorded in this turn of the event loop shares one fsync.
    await new Promise<void>((resolve) => setImmediate(resolve));
    try {
      writeCounted();
      while (pending.length > 0) {
        const steps = pending;
        const end = { count, hash };
        pending = [];
        let lines: string[] = [];
        for (const step of steps) {
          if (typeof step === 'string') {
            lines.push(step);
            continue;
          }
          await put(lines, step);
          lines = [];
          await step.run();
        }
        await put(lines, end);
      }
    } catch (error) {
      fail(error);
    }
    flushing = undefined;
  }

  async function put(
    lines: readonly string[],
    end: { readonly count: number; readonly hash: string },
  ): Promise<void> {
    if (lines.length === 0 || file === null) return;
    await writeAll(file, `${lines.join('\n')}\n`);
    await sync(file);
    await heads.write(end);
  }

  async function flush(): Promise<void> {
    for (;;) {
      if (counted.count > 0 && !failed) flushing ??= drain();
      if (flushing === undefined) return;
      await flushing;
    }
  }

  function countOnly(record: RequestRecord): void {
    if (failed) return;
    if (counted.count === 0) {
      counted.from = clock.now();
      cancelInterval = clock.after(COUNT_INTERVAL_MS, () => void (flushing ??= drain()));
    }
    counted.count += 1;
    counted.statuses.set(record.status, (counted.statuses.get(record.status) ?? 0) + 1);
  }

  function writeCounted(): void {
    if (counted.count === 0 || failed) return;
    cancelInterval?.();
    const { count: requests, from, statuses } = counted;
    counted = noneCounted();
    line({
      event: 'keyless',
      count: requests,
      statuses: Object.fromEntries(statuses),
      from: time(from),
      to: time(clock.now()),
    });
  }

  line({
    event: 'open',
    receipt_key: publicKey,
    previous: found.count === 0 ? null : found.head,
    ...(found.tornBytes > 0 ? { torn_bytes: found.tornBytes } : {}),
  });
  await flushing;
  if (failed) throw new Error(`the audit log in ${folder} cannot be written`);
  return {
    append: (record) => (standsAlone(record) ? line(requestLine(record)) : countOnly(record)),
    flush,
    async close() {
      writeCounted();
      line({ event: 'close' });
      await flush();
      cancelInterval?.();
      if (file !== null) closeSync(file);
      file = null;
      closeSync(names);
      await heads.close();
    },
  };
}

/** Who showed a key, who was let in without one, and who was handed evidence, is a line of its own. */
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

interface Heads {
  write(end: { readonly count: number; readonly hash: string }): Promise<void>;
  close(): Promise<void>;
}

/**
 * head.json is replaced by rename, so it is whole at any moment. The file of the next one is open beforehand, and the old
 * one is closed in the turn in which that is done: clients that use up all descriptors do not keep a head from being written.
 */
function openHeads({ folder, privateKey, clock }: AuditOptions, key: string): Heads {
  const next = join(folder, `${HEAD}.new`);
  let file: number | null = openSync(next, 'w', 0o600);
  return {
    async write({ count, hash }) {
      file ??= await openPatiently(next, 'w', clock);
      const signature = sign(null, signedText(count, hash, key), privateKey).toString('hex');
      const head: Head = { version: 1, count, hash, key, signature };
      await writeAll(file, `${JSON.stringify(head)}\n`);
      await sync(file);
      await rename(next, join(folder, HEAD));
      closeSync(file);
      file = null;
      file = await openPatiently(next, 'w', clock);
    },
    async close() {
      if (file !== null) closeSync(file);
      file = null;
      await rm(next, { force: true });
    },
  };
}

const PATIENCE = { attempts: 10, firstMs: 10 } as const;

/** Tries in this very turn of the event loop; where descriptors have run out, again for up to ten seconds. */
async function openPatiently(path: string, flags: 'a' | 'w', clock: Clock): Promise<number> {
  for (let attempt = 0; ; attempt++) {
    try {
      return openSync(path, flags, 0o600);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if ((code !== 'EMFILE' && code !== 'ENFILE') || attempt >= PATIENCE.attempts) throw error;
      await new Promise<void>((resolve) => void clock.after(PATIENCE.firstMs * 2 ** attempt, resolve));
    }
  }
}

async function removeAll(paths: readonly string[]): Promise<void> {
  for (const path of paths) await rm(path, { force: true });
}

const sync = promisify(fdatasync);

async function writeAll(file: number, text: string): Promise<void> {
  const bytes = Buffer.from(text);
  for (let done = 0; done < bytes.length;)
    done += (await promisify(write)(file, bytes, done, bytes.length - done, null)).bytesWritten;
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
