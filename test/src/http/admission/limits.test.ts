// Limits of a caller: requests, tokens, and requests at once, held until the last byte.

import { createHash } from 'node:crypto';
import { afterEach, describe, expect, test } from 'vitest';
import type { Principal } from '../../../../src/http/admission/auth.ts';
import { createLimiter } from '../../../../src/http/admission/limits.ts';
import { DEFAULT_CONFIG, type KeyLimits, type ServerConfig } from '../../../../src/http/deps.ts';
import {
  type ApiServer,
  type ApiServerOptions,
  type ErrorAnswer,
  post,
  startApi,
} from '../../../fixtures/http/api-server.ts';
import { type Latch, latch, untilAborted } from '../../../fixtures/latch.ts';

let api: ApiServer;
let clock = 1_700_000_000_000;
afterEach(() => api.close());

const NONE: KeyLimits = { requestsPerMinute: 0, tokensPerMinute: 0, concurrent: 0 };
const CHAT = { model: 'demo', messages: [{ role: 'user', content: 'Hi' }], max_tokens: 4 };
async function start(limits: Partial<KeyLimits>, o: ApiServerOptions = {}): Promise<void> {
  clock = 1_700_000_000_000;
  api = await startApi({
    ...o,
    config: { anonymous: { ...NONE, ...limits }, ...o.config },
    deps: { now: () => clock },
  });
}
async function ask(body: object = CHAT, init: RequestInit = {}): Promise<Response> {
  const response = await post(api, '/v1/chat/completions', body, init);
  return response;
}
async function codeOf(response: Response): Promise<[number, string]> {
  return [response.status, ((await response.json()) as ErrorAnswer).error.code];
}

test('requests per minute, with headers, Retry-After, and refill', async () => {
  await start({ requestsPerMinute: 2 });
  const first = await ask();
  expect(first.headers.get('x-ratelimit-limit-requests')).toBe('2');
  expect(first.headers.get('x-ratelimit-remaining-requests')).toBe('1');
  expect(first.headers.get('x-ratelimit-reset-requests')).toBe('30s');
  expect(first.headers.get('x-ratelimit-limit-tokens')).toBeNull();
  await first.text();
  await (await ask()).text();
  const third = await ask();
  expect(third.headers.get('retry-after')).toBe('30');
  expect(third.headers.get('x-should-retry')).toBe('true');
  expect(third.headers.get('x-ratelimit-limit-requests')).toBe('2');
  expect(third.headers.get('x-ratelimit-remaining-requests')).toBe('0');
  expect(third.headers.get('x-ratelimit-reset-requests')).toBe('1m0s');
  expect(await codeOf(third)).toEqual([429, 'rate_limit_exceeded']);
  clock += 30_000;
  expect((await ask()).status).toBe(200);
});

test('tokens per minute: reserved from an estimate, settled with what was used', async () => {
  await start({ tokensPerMinute: 100 });
  const first = await ask();
  const used = ((await first.json()) as { usage: { total_tokens: number } }).usage.total_tokens;
  expect(first.headers.get('x-ratelimit-remaining-tokens')).toBe(String(100 - used));
  // Its own limit would take more than is left.
  const second = await ask({ ...CHAT, max_tokens: 90 });
  expect(await codeOf(second)).toEqual([429, 'rate_limit_exceeded']);
  expect(Number(second.headers.get('retry-after'))).toBeGreaterThan(0);
  expect(second.headers.get('x-ratelimit-limit-tokens')).toBe('100');
  expect(second.headers.get('x-ratelimit-remaining-tokens')).toBe(String(100 - used));
  clock += 60_000;
  expect((await ask({ ...CHAT, max_tokens: 90 })).status).toBe(200);
});

