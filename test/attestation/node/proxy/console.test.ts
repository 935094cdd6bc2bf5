// The console at the local proxy (docs/console.md [B25] [B26]): the bytes of the build; Host and Origin with
// the proxy's own port; `/v1/` alone is forwarded; every other answer is sandboxed, refusals too.

import { expect, test } from 'vitest';
import { readConsolePage } from '../../../../attestation/node/console-page.ts';
import type { RunningProxy } from '../../../../attestation/node/proxy/proxy.ts';
import { type AttestedServer, send } from '../../../fixtures/attestation/attested-server.ts';
import { finish, raw, speak, startBoth } from '../../../fixtures/attestation/local-proxy.ts';

const SANDBOXED = { 'content-security-policy': 'sandbox', 'x-content-type-options': 'nosniff' };

function codeIn(body: string): unknown {
  return (JSON.parse(body) as { error?: { code?: unknown } }).error?.code;
}

async function started(
  policy?: string,
): Promise<{ proxy: RunningProxy; server: AttestedServer; port: string }> {
  const page = await readConsolePage();
  const respond = (_: unknown, { socket }: { readonly socket: Parameters<typeof send>[0] }): void =>
    send(socket, 200, '<script>', { 'content-type': 'text/html', 'content-security-policy': 'default-src *', 'X-Content-Type-Options': 'x' }); // prettier-ignore
  const both = await startBoth({ respond }, { console: { page, policy } });
  return { ...both, port: new URL(both.proxy.url).port };
}

test('the page is the bytes of the build with their headers, and nothing of it reaches the upstream [B26]', async () => {
  const { proxy, server } = await started();
  const page = await readConsolePage();
  const answer = await fetch(`${proxy.url}/?x=1`);
  expect(Buffer.from(await answer.arrayBuffer()).equals(page.html)).toBe(true);
  for (const [name, value] of Object.entries(page.headers)) expect(answer.headers.get(name)).toBe(value);
  expect((await fetch(`${proxy.url}/`, { method: 'HEAD' })).headers.get('content-length')).toBe(String(page.html.length)); // prettier-ignore
  const post = await fetch(`${proxy.url}/`, { method: 'POST', body: 'x' });
  expect([post.status, post.headers.get('allow')]).toEqual([405, 'GET, HEAD']);
  expect(server.requests()).toHaveLength(0);
});

test('what the proxy was started with is offered to the page', async () => {
  const { proxy, server } = await started('{"measurements":[]}');
  const answer = await fetch(`${proxy.url}/console.json`);
  expect(await answer.json()).toEqual({ upstream: server.origin, policy: '{"measurements":[]}' });
  expect(Object.fromEntries(answer.headers)).toMatchObject(SANDBOXED);
  const without = await started();
  expect(await (await fetch(`${without.proxy.url}/console.json`)).json()).toEqual({
    upstream: without.server.origin,
  });
});

test('forwards /v1/ alone, and sandboxes what comes back, whatever it says [B25]', async () => {
  const { proxy, server } = await started();
  const answer = await finish(raw(proxy, { path: '/v1/models?x=/../' }));
  expect([answer.status, answer.body]).toEqual([200, '<script>']);
  expect(answer.headers).toMatchObject(SANDBOXED);
  expect(server.requests()).toHaveLength(1);
  for (const path of ['/health', '/metrics', '/v1', '/V1/models', '//v1/models', '/v1/../metrics', '/v1/%2e%2E/metrics', '/v1/..%2fx/..', '/v1/%2e%2e%2fmetrics', '/v1%2f..%2Fmetrics/', '/v1/x/..%5Cy', '/v1/..;/metrics', '/v1/\\..\\x', '/index.html', '/console.js']) {
    const refused = await finish(raw(proxy, { path }));
    expect([path, refused.status, codeIn(refused.body)]).toEqual([path, 404, 'unknown_url']);
    expect(refused.headers).toMatchObject(SANDBOXED);
  }
  expect(server.requests()).toHaveLength(1);
}); // prettier-ignore

test.each<[string, (port: string) => Record<string, string>, number, string | undefined]>([
  ['its own address', (port) => ({ host: `127.0.0.1:${port}` }), 200, undefined],
  ['its own page', (port) => ({ host: `127.0.0.1:${port}`, origin: `http://127.0.0.1:${port}` }), 200, undefined],
  ['its own page by name', (port) => ({ host: `localhost:${port}`, origin: `http://localhost:${port}` }), 200, undefined],
  ['its own page by another name', (port) => ({ host: `127.0.0.1:${port}`, origin: `http://localhost:${port}` }), 403, 'origin_not_allowed'],
  ['no port', () => ({ host: '127.0.0.1' }), 403, 'host_not_allowed'],
  ['another port', () => ({ host: '127.0.0.1:1' }), 403, 'host_not_allowed'],
  ['a name that was pointed here', (port) => ({ host: `rebound.example:${port}` }), 403, 'host_not_allowed'],
  ['a name below localhost', (port) => ({ host: `x.localhost:${port}` }), 403, 'host_not_allowed'],
  ['a page of another port', (port) => ({ host: `127.0.0.1:${port}`, origin: 'http://127.0.0.1:1' }), 403, 'origin_not_allowed'],
  ['a sandboxed page', (port) => ({ host: `127.0.0.1:${port}`, origin: 'null' }), 403, 'origin_not_allowed'],
  ['the same over https', (port) => ({ host: `127.0.0.1:${port}`, origin: `https://127.0.0.1:${port}` }), 403, 'origin_not_allowed'],
  ['what a browser marks as of another port', (port) => ({ host: `127.0.0.1:${port}`, 'sec-fetch-site': 'same-site' }), 403, 'cross_site_request'],
])('%s [B25]', async (_, headers, status, code) => {
  const { proxy, server, port } = await started();
  for (const [path, method] of [['/', 'GET'], ['/console.json', 'GET'], ['/v1/sealed', 'POST']] as const) {
    const answer = await finish(raw(proxy, { path, method, headers: headers(port) }));
    expect(answer.status).toBe(status);
    if (status !== 200) {
      expect(codeIn(answer.body)).toBe(code);
      expect(answer.headers).toMatchObject(SANDBOXED);
    }
  }
  expect(server.requests()).toHaveLength(status === 200 ? 1 : 0);
}); // prettier-ignore

test('a preflight of its own page is answered sandboxed, too [B25]', async () => {
  const { proxy, server } = await started();
  const headers = { origin: proxy.url, 'access-control-request-method': 'POST' };
  const answer = await fetch(`${proxy.url}/v1/sealed`, { method: 'OPTIONS', headers });
  expect(answer.status).toBe(204);
  expect(Object.fromEntries(answer.headers)).toMatchObject(SANDBOXED);
  expect(server.requests()).toHaveLength(0);
});

test('what is no request is answered sandboxed, too [B25]', async () => {
  const { proxy } = await started();
  const text = await speak(proxy, 'nonsense\r\n\r\n');
  expect(text).toMatch(/^HTTP\/1\.1 400/);
  expect(text).toContain('content-security-policy: sandbox');
});
