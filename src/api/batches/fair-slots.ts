// A number of places that callers take in turn: however many lines one caller has waiting, another's next line
// gets the next place but one.

export class FairSlots {
  #free: number;
  /** In the order of turns: a served caller goes to the end. */
  readonly #waiting = new Map<string, (() => void)[]>();

  constructor(slots: number) {
    this.#free = slots;
  }

  /** Resolves with the release of a place (idempotent); rejects with the reason of the signal. */
  async take(caller: string, signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted();
    if (this.#free > 0) this.#free -= 1;
    else await this.#turn(caller, signal);
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      this.#give();
    };
  }

  #turn(caller: string, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const queue = this.#waiting.get(caller) ?? [];
      const served = (): void => {
        signal.removeEventListener('abort', leave);
        resolve();
      };
      const leave = (): void => {
        queue.splice(queue.indexOf(served), 1);
        if (queue.length === 0) this.#waiting.delete(caller);
        reject(signal.reason as Error);
      };
      queue.push(served);
      this.#waiting.set(caller, queue);
      signal.addEventListener('abort', leave, { once: true });
    });
  }

  #give(): void {
    const next = this.#waiting.entries().next();
    if (next.done === true) {
      this.#free += 1;
      return;
    }
    const [caller, queue] = next.value;
    this.#waiting.delete(caller);
    const served = queue.shift();
    if (queue.length > 0) this.#waiting.set(caller, queue);
    served?.();
  }
}
