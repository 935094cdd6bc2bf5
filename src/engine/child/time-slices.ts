// Work over the texts of requests, which runs on the thread that also reads frames and steps the scheduler:
// one slice per turn of the event loop, the requests in turn. Between slices frames are read, so that a
// request cancelled meanwhile costs no more, and a short one never waits for all of a long one.

export interface Turns {
  /** `slice` is called until it returns false; an error it throws goes to `failed`. */
  add(id: number, slice: () => boolean): void;
  /** Drops the work; its end is not reported. */
  cancel(id: number): void;
}

/** `turn` calls back after reading the messages that arrived meanwhile. */
export function createTurns(
  turn: (then: () => void) => void,
  failed: (id: number, error: unknown) => void,
): Turns {
  /** In the order of their turns. */
  const waiting = new Map<number, () => boolean>();
  let asked = false;
  const ask = (): void => {
    if (asked || waiting.size === 0) return;
    asked = true;
    turn(step);
  };
  const step = (): void => {
    asked = false;
    const [first] = waiting;
    if (first === undefined) return; // all cancelled
    const [id, slice] = first;
    waiting.delete(id);
    try {
      if (slice()) waiting.set(id, slice);
    } catch (error) {
      failed(id, error);
    }
    ask();
  };
  return {
    add(id, slice) {
      waiting.set(id, slice);
      ask();
    },
    cancel: (id) => void waiting.delete(id),
  };
}
