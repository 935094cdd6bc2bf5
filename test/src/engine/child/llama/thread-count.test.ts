// How many threads compute when others use the processors: by the processor time the threads get,
// on a clock of the test's.

import { describe, expect, test } from 'vitest';
import { createThreadCount, type ThreadCount } from '../../../../../src/engine/child/llama/thread-count.ts';

/** A machine on which `free` processors are left; its threads work until `until` milliseconds. */
function work(threadCount: ThreadCount, clock: { ms: number }, until: number, free: number): number[] {
  const used: number[] = [];
  while (clock.ms < until) {
    const { threads } = threadCount;
    used.push(threads);
    // With fewer processors than threads most of the time is lost at barriers.
    const wall = threads > free ? 200 : 10;
    clock.ms += wall;
    threadCount.record(wall, wall * Math.min(threads, free), 1);
  }
  return used;
}

function start(all: number): { readonly threadCount: ThreadCount; readonly clock: { ms: number } } {
  const clock = { ms: 0 };
  return { threadCount: createThreadCount(all, () => clock.ms), clock };
}

describe('threads', () => {
  test('all of them while they have a processor each, give or take what the server needs', () => {
    const { threadCount, clock } = start(2);
    expect(new Set(work(threadCount, clock, 10_000, 2))).toEqual(new Set([2]));
    expect(new Set(work(threadCount, clock, 20_000, 1.7))).toEqual(new Set([2]));
  });

  test.each([
    [2, 1.4, 1],
    [8, 7.2, 7],
    [16, 10, 10],
    [4, 0.5, 1],
  ])('%i of them where %f processors are left: %i', (all, free, expected) => {
    const { threadCount, clock } = start(all);
    const used = work(threadCount, clock, 400, free);
    expect(used[0]).toBe(all);
    expect(used.at(-1)).toBe(expected);
  });

  test('all are tried again, ever more rarely while it fails, and stay once it succeeds', () => {
    const { threadCount, clock } = start(2);
    const used = work(threadCount, clock, 120_000, 1.4);
    const tries = used.filter((threads) => threads === 2).length;
    expect(tries).toBeGreaterThan(12);
    expect(tries).toBeLessThan(25);
    // The longest wait is over in time, and from then on it is all of them.
    work(threadCount, clock, 130_000, 2);
    expect(new Set(work(threadCount, clock, 140_000, 2))).toEqual(new Set([2]));
  });

  test('all stay where fewer are slower though each has less than a processor; fewer where that changes', () => {
    const { threadCount, clock } = start(2);
    // Both threads have 1.4 processors, and one alone needs half as long again.
    const used: number[] = [];
    while (clock.ms < 200_000) {
      const { threads } = threadCount;
      used.push(threads);
      // Hardly two steps are of one size.
      const size = 100 + (used.length % 97);
      const wall = (size / 10) * (threads === 2 ? 1 : 1.5);
      clock.ms += wall;
      threadCount.record(wall, wall * (threads === 2 ? 1.4 : 1), size);
    }
    expect(used.filter((threads) => threads === 1).length / used.length).toBeLessThan(0.02);
    // Another process takes a whole processor: barriers make two threads slower than one.
    work(threadCount, clock, 280_000, 1);
    const late = work(threadCount, clock, 320_000, 1);
    expect(late.filter((threads) => threads === 2).length / late.length).toBeLessThan(0.02);
  });

  test('steps too short to tell are looked at together; one thread is never questioned', () => {
    const { threadCount } = start(2);
    for (let i = 0; i < 99; i += 1) threadCount.record(1, 1, 1);
    expect(threadCount.threads).toBe(2);
    threadCount.record(1, 1, 1);
    expect(threadCount.threads).toBe(1);
    const alone = start(1).threadCount;
    alone.record(1000, 1, 1);
    expect(alone.threads).toBe(1);
  });
});