describe('answers whose length nobody asked for', () => {
  const open = { model: 'demo', messages: [{ role: 'user', content: 'Hi' }] };

  test('side by side use no more than one after another', async () => {
    const door = latch();
    const long = Array.from({ length: 500 }, () => 'x');
    await start(
      { tokensPerMinute: 300 },
      {
        engine: {
          slots: 32,
          script: () => long,
          beforeToken: (at) => (at === 2 ? door.opened : Promise.resolve()),
        },
      },
    );
    const answers = Array.from({ length: 16 }, () => ask({ ...open, n: 8 }));
    const codes = Promise.all(answers.map(async (answer) => (await answer).status));
    // Fifteen are refused while the first is under way.
    await api.ended(15);
    door.open();
    expect((await codes).filter((status) => status === 200)).toHaveLength(1);
    expect(api.engine.requests).toHaveLength(1);
    // 4 000 tokens of 300 are owed: more than twelve minutes.
    clock += 12 * 60_000;
    expect(await codeOf(await ask(open))).toEqual([429, 'rate_limit_exceeded']);
    clock += 2 * 60_000;
    expect((await ask({ ...open, max_tokens: 1 })).status).toBe(200);
  });

  test('one after another keep what is left, and the headers say it', async () => {
    await start({ tokensPerMinute: 300 });
    for (let used = 5; used <= 25; used += 5) {
      const answer = await ask(open);
      expect([answer.status, answer.headers.get('x-ratelimit-remaining-tokens')]).toEqual([
        200,
        String(300 - used),
      ]);
      await answer.text();
    }
  });

  test('beyond what was left are owed while they are written, not only once they are over', async () => {
    const door = latch();
    const reached = latch();
    const beforeToken = (at: number): Promise<void> => {
      if (at !== 250) return Promise.resolve();
      reached.open();
      return door.opened;
    };
    await start(
      { tokensPerMinute: 60 },
      { engine: { script: () => Array.from({ length: 300 }, () => 'x'), beforeToken } },
    );
    const first = ask(open);
    await reached.opened;
    // Refilled to the brim, had the first only held its 60.
    clock += 60_000;
    expect(await codeOf(await ask(open))).toEqual([429, 'rate_limit_exceeded']);
    door.open();
    await (await first).text();
  });

  test('leave room beside them where the minute has it', async () => {
    const { open: go, options } = gate();
    await start({ tokensPerMinute: 10_000 }, options);
    const [first, second] = await Promise.all([
      ask({ ...open, stream: true }),
      ask({ ...open, stream: true }),
    ]);
    expect([first.status, second.status]).toEqual([200, 200]);
    // Each holds the 2048 of its context and its prompt.
    const remaining = [first, second]
      .map((each) => Number(each.headers.get('x-ratelimit-remaining-tokens')))
      .sort((a, b) => a - b);
    expect(remaining[0]).toBeGreaterThan(5700);
    expect(remaining[0]).toBeLessThan(10_000 - 2 * 2048);
    go();
    await Promise.all([first.text(), second.text()]);
    await api.ended(2);
    expect(Number((await ask(open)).headers.get('x-ratelimit-remaining-tokens'))).toBe(10_000 - 15);
  });
});

test('a request larger than the whole minute is let in on a full bucket only', async () => {
  await start({ tokensPerMinute: 20 });
  await (await ask({ ...CHAT, max_tokens: 5000 })).text();
  expect(await codeOf(await ask({ ...CHAT, max_tokens: 5000 }))).toEqual([429, 'rate_limit_exceeded']);
});

/** Streams wait before their third token until `open`. */
function gate(): Latch & { readonly options: ApiServerOptions } {
  const door = latch();
  return {
    ...door,
    options: { engine: { beforeToken: (position) => (position === 2 ? door.opened : Promise.resolve()) } },
  };
}

function as(name: string): RequestInit {
  return { headers: { authorization: `Bearer ${name}` } };
}

function key(name: string, requestsPerMinute: number): ServerConfig['auth']['keys'][number] {
  return {
    name,
    sha256: createHash('sha256').update(name).digest('hex'),
    admin: false,
    models: null,
    limits: { ...NONE, requestsPerMinute },
  };
}

