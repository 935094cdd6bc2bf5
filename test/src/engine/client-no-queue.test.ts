// With a queue of length 0 requests never wait, but free slots are given, and calls have places of their own.

import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Engine } from '../../../src/engine/seam/engine.ts';
import { DEFAULT_CONFIG } from '../../../src/http/deps.ts';
import { openDemo, request, run } from '../../fixtures/engine/demo-engine.ts';
import { apiKey, post, startApi, type ApiServer } from '../../fixtures/http/api-server.ts';
import { apiRefusal } from '../../fixtures/refusal.ts';

const NAMES = ['demo-chat', 'demo-context', 'demo-embed', 'demo-rerank'] as const;
const ENGINES: Record<string, Engine> = {};
let api: ApiServer;

beforeAll(async () => {
  await Promise.all(
    NAMES.map(
      async (name) => void (ENGINES[name] = await openDemo(name, { slots: 2, threads: 1 }, { maxQueued: 0 })),
    ),
  );
  const auth = { required: true, adminEnabled: true, keys: [apiKey('alice'), apiKey('bob')] };
  const limits = { ...DEFAULT_CONFIG.limits, maxQueuePerModel: 0 };
  api = await startApi({ realEngines: ENGINES, config: { auth, limits } });
});
afterAll(async () => {
  await api.close();
  for (const engine of Object.values(ENGINES)) await engine.close();
});

test.each([
  [
    '/v1/chat/completions',
    { model: 'demo-chat', messages: [{ role: 'user', content: 'Hi' }], max_tokens: 4 },
  ],
  ['/v1/completions', { model: 'demo-context', prompt: ['the key', 'the lock', 'the door'], max_tokens: 4 }],
  ['/v1/tokenize', { model: 'demo-chat', content: 'the key' }],
  ['/v1/detokenize', { model: 'demo-chat', tokens: [9, 10] }],
  ['/v1/embeddings', { model: 'demo-embed', input: ['the key', 'the lock'] }],
  ['/v1/rerank', { model: 'demo-rerank', query: 'the key', documents: ['a key', 'a lock'] }],
])('%s is answered to two callers', async (path, body) => {
  for (const key of ['alice', 'bob']) {
    const response = await post(api, path, body, { headers: { authorization: `Bearer ${key}` } });
    expect([response.status, await response.text()]).toEqual([200, expect.any(String)]);
  }
});

test('every slot is given, and what would wait is refused', async () => {
  const engine = ENGINES['demo-context'] as Engine;
  const stop = new AbortController();
  const begin = (): AsyncIterator<unknown> =>
    engine.generate(request({ maxTokens: 1500 }), stop.signal)[Symbol.asyncIterator]();
  const running = [begin(), begin()];
  await Promise.all(running.map((each) => each.next()));
  expect(await apiRefusal(run(engine))).toMatchObject({ status: 429, code: 'engine_overloaded' });
  stop.abort(new Error('enough'));
  await Promise.all(running.map((each) => expect(each.next()).rejects.toThrow('enough')));
  await engine.dropped();
  expect((await run(engine, { maxTokens: 3 })).finish).toBe('length');
});

test('two calls at once have a place, a third is refused', async () => {
  const engine = await openDemo('demo-embed', {}, { maxQueued: 0, watchdogMs: 60_000 });
  try {
    process.kill(engine.pid ?? 0, 'SIGSTOP');
    const forever = new AbortController().signal;
    const asked = [engine.embed(['a'], forever), engine.embed(['a'], forever)];
    expect(await apiRefusal(engine.embed(['a'], forever))).toMatchObject({ status: 429 });
    process.kill(engine.pid ?? 0, 'SIGCONT');
    for (const { vectors } of await Promise.all(asked)) expect(vectors).toHaveLength(1);
  } finally {
    await engine.close();
  }
});
