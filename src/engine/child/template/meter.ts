// The budget of all attempts at one request: milliseconds, units of work, lengths of ranges,
// and the size of the output.

import { createContext, runInContext } from 'node:vm';
import { ApiError } from '../../../base/errors.ts';

export interface TemplateBounds {
  /** Milliseconds of all attempts together. */
  readonly timeoutMs: number;
  /**
   * Characters of the output and of every string; also the weight of every list and
   * mapping, with all it holds.
   */
  readonly maxOutputCharacters: number;
  /** Numbers handed out by range(), all attempts together. */
  readonly maxRange: number;
  /**
   * Units of work of all attempts together: a character read or written is 1, an element 32, a
   * step of the interpreter 4.
   */
  readonly maxWork: number;
}

export interface Meter {
  readonly bounds: TemplateBounds;
  spend(units: number): void;
  /** Units so far. */
  spent(): number;
  countRange(length: number): void;
  /** Runs synchronous code that V8 interrupts when the time of all attempts is used up. */
  timed(work: () => void): void;
}

export function overBound(what: string): ApiError {
  return new ApiError('template_failed', `the chat template ${what}`);
}

/** Runs synchronous code for at most so many milliseconds; false when they were over. */
export type Stopwatch = (work: () => void, timeoutMs: number) => boolean;

export function createStopwatch(): Stopwatch {
  const sandbox: { work: () => void } = { work: () => {} };
  const context = createContext(sandbox);
  return (work, timeoutMs) => {
    sandbox.work = work;
    try {
      runInContext('work()', context, { filename: 'template', timeout: timeoutMs });
      return true;
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ERR_SCRIPT_EXECUTION_TIMEOUT')
        return false;
      throw error;
    } finally {
      sandbox.work = () => {};
    }
  };
}

export function createMeter(bounds: TemplateBounds, stopwatch: Stopwatch): Meter {
  let work = 0;
  let ranges = 0;
  let left = bounds.timeoutMs;
  return {
    bounds,
    spend(units) {
      work += units;
      if (!(work <= bounds.maxWork)) throw overBound('does more work than its bound');
    },
    spent: () => work,
    countRange(length) {
      ranges += length;
      if (!(ranges <= bounds.maxRange)) throw overBound('asks for longer ranges than its bound');
    },
    timed(run) {
      const begun = performance.now();
      try {
        if (left < 1 || !stopwatch(run, Math.ceil(left)))
          throw overBound(`took longer than ${bounds.timeoutMs} ms`);
      } finally {
        left -= performance.now() - begun;
      }
    },
  };
}
