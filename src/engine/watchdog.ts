// Reports a child that has stopped answering. It counts ticks of its own timer without an answer, not the
// time: a change of the clock or a stall of this process's own loop then counts as one tick at most, and
// before the next one the loop has read what the child sent meanwhile.

export interface Watchdog {
  /** Call on any data of the child. */
  heard(): void;
  stop(): void;
}

/** Quiet ticks that end a child; each is a fourth of the limit. */
const QUIET_TICKS = 4;

export function createWatchdog(options: {
  /** Milliseconds; a child is ended after this much silence and up to a fourth more. */
  readonly limitMs: number;
  /** Whether the child owes an answer. */
  readonly asked: () => boolean;
  /** Asks the child for an answer. */
  readonly ping: () => void;
  readonly kill: () => void;
  /** Calls back every `ms` milliseconds; the returned function stops it. */
  readonly every: (ms: number, tick: () => void) => () => void;
}): Watchdog {
  let quiet = 0;
  const stop = options.every(Math.max(50, options.limitMs / QUIET_TICKS), () => {
    if (!options.asked()) quiet = 0;
    else if (quiet === QUIET_TICKS) options.kill();
    else {
      quiet += 1;
      options.ping();
    }
  });
  return {
    heard() {
      quiet = 0;
    },
    stop,
  };
}
