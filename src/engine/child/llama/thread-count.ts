// How many threads compute while other work uses the same processors. ggml's threads meet at a spinning
// barrier after each of some hundred operations per step: one that has lost its processor makes all wait
// (measured on two cores beside a busy process: 230 tokens/s became 7 to 28; one thread alone makes 75). When
// a step's processor time shows that, the next steps use as many threads as there were processors, until a
// try with all succeeds — or until they prove slower than the last steps of about their size with all.

export interface ThreadCount {
  /** Threads for the next step. */
  readonly threads: number;
  /** Records a step of so many tokens: its duration and the processor time of its threads, milliseconds. */
  record(wallMs: number, cpuMs: number, tokens: number): void;
}

/** Milliseconds until all threads are tried again; doubled after each failure (docs/decisions/engine.md). */
const [firstRetry, lastRetry] = [500, 8000];
/**
 * Milliseconds of steps that are judged together, so that a short burst of another process does not count.
 */
const SAMPLE = 100;
/** Samples after which a try counts as a success. */
const LASTING = 20;
/** Milliseconds for which all threads stay after fewer were slower; doubled each time. */
const [firstTrust, lastTrust] = [1000, 64_000];

/** Steps of about the same size are compared by what a token of them takes: four sizes to an octave. */
function sizeOf(tokens: number): number {
  return Math.round(4 * Math.log2(Math.max(1, tokens)));
}

export function createThreadCount(all: number, now: () => number): ThreadCount {
  let threads = all;
  let wall = 0;
  let cpu = 0;
  let retry = firstRetry;
  let retryAt = 0;
  let good = Infinity;
  let trust = firstTrust;
  let trustUntil = 0;
  /** Running means of a token's time in steps with all threads, by their size. */
  const usual = new Map<number, number>();
  /** Of the steps with fewer threads: what they took, and would have taken with all. */
  let fewer = { took: 0, usual: 0 };

  const remember = (wallMs: number, tokens: number): void => {
    const each = wallMs / Math.max(1, tokens);
    const mean = usual.get(sizeOf(tokens)) ?? each;
    usual.set(sizeOf(tokens), mean + 0.3 * (each - mean));
  };
  /** With fewer threads than all: whether that turned out slower. */
  const isSlower = (wallMs: number, tokens: number): boolean => {
    const each = usual.get(sizeOf(tokens));
    if (each === undefined) return false;
    fewer = { took: fewer.took + wallMs, usual: fewer.usual + each * Math.max(1, tokens) };
    if (fewer.took < SAMPLE) return false;
    const slower = fewer.took > fewer.usual;
    fewer = { took: 0, usual: 0 };
    if (!slower) trust = firstTrust;
    return slower;
  };
  return {
    get threads() {
      return threads;
    },
    record(wallMs, cpuMs, tokens) {
      if (all === 1) return;
      if (threads < all) {
        if (isSlower(wallMs, tokens)) {
          threads = all;
          good = Infinity;
          trustUntil = now() + trust;
          trust = Math.min(trust * 2, lastTrust);
        } else if (now() >= retryAt) {
          threads = all;
          good = 0;
        }
        return;
      }
      remember(wallMs, tokens);
      if (now() < trustUntil) return;
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
