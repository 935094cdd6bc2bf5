// The clients that the local proxy answers: which Host, web pages and upgrades; and that every
// refusal is in the envelope.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { canonicalOrigin, hostName, isLoopbackHost } from '../../../../attestation/node/proxy/guard.ts';
import { send } from '../../../fixtures/attestation/attested-server.ts';
import { finish, raw, speak, startBoth } from '../../../fixtures/attestation/local-proxy.ts';
import { codeOf, codeOfAsync } from '../../../fixtures/refusal.ts';

describe('proxy guard', () => {
  test.each([
    ['a name that was pointed at this machine', { host: 'evil.example' }, 403, 'host_not_allowed'],
    ['a name with our port', { host: 'evil.example:8080' }, 403, 'host_not_allowed'],
    ['a web page of another origin', { origin: 'https://evil.example' }, 403, 'origin_not_allowed'],
    ['a sandboxed web page', { origin: 'null' }, 403, 'origin_not_allowed'],
    ['a web page served from this machine', { origin: 'http://localhost:3000' }, 403, 'origin_not_allowed'],
    ['an image on a web page', { 'sec-fetch-site': 'cross-site' }, 403, 'cross_site_request'],
    ['an image on a page of another port', { 'sec-fetch-site': 'same-site' }, 403, 'cross_site_request'],
    ['a mark nobody has defined', { 'sec-fetch-site': 'Cross-Site, none' }, 403, 'cross_site_request'],
    ['an address that was typed', { 'sec-fetch-site': 'none' }, 200, undefined],
    ['a Host with user information', { host: 'evil.com@127.0.0.1' }, 403, 'host_not_allowed'],
    ['a Host with a path', { host: '127.0.0.1/evil.com' }, 403, 'host_not_allowed'],
    ['a Host with a query', { host: '127.0.0.1?evil.com' }, 403, 'host_not_allowed'],
    ['a Host with a backslash', { host: '127.0.0.1\\evil.com' }, 403, 'host_not_allowed'],
    ['two names', { host: '127.0.0.1, evil.com' }, 403, 'host_not_allowed'],
    ['a name below localhost', { host: 'localhost.evil.com' }, 403, 'host_not_allowed'],
    ['a port that is none', { host: '127.0.0.1:99999' }, 403, 'host_not_allowed'],
    ['two ports', { host: '127.0.0.1:1:2' }, 403, 'host_not_allowed'],
    ['an address without its brackets', { host: '::1' }, 403, 'host_not_allowed'],
    ['a number that is an address', { host: '2130706433' }, 403, 'host_not_allowed'],
    ['localhost', { host: 'localhost:1' }, 200, undefined],
    ['localhost in capitals', { host: 'LOCALHOST' }, 200, undefined],
    ['another address of this machine', { host: '127.9.9.9:8080' }, 200, undefined],
    ['IPv6 loopback written out', { host: '[0:0:0:0:0:0:0:1]' }, 200, undefined],
    ['IPv6 loopback', { host: '[::1]:1' }, 200, undefined],
    ['an upgrade', { connection: 'upgrade', upgrade: 'websocket' }, 501, 'upgrade_not_supported'],
  ])('%s', async (_, headers, status, code) => {
    const { server, proxy } = await startBoth();
    const answer = await finish(raw(proxy, { method: 'POST', headers }));
    expect(answer.status).toBe(status);
    expect(server.requests()).toHaveLength(status === 200 ? 1 : 0);
    expect((JSON.parse(answer.body) as { error?: { code: string } }).error?.code).toBe(code);
  });

  test.each([
    [
      'absolute-form',
      'GET http://example.invalid/ HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n',
      'HTTP/1.1 400',
    ],
    ['a Host that is none', 'GET / HTTP/1.1\r\nhost:\r\nconnection: close\r\n\r\n', 'HTTP/1.1 403'],
    ['no Host', 'GET / HTTP/1.0\r\n\r\n', 'HTTP/1.1 403'],
    ['CONNECT', 'CONNECT example.invalid:443 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n', 'HTTP/1.1 501'],
    ['no HTTP at all', '\x16\x03\x01\x00\x00', 'HTTP/1.1 400'],
  ])('is no open proxy: %s', async (_, bytes, start_) => {
    const { server, proxy } = await startBoth();
    const text = await speak(proxy, bytes);
    expect(text.startsWith(start_)).toBe(true);
    expect(server.requests()).toHaveLength(0);
  });

  test('refuses to listen beyond loopback without being told to', async () => {
    for (const host of ['0.0.0.0', '::', '192.0.2.1', 'example.invalid'])
      expect(await codeOfAsync(() => startBoth({}, { host }))).toBe('wrong_usage');
    const { proxy } = await startBoth({}, { host: '0.0.0.0', allowNonLoopback: true });
    expect((await finish(raw(proxy, { headers: { host: 'box.lan' } }))).status).toBe(200);
  });

  test.each([
    ['127.0.0.1', true],
    ['127.8.9.1', true],
    ['::1', true],
    ['localhost', true],
    ['127.evil.example', false],
    ['0.0.0.0', false],
    ['localhost.evil.example', false],
  ])('%s is loopback: %s', (host, expected) => {
    expect(isLoopbackHost(host)).toBe(expected);
  });

  test.each([
    ['no Host', 'GET / HTTP/1.1\r\nconnection: close\r\n\r\n', 400, 'host_missing'],
    ['two Hosts', 'GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nHost: evil.example\r\n\r\n', 403, 'host_not_allowed'],
    ['CONNECT', 'CONNECT x:1 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n', 501, 'connect_not_supported'],
    ['no HTTP', '\x16\x03\x01\r\n\r\n', 400, 'malformed_http'],
    ['a header without a name', 'GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n: x\r\n\r\n', 400, 'malformed_http'],
    ['two lengths', 'POST / HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n', 400, 'malformed_http'],
    ['large headers', `GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx: ${'x'.repeat(20_000)}\r\n\r\n`, 431, 'headers_too_large'],
    ['an expectation', 'POST / HTTP/1.1\r\nhost: 127.0.0.1\r\nexpect: cake\r\ncontent-length: 0\r\n\r\n', 417, 'expectation_failed'],
  ])('a refusal below the router is in the envelope: %s', async (_, bytes, status, code) => {
    const { server, proxy } = await startBoth();
    const text = await speak(proxy, bytes);
    expect(text).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    expect(text.toLowerCase()).toContain('content-type: application/json');
    expect(JSON.parse(text.slice(text.indexOf('\r\n\r\n')))).toMatchObject({ error: { code, param: null } });
    expect(server.requests()).toHaveLength(0);
  }); // prettier-ignore
});

