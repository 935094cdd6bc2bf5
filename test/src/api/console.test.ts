// GET / of the server (docs/console.md [B26]): the page as it was built, with its headers; off, `/` is no
// path.

import { afterEach, expect, test } from 'vitest';
import { readConsolePage } from '../../../attestation/node/console-page.ts';
import { type ApiServer, startApi } from '../../fixtures/http/api-server.ts';

let api: ApiServer;
afterEach(() => api.close());

test('serves the bytes of the build with their headers, open, also for HEAD [B26]', async () => {
  const page = await readConsolePage();
  api = await startApi({
    console: page,
    config: { auth: { required: true, keys: [], adminEnabled: false } },
  });
  const answer = await fetch(`${api.url}/`);
  expect(answer.status).toBe(200);
  for (const [name, value] of Object.entries(page.headers)) expect(answer.headers.get(name)).toBe(value);
  expect(Buffer.from(await answer.arrayBuffer()).equals(page.html)).toBe(true);
  const head = await fetch(`${api.url}/`, { method: 'HEAD' });
  expect([head.status, head.headers.get('content-length')]).toEqual([200, String(page.html.length)]);
  const post = await fetch(`${api.url}/`, { method: 'POST', body: '{}' });
  expect([post.status, post.headers.get('allow')]).toEqual([405, 'GET, HEAD']);
  expect((await fetch(`${api.url}/console.json`)).status).toBe(404);
});

test('switched off, `/` is a path of no route', async () => {
  api = await startApi();
  expect((await fetch(`${api.url}/`)).status).toBe(404);
});

test('no answer of another route is HTML, whatever was stored: files are bytes, and not sniffed [B25]', async () => {
  api = await startApi({ console: await readConsolePage() });
  for (const path of [
    '/health',
    '/v1/models',
    '/v1/models/<script>',
    '/v1/files/<b>',
    '/<script>alert(1)</script>',
  ]) {
    const answer = await fetch(`${api.url}${path}`);
    expect(answer.headers.get('content-type')).toMatch(/^application\/json/);
    expect(answer.headers.get('x-content-type-options')).toBe('nosniff');
  }
});
