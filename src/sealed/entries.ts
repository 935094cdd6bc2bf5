// The set that each sealed request is executed by once (docs/sealed.md §6): one for all keys of this process,
// bounded by time, in number, and by caller. An entry outlives the window of its own time by another one: a
// client that seals anew, within the window of what it sealed before, may have that taken a window later. One
// whose request was cut before its route had it is free again, twice at most.

import { ApiError, overloaded } from '../base/errors.ts';

/** Seconds around sealed time in which a request is taken. */
export const WINDOW_SECONDS = 300;
/** Seconds an entry stays after its own time. */
const KEPT_SECONDS = 2 * WINDOW_SECONDS;
const MAX_ENTRIES = 524_288;
const MAX_FREED = 2;

export interface EntriesOptions {
  readonly seconds: () => number;
  readonly maxEntries?: number | undefined;
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
  readonly #entries = new Map<string, Entry>();
  /** The entries of one second, so that those that are over leave without a look at the others. */
  readonly #bySecond = new Map<number, string[]>();
  readonly #callers = new Map<string, number>();
  /** Seconds before this one have been cleared. */
  #cleared = Number.NEGATIVE_INFINITY;

  constructor({ seconds, maxEntries = MAX_ENTRIES }: EntriesOptions) {
    this.#seconds = seconds;
    this.#max = maxEntries;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Whether the window takes a request sealed at that second. */
  takes(at: number): boolean {
    return Math.abs(this.#seconds() - at) <= WINDOW_SECONDS;
  }

  /** Whether a request with this entry is under way or was. */
  has(entry: string): boolean {
    this.#clear();
    return this.#entries.get(entry)?.taken === true;
  }

  /**
   * Enters all of them, or throws: 409 sealed_replayed when one is there, 429 when the set or the caller's
   * eighth of it is full.
   */
  enter(entries: readonly string[], at: number, caller: string): void {
    this.#clear();
    if (entries.some((entry) => this.#entries.get(entry)?.taken === true)) throw replayed();
    const fresh = entries.filter((entry) => !this.#entries.has(entry));
    const held = this.#callers.get(caller) ?? 0;
    const share = Math.max(1, Math.floor(this.#max / 8));
    if (this.#entries.size + fresh.length > this.#max || held + fresh.length > share) throw full();
    for (const entry of entries) {
      const known = this.#entries.get(entry);
      if (known !== undefined) known.taken = true;
      else this.#add(entry, at, caller);
    }
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
    const oldest = this.#seconds() - KEPT_SECONDS;
    if (oldest <= this.#cleared) return;
    this.#cleared = oldest;
    for (const second of this.#bySecond.keys()) if (second < oldest) this.#drop(second);
  }

  #drop(second: number): void {
    for (const entry of this.#bySecond.get(second) ?? []) {
      const { caller } = this.#entries.get(entry) ?? { caller: '' };
      this.#entries.delete(entry);
      const left = (this.#callers.get(caller) ?? 1) - 1;
      if (left > 0) this.#callers.set(caller, left);
      else this.#callers.delete(caller);
    }
    this.#bySecond.delete(second);
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
