// Free space of one file system, shared by several writers of known size. Each reserves the bytes it still
// has to write, so that no byte is promised twice; some are kept for files that must always be written (the
// audit log, locks, states).

/** There is less room than was asked for. */
export class NoRoom extends Error {
  override readonly name = 'NoRoom';
  /** Bytes that could have been reserved. */
  readonly available: number;

  constructor(available: number) {
    super(`only ${available} bytes are free`);
    this.available = available;
  }
}

export interface Reservation {
  /** Updates the bytes that are still to be written. */
  update(remaining: number): void;
  /** Idempotent. */
  release(): void;
}

export interface DiskRoomOptions {
  readonly freeBytes: () => Promise<number>;
  /** Bytes that are never promised. */
  readonly keep: number;
  /** Removes dispensable files until `missing` more bytes are free or none is left. */
  readonly giveBack?: ((missing: number) => Promise<void>) | undefined;
}

export class DiskRoom {
  readonly #options: DiskRoomOptions;
  /** Still to be written, by reservation. */
  readonly #remaining = new Map<symbol, number>();

  constructor(options: DiskRoomOptions) {
    this.#options = options;
  }

  /** Throws NoRoom, also after everything dispensable was given back. */
  async reserve(bytes: number): Promise<Reservation> {
    let promised = await this.#promise(bytes);
    if (typeof promised === 'number') {
      await this.#options.giveBack?.(bytes - promised);
      promised = await this.#promise(bytes);
    }
    if (typeof promised === 'number') throw new NoRoom(Math.max(0, promised));
    return promised;
  }

  /** Whether the kept bytes are free; false when other writers have taken them. */
  async isKept(): Promise<boolean> {
    return (await this.#options.freeBytes()) >= this.#options.keep;
  }

  /** The reservation, or the bytes that could have been reserved. */
  async #promise(bytes: number): Promise<Reservation | number> {
    // Bytes written while free space is asked for count on both sides: at worst a little room is overlooked.
    const before = this.#promised();
    const free = await this.#options.freeBytes();
    const available = free - Math.max(before, this.#promised()) - this.#options.keep;
    if (available < bytes) return available;
    // In the same turn as the comparison, so that no other caller reserves these bytes in between.
    const own = Symbol('reservation');
    this.#remaining.set(own, bytes);
    return {
      update: (remaining) => {
        if (this.#remaining.has(own)) this.#remaining.set(own, Math.max(0, remaining));
      },
      release: () => void this.#remaining.delete(own),
    };
  }

  #promised(): number {
    let sum = 0;
    for (const remaining of this.#remaining.values()) sum += remaining;
    return sum;
  }
}
