// Whose turn it is among the adapters of one model: the one that was served longest ago. A decode has one
// adapter for all its sequences, so those of different adapters decode one after another.

export class AdapterTurns {
  #clock = 0;
  /** Time of the last turn, by adapter. */
  readonly #served = new Map<number, number>();

  /** The one of `waiting` that comes next, whose turn it then was; undefined when none waits. */
  next(waiting: Iterable<number>): number | undefined {
    let chosen: number | undefined;
    for (const adapter of new Set(waiting))
      if (chosen === undefined || this.#last(adapter) < this.#last(chosen)) chosen = adapter;
    if (chosen === undefined) return undefined;
    this.#clock += 1;
    this.#served.set(chosen, this.#clock);
    return chosen;
  }

  #last(adapter: number): number {
    return this.#served.get(adapter) ?? 0;
  }
}
