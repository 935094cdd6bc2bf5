// Cross-origin requests: listed origins are answered, others get no CORS header at all.

import { afterEach, describe, expect, test } from 'vitest';
import { type ApiServer, post, startApi } from '../../fixtures/http/api-server.ts';

let api: ApiServer;
afterEach(() => api.close());

const CHAT = { model: 'demo', messages: [{ role: 'user', content: 'Hi' }] };
describe('CORS', () => {
  const origin = 'https://app.example';

  test('a listed origin', async () => {
    api = await startApi({ config: { corsOrigins: [origin] } });
    const preflight = await fetch(`${api.url}/v1/chat/completions`, {
      method: 'OPTIONS',
      headers: {
        origin,
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'authorization,x-stainless-os',
      },
    });
    expect(preflight.status).toBe(204);
    expect(preflight.headers.get('access-control-allow-origin')).toBe(origin);
    expect(preflight.headers.get('access-control-allow-headers')).toBe('authorization,x-stainless-os');
    for (const path of ['/v1/models', '/v1/nothing']) {
      const response = await fetch(api.url + path, { headers: { origin } });
      expect(response.headers.get('access-control-allow-origin')).toBe(origin);
      expect(response.headers.get('access-control-expose-headers')).toContain('x-request-id');
    }
    const stream = await post(
      api,
      '/v1/chat/completions',
      { ...CHAT, stream: true },
      { headers: { origin } },
    );
    await stream.text();
    expect(stream.headers.get('access-control-allow-origin')).toBe(origin);
  });

  test('another origin gets nothing', async () => {
    api = await startApi({ config: { corsOrigins: [origin] } });
    const preflight = await fetch(`${api.url}/v1/chat/completions`, {
      method: 'OPTIONS',
      headers: { origin: 'https://evil.example', 'access-control-request-method': 'POST' },
    });
    expect(preflight.headers.get('access-control-allow-origin')).toBeNull();
    expect([preflight.status, await preflight.json()]).toMatchObject([
      403,
      { error: { code: 'origin_not_allowed' } },
    ]);
    expect(
      (await fetch(`${api.url}/v1/models`, { headers: { origin: 'https://evil.example' } })).headers.get(
        'access-control-allow-origin',
      ),
    ).toBeNull();
  });

  test('off: no preflight is answered', async () => {
    api = await startApi();
    expect(
      (
        await fetch(`${api.url}/v1/models`, {
          method: 'OPTIONS',
          headers: { origin, 'access-control-request-method': 'GET' },
        })
      ).status,
    ).toBe(403);
  });
});
