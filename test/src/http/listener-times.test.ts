// Time limits: of headers, of bodies, of connections without a request, of answers.

import { connect } from 'node:net';
import { once } from 'node:events';
import { afterEach, describe, expect, test } from 'vitest';
import { DEFAULT_CONFIG } from '../../../src/http/deps.ts';
import { type ApiServer, type ErrorAnswer, events, post, startApi } from '../../fixtures/http/api-server.ts';
import { raw, rawDrip } from '../../fixtures/http/raw.ts';
import { untilAborted } from '../../fixtures/latch.ts';

let api: ApiServer;

afterEach(() => api.close());

const CHAT = { model: 'demo', messages: [{ role: 'user', content: 'Hi' }] };

async function errorOf(response: Response): Promise<ErrorAnswer['error']> {
  expect(response.headers.get('content-type')).toBe('application/json; charset=utf-8');
  expect(response.headers.get('x-request-id')).toBeTruthy();
  const body = (await response.json()) as ErrorAnswer;
  expect(Object.keys(body)).toEqual(['error']);
  expect(Object.keys(body.error)).toEqual(['message', 'type', 'param', 'code']);
  return body.error;
}

describe('time limits', () => {
  const timeouts = { ...DEFAULT_CONFIG.timeouts, headersMs: 150, bodyMs: 150 };

  test('a header that comes drop by drop', async () => {
    api = await startApi({ config: { timeouts } });
    expect(await raw(api, 'GET /health HTTP/1.1\r\nhost: x\r\nx-slow: ')).toMatch(
      /^HTTP\/1\.1 408 [\s\S]*"code":"request_timeout"/,
    );
  });

  test('a connection that says nothing is closed', async () => {
    api = await startApi({ config: { timeouts } });
    expect(await raw(api, '')).toMatch(/^HTTP\/1\.1 408 /);
  });

  test('a body that never comes', async () => {
    api = await startApi({ config: { timeouts } });
    expect(
      await raw(
        api,
        'POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{"mod',
      ),
    ).toMatch(/^HTTP\/1\.1 408 [\s\S]*"code":"request_timeout"/);
  });

  test('an answer that takes too long: 504 before it starts, an error event after', async () => {
    api = await startApi({
      config: { timeouts: { ...DEFAULT_CONFIG.timeouts, requestMs: 100 } },
      engine: {
        beforeToken: (position, signal) => (position === 1 ? untilAborted(signal) : Promise.resolve()),
      },
    });
    const plain = await post(api, '/v1/chat/completions', CHAT);
    expect(plain.status).toBe(504);
    expect(plain.headers.get('x-should-retry')).toBe('false');
    expect((await errorOf(plain)).code).toBe('timeout');
    const data = await events(await post(api, '/v1/chat/completions', { ...CHAT, stream: true }));
    expect(JSON.parse(data.at(-1) ?? '')).toMatchObject({ error: { code: 'timeout' } });
    expect(api.engine.activeNow()).toBe(0);
  });
});

describe('a drop at a time', () => {
  const timeouts = { ...DEFAULT_CONFIG.timeouts, headersMs: 200, bodyMs: 200 };
  const slow = 'POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n';

  test('a header that never ends is given up after its time, however often a byte of it comes', async () => {
    api = await startApi({ config: { timeouts } });
    const { text } = await rawDrip(
      api,
      'GET /health HTTP/1.1\r\nhost: x\r\n',
      (i) => [`x-${i}: `, 'a', 'a', 'a', 'a', 'a', 'a', 'a\r\n'][i % 8]!,
    );
    expect(text).toMatch(/^HTTP\/1\.1 408 [\s\S]*"code":"request_timeout"/);
  });

  test.each([
    ['with a length', `${slow}content-length: 100000\r\n\r\n{`, () => ' '],
    ['in chunks', `${slow}transfer-encoding: chunked\r\n\r\n1\r\n{\r\n`, () => '1\r\n \r\n'],
  ])('a body %s', async (_name, begin, more) => {
    api = await startApi({ config: { timeouts } });
    const { text } = await rawDrip(api, begin, more);
    expect(text).toMatch(/^HTTP\/1\.1 408 [\s\S]*"code":"request_timeout"/);
    expect(api.engine.requests).toEqual([]);
  });

  test('a hundred of them at once do not keep others waiting', async () => {
    api = await startApi({ config: { timeouts: { ...timeouts, headersMs: 5000, bodyMs: 5000 } } });
    const port = Number(new URL(api.url).port);
    const sockets = await Promise.all(
      Array.from({ length: 100 }, async () => {
        const socket = connect({ host: '127.0.0.1', port });
        socket.on('error', () => undefined);
        await once(socket, 'connect');
        socket.write(`${slow}content-length: 1000\r\n\r\n{`);
        return socket;
      }),
    );
    expect((await post(api, '/v1/chat/completions', CHAT)).status).toBe(200);
    for (const socket of sockets) socket.destroy();
  });
});
