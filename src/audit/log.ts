// The audit log as it lies on the disk, and its check (docs/audit.md): numbered segments and audit.jsonl hold
// one chain of JSON lines, each with the SHA-256 of the one before. A run begins with an `open` line, which
// names the run's receipt key and carries the signed head of the run before; head.json is that of the last
// run: each run is protected by its own signature. Refuses beside a broken chain: lines without a head, and
// missing segments that no signed line mentions.

import { open, readFile, readdir, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { Chain, GENESIS, type Run } from './chain.ts';
import { headOf, headVerifies, type Head } from './head.ts';

export const LOG = 'audit.jsonl';
export const HEAD = 'head.json';
const MAX_LINE_BYTES = 16 * 1024;

export interface Segment {
  readonly name: string;
  /** Number of its first line, and the hash that line follows. */
  readonly first: number;
  readonly prev: string;
}

export interface Found {
  /** The fault; null when there is none. */
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
  /** The first fault, with its line; null when there is none. */
  readonly problem: string | null;
  /** Lines that are present. */
  readonly count: number;
  /** Number of the first of them; more than 0 when old segments were removed by `audit.max_segments`. */
  readonly first: number;
  readonly segments: number;
  /** The key that signed the head, hex. */
  readonly receiptKey: string | null;
  /**
   * Lines at the end that are newer than the head: a crash came before their head, or the
   * server did not write them.
   */
  readonly unsigned: number;
  readonly runs: readonly (Run & { readonly unsigned: number; readonly anchored: boolean })[];
  /**
   * Runs whose key is none of those given: a process that could write to the folder before the next
   * run may have forged them.
   */
  readonly unanchored: number;
}

/**
 * Reads the whole log. `receiptKeys` (hex) are receipt keys from attestations of runs; each must
 * be the key of a run here.
 */
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
  const chain = new Chain();
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

/**
 * Lines without their newline; the last one is `whole` only if it had one. Reading stops at an endless line.
 */
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
    return headOf(JSON.parse(text)) ?? 'malformed';
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
