// The end of the server: answers under way are finished, new work is refused, what is left is told.

import { afterEach, describe, expect, test } from 'vitest';
import {
  type ApiServer,
  type ApiServerOptions,
  events,
  post,
  startApi,
} from '../../fixtures/http/api-server.ts';
import { latch, untilAborted } from '../../fixtures/latch.ts';

let api: ApiServer;
async function start(options: ApiServerOptions = {}): Promise<void> {
  return void (api = await startApi(options));
}
afterEach(() => api.close());

const CHAT = { model: 'demo', messages: [{ role: 'user', content: 'Hi' }] };
const STREAMED = { ...CHAT, stream: true };

describe('shutdown', () => {
  test('streams finish, new work is refused with 503 and Retry-After, health says so', async () => {
    const reached = latch();
    const door = latch();
    await start({
      engine: {
        async beforeToken(position) {
          if (position !== 2) return;
          reached.open();
          await door.opened;
        },
      },
    });
    const stream = post(api, '/v1/chat/completions', STREAMED).then(events);
    await reached.opened;
    const closed = api.server.close();
    const refused = await post(api, '/v1/chat/completions', CHAT);
    expect(refused.status).toBe(503);
    expect(refused.headers.get('retry-after')).toBe('5');
    expect(refused.headers.get('x-should-retry')).toBe('true');
    expect(await refused.json()).toMatchObject({ error: { code: 'server_shutting_down' } });
    const health = await fetch(`${api.url}/health`);
    expect([health.status, health.headers.get('retry-after'), await health.json()]).toMatchObject([
      503,
      '5',
      { status: 'draining' },
    ]);
    door.open();
    expect((await stream).at(-1)).toBe('[DONE]');
    await closed;
    await expect(fetch(`${api.url}/health`)).rejects.toThrow(/fetch failed/);
  });

  test('a second close does not wait', async () => {
    const reached = latch();
    await start({
      engine: {
        async beforeToken(position, signal) {
          if (position !== 2) return;
          reached.open();
          await untilAborted(signal);
        },
      },
    });
    const stream = post(api, '/v1/chat/completions', STREAMED).then(events);
    await reached.opened;
    const patient = api.server.close();
    await api.server.close({ drainMs: 0 });
    await patient;
    expect(JSON.parse((await stream).at(-1) ?? '')).toMatchObject({
      error: { code: 'server_shutting_down' },
    });
  });

  test('what does not finish in time ends with an error event', async () => {
    const reached = latch();
    await start({
      engine: {
        async beforeToken(position, signal) {
          if (position !== 2) return;
          reached.open();
          await untilAborted(signal);
        },
      },
    });
    const stream = post(api, '/v1/chat/completions', STREAMED).then(events);
    await reached.opened;
    await api.server.close({ drainMs: 1 });
    const data = await stream;
    expect(JSON.parse(data.at(-1) ?? '')).toMatchObject({ error: { code: 'server_shutting_down' } });
    expect(data).not.toContain('[DONE]');
  });
});
