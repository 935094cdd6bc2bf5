// Time as a parameter: what is below main gets it handed in, so that tests move it by hand.

export interface Clock {
  /** Unix milliseconds. */
  now(): number;
  /** Calls once, after `ms`; the returned function cancels. Does not keep the process alive. */
  after(ms: number, call: () => void): () => void;
}

export const systemClock: Clock = {
  now: Date.now,
  after(ms, call) {
    const timer = setTimeout(call, ms);
    timer.unref();
    return () => clearTimeout(timer);
  },
};
