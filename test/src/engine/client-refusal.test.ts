// A full queue refuses without asking the engine: its answer would come at the end of a step, and a refusal
// should come at once. Shown with a child that is stopped and so cannot have answered.

import { expect, test } from 'vitest';
import { ApiError } from '../../../src/base/errors.ts';
import { openDemo, request, run } from '../../fixtures/engine/demo-engine.ts';
import { childrenOf } from '../../fixtures/e2e/real-server.ts';

test('with slots and queue full the next is 429 although the child stands still; with room again it is served', async () => {
  const engine = await openDemo('demo-context', { slots: 2 }, { maxQueued: 2, watchdogMs: 60_000 });
  try {
    const stop = new AbortController();
    const begin = (i: number): AsyncIterator<unknown> =>
      engine
        .generate(request({ prompt: { kind: 'text', text: `stream ${i}` }, maxTokens: 1500 }), stop.signal)
        [Symbol.asyncIterator]();
    const running = begin(0);
    const other = begin(1);
    await Promise.all([running.next(), other.next()]);
    const waiting = Promise.allSettled([begin(2).next(), begin(3).next()]);
    // The child says how many wait with the events of each step.
    while (engine.stats().queued < 2)
      if ((await running.next()).done === true) throw new Error('the stream ended first');
    process.kill(engine.pid ?? 0, 'SIGSTOP');
    const refused: unknown = await run(engine).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(ApiError);
    expect(refused).toMatchObject({ status: 429, code: 'engine_overloaded', retryAfterSeconds: 1 });
    process.kill(engine.pid ?? 0, 'SIGCONT');
    stop.abort();
    await waiting;
    // The child says when it has dropped what was cancelled.
    await engine.dropped();
    expect((await run(engine, { maxTokens: 3 })).finish).toBe('length');
  } finally {
    await engine.close();
  }
});

test('a child killed from outside while it loads is engine_crashed, which a retry helps: the model is not to blame', async () => {
  const before = new Set(await childrenOf(process.pid));
  const opening = openDemo('demo-context').catch((error: unknown) => error);
  let added: number[] = [];
  while (added.length === 0) added = (await childrenOf(process.pid)).filter((pid) => !before.has(pid));
  for (const pid of added) process.kill(pid, 'SIGKILL');
  expect(await opening).toMatchObject({ status: 503, code: 'engine_crashed', retryAfterSeconds: 1 });
});