describe('requests at once', () => {
  test('a stream holds its place until its last byte', async () => {
    const { open, options } = gate();
    await start({ concurrent: 1, requestsPerMinute: 10 }, options);
    const stream = await ask({ ...CHAT, stream: true });
    const refused = await ask();
    expect(refused.headers.get('retry-after')).toBe('1');
    expect(refused.headers.get('x-ratelimit-remaining-requests')).toBe('9');
    expect(await codeOf(refused)).toEqual([429, 'rate_limit_exceeded']);
    open();
    await stream.text();
    await api.ended(2);
    expect((await ask()).status).toBe(200);
  });

  test('a client that leaves gives its place back', async () => {
    await start(
      { concurrent: 1 },
      {
        engine: {
          beforeToken: (position, signal) => (position === 2 ? untilAborted(signal) : Promise.resolve()),
        },
      },
    );
    const controller = new AbortController();
    const stream = await ask({ ...CHAT, stream: true }, { signal: controller.signal });
    controller.abort();
    await expect(stream.text()).rejects.toThrow(/abort/);
    const [record] = await api.ended();
    expect(record).toMatchObject({ aborted: true });
    expect((await ask({ ...CHAT, max_tokens: 1 })).status).toBe(200);
  });

  test('the server as a whole: 429 server_overloaded', async () => {
    const { open, options } = gate();
    await start(
      {},
      { ...options, config: { limits: { ...DEFAULT_CONFIG.limits, maxConcurrentRequests: 1 } } },
    );
    const stream = await ask({ ...CHAT, stream: true });
    const refused = await ask();
    expect(refused.headers.get('retry-after')).toBe('1');
    expect(await codeOf(refused)).toEqual([429, 'server_overloaded']);
    expect((await fetch(`${api.url}/health`)).status).toBe(200);
    open();
    await stream.text();
  });

  test('the queue of a model: 429 engine_overloaded', async () => {
    const reached = latch();
    const door = latch();
    const prefill = (): Promise<void> => {
      reached.open();
      return door.opened;
    };
    await start({}, { engine: { slots: 1, maxQueue: 0, prefill } });
    const first = ask();
    await reached.opened;
    const refused = await ask();
    expect(refused.headers.get('retry-after')).toBe('1');
    expect(await codeOf(refused)).toEqual([429, 'engine_overloaded']);
    door.open();
    expect((await first).status).toBe(200);
  });
});

test('each key has limits of its own', async () => {
  await start(
    {},
    { config: { auth: { required: true, adminEnabled: true, keys: [key('small', 1), key('large', 100)] } } },
  );
  expect((await ask(CHAT, as('small'))).status).toBe(200);
  expect((await ask(CHAT, as('small'))).status).toBe(429);
  expect((await ask(CHAT, as('large'))).headers.get('x-ratelimit-remaining-requests')).toBe('99');
});

test('no crowd of addresses makes the server forget what a key owes', () => {
  let now = 0;
  const limiter = createLimiter(() => now);
  const limits = { ...NONE, tokensPerMinute: 100 };
  const principal = (name: string | null, bucket: string): Principal => ({
    bucket,
    name,
    admin: false,
    models: null,
    limits,
    cacheScope: '',
    owner: '',
  });
  const use = (who: Principal): void => {
    const admission = limiter.admit(who);
    admission.reserveTokens(10);
    admission.settle(5000);
    admission.release();
  };
  use(principal('one', 'key 1'));
  use(principal(null, 'peer first'));
  for (let i = 0; i < 10_000; i++) use(principal(null, `peer ${i}`));
  now += 60_000;
  expect(() => limiter.admit(principal('one', 'key 1')).reserveTokens(1)).toThrow(/more than 100 tokens/);
  // Addresses are forgotten instead, the oldest first.
  expect(() => limiter.admit(principal(null, 'peer 9999')).reserveTokens(1)).toThrow(/more than 100 tokens/);
  expect(() => limiter.admit(principal(null, 'peer first')).reserveTokens(1)).not.toThrow();
});

test('refused requests are counted nowhere but in the request limit', async () => {
  await start({ tokensPerMinute: 100 });
  await (await ask({ ...CHAT, n: 0 })).text();
  await (await ask({ ...CHAT, model: 'none' })).text();
  await api.ended(2);
  expect((await ask()).headers.get('x-ratelimit-remaining-tokens')).toBe('95');
});

test('a clock that jumps back gives nothing and takes nothing', async () => {
  await start({ requestsPerMinute: 1 });
  await (await ask()).text();
  clock -= 3_600_000;
  expect((await ask()).status).toBe(429);
  clock += 60_000;
  expect((await ask()).status).toBe(200);
});
