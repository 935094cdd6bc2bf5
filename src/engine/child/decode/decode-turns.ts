// One decode at a time in a process whose contexts share threads: schedulers take turns, decode by decode, in
// the order in which they asked.

export class DecodeTurns {
  readonly #waiting: (() => void)[] = [];
  #busy = false;

  /** Takes the turn where it is free; false: wait for `enter`. */
  tryEnter(): boolean {
    if (this.#busy || this.#waiting.length > 0) return false;
    this.#busy = true;
    return true;
  }

  /** Resolves once the turn is the caller's. */
  async enter(): Promise<void> {
    if (this.tryEnter()) return;
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#busy = false;
    else next();
  }
}
