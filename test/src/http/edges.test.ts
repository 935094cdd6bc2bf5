// Hostile bytes at the HTTP edge: requests that two parsers could read differently, bodies that come a byte at a time or never
// end, keys that reach for prototypes. All have in common: one answer at most, a 4xx, and no part of it is executed.

import { once } from 'node:events';
import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { afterEach, describe, expect, test } from 'vitest';
import { issueCertificate } from '../../../src/attester/certificate.ts';
import { createIdentity } from '../../../src/attester/identity.ts';
import { DEFAULT_CONFIG } from '../../../src/http/deps.ts';
import { type ApiServer, type ErrorAnswer, post, startApi } from '../../fixtures/http/api-server.ts';

let api: ApiServer;
afterEach(() => api.close());

const CHAT = { model: 'demo', messages: [{ role: 'user', content: 'Hi' }] };
const json = JSON.stringify(CHAT);

/** Sends bytes (and then, a drop at a time, more), reads until the server closes. */
async function raw(
  bytes: string | Buffer,
  drip?: (i: number) => string,
): Promise<{ text: string; sent: number }> {
  const socket = connect({ host: '127.0.0.1', port: Number(new URL(api.url).port) });
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  socket.on('error', () => undefined);
  const closed = once(socket, 'close').catch(() => undefined);
  await once(socket, 'connect');
  socket.write(bytes);
  let sent = bytes.length;
  for (let i = 0; drip !== undefined && !socket.destroyed && !socket.readableEnded; i++) {
    const more = drip(i);
    sent += more.length;
    if (!socket.write(more)) await Promise.race([once(socket, 'drain').catch(() => undefined), closed]);
    await delay(1);
  }
  await closed;
  return { text: Buffer.concat(chunks).toString(), sent };
}

function answers(text: string): string[] {
  return text.match(/HTTP\/1\.1 \d{3}/g) ?? [];
}
const SMUGGLED = 'GET /v1/models HTTP/1.1\r\nhost: smuggled\r\n\r\n';

