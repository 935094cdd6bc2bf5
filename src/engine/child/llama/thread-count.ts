// How many threads compute while other work uses the same processors. ggml's threads meet at a spinning
// barrier after each of some hundred operations per step; if one of them has lost its processor for a time
// slice, all wait, spinning (measured on two cores beside one busy process: 230 tokens/s became 7 to 28; one
// thread alone makes 75). So when a step's processor time shows that its threads did not have a processor
// each, the next steps use as many threads as there were processors, until a try with all of them succeeds.

export interface ThreadCount {
  /** Threads for the next step. */
  readonly threads: number;
  /** Records the duration of a step and the processor time of all its threads, milliseconds. */
  record(wallMs: number, cpuMs: number): void;
}

/** Milliseconds until all threads are tried again; doubled after each failure (docs/decisions/engine.md). */
const [firstRetry, lastRetry] = [500, 8000];
/**
 * Milliseconds of steps that are judged together, so that a short burst of another process does not count.
 */
const SAMPLE = 100;
/** Samples after which a try counts as a success. */
const LASTING = 20;

export function createThreadCount(all: number, now: () => number): ThreadCount {
  let threads = all;
  let wall = 0;
  let cpu = 0;
  let retry = firstRetry;
  let retryAt = 0;
  let good = Infinity;
  return {
    get threads() {
      return threads;
    },
    record(wallMs, cpuMs) {
      if (all === 1) return;
      if (threads < all) {
        if (now() < retryAt) return;
        threads = all;
        good = 0;
        return;
      }
      wall += wallMs;
      cpu += cpuMs;
      if (wall < SAMPLE) return;
      const processors = cpu / wall;
      wall = 0;
      cpu = 0;
      if (all - processors <= Math.max(0.45, all * 0.05)) {
        good += 1;
        return;
      }
      threads = Math.max(1, Math.min(all - 1, Math.floor(processors)));
      // A try that failed soon: the other processes are still busy.
      retry = good < LASTING ? Math.min(retry * 2, lastRetry) : firstRetry;
      retryAt = now() + retry;
    },
  };
}
