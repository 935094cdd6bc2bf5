// Sealed time (docs/sealed.md §5): the wall clock when the process started plus what has passed since by a
// clock that only runs on. A host that moves the guest's wall clock neither opens the window of replays again
// nor locks a client out.

export interface SealedTime {
  /** Seconds since 1970; never falls. */
  seconds(): number;
}

/** `wall`: Unix milliseconds, read once; `monotonic`: milliseconds of a clock that never falls. */
export function createSealedTime(wall: () => number, monotonic: () => number): SealedTime {
  const startedAt = wall();
  const begun = monotonic();
  let latest = 0;
  return {
    seconds() {
      latest = Math.max(latest, Math.floor((startedAt + monotonic() - begun) / 1000));
      return latest;
    },
  };
}
