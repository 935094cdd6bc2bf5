// The set that each sealed request is executed by once (docs/sealed.md §5): one for all keys of this process,
// bounded by time, in number, and by caller. An entry leaves when its own time has left the window. One whose
// request was cut before its route had it is free again, twice at most. A host can move the clock that
// the window follows, so entries that left are still known, up to a number; of times whose entries are
// forgotten no request is ever said not to have run.

import { ApiError, overloaded } from '../base/errors.ts';

/** Seconds around sealed time in which a request is taken. */
export const WINDOW_SECONDS = 300;
const MAX_ENTRIES = 262_144;
/** Entries that left the window and are still known. */
const MAX_PAST = 65_536;
const MAX_FREED = 2;

export interface EntriesOptions {
  readonly seconds: () => number;
  readonly maxEntries?: number | undefined;
  readonly maxPast?: number | undefined;
}

/** Sealed bytes as the set knows them, and the second they were sealed at. */
export interface TimedEntry {
  readonly entry: string;
  readonly at: number;
}

interface Entry {
  readonly at: number;
  readonly caller: string;
  taken: boolean;
  freed: number;
}

export class Entries {
  readonly #seconds: () => number;
  readonly #max: number;
  readonly #maxPast: number;
  readonly #entries = new Map<string, Entry>();
  /** Second by entry, those that left first come first. */
  readonly #past = new Map<string, number>();
  /** The latest second of which an entry is known no more. */
  #forgotten = Number.NEGATIVE_INFINITY;
  /** The entries of one second, so that those that are over leave without a look at the others. */
  readonly #bySecond = new Map<number, string[]>();
  readonly #callers = new Map<string, number>();
  /** Seconds before this one have been cleared. */
  #cleared = Number.NEGATIVE_INFINITY;

  constructor({ seconds, maxEntries = MAX_ENTRIES, maxPast = MAX_PAST }: EntriesOptions) {
    this.#seconds = seconds;
    this.#max = maxEntries;
    this.#maxPast = maxPast;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Whether the window takes a request sealed at that second. */
  takes(at: number): boolean {
    return Math.abs(this.#seconds() - at) <= WINDOW_SECONDS;
  }

  /** Whether bytes sealed at that second may be taken later, if not now. */
  isAhead(at: number): boolean {
    return at - this.#seconds() > WINDOW_SECONDS;
  }

  /** Whether a request with this entry is under way or was. */
  has(entry: string): boolean {
    this.#clear();
    return this.#entries.get(entry)?.taken === true || this.#past.has(entry);
  }

  /** Whether a request sealed at that second may have run without being known here. */
  hasForgotten(at: number): boolean {
    this.#clear();
    return at <= this.#forgotten;
  }

  /**
   * Enters all that the window takes, the first of which it must take, or throws: 409 sealed_replayed when
   * one is there, 429 when the set or the caller's eighth of it is full.
   */
  enter(entries: readonly TimedEntry[], caller: string): void {
    const [own] = entries;
    // The clock may have moved since this was judged.
    if (own === undefined || !this.takes(own.at) || entries.some(({ entry }) => this.has(entry)))
      throw replayed();
    const fresh = entries.filter(({ entry, at }) => this.takes(at) && !this.#entries.has(entry));
    const held = this.#callers.get(caller) ?? 0;
    const share = Math.max(1, Math.floor(this.#max / 8));
    if (this.#entries.size + fresh.length > this.#max || held + fresh.length > share) throw full();
    for (const { entry } of entries) {
      const known = this.#entries.get(entry);
      if (known !== undefined) known.taken = true;
    }
    for (const { entry, at } of fresh) this.#add(entry, at, caller);
  }

  /** The request was cut before its route had it, and was not answered. */
  free(entry: string): void {
    const known = this.#entries.get(entry);
    if (known === undefined || known.freed >= MAX_FREED) return;
    known.freed += 1;
    known.taken = false;
  }

  #add(entry: string, at: number, caller: string): void {
    this.#entries.set(entry, { at, caller, taken: true, freed: 0 });
    const together = this.#bySecond.get(at);
    if (together === undefined) this.#bySecond.set(at, [entry]);
    else together.push(entry);
    this.#callers.set(caller, (this.#callers.get(caller) ?? 0) + 1);
  }

  #clear(): void {
    const oldest = this.#seconds() - WINDOW_SECONDS;
    if (oldest <= this.#cleared) return;
    this.#cleared = oldest;
    for (const second of this.#bySecond.keys()) if (second < oldest) this.#drop(second);
  }

  #drop(second: number): void {
    for (const entry of this.#bySecond.get(second) ?? []) {
      const { caller, taken } = this.#entries.get(entry) ?? { caller: '', taken: false };
      this.#entries.delete(entry);
      if (taken) this.#past.set(entry, second);
      const left = (this.#callers.get(caller) ?? 1) - 1;
      if (left > 0) this.#callers.set(caller, left);
      else this.#callers.delete(caller);
    }
    this.#bySecond.delete(second);
    this.#forget();
  }

  #forget(): void {
    for (const [entry, at] of this.#past) {
      if (this.#past.size <= this.#maxPast) return;
      this.#past.delete(entry);
      this.#forgotten = Math.max(this.#forgotten, at);
    }
  }
}

export function replayed(): ApiError {
  return new ApiError(
    'sealed_replayed',
    'these sealed bytes came before; whether they were executed is not said here',
    {
      shouldRetry: false,
    },
  );
}

function full(): ApiError {
  return overloaded('server_overloaded', 'the server remembers as many sealed requests as it may', 5);
}
