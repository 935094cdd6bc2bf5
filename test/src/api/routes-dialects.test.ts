// The same engine, limits, queue and abort behind every dialect of generation, whole and streamed.

import { afterEach, describe, expect, test } from 'vitest';
import {
  apiKey,
  type ApiServer,
  type ApiServerOptions,
  post,
  startApi,
} from '../../fixtures/http/api-server.ts';
import { latch, untilAborted } from '../../fixtures/latch.ts';

let api: ApiServer;
afterEach(() => api.close());
async function start(options: ApiServerOptions): Promise<void> {
  api = await startApi(options);
}

const DIALECTS = [
  ['chat', '/v1/chat/completions', { messages: [{ role: 'user', content: 'Hi' }] }],
  ['completions', '/v1/completions', { prompt: 'Hi' }],
  ['responses', '/v1/responses', { input: 'Hi' }],
  ['messages', '/v1/messages', { messages: [{ role: 'user', content: 'Hi' }], max_tokens: 50 }],
] as const;
const WAYS = DIALECTS.flatMap(([name, path, body]) =>
  [false, true].map((stream): [string, string, object] => [
    `${name}, stream ${stream}`,
    path,
    { model: 'demo', ...body, stream },
  ]),
);
/** Stands in an answer that is over, whole or as its terminal event. */
const ENDS = /"finish_reason":"stop"|"status":"completed"|"stop_reason":"end_turn"/;
/** The code of an error, in either envelope. */
const CODE = /"(?:error_)?code":"(\w+)"/;

function as(key: string): RequestInit {
  return { headers: { authorization: `Bearer ${key}` } };
}

describe.each(WAYS)('%s', (_, path, body) => {
  const limited = (limits: object): ApiServerOptions => ({
    config: {
      auth: {
        required: true,
        adminEnabled: true,
        keys: [
          apiKey('one', { limits: { requestsPerMinute: 0, tokensPerMinute: 0, concurrent: 0, ...limits } }),
          apiKey('two', { models: ['other'] }),
        ],
      },
    },
  });

  test('is answered by the same words', async () => {
    await start({});
    const text = await (await post(api, path, body)).text();
    expect(text).toMatch(ENDS);
    expect([...text.matchAll(/"(?:content|text|delta)":"(Hello|, ?|,)"?/g)].length).toBeGreaterThan(0);
    expect((await api.ended())[0]).toMatchObject({
      route: path,
      status: 200,
      completionTokens: 4,
      aborted: false,
    });
  });

  test('takes what it used from the minute, and is refused beyond it', async () => {
    await start(limited({ tokensPerMinute: 60 }));
    const seen: [number, string | undefined][] = [];
    for (let i = 0; i < 16; i += 1) {
      const response = await post(api, path, body, as('one'));
      const answer = await response.text();
      seen.push([response.status, CODE.exec(answer)?.[1]]);
      if (response.status === 429) break;
    }
    expect(seen.length).toBeGreaterThan(1);
    expect(seen.at(-1)).toEqual([429, 'rate_limit_exceeded']);
  });

  test('needs a key, and one that may use the model', async () => {
    await start(limited({}));
    expect((await post(api, path, body)).status).toBe(401);
    expect(CODE.exec(await (await post(api, path, body, as('two'))).text())?.[1]).toBe('model_not_allowed');
  });

  test('keeps the caches of two keys apart', async () => {
    await start({
      config: { auth: { required: true, adminEnabled: true, keys: [apiKey('one'), apiKey('two')] } },
    });
    for (const key of ['one', 'two', 'one']) await (await post(api, path, body, as(key))).text();
    const [first, second, third] = api.engine.requests.map(({ cacheScope }) => cacheScope);
    expect(first).toBe(third);
    expect(first).not.toBe(second);
  });

  test('is refused when the queue of the model is full', async () => {
    const held = latch();
    const queued = latch();
    await start({
      engine: { slots: 1, maxQueue: 1, beforeToken: () => held.opened, onQueued: () => queued.open() },
    });
    const running = post(api, path, body);
    await api.begun(1);
    const waiting = post(api, path, body);
    await queued.opened;
    const refused = await post(api, path, body);
    expect([refused.status, CODE.exec(await refused.text())?.[1]]).toEqual([429, 'engine_overloaded']);
    expect(refused.headers.has('retry-after')).toBe(true);
    held.open();
    for (const each of [running, waiting]) expect(await (await each).text()).toMatch(ENDS);
  });

  const leaving = async (controller: AbortController, there: Promise<void>): Promise<void> => {
    const answer = post(api, path, body, { signal: controller.signal }).then((response) => response.text());
    await Promise.race([there, answer]);
    controller.abort();
    await expect(answer).rejects.toThrow();
  };

  test.each(['prefill', 'decode'] as const)('a client that leaves in %s ends its work', async (phase) => {
    const there = latch();
    const hold = (signal: AbortSignal): Promise<void> => {
      there.open();
      return untilAborted(signal);
    };
    const third = (at: number, signal: AbortSignal): Promise<void> =>
      at < 2 ? Promise.resolve() : hold(signal);
    await start({ engine: phase === 'prefill' ? { prefill: hold } : { beforeToken: third } });
    await leaving(new AbortController(), there.opened);
    await api.ended();
    await api.models.idle();
    expect(api.engine.aborted).toEqual([phase]);
    expect(api.engine.activeNow()).toBe(0);
  });

  test('a client that leaves the queue takes nothing from the one that is answered', async () => {
    const held = latch();
    const queued = latch();
    await start({ engine: { slots: 1, beforeToken: () => held.opened, onQueued: () => queued.open() } });
    const running = post(api, path, body);
    await api.begun(1);
    await leaving(new AbortController(), queued.opened);
    await api.ended();
    expect(api.engine.aborted).toEqual(['queued']);
    held.open();
    expect(await (await running).text()).toMatch(ENDS);
  });
});
