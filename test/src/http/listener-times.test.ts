// Time limits: of headers, of bodies, of connections without a request, of answers.

import { connect, type Socket } from 'node:net';
import { once } from 'node:events';
import { afterEach, describe, expect, test } from 'vitest';
import { DEFAULT_CONFIG } from '../../../src/http/deps.ts';
import { type ApiServer, type ErrorAnswer, events, post, startApi } from '../../fixtures/http/api-server.ts';
import { untilAborted } from '../../fixtures/latch.ts';

let api: ApiServer;
afterEach(() => api.close());

const CHAT = { model: 'demo', messages: [{ role: 'user', content: 'Hi' }] };
function hostPort(): { host: string; port: number } {
  return { host: '127.0.0.1', port: Number(new URL(api.url).port) };
}

async function errorOf(response: Response): Promise<ErrorAnswer['error']> {
  expect(response.headers.get('content-type')).toBe('application/json; charset=utf-8');
  expect(response.headers.get('x-request-id')).toBeTruthy();
  const body = (await response.json()) as ErrorAnswer;
  expect(Object.keys(body)).toEqual(['error']);
  expect(Object.keys(body.error)).toEqual(['message', 'type', 'param', 'code']);
  return body.error;
}

/** Sends raw bytes, reads until the server closes. */
async function raw(bytes: string): Promise<string> {
  const socket: Socket = connect(hostPort());
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  socket.write(bytes);
  await once(socket, 'close');
  return Buffer.concat(chunks).toString();
}

describe('time limits', () => {
  const timeouts = { ...DEFAULT_CONFIG.timeouts, headersMs: 150, bodyMs: 150 };

  test('a header that comes drop by drop', async () => {
    api = await startApi({ config: { timeouts } });
    expect(await raw('GET /health HTTP/1.1\r\nhost: x\r\nx-slow: ')).toMatch(
      /^HTTP\/1\.1 408 [\s\S]*"code":"request_timeout"/,
    );
  });

  test('a connection that says nothing is closed', async () => {
    api = await startApi({ config: { timeouts } });
    expect(await raw('')).toMatch(/^HTTP\/1\.1 408 /);
  });

  test('a body that never comes', async () => {
    api = await startApi({ config: { timeouts } });
    expect(
      await raw(
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
