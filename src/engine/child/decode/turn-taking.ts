// Whether writers should decode together or one after another. On CPUs llama.cpp's kernel for one
// token is so much better than the one for two to four that a batch of two can take longer than two
// batches of one (measured: 35 ms against 2 × 9). Which is faster depends on processor, model and
// quantisation, so it is measured while working: the best recent time for one token and for n
// together, both tried again now and then.

export interface Pace {
  /** A step that decoded one token for each of `writers`, and no prompt. */
  record(writers: number, ms: number): void;
  /** True: n writers take turns; false: they share a batch. */
  takeTurns(writers: number): boolean;
}

const ENOUGH = 3;
/** Decisions until the way not taken is tried again. */
const RETRY_AFTER = 256;

export function createPace(): Pace {
  const best = new Map<number, { ms: number; samples: number }>();
  let decisions = 0;
  const known = (writers: number): number | null => {
    const found = best.get(writers);
    return found === undefined || found.samples < ENOUGH ? null : found.ms;
  };
  return {
    record(writers, ms) {
      const found = best.get(writers);
      // The first step of a kind also builds its graph. A slow moment of the machine is forgotten; a
      // lasting change is followed.
      if (found === undefined) best.set(writers, { ms: Infinity, samples: 0 });
      else {
        found.ms = Math.min(ms, found.ms * 1.02);
        found.samples += 1;
      }
    },
    takeTurns(writers) {
      if (writers < 2) return false;
      const together = known(writers);
      if (together === null) return false;
      const alone = known(1);
      if (alone === null) return true;
      decisions += 1;
      const turns = alone * writers < together * 0.95;
      return decisions % RETRY_AFTER === 0 ? !turns : turns;
    },
  };
}
