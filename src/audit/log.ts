// The audit log as it lies on the disk, and its check (docs/audit.md): numbered segments and audit.jsonl hold one chain of
// JSON lines, each with the SHA-256 of the one before. A run begins with an `open` line, which names the run's receipt key and
// carries the signed head of the run before; head.json is that of the last run. So every run is held by its own signature.
// Refused: lines without a head, a head that goes back, a run signed by a key other than its own, segments that are missing
// without a signed line saying so, and more lines after a head than a crash can leave.

import { createHash, createPublicKey, verify } from 'node:crypto';
import { open, readFile, readdir, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';

export const LOG = 'audit.jsonl';
export const HEAD = 'head.json';
/** What line 0 follows. */
export const GENESIS = createHash('sha256').update('assay/audit/v1').digest('hex');
/** A crash leaves at most one batch without a head, and each restart that crashes again one `open` line. */
export const MAX_UNSIGNED = 131_072;
const MAX_LINE_BYTES = 16 * 1024;

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

/** Lines `from` to `to` (exclusive), from one `open` line to the next. */
export interface Run {
  readonly key: string;
  readonly from: number;
  readonly to: number;
  /** The run signed all lines before this one; null: it signed none, because it ended before it served. */
  readonly signed: number | null;
}

export interface Segment {
  readonly name: string;
  /** Number of its first line, and the hash that line follows. */
  readonly first: number;
  readonly prev: string;
}

export interface Found {
  /** What is wrong; null when nothing is. */
  readonly problem: string | null;
  /** The file the problem was found in. */
  readonly file: string;
  /** Number of the first line there is. */
  readonly first: number;
  /** Number of the next line. */
  readonly count: number;
  readonly hash: string;
  readonly segments: readonly Segment[];
  readonly runs: readonly Run[];
  readonly head: Head | null;
  /** Of audit.jsonl: whole lines, and half a line after them. */
  readonly goodBytes: number;
  readonly tornBytes: number;
}

export interface AuditVerdict {
  readonly ok: boolean;
  /** What is wrong, with the line; null when nothing is. */
  readonly problem: string | null;
  /** Lines that are there. */
  readonly count: number;
  /** Number of the first of them; more than 0 when old segments were removed by `audit.max_segments`. */
  readonly first: number;
  readonly segments: number;
  /** The key that signed the head, hex. */
  readonly receiptKey: string | null;
  /** Lines at the end that are newer than the head: written, but their head was not before a crash, or not by the server. */
  readonly unsigned: number;
  readonly runs: readonly (Run & { readonly unsigned: number; readonly anchored: boolean })[];
  /** Runs whose key is none of those given: whoever could write to the folder before the next run may have made them up. */
  readonly unanchored: number;
}

/** Reads the whole log. `receiptKeys` (hex) are keys that attestations of runs showed; each must be the key of a run here. */
export async function verifyAudit(
  folder: string,
  receiptKeys: readonly string[] = [],
): Promise<AuditVerdict> {
  const found = await readLog(folder);
  const given = new Set(receiptKeys.map((key) => key.toLowerCase()));
  const runs = found.runs.map((run) => ({
    ...run,
    unsigned: run.to - (run.signed ?? run.from),
    anchored: run.signed !== null && given.has(run.key),
  }));
  let { problem } = found;
  if (problem === null && found.head === null) problem = `there is no ${HEAD}: the log may have been cut`;
  if (problem === null && found.tornBytes > 0)
    problem = `the last line is incomplete (${found.tornBytes} bytes)`;
  for (const key of given) {
    if (problem === null && !runs.some((run) => run.anchored && run.key === key)) {
      problem = runs.some((run) => run.key === key)
        ? `the run with key ${key} has no signature of its own: its head was put back`
        : `no run was signed by the expected key ${key}: a run is missing, or another was put in its place`;
    }
  }
  return {
    ok: problem === null,
    problem,
    count: found.count - found.first,
    first: found.first,
    segments: found.segments.length,
    receiptKey: found.head?.key ?? null,
    unsigned: found.count - (found.head?.count ?? found.first),
    runs,
    unanchored: runs.filter((run) => !run.anchored).length,
  };
}

export async function readLog(folder: string): Promise<Found> {
  const head = await readHead(folder);
  const chain = createChain();
  const segments: Segment[] = [];
  let goodBytes = 0;
  let tornBytes = 0;
  const result = (problem: string | null, file: string): Found => ({
    problem,
    file: join(folder, file),
    ...chain.state(),
    segments,
    head: head === 'malformed' ? null : head,
    goodBytes,
    tornBytes,
  });
  if (head === 'malformed') return result(`${HEAD} is not a head`, HEAD);
  if (head !== null && !headVerifies(head)) return result(`the signature of ${HEAD} does not verify`, HEAD);
  const names = await segmentNames(folder);
  let hashAtHead = head?.count === 0 ? GENESIS : null;
  for (const name of names) {
    goodBytes = 0;
    let started = false;
    for await (const { bytes, whole } of linesOf(join(folder, name))) {
      if (head === null) return result(`there are lines and no ${HEAD}`, name);
      if (!whole) {
        if (name !== LOG) return result(`its last line is incomplete`, name);
        tornBytes = bytes.length;
        break;
      }
      const problem = chain.take(bytes);
      if (problem !== null) return result(problem, name);
      const { count, hash, first, prev } = chain.state();
      if (!started) segments.push({ name, first: count - 1, prev });
      started = true;
      goodBytes += bytes.length + 1;
      if (count === head.count) hashAtHead = hash;
      else if (head.count === first) hashAtHead = chain.firstPrev();
    }
  }
  if (head === null) return result(null, LOG);
  const { count } = chain.state();
  if (count < head.count) {
    return result(
      `the log has ${count} lines, its head was signed over ${head.count}: lines are missing at the end`,
      LOG,
    );
  }
  if (hashAtHead !== head.hash)
    return result(`line ${head.count} is not the one ${HEAD} was signed over`, LOG);
  const late = chain.signed(head, HEAD);
  return result(late ?? chain.unexplainedStart(), late === null ? (names[0] ?? LOG) : HEAD);
}

interface State {
  readonly first: number;
  readonly count: number;
  readonly hash: string;
  /** What the last line follows. */
  readonly prev: string;
  readonly runs: readonly Run[];
}

interface Chain {
  /** Takes the next line; says what is wrong with it. */
  take(bytes: Uint8Array): string | null;
  /** Takes a head that verifies, `what` is its name; says what is wrong with it. Its hash must have been compared. */
  signed(head: Head, what: string): string | null;
  state(): State;
  firstPrev(): string | null;
  /** When the first line is not line 0: that no signed line says why. */
  unexplainedStart(): string | null;
}

interface Line {
  readonly seq?: unknown;
  readonly prev?: unknown;
  readonly event?: unknown;
  readonly receipt_key?: unknown;
  readonly previous?: unknown;
  readonly first?: unknown;
  readonly next?: unknown;
}

function createChain(): Chain {
  const runs: { key: string; from: number; signed: number | null }[] = [];
  /** Hashes before the last lines, by number modulo its size: what the head in an `open` line may be about. */
  const recent = Buffer.alloc(32 * MAX_UNSIGNED);
  let first: number | null = null;
  let firstPrev: string | null = null;
  let count = 0;
  let hash = GENESIS;
  let prev = GENESIS;
  /** Lines below it are signed. */
  let signedTo = 0;
  /** Number of the last line that says the lines before `first` were removed. */
  let dropped: number | null = null;

  function take(bytes: Uint8Array): string | null {
    const line = parseLine(bytes);
    if (typeof line === 'string') return `line ${count + 1} ${line}`;
    if (first === null) {
      if (!Number.isSafeInteger(line.seq) || (line.seq as number) < 0 || !isHex(line.prev, 64))
        return 'the first line has no number and hash';
      first = count = signedTo = line.seq as number;
      if (first > 0) hash = line.prev;
      firstPrev = hash;
      if (line.event !== 'open' && !(first > 0 && line.event === 'segment'))
        return `line ${first + 1} does not open a run`;
    }
    if (line.seq !== count) return `line ${count + 1} has number ${String(line.seq)}, expected ${count}`;
    if (line.prev !== hash) {
      return `line ${count + 1} does not follow from the line before: one of the two was changed, or a line removed`;
    }
    const problem = line.event === 'open' ? opened(line) : line.event === 'segment' ? continued(line) : null;
    if (problem !== null) return `line ${count + 1} ${problem}`;
    if (line.event === 'dropped' && line.first === first && line.next === firstPrev) dropped = count;
    recent.write(hash, (count % MAX_UNSIGNED) * 32, 'hex');
    prev = hash;
    hash = createHash('sha256').update(bytes).digest('hex');
    count += 1;
    return null;
  }

  function opened(line: Line): string | null {
    if (!isHex(line.receipt_key, 64)) return 'opens a run without its key';
    if (count === 0) {
      if (line.previous !== null) return 'opens the first run with the head of another';
    } else {
      if (!isHead(line.previous)) return 'opens a run without the head of the run before';
      if (!headVerifies(line.previous))
        return 'carries a head of the run before whose signature does not verify';
      const problem = wasSigned(line.previous) ?? signed(line.previous, 'the head of the run before');
      if (problem !== null) return `opens a run, but ${problem}`;
    }
    runs.push({ key: line.receipt_key, from: count, signed: null });
    return null;
  }

  function wasSigned(head: Head): string | null {
    if (head.count > count)
      return `the head of the run before was signed over ${head.count} lines: lines are missing before it`;
    if (head.count < (first ?? 0) || count - head.count >= MAX_UNSIGNED)
      return `the head of the run before is of line ${head.count}, too far back`;
    const at = (head.count % MAX_UNSIGNED) * 32;
    const there = head.count === count ? hash : recent.toString('hex', at, at + 32);
    return there === head.hash
      ? null
      : `line ${head.count} is not the one the head of the run before was signed over`;
  }

  function continued(line: Line): string | null {
    if (runs.length === 0 && isHex(line.receipt_key, 64))
      runs.push({ key: line.receipt_key, from: count, signed: null });
    return runs.at(-1)?.key === line.receipt_key
      ? null
      : 'continues a run with another key than it was opened with';
  }

  function signed(head: Head, what: string): string | null {
    if (head.count < signedTo)
      return `${what} is of line ${head.count}, and line ${signedTo} was signed before: it was put back`;
    if (count - head.count > MAX_UNSIGNED)
      return `${count - head.count} lines follow ${what}, more than a crash leaves`;
    // The head of an empty log is that of its first run; where the log begins with a removed segment's head, its run is gone.
    const run = runs.findLast((each) => each.from < head.count) ?? (first === 0 ? runs[0] : undefined);
    if (run !== undefined && run.key !== head.key)
      return `${what} is signed by another key than the log was opened with`;
    if (run !== undefined && run.from < head.count) run.signed = head.count;
    signedTo = head.count;
    return null;
  }

  return {
    take,
    signed,
    state: () => ({
      first: first ?? 0,
      count,
      hash,
      prev,
      runs: runs.map((run, i) => ({
        key: run.key,
        from: run.from,
        to: runs[i + 1]?.from ?? count,
        signed: run.signed,
      })),
    }),
    firstPrev: () => firstPrev,
    unexplainedStart() {
      if ((first ?? 0) === 0) return null;
      const run = runs.findLast((each) => each.from <= (dropped ?? -1));
      if (dropped !== null && (run?.signed ?? 0) > dropped) return null;
      return `the first line is number ${first}, and no signed line says that those before were removed`;
    },
  };
}

function parseLine(bytes: Uint8Array): Line | string {
  let line: unknown;
  try {
    line = JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch {
    return 'is not JSON';
  }
  return line === null || typeof line !== 'object' ? 'is not an object' : line;
}

/** Numbered segments in order, then the current one. */
export async function segmentNames(folder: string): Promise<readonly string[]> {
  const names = (await readdir(folder).catch(unlessMissing([]))).filter((name) => SEGMENT.test(name)).sort();
  return [...names, LOG];
}

const SEGMENT = /^audit-\d{8}\.jsonl$/;

export function segmentName(number: number): string {
  return `audit-${String(number).padStart(8, '0')}.jsonl`;
}
export function segmentNumber(name: string): number {
  return Number(name.slice('audit-'.length, -'.jsonl'.length));
}

/** Lines without their newline; the last one is `whole` only if it had one. Nothing after an endless line is read. */
async function* linesOf(
  path: string,
): AsyncIterable<{ readonly bytes: Uint8Array; readonly whole: boolean }> {
  const file: FileHandle | null = await open(path, 'r').catch(unlessMissing(null));
  if (file === null) return;
  let rest: Uint8Array = new Uint8Array(0);
  const buffer = Buffer.alloc(256 * 1024);
  try {
    while (rest.length <= MAX_LINE_BYTES) {
      const { bytesRead } = await file.read(buffer, 0, buffer.length, null);
      if (bytesRead === 0) break;
      const bytes = Buffer.concat([rest, buffer.subarray(0, bytesRead)]);
      let from = 0;
      for (let to = bytes.indexOf(10); to >= 0; to = bytes.indexOf(10, from)) {
        yield { bytes: bytes.subarray(from, to), whole: true };
        from = to + 1;
      }
      rest = bytes.subarray(from);
    }
  } finally {
    await file.close();
  }
  if (rest.length > 0) yield { bytes: rest, whole: false };
}

async function readHead(folder: string): Promise<Head | null | 'malformed'> {
  const text = await readFile(join(folder, HEAD), 'utf8').catch(unlessMissing(null));
  if (text === null) return null;
  try {
    const head: unknown = JSON.parse(text);
    return isHead(head) ? head : 'malformed';
  } catch {
    return 'malformed';
  }
}

function unlessMissing<T>(missing: T): (error: NodeJS.ErrnoException) => T {
  return (error) => {
    if (error.code === 'ENOENT') return missing;
    throw error;
  };
}

function isHead(value: unknown): value is Head {
  if (value === null || typeof value !== 'object') return false;
  const head = value as Partial<Record<keyof Head, unknown>>;
  const shaped = head.version === 1 && Number.isSafeInteger(head.count) && (head.count as number) >= 0;
  return shaped && isHex(head.hash, 64) && isHex(head.key, 64) && isHex(head.signature, 128);
}

function isHex(value: unknown, length: number): value is string {
  return typeof value === 'string' && value.length === length && /^[0-9a-f]+$/.test(value);
}

const ED25519_SPKI = Buffer.from('302a300506032b6570032100', 'hex');

function headVerifies(head: Head): boolean {
  const key = createPublicKey({
    key: Buffer.concat([ED25519_SPKI, Buffer.from(head.key, 'hex')]),
    format: 'der',
    type: 'spki',
  });
  return verify(null, signedText(head.count, head.hash, head.key), key, Buffer.from(head.signature, 'hex'));
}

export function signedText(count: number, hash: string, key: string): Buffer {
  return Buffer.from(`assay/audit-head/v1\n${count}\n${hash}\n${key}\n`);
}