describe('a request that two parsers could read differently', () => {
  const head = 'POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n';
  test.each<[string, string]>([
    [
      'length and chunked',
      `${head}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n${SMUGGLED}`,
    ],
    [
      'chunked and length',
      `${head}transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n${SMUGGLED}`,
    ],
    ['two lengths', `${head}content-length: 0\r\ncontent-length: ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`],
    ['two lengths in one', `${head}content-length: 0, ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`],
    ['a length with a sign', `${head}content-length: +0\r\n\r\n${SMUGGLED}`],
    ['a negative length', `${head}content-length: -1\r\n\r\n${SMUGGLED}`],
    ['a length in hex', `${head}content-length: 0x0\r\n\r\n${SMUGGLED}`],
    ['a length beyond 2^64', `${head}content-length: 18446744073709551616\r\n\r\n${SMUGGLED}`],
    [
      'another coding under chunked',
      `${head}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n${SMUGGLED}`,
    ],
    ['a coding nobody knows', `${head}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n${SMUGGLED}`],
    [
      'chunked twice',
      `${head}transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n${SMUGGLED}`,
    ],
    ['a folded header', `${head}transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n${SMUGGLED}`],
    ['a folded header of any name', `GET /health HTTP/1.1\r\nhost: x\r\nx-a: b\r\n c\r\n\r\n${SMUGGLED}`],
    ['a space before the colon', `${head}transfer-encoding : chunked\r\n\r\n0\r\n\r\n${SMUGGLED}`],
    ['a name with a space', `GET /health HTTP/1.1\r\nhost: x\r\nx a: b\r\n\r\n${SMUGGLED}`],
    ['a NUL in a value', `GET /health HTTP/1.1\r\nhost: x\r\nx-a: b\0c\r\n\r\n${SMUGGLED}`],
    ['a bare CR in a value', `GET /health HTTP/1.1\r\nhost: x\r\nx-a: b\rc: d\r\n\r\n${SMUGGLED}`],
    ['a bare LF between headers', `GET /health HTTP/1.1\r\nhost: x\nx-a: b\r\n\r\n${SMUGGLED}`],
    ['a chunk size that is none', `${head}transfer-encoding: chunked\r\n\r\nzz\r\n${SMUGGLED}`],
    ['a chunk size with a sign', `${head}transfer-encoding: chunked\r\n\r\n-1\r\n${SMUGGLED}`],
    ['a chunk size beyond 2^64', `${head}transfer-encoding: chunked\r\n\r\n10000000000000000\r\n${SMUGGLED}`],
    [
      'a chunk that is longer than it says',
      `${head}transfer-encoding: chunked\r\n\r\n1\r\n{}}\r\n0\r\n\r\n${SMUGGLED}`,
    ],
    [
      'a chunk size ended by LF alone',
      `${head}transfer-encoding: chunked\r\n\r\n1\n{\r\n0\r\n\r\n${SMUGGLED}`,
    ],
    [
      'HTTP/1.0 with chunked',
      `${head.replace('1.1', '1.0')}transfer-encoding: chunked\r\n\r\n0\r\n\r\n${SMUGGLED}`,
    ],
    ['an upgrade to HTTP/2', `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n${SMUGGLED}`],
  ])('%s', async (_name, bytes) => {
    api = await startApi({
      config: { timeouts: { ...DEFAULT_CONFIG.timeouts, headersMs: 400, bodyMs: 400, keepAliveMs: 400 } },
    });
    const { text } = await raw(bytes);
    expect(answers(text)).toHaveLength(1);
    expect(text).toMatch(/^HTTP\/1\.1 4\d\d /);
    expect(text).toContain('"error"');
    // The second request was never one.
    expect(api.records.filter((record) => record.route === '/v1/models')).toEqual([]);
    expect(api.engine.requests).toEqual([]);
  });

  test('honest requests in one packet are answered one by one, in order', async () => {
    api = await startApi();
    const one = (path: string): string => `GET ${path} HTTP/1.1\r\nhost: x\r\n\r\n`;
    const { text } = await raw(
      one('/health') +
        one('/v1/nothing') +
        one('/health').replace('\r\n\r\n', '\r\nconnection: close\r\n\r\n'),
    );
    expect(answers(text)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 404', 'HTTP/1.1 200']);
  });
});

describe('a drop at a time', () => {
  const timeouts = { ...DEFAULT_CONFIG.timeouts, headersMs: 200, bodyMs: 200 };
  const slow = 'POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n';

  test('a header that never ends is given up after its time, however often a byte of it comes', async () => {
    api = await startApi({ config: { timeouts } });
    const { text } = await raw(
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
    const { text } = await raw(begin, more);
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

describe('bodies', () => {
  const limits = { ...DEFAULT_CONFIG.limits, maxBodyBytes: 64 * 1024 };
  const head = 'POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n';

  test('a length over the limit is refused before a byte of it is read', async () => {
    api = await startApi({ config: { limits } });
    const { text } = await raw(`${head}content-length: 1099511627776\r\n\r\n`);
    expect(text).toMatch(/^HTTP\/1\.1 413 [\s\S]*"code":"request_too_large"/);
    expect(text).toMatch(/connection: close/i);
  });

  test('chunks without end are refused at the limit, and not read much further', async () => {
    api = await startApi({ config: { limits } });
    const chunk = `4000\r\n${' '.repeat(0x4000)}\r\n`;
    const { text, sent } = await raw(`${head}transfer-encoding: chunked\r\n\r\n`, () => chunk);
    expect(text).toMatch(/^HTTP\/1\.1 413 /);
    expect(sent).toBeLessThan(64 * 1024 * 1024);
    expect(api.engine.requests).toEqual([]);
  });

  test('a gzip bomb is refused unopened', async () => {
    api = await startApi();
    const bomb = gzipSync(Buffer.alloc(64 * 1024 * 1024, 0x20));
    const before = process.memoryUsage().rss;
    for (const encoding of ['gzip', 'deflate', 'br', 'gzip, gzip', 'x-gzip']) {
      const response = await fetch(`${api.url}/v1/chat/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'content-encoding': encoding },
        body: bomb,
      });
      expect(response.status).toBe(415);
      expect(((await response.json()) as ErrorAnswer).error.code).toBe('unsupported_content_encoding');
    }
    expect(process.memoryUsage().rss - before).toBeLessThan(256 * 1024 * 1024);
  });

  test.each<[string, string, string]>([
    [
      'a hundred thousand arrays in each other',
      `${'['.repeat(100_000)}${']'.repeat(100_000)}`,
      'json_too_deep',
    ],
    ['a hundred thousand objects in each other', '{"a":'.repeat(100_000), 'json_too_deep'],
    [
      'ten thousand keys',
      `{${Array.from({ length: 10_000 }, (_, i) => `"k${i}":0`).join(',')}}`,
      'unknown_parameter',
    ],
    [
      'a hundred thousand keys',
      `{${Array.from({ length: 100_000 }, (_, i) => `"k${i}":0`).join(',')}}`,
      'json_too_many_values',
    ],
    [
      'one key ten thousand times',
      `{${'"model":"a",'.repeat(10_000)}"model":"demo"}`,
      'missing_required_parameter',
    ],
    [
      'one key a hundred thousand times',
      `{${'"model":"a",'.repeat(100_000)}"model":"demo"}`,
      'json_too_many_values',
    ],
    [
      'a hundred thousand messages',
      `{"model":"demo","messages":[${Array(100_000).fill('{}').join(',')}]}`,
      'array_above_max_length',
    ],
    [
      'a number of a hundred thousand digits',
      `{"model":"demo","messages":[],"temperature":${'9'.repeat(100_000)}}`,
      'empty_array',
    ],
  ])('%s', async (_name, body, code) => {
    api = await startApi();
    const response = await post(api, '/v1/chat/completions', body);
    expect(response.status).toBe(400);
    expect(((await response.json()) as ErrorAnswer).error.code).toBe(code);
    expect(api.engine.requests).toEqual([]);
    expect((await post(api, '/v1/chat/completions', CHAT)).status).toBe(200);
  });
});

describe('keys that reach for prototypes', () => {
  test.each([
    `{"__proto__":{"polluted":true},${json.slice(1)}`,
    `{"\\u005f_proto__":{"polluted":true},${json.slice(1)}`,
    `{"constructor":{"prototype":{"polluted":true}},${json.slice(1)}`,
    `{"metadata":{"__proto__":{"polluted":"1"}},${json.slice(1)}`,
    `{"metadata":{"constructor":"1","prototype":"2","toString":"3"},${json.slice(1)}`,
    `{"logit_bias":{"__proto__":5},${json.slice(1)}`,
    `{"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"__proto__":{"type":"string"}}}}}],${json.slice(1)}`,
  ])('%s', async (body) => {
    api = await startApi();
    const response = await post(api, '/v1/chat/completions', body);
    expect([200, 400]).toContain(response.status);
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
    expect(Object.prototype.toString.call({})).toBe('[object Object]');
    expect((await post(api, '/v1/chat/completions', CHAT)).status).toBe(200);
  });

  test('in a query, a header, a path', async () => {
    api = await startApi();
    for (const path of [
      '/v1/attestation?__proto__[polluted]=1',
      '/v1/attestation?constructor=1',
      '/v1/models/__proto__',
      '/v1/models/constructor',
    ]) {
      const response = await fetch(`${api.url}${path}`);
      expect(response.status).toBeGreaterThanOrEqual(400);
      expect(response.status).toBeLessThan(504);
    }
    expect(
      (await raw('GET /health HTTP/1.1\r\nhost: x\r\n__proto__: polluted\r\nconnection: close\r\n\r\n')).text,
    ).toMatch(/^HTTP\/1\.1 200 /);
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
  });
});

test.each([
  '/v1/models/..%2f..%2f..%2fetc%2fpasswd',
  '/v1/models/%2e%2e/%2e%2e/etc/passwd',
  '/v1/models/../../../etc/passwd',
  '//etc/passwd',
  '/v1/models/pull/..%2f..%2fx/status',
  '/%00/health',
])('a path that climbs: %s', async (path) => {
  api = await startApi();
  const { text } = await raw(`GET ${path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`);
  expect(text).toMatch(/^HTTP\/1\.1 (400|404) /);
  expect(text).not.toContain('root:');
});

test('plain HTTP and noise on the TLS port end that connection and nothing else', async () => {
  const identity = await createIdentity();
  const { pem } = await issueCertificate({
    identity,
    names: ['localhost'],
    now: new Date(),
    lifetimeMs: 3_600_000,
  });
  api = await startApi({ deps: { tls: { key: identity.tls.keyPem, cert: pem } } });
  for (const bytes of [
    'GET /health HTTP/1.1\r\nhost: x\r\n\r\n',
    Buffer.alloc(4096, 0x16),
    Buffer.from('1603010200010001fc0303', 'hex'),
  ]) {
    const socket = connect({ host: '127.0.0.1', port: Number(new URL(api.url).port) });
    socket.on('error', () => undefined);
    await once(socket, 'connect');
    socket.end(bytes);
    let text = '';
    socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
    await once(socket, 'close');
    expect(text).not.toContain('HTTP/1.1 200');
  }
  expect(api.server.address).not.toBeNull();
});
