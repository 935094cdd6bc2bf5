// Aborted work stays in the engine until the child has dropped it: the server counts it until then, and gets
// the numbers of an engine that has become idle.

import { expect, test } from 'vitest';
import type { Engine } from '../../../src/engine/seam/engine.ts';
import { DEFAULT_CONFIG } from '../../../src/http/deps.ts';
import { openDemo, request } from '../../fixtures/engine/demo-engine.ts';
import { apiKey, post, startApi } from '../../fixtures/http/api-server.ts';
import { latch, untilAborted } from '../../fixtures/latch.ts';
import { apiRefusal } from '../../fixtures/refusal.ts';

test('a burst that is cancelled leaves no gauge behind on an idle engine', async () => {
  const engine = await openDemo('demo-context', { slots: 1 }, { maxQueued: 32 });
  try {
    const stop = new AbortController();
    const begin = (): AsyncIterator<unknown> =>
      engine.generate(request({ maxTokens: 1500 }), stop.signal)[Symbol.asyncIterator]();
    const running = begin();
    await running.next();
    const waiting = Array.from({ length: 17 }, () => begin().next());
    while (engine.stats().queued < 17)
      if ((await running.next()).done === true) throw new Error('the stream ended first');
    stop.abort(new Error('gone'));
    await Promise.allSettled(waiting);
    await engine.dropped();
    expect(engine.stats()).toMatchObject({ queued: 0, active: 0 });
  } finally {
    await engine.close();
  }
});

test('cancelled vectors leave no gauge behind either', async () => {
  const engine = await openDemo('demo-embed', {}, { maxQueued: 8 });
  try {
    const stop = new AbortController();
    // Of many parts, so that some of it waits while it is cancelled.
    const long = engine.embed(
      Array.from({ length: 512 }, () => 'the key of the door '.repeat(20)),
      stop.signal,
      'one caller',
    );
    // Another caller's turn comes long before the end of it.
    await engine.embed(['a'], new AbortController().signal, 'another');
    stop.abort(new Error('gone'));
    await expect(long).rejects.toThrow('gone');
    await engine.dropped();
    expect(engine.stats()).toMatchObject({ queued: 0, active: 0 });
  } finally {
    await engine.close();
  }
});

test.each<[string, 'demo-context' | 'demo-embed', (engine: Engine, signal: AbortSignal) => Promise<unknown>]>(
  [
    [
      'generations',
      'demo-context',
      (engine, signal) => engine.generate(request(), signal)[Symbol.asyncIterator]().next(),
    ],
    ['texts', 'demo-context', (engine, signal) => engine.tokenize({ text: 'a' }, signal)],
    ['vectors', 'demo-embed', (engine, signal) => engine.embed(['a'], signal)],
  ],
)(
  '%s aborted over and over fill no pipe: a child that stands still holds a bounded number',
  async (kind, name, ask) => {
    const engine = await openDemo(name, { slots: 2 }, { maxQueued: 2, watchdogMs: 60_000 });
    try {
      process.kill(engine.pid ?? 0, 'SIGSTOP');
      const outcomes: unknown[] = [];
      for (let i = 0; i < 50; i += 1) {
        const stop = new AbortController();
        const asked = ask(engine, stop.signal).catch((error: unknown) => error);
        stop.abort('left');
        outcomes.push(await asked);
      }
      // Twice what it may hold at once: slots and queue, or calls.
      expect(outcomes.filter((outcome) => outcome === 'left')).toHaveLength(kind === 'generations' ? 8 : 4);
      let dropped = false;
      const told = engine.dropped().then(() => (dropped = true));
      await new Promise((resolve) => setImmediate(resolve));
      expect(dropped).toBe(false);
      expect(await apiRefusal(ask(engine, new AbortController().signal))).toMatchObject({ status: 429 });
      process.kill(engine.pid ?? 0, 'SIGCONT');
      await told;
      await ask(engine, new AbortController().signal);
    } finally {
      await engine.close();
    }
  },
);

test('an engine that ends has dropped everything', async () => {
  const engine = await openDemo('demo-context', {}, { watchdogMs: 60_000 });
  process.kill(engine.pid ?? 0, 'SIGSTOP');
  const stop = new AbortController();
  const asked = engine.tokenize({ text: 'a' }, stop.signal).catch((error: unknown) => error);
  stop.abort('left');
  expect(await asked).toBe('left');
  const told = engine.dropped();
  await engine.close();
  await told;
});

const CHAT = { model: 'demo', messages: [{ role: 'user', content: 'Hi' }] };

test('a caller does not get round her share by aborting: it counts until the engine has dropped it', async () => {
  const gone = latch();
  const engine = { slots: 2, prefill: untilAborted, dropped: () => gone.opened };
  const auth = { required: true, adminEnabled: false, keys: [apiKey('alice'), apiKey('bob')] };
  const api = await startApi({
    engine,
    config: { auth, limits: { ...DEFAULT_CONFIG.limits, maxQueuePerModel: 2 } },
  });
  try {
    const stop = new AbortController();
    const headers = { authorization: 'Bearer alice' };
    const asked = [1, 2, 3].map(() =>
      post(api, '/v1/chat/completions', CHAT, { headers, signal: stop.signal }).catch(() => null),
    );
    await api.begun(3);
    while (api.engine.requests.length < 3) await new Promise((resolve) => setImmediate(resolve));
    stop.abort();
    await Promise.all(asked);
    await api.ended(3);
    const refused = await post(api, '/v1/chat/completions', CHAT, { headers });
    expect([refused.status, await refused.text()]).toEqual([429, expect.stringContaining('this caller')]);
    gone.open();
    await gone.opened;
    const text = { model: 'demo', content: 'x' };
    expect((await post(api, '/v1/tokenize', text, { headers })).status).toBe(200);
    const leave = new AbortController();
    const next = post(api, '/v1/chat/completions', CHAT, { headers, signal: leave.signal }).catch(() => null);
    while (api.engine.requests.length < 4) await new Promise((resolve) => setImmediate(resolve));
    leave.abort();
    await next;
  } finally {
    await api.close();
  }
});
