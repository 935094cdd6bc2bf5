// The sequence ids of the KV memory and what each holds: a running sequence, or a prefix kept for the next
// request of the same scope and adapter. A prefix is shared only between equal scopes (one per API key):
// timing must not reveal one client's text to another. Keys and values of one adapter are wrong for another.

import { wholeRuns, type Spans } from './media-span.ts';

export interface Slot {
  readonly id: number;
  /** Tokens whose keys and values are in the memory, in order. */
  tokens: number[];
  scope: string;
  adapter: number;
  busy: boolean;
  /** Logical clock; the idle slot with the lowest is evicted first. */
  used: number;
}

/** Whose a prefix is. */
export type Owner = Pick<Slot, 'scope' | 'adapter'>;

export interface Placement {
  readonly slot: Slot;
  /** Slot whose first `shared` tokens are to be shared; may be `slot` itself. Null: no prefix to share. */
  readonly source: Slot | null;
  readonly shared: number;
}

export interface Slots {
  readonly all: readonly Slot[];
  readonly free: number;
  /**
   * Chooses a slot for `tokens`; null when all are busy. At most `limit` tokens are shared, with a slot of
   * the same owner, and whole runs of `media` only. Changes no slot.
   */
  place(tokens: readonly number[], owner: Owner, limit: number, media?: Spans): Placement | null;
  /** The idle slot with content that was used longest ago. */
  oldestIdle(): Slot | null;
  touch(slot: Slot): void;
}

export function createSlots(count: number, reuse: boolean): Slots {
  let clock = 0;
  const all: Slot[] = Array.from({ length: count }, (_, id) => ({
    id,
    tokens: [],
    scope: '',
    adapter: 0,
    busy: false,
    used: 0,
  }));
  return {
    all,
    get free() {
      return all.reduce((sum, slot) => sum + (slot.busy ? 0 : 1), 0);
    },
    place(tokens, { scope, adapter }, limit, media) {
      const idle = all.filter((slot) => !slot.busy);
      if (idle.length === 0) return null;
      let source: Slot | null = null;
      let shared = 0;
      if (reuse) {
        for (const slot of all) {
          if (slot.scope !== scope || slot.adapter !== adapter || slot.tokens.length === 0) continue;
          const length = wholeRuns(media, Math.min(commonPrefix(slot.tokens, tokens), limit));
          // Among equals an idle slot is better: it can be taken over.
          if (
            length > shared ||
            (length === shared && length > 0 && source !== null && source.busy && !slot.busy)
          ) {
            source = slot;
            shared = length;
          }
        }
      }
      // The next turn of a conversation takes its slot over; of a short common beginning (a
      // system prompt) a copy is made.
      if (source !== null && !source.busy && shared * 2 >= source.tokens.length)
        return { slot: source, source, shared };
      const empty = idle.filter((slot) => slot !== source);
      const slot = empty.reduce<Slot | null>(
        (best, each) => (best === null || rank(each) < rank(best) ? each : best),
        null,
      );
      if (slot === null) return { slot: idle[0]!, source, shared };
      return { slot, source, shared };
    },
    oldestIdle() {
      return all.reduce<Slot | null>(
        (best, slot) =>
          slot.busy || slot.tokens.length === 0 || (best !== null && best.used <= slot.used) ? best : slot,
        null,
      );
    },
    touch(slot) {
      clock += 1;
      slot.used = clock;
    },
  };
}

/** Empty slots first, by id, so that few ids are in use; then the one used longest ago. */
function rank(slot: Slot): number {
  return slot.tokens.length === 0 ? slot.id - 1e9 : slot.used;
}

export function commonPrefix(a: readonly number[], b: readonly number[]): number {
  const end = Math.min(a.length, b.length);
  let i = 0;
  while (i < end && a[i] === b[i]) i += 1;
  return i;
}