describe('an upgrade is an offer', () => {
  const JAVA = 'connection: Upgrade, HTTP2-Settings\r\nhttp2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nupgrade: h2c\r\nuser-agent: Java-http-client/17\r\n'; // prettier-ignore
  const offer = (value: string): string => `connection: upgrade\r\nupgrade: ${value}\r\n`;

  test.each([
    ["Java's own headers", JAVA],
    ['another spelling', offer('H2C')],
    ['a list', offer('h2c, TLS/1.0, IRC/6.9')],
    ['an unknown protocol', offer('made-up/7')],
    ['connect-udp', offer('connect-udp')],
    ['websocket among others, without its key', offer('websocket, h2c')],
    ['nothing', offer('')],
  ])('and is ignored, GET and POST on one connection: %s', async (_, fields) => {
    const { server, proxy } = await startBoth();
    const head = `host: 127.0.0.1\r\n${fields}`;
    const text = await speak(
      proxy,
      `GET /v1/a HTTP/1.1\r\n${head}\r\n`,
      `POST /v1/b HTTP/1.1\r\n${head}content-length: 2\r\nconnection: close\r\n\r\n{}`,
    );
    expect(text.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 200']);
    const seen = server.requests().toSorted((a, b) => (a.path < b.path ? -1 : 1));
    expect(seen.map(({ path, body }) => [path, body])).toEqual([
      ['/v1/a', ''],
      ['/v1/b', '{}'],
    ]);
    for (const { headers } of seen)
      for (const name of ['upgrade', 'http2-settings']) expect(headers.has(name)).toBe(false);
  });

  test.each([
    ['WebSocket', {}],
    ['websocket/13', {}],
    ['h2c, websocket', { 'sec-websocket-key': 'x' }],
  ])('but for %s, which cannot work without switching', async (upgrade, more) => {
    const { server, proxy } = await startBoth();
    const { status, body } = await finish(
      raw(proxy, { headers: { connection: 'upgrade', upgrade, ...more } }),
    );
    expect([status, JSON.parse(body)]).toMatchObject([501, { error: { code: 'upgrade_not_supported' } }]);
    expect(server.requests()).toHaveLength(0);
  });

  test('curl --http2 gets its answer', async ({ skip }) => {
    const { proxy } = await startBoth();
    const url = `${proxy.url}/v1/x`;
    const ran = await promisify(execFile)('curl', [
      '--http2',
      '-sS',
      '-w',
      '%{http_code}',
      '-d',
      '{}',
      url,
    ]).catch((error: NodeJS.ErrnoException) =>
      error.code === 'ENOENT' ? skip('no curl here') : Promise.reject(error),
    );
    expect(ran.stdout).toMatch(/200$/);
  });
});

describe('web pages whose origin was named', () => {
  const PAGE = 'http://localhost:3000';

  test('a preflight is answered here, a request with its origin', async () => {
    const { server, proxy } = await startBoth({}, { allowOrigins: [`${PAGE}/`, 'app://notes'] });
    const preflight = await finish(
      raw(proxy, {
        method: 'OPTIONS',
        headers: {
          origin: PAGE,
          'access-control-request-method': 'POST',
          'access-control-request-headers': 'authorization,content-type',
          'access-control-request-private-network': 'true',
          'sec-fetch-site': 'same-site',
        },
      }),
    );
    expect(preflight.status).toBe(204);
    expect(preflight.headers).toMatchObject({
      'access-control-allow-origin': PAGE,
      'access-control-allow-methods': 'POST',
      'access-control-allow-headers': 'authorization,content-type',
      'access-control-allow-private-network': 'true',
      vary: 'origin',
    });
    expect(server.requests()).toHaveLength(0);
    for (const origin of [PAGE, 'app://notes']) {
      const headers = { origin, 'sec-fetch-site': 'cross-site' };
      const answer = await finish(raw(proxy, { method: 'POST', headers }));
      expect([answer.status, answer.headers['access-control-allow-origin']]).toEqual([200, origin]);
    }
    expect(server.requests().map(({ headers }) => headers.has('origin'))).toEqual([false, false]);
  });

  test.each([
    ['another port', 'http://localhost:3001'],
    ['another scheme', 'https://localhost:3000'],
    ['another name', 'http://127.0.0.1:3000'],
    ['a longer name', 'http://localhost:3000.evil.example'],
    ['a sandbox', 'null'],
  ])('lets no other in: %s', async (_, origin) => {
    const { server, proxy } = await startBoth({}, { allowOrigins: [PAGE] });
    for (const method of ['POST', 'OPTIONS']) {
      const headers = { origin, 'access-control-request-method': 'POST' };
      const answer = await finish(raw(proxy, { method, headers }));
      expect([answer.status, answer.headers['access-control-allow-origin']]).toEqual([403, undefined]);
    }
    // Such a page must not read the other problems of a request.
    const refused = await finish(raw(proxy, { headers: { origin, host: 'evil.example' } }));
    expect(refused.headers['access-control-allow-origin']).toBeUndefined();
    expect(server.requests()).toHaveLength(0);
  });

  test("the upstream's own fields of this kind do not pass", async () => {
    const { proxy } = await startBoth(
      { respond: (_, { socket }) => send(socket, 200, '{}', { 'access-control-allow-origin': '*' }) },
      { allowOrigins: [PAGE] },
    );
    const program = await finish(raw(proxy));
    expect(program.headers['access-control-allow-origin']).toBeUndefined();
    const page = await finish(raw(proxy, { headers: { origin: PAGE } }));
    expect(page.headers['access-control-allow-origin']).toBe(PAGE);
  });

  test.each([
    'null',
    '*',
    'localhost:3000',
    'http://x/path',
    'http://u@x',
    'http://x?q',
    'http://*.x',
    '',
    'file:///',
  ])('%j is not an origin', async (text) => {
    expect(codeOf(() => canonicalOrigin(text))).toBe('wrong_usage');
    expect(await codeOfAsync(() => startBoth({}, { allowOrigins: [text] }))).toBe('wrong_usage');
  });

  test.each([
    ['127.0.0.1:8080', '127.0.0.1'],
    ['[::1]:80', '::1'],
    ['Box.LAN', 'box.lan'],
    ['[::1', undefined],
    ['[127.0.0.1]', undefined],
    ['.localhost', undefined],
    ['localhost.', undefined],
    ['a b', undefined],
    ['', undefined],
  ])('Host %j names %j', (host, name) => {
    expect(hostName(host)).toBe(name);
  });
});
