// The audit log: who (name of the key), what route, which model digest, status, tokens, evidence hash; never content. JSON
// lines, each carrying the SHA-256 of the one before, so that a change or a removal inside breaks the chain. The end is
// protected by `head.json` beside it: number and hash of the last line, signed with the receipt key, which is attested.
// Lines are written in batches, fsynced, then the head; so after a crash the log may be ahead of its head, never behind.
// What it does not detect: the whole folder put back to an older state. Keep heads elsewhere for that (docs/audit.md).

import { createHash, createPublicKey, sign, verify, type KeyObject } from 'node:crypto';
import { mkdir, open, readFile, rename, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import type { RequestRecord } from './http/deps.ts';

export interface AuditOptions {
  readonly folder: string;
  /** Ed25519. */
  readonly privateKey: KeyObject;
  /** Unix milliseconds. */
  readonly now: () => number;
  /** Called once when the disk refuses; the server must then stop accepting work. */
  readonly onError: (error: unknown) => void;
}

export interface Audit {
  /** Never blocks and never throws; the line is on disk after the next flush. */
  append(record: RequestRecord): void;
  flush(): Promise<void>;
  close(): Promise<void>;
}

export interface Head {
  readonly version: 1;
  /** Lines in the log. */
  readonly count: number;
  /** SHA-256 of the last line, or of nothing. */
  readonly hash: string;
  /** Ed25519 public key, hex. */
  readonly key: string;
  readonly signature: string;
}

const LOG = 'audit.jsonl';
const HEAD = 'head.json';
const GENESIS = createHash('sha256').update('assay/audit/v1').digest('hex');
/** Lines waiting for the disk; above it new requests are answered 503 by whoever asks `full`. */
const MAX_PENDING = 100_000;
const MAX_LINE_CHARACTERS = 8192;

/** Continues the log of the folder, or begins one. Throws when what is there does not verify: nothing is appended to it. */
export async function openAudit(options: AuditOptions): Promise<Audit> {
  await mkdir(options.folder, { recursive: true, mode: 0o700 });
  const found = await inspectFolder(options.folder);
  if (found.problem !== null) throw new Error(`the audit log in ${options.folder} does not verify: ${found.problem}`);
  const publicKey = rawEd25519(options.privateKey);
  const file = await open(join(options.folder, LOG), 'a', 0o600);
  if (found.tornBytes > 0) await file.truncate(found.goodBytes);

  let count = found.count;
  let hash = found.hash;
  let pending: string[] = [];
  let flushing: Promise<void> | undefined;
  let failed = false;

  function line(fields: Readonly<Record<string, unknown>>): void {
    if (failed || pending.length >= MAX_PENDING) return fail(new Error('too many audit records are waiting for the disk'));
    const text = JSON.stringify({ seq: count, prev: hash, time: new Date(options.now()).toISOString(), ...fields });
    count += 1;
    hash = sha256(text);
    pending.push(text);
    flushing ??= drain();
  }

  function fail(error: unknown): void {
    if (failed) return;
    failed = true;
    options.onError(error);
  }

  async function drain(): Promise<void> {
    // What else is recorded in this turn of the event loop shares one fsync.
    await new Promise<void>((resolve) => setImmediate(resolve));
    try {
      while (pending.length > 0) {
        const lines = pending;
        const head = { count, hash };
        pending = [];
        await writeAll(file, `${lines.join('\n')}\n`);
        await file.datasync();
        await writeHead(options, publicKey, head);
      }
    } catch (error) {
      fail(error);
    }
    flushing = undefined;
  }

  async function flush(): Promise<void> {
    for (let running = flushing; running !== undefined; running = flushing) await running;
  }

  line({ event: 'open', receipt_key: publicKey, ...(found.tornBytes > 0 ? { torn_bytes: found.tornBytes } : {}) });
  await flushing;
  if (failed) throw new Error(`the audit log in ${options.folder} cannot be written`);
  return {
    append: (record) =>
      line({
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
      }),
    flush,
    async close() {
      if (!failed) line({ event: 'close' });
      await flush();
      await file.close();
    },
  };
}

export interface AuditVerdict {
  readonly ok: boolean;
  /** What is wrong, with the line; null when nothing is. */
  readonly problem: string | null;
  readonly count: number;
  /** The key that signed the head, hex; what --receipt-key compares. */
  readonly receiptKey: string | null;
  /** Lines after the head: written, but their head was not before a crash. */
  readonly unsigned: number;
}

/** Reads the whole log. `receiptKey` (hex) is the key an attestation of that boot showed; without it the head vouches for itself. */
export async function verifyAudit(folder: string, receiptKey?: string): Promise<AuditVerdict> {
  const found = await inspectFolder(folder);
  let { problem } = found;
  if (problem === null && found.head === null) problem = 'there is no head.json: the log may have been cut';
  if (problem === null && found.tornBytes > 0) problem = `the last line is incomplete (${found.tornBytes} bytes)`;
  if (problem === null && receiptKey !== undefined && found.head?.key !== receiptKey.toLowerCase()) {
    problem = `the head is signed by ${found.head?.key}, expected ${receiptKey.toLowerCase()}`;
  }
  return {
    ok: problem === null,
    problem,
    count: found.count,
    receiptKey: found.head?.key ?? null,
    unsigned: found.count - (found.head?.count ?? 0),
  };
}

interface Found {
  readonly problem: string | null;
  readonly count: number;
  readonly hash: string;
  readonly goodBytes: number;
  readonly tornBytes: number;
  readonly head: Head | null;
}

async function inspectFolder(folder: string): Promise<Found> {
  const head = await readHead(folder);
  let count = 0;
  let hash = GENESIS;
  let goodBytes = 0;
  let tornBytes = 0;
  const found = (problem: string | null): Found => ({
    problem,
    count,
    hash,
    goodBytes,
    tornBytes,
    head: head === 'malformed' ? null : head,
  });
  if (head === 'malformed') return found('head.json is not a head');
  if (head !== null && !headVerifies(head)) return found('the signature of head.json does not verify');
  let key: string | null = null;
  let reachedHead = head === null || head.count === 0;
  for await (const { text, whole } of linesOf(join(folder, LOG))) {
    if (!whole) {
      tornBytes = Buffer.byteLength(text);
      break;
    }
    const problem = lineProblem(text, count, hash);
    if (problem !== null) return found(`line ${count + 1} ${problem}`);
    const record = JSON.parse(text) as { readonly event?: unknown; readonly receipt_key?: unknown };
    if (record.event === 'open' && typeof record.receipt_key === 'string') key = record.receipt_key;
    count += 1;
    hash = sha256(text);
    goodBytes += Buffer.byteLength(text) + 1;
    if (head === null || count !== head.count) continue;
    reachedHead = true;
    if (hash !== head.hash) return found(`line ${count} is not the one head.json was signed over`);
    if (key !== head.key) return found('head.json is signed by another key than the log was opened with');
  }
  return found(reachedHead ? null : `the log has ${count} lines, its head was signed over ${head?.count}: lines are missing at the end`);
}

function lineProblem(text: string, seq: number, prev: string): string | null {
  let record: { readonly seq?: unknown; readonly prev?: unknown };
  try {
    record = JSON.parse(text) as typeof record;
  } catch {
    return 'is not JSON';
  }
  if (record === null || typeof record !== 'object') return 'is not an object';
  if (record.seq !== seq) return `has number ${String(record.seq)}, expected ${seq}`;
  return record.prev === prev ? null : 'does not follow from the line before: one of the two was changed, or a line removed';
}

/** Lines without their newline; the last one is `whole` only if it had one. */
async function* linesOf(path: string): AsyncIterable<{ readonly text: string; readonly whole: boolean }> {
  let file: FileHandle;
  try {
    file = await open(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  let rest = '';
  const decoder = new TextDecoder('utf-8');
  const buffer = Buffer.alloc(256 * 1024);
  try {
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, buffer.length, null);
      if (bytesRead === 0) break;
      const lines = (rest + decoder.decode(buffer.subarray(0, bytesRead), { stream: true })).split('\n');
      rest = lines.pop() ?? '';
      if (rest.length > MAX_LINE_CHARACTERS) break;
      for (const text of lines) yield { text, whole: true };
    }
  } finally {
    await file.close();
  }
  if (rest !== '') yield { text: rest, whole: false };
}

async function readHead(folder: string): Promise<Head | null | 'malformed'> {
  let text: string;
  try {
    text = await readFile(join(folder, HEAD), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
  try {
    const head = JSON.parse(text) as Head;
    const shaped = head.version === 1 && Number.isSafeInteger(head.count) && head.count >= 0;
    return shaped && isHex(head.hash, 64) && isHex(head.key, 64) && isHex(head.signature, 128) ? head : 'malformed';
  } catch {
    return 'malformed';
  }
}

function isHex(value: unknown, length: number): boolean {
  return typeof value === 'string' && value.length === length && /^[0-9a-f]+$/.test(value);
}

const ED25519_SPKI = Buffer.from('302a300506032b6570032100', 'hex');

function headVerifies(head: Head): boolean {
  const key = createPublicKey({ key: Buffer.concat([ED25519_SPKI, Buffer.from(head.key, 'hex')]), format: 'der', type: 'spki' });
  return verify(null, signedText(head.count, head.hash, head.key), key, Buffer.from(head.signature, 'hex'));
}

function signedText(count: number, hash: string, key: string): Buffer {
  return Buffer.from(`assay/audit-head/v1\n${count}\n${hash}\n${key}\n`);
}

async function writeHead(
  options: AuditOptions,
  key: string,
  { count, hash }: { readonly count: number; readonly hash: string },
): Promise<void> {
  const signature = sign(null, signedText(count, hash, key), options.privateKey).toString('hex');
  const head: Head = { version: 1, count, hash, key, signature };
  const temporary = join(options.folder, `${HEAD}.new`);
  const file = await open(temporary, 'w', 0o600);
  try {
    await file.writeFile(`${JSON.stringify(head)}\n`);
    await file.datasync();
  } finally {
    await file.close();
  }
  await rename(temporary, join(options.folder, HEAD));
}

async function writeAll(file: FileHandle, text: string): Promise<void> {
  const bytes = Buffer.from(text);
  let done = 0;
  while (done < bytes.length) done += (await file.write(bytes, done)).bytesWritten;
}

function rawEd25519(privateKey: KeyObject): string {
  return createPublicKey(privateKey).export({ format: 'der', type: 'spki' }).subarray(12).toString('hex');
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
