// The chain of an audit log: takes its lines one by one, and reports the fault of the first line that does
// not follow. Refuses: a head that goes back, a run signed by a key other than its own, and more lines after
// a head than a crash can leave.

import { createHash } from 'node:crypto';
import { isRecord } from '../base/shape.ts';
import { headOf, headVerifies, isHex, type Head } from './head.ts';

/** The hash that line 0 follows. */
export const GENESIS = createHash('sha256').update('assay/audit/v1').digest('hex');
/** A crash leaves at most one batch without a head, and each restart that crashes too one `open` line. */
export const MAX_UNSIGNED = 131_072;
/** Lines `from` to `to` (exclusive), from one `open` line to the next. */
export interface Run {
  readonly key: string;
  readonly from: number;
  readonly to: number;
  /** The run signed all lines before this one; null: it ended before it served, and signed none. */
  readonly signed: number | null;
}

interface State {
  readonly first: number;
  readonly count: number;
  readonly hash: string;
  /** The hash that the last line follows. */
  readonly prev: string;
  readonly runs: readonly Run[];
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

export class Chain {
  readonly #runs: { key: string; from: number; signed: number | null }[] = [];
  /**
   * Hashes before the last lines, by number modulo its size: those that the head in an `open` line may name.
   */
  readonly #recent = Buffer.alloc(32 * MAX_UNSIGNED);
  #first: number | null = null;
  #firstPrev: string | null = null;
  #count = 0;
  #hash = GENESIS;
  #prev = GENESIS;
  /** Lines below it are signed. */
  #signedTo = 0;
  /** Number of the last line that says the lines before `first` were removed. */
  #dropped: number | null = null;

  /** Takes the next line; returns its fault. */
  take(bytes: Uint8Array): string | null {
    const line = parseLine(bytes);
    if (typeof line === 'string') return `line ${this.#count + 1} ${line}`;
    if (this.#first === null) {
      if (!isCount(line.seq) || !isHex(line.prev, 64)) return 'the first line has no number and hash';
      this.#first = this.#count = this.#signedTo = line.seq;
      if (this.#first > 0) this.#hash = line.prev;
      this.#firstPrev = this.#hash;
      if (line.event !== 'open' && !(this.#first > 0 && line.event === 'segment'))
        return `line ${this.#first + 1} does not open a run`;
    }
    if (line.seq !== this.#count)
      return `line ${this.#count + 1} has number ${String(line.seq)}, expected ${this.#count}`;
    if (line.prev !== this.#hash) {
      return `line ${this.#count + 1} does not follow from the line before: one of the two was changed, or a line removed`;
    }
    const problem = this.#special(line);
    if (problem !== null) return `line ${this.#count + 1} ${problem}`;
    if (line.event === 'dropped' && line.first === this.#first && line.next === this.#firstPrev)
      this.#dropped = this.#count;
    this.#recent.write(this.#hash, (this.#count % MAX_UNSIGNED) * 32, 'hex');
    this.#prev = this.#hash;
    this.#hash = createHash('sha256').update(bytes).digest('hex');
    this.#count += 1;
    return null;
  }

  #special(line: Line): string | null {
    if (line.event === 'open') return this.#opened(line);
    return line.event === 'segment' ? this.#continued(line) : null;
  }

  #opened(line: Line): string | null {
    if (!isHex(line.receipt_key, 64)) return 'opens a run without its key';
    if (this.#count === 0) {
      if (line.previous !== null) return 'opens the first run with the head of another';
    } else {
      const previous = headOf(line.previous);
      if (previous === null) return 'opens a run without the head of the run before';
      if (!headVerifies(previous)) return 'carries a head of the run before whose signature does not verify';
      const problem = this.#wasSigned(previous) ?? this.signed(previous, 'the head of the run before');
      if (problem !== null) return `opens a run, but ${problem}`;
    }
    this.#runs.push({ key: line.receipt_key, from: this.#count, signed: null });
    return null;
  }

  #wasSigned(head: Head): string | null {
    if (head.count > this.#count)
      return `the head of the run before was signed over ${head.count} lines: lines are missing before it`;
    if (head.count < (this.#first ?? 0) || this.#count - head.count >= MAX_UNSIGNED)
      return `the head of the run before is of line ${head.count}, too far back`;
    const at = (head.count % MAX_UNSIGNED) * 32;
    const there = head.count === this.#count ? this.#hash : this.#recent.toString('hex', at, at + 32);
    return there === head.hash
      ? null
      : `line ${head.count} is not the one the head of the run before was signed over`;
  }

  #continued(line: Line): string | null {
    if (this.#runs.length === 0 && isHex(line.receipt_key, 64))
      this.#runs.push({ key: line.receipt_key, from: this.#count, signed: null });
    return this.#runs.at(-1)?.key === line.receipt_key
      ? null
      : 'continues a run with another key than it was opened with';
  }

  /** Takes a head that verifies, `what` is its name; returns its fault. Its hash must have been compared. */
  signed(head: Head, what: string): string | null {
    if (head.count < this.#signedTo)
      return `${what} is of line ${head.count}, and line ${this.#signedTo} was signed before: it was put back`;
    if (this.#count - head.count > MAX_UNSIGNED)
      return `${this.#count - head.count} lines follow ${what}, more than a crash leaves`;
    // The head of an empty log is that of its first run; where the log begins with a removed
    // segment's head, its run is gone.
    const run =
      this.#runs.findLast((each) => each.from < head.count) ??
      (this.#first === 0 ? this.#runs[0] : undefined);
    if (run !== undefined && run.key !== head.key)
      return `${what} is signed by another key than the log was opened with`;
    if (run !== undefined && run.from < head.count) run.signed = head.count;
    this.#signedTo = head.count;
    return null;
  }

  state(): State {
    return {
      first: this.#first ?? 0,
      count: this.#count,
      hash: this.#hash,
      prev: this.#prev,
      runs: this.#runs.map((run, i) => ({
        key: run.key,
        from: run.from,
        to: this.#runs[i + 1]?.from ?? this.#count,
        signed: run.signed,
      })),
    };
  }

  firstPrev(): string | null {
    return this.#firstPrev;
  }

  /** The fault of a log whose first line is not line 0, when no signed line says why. */
  unexplainedStart(): string | null {
    if ((this.#first ?? 0) === 0) return null;
    const dropped = this.#dropped;
    const run = this.#runs.findLast((each) => each.from <= (dropped ?? -1));
    if (dropped !== null && (run?.signed ?? 0) > dropped) return null;
    return `the first line is number ${this.#first}, and no signed line says that those before were removed`;
  }
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}

function parseLine(bytes: Uint8Array): Line | string {
  let line: unknown;
  try {
    line = JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch {
    return 'is not JSON';
  }
  return isRecord(line) ? line : 'is not an object';
}
