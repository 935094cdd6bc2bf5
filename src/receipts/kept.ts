// Receipts that can still be asked for by their id, within a time and a number of bytes. When they are too
// many, the oldest of the caller with the most goes first, so that one caller cannot push out another's.

export interface KeptReceipt {
  readonly receipt: Uint8Array;
  readonly salt: Uint8Array;
}

interface Entry extends KeptReceipt {
  readonly owner: string;
  /** Milliseconds since 1970. */
  readonly at: number;
}

export interface KeptOptions {
  readonly now: () => number;
  readonly maxBytes?: number | undefined;
  readonly maxAgeMs?: number | undefined;
}

/** An entry's strings and objects beside its bytes. */
const ENTRY_BYTES = 512;

export class KeptReceipts {
  readonly #options: {
    readonly now: () => number;
    readonly maxBytes: number;
    readonly maxAgeMs: number;
  };
  /** By id, oldest first. */
  readonly #entries = new Map<string, Entry>();
  /** Ids of each owner, oldest first. */
  readonly #owned = new Map<string, Set<string>>();
  /** Owners by the number of their receipts. */
  readonly #byCount = new Map<number, Set<string>>();
  #most = 0;
  #bytes = 0;

  constructor({ now, maxBytes = 16 * 1024 * 1024, maxAgeMs = 600_000 }: KeptOptions) {
    this.#options = { now, maxBytes, maxAgeMs };
  }

  get bytes(): number {
    return this.#bytes;
  }

  add(id: string, owner: string, { receipt, salt }: KeptReceipt): void {
    this.#expire();
    this.#entries.set(id, { receipt, salt, owner, at: this.#options.now() });
    this.#bytes += sizeOf(receipt);
    const ids = this.#owned.get(owner) ?? new Set();
    this.#owned.set(owner, ids);
    this.#recount(owner, ids.size, ids.size + 1);
    ids.add(id);
    while (this.#bytes > this.#options.maxBytes) this.#evict();
  }

  /** `owner` undefined: the id alone is the secret. */
  get(id: string, owner: string | undefined): KeptReceipt | undefined {
    this.#expire();
    const entry = this.#entries.get(id);
    return entry === undefined || (owner !== undefined && entry.owner !== owner) ? undefined : entry;
  }

  #expire(): void {
    const before = this.#options.now() - this.#options.maxAgeMs;
    for (const [id, { at }] of this.#entries) {
      if (at > before) return;
      this.#remove(id);
    }
  }

  #evict(): void {
    const [owner = ''] = this.#byCount.get(this.#most) ?? [];
    const [oldest = ''] = this.#owned.get(owner) ?? [];
    this.#remove(oldest);
  }

  #remove(id: string): void {
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    this.#entries.delete(id);
    this.#bytes -= sizeOf(entry.receipt);
    const ids = this.#owned.get(entry.owner);
    if (ids === undefined) return;
    this.#recount(entry.owner, ids.size, ids.size - 1);
    ids.delete(id);
    if (ids.size === 0) this.#owned.delete(entry.owner);
  }

  #recount(owner: string, from: number, to: number): void {
    const old = this.#byCount.get(from);
    old?.delete(owner);
    if (old?.size === 0) this.#byCount.delete(from);
    if (to > 0) this.#byCount.set(to, (this.#byCount.get(to) ?? new Set()).add(owner));
    // It changes by one at a time, so the most is here or one below.
    if (to > this.#most) this.#most = to;
    else if (from === this.#most && !this.#byCount.has(from)) this.#most = to;
  }
}

function sizeOf(receipt: Uint8Array): number {
  return receipt.length + ENTRY_BYTES;
}
