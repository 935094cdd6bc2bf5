// Silence is counted in ticks of the watchdog, so that neither a clock that is set nor a stall of this
// process ends a healthy child. That a child which hangs is ended is shown in client-failures.test.

import { expect, test, vi } from 'vitest';
import { createWatchdog } from '../../../src/engine/watchdog.ts';
import { openDemo, run } from '../../fixtures/engine/demo-engine.ts';

function bench() {
  let tick = (): void => {};
  const seen = { asked: true, pings: 0, kills: 0, stopped: false, everyMs: 0 };
  const watchdog = createWatchdog({
    limitMs: 1000,
    asked: () => seen.asked,
    ping: () => void (seen.pings += 1),
    kill: () => void (seen.kills += 1),
    every(ms, each) {
      seen.everyMs = ms;
      tick = each;
      return () => void (seen.stopped = true);
    },
  });
  return { watchdog, seen, tick: (times: number) => Array.from({ length: times }, () => tick()) };
}

test('a child that was asked and is silent for the whole limit is ended', () => {
  const { watchdog, seen, tick } = bench();
  expect(seen.everyMs).toBe(250);
  tick(4);
  expect(seen).toMatchObject({ pings: 4, kills: 0 });
  tick(1);
  expect(seen).toMatchObject({ pings: 4, kills: 1 });
  watchdog.stop();
  expect(seen.stopped).toBe(true);
});

test('one that answers anything, or is asked nothing, is not', () => {
  const { watchdog, seen, tick } = bench();
  for (let i = 0; i < 10; i += 1) {
    tick(4);
    watchdog.heard();
  }
  seen.asked = false;
  tick(20);
  // The silence begins with the question.
  seen.asked = true;
  tick(4);
  expect(seen.kills).toBe(0);
  tick(1);
  expect(seen.kills).toBe(1);
});

test('an engine outlives a clock that is set and a stall of this process, both beyond the limit, in mid-answer', async () => {
  const engine = await openDemo('demo-context', { slots: 1 }, { watchdogMs: 1000 });
  const real = Date.now;
  try {
    const running = run(engine, { maxTokens: 1900 });
    // The child has the request and is at work once it answers what comes after it.
    await engine.tokenize({ text: 'a' });
    let ahead = 0;
    vi.spyOn(Date, 'now').mockImplementation(() => real() + (ahead += 60_000));
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1500);
    await engine.tokenize({ text: 'a' });
    expect((await running).finish).toBe('length');
  } finally {
    vi.restoreAllMocks();
    await engine.close();
  }
});
