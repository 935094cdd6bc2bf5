// Every refusal below the routes is told in the envelope, says what to do, and never repeats the caller's
// text: unknown paths, methods, requests that are none, plain HTTP on the TLS port.

import { once } from 'node:events';
import { METHODS } from 'node:http';
import { connect } from 'node:net';
import { Duplex } from 'node:stream';
import { connect as secure } from 'node:tls';
import { Agent, fetch as undiciFetch } from 'undici';
import { afterEach, describe, expect, test } from 'vitest';
import { allRoutes } from '../../../src/api/routes.ts';
import { DEFAULT_CONFIG } from '../../../src/http/deps.ts';
import { type ApiServer, type ErrorAnswer, post, startApi } from '../../fixtures/http/api-server.ts';
import { raw } from '../../fixtures/http/raw.ts';
import { ownCertificate } from '../../fixtures/attester/own-certificate.ts';

let api: ApiServer;
afterEach(() => api.close());

function envelopeOf(text: string): ErrorAnswer['error'] & { status: number; head: string } {
  const at = text.indexOf('\r\n\r\n');
  const head = text.slice(0, at);
  return {
    ...(JSON.parse(text.slice(at + 4)) as ErrorAnswer).error,
    status: Number(/^HTTP\/1\.1 (\d+) /.exec(head)?.[1]),
    head,
  };
}

async function startSecure(): Promise<void> {
  api = await startApi({ deps: { tls: await ownCertificate() } });
}

describe('405 names the methods there are', () => {
  const OTHERS = METHODS.filter((method) => !['CONNECT', 'GET', 'HEAD', 'POST', 'DELETE'].includes(method));

  test.each([
    ['/v1/models', 'GET, HEAD, POST'],
    ['/v1/chat/completions', 'POST'],
    ['/v1/models/demo', 'GET, HEAD, DELETE'],
    ['/v1/models/owner/repo', 'GET, HEAD, DELETE'],
    ['/health', 'GET, HEAD'],
  ])('%s', async (path, allow) => {
    api = await startApi();
    for (const method of OTHERS) {
      const answer = envelopeOf(
        await raw(api, `${method} ${path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`),
      );
      expect([method, answer.status, answer.code]).toEqual([method, 405, 'method_not_allowed']);
      expect(answer.head).toMatch(new RegExp(`^allow: ${allow}\\r?$`, 'im'));
      expect(answer.message).toContain(allow);
    }
  });

  test('HEAD where there is nothing to GET, and OPTIONS that is no preflight', async () => {
    api = await startApi();
    const head = await fetch(`${api.url}/v1/chat/completions`, { method: 'HEAD' });
    expect([head.status, head.headers.get('allow')]).toEqual([405, 'POST']);
    const options = await fetch(`${api.url}/v1/models`, { method: 'OPTIONS' });
    expect([options.status, options.headers.get('allow')]).toEqual([405, 'GET, HEAD, POST']);
    expect(((await options.json()) as ErrorAnswer).error.message).toContain('preflight');
  });

  test('every path of every route, aliases too', async () => {
    api = await startApi();
    const routes = allRoutes({
      config: DEFAULT_CONFIG,
      metrics: { text: () => '' },
      startedAt: 0,
      isDraining: () => false,
    });
    for (const url of routes.flatMap(({ path, aliases = [] }) => [path, ...aliases])) {
      const path = url.replace(/:\w+|\*/g, 'x');
      const response = await fetch(`${api.url}${path}`, { method: 'OPTIONS' });
      expect([path, response.status, response.headers.get('allow')]).toEqual([path, 405, expect.stringMatching(/GET|POST|DELETE/)]); // prettier-ignore
    }
  });
});

describe('404 says where to go, and nothing of what was asked', () => {
  test.each<[string, string]>([
    ['GET', '/'],
    ['GET', '/secret-word'],
    ['GET', '/v1/response'],
    ['POST', '/v1/message'],
    ['POST', '/v1/chat/completions/'],
    ['GET', '/v1/models/'],
    ['DELETE', '/v1/models/'],
    ['OPTIONS', '/secret-word'],
    ['PROPFIND', '/secret-word'],
  ])('%s %s', async (method, path) => {
    api = await startApi();
    const response = await fetch(`${api.url}${path}`, { method });
    const { error } = (await response.json()) as ErrorAnswer;
    expect([response.status, error.code]).toEqual([404, 'unknown_url']);
    for (const named of ['/v1', 'GET /v1/models', '/v1/responses', '/v1/messages'])
      expect(error.message).toContain(named);
    expect(error.message).not.toContain('secret');
  });
});

test.each([
  ['curl -d without a header', 'application/x-www-form-urlencoded'],
  ['no content-type', undefined],
  ['text', 'text/plain'],
  ['another charset', 'application/json; charset=latin1'],
])('415 says what to add: %s', async (_, type) => {
  api = await startApi();
  const response = await fetch(`${api.url}/v1/completions`, {
    method: 'POST',
    body: new TextEncoder().encode('{"model":"demo","prompt":"x"}'),
    ...(type !== undefined && { headers: { 'content-type': type } }),
  });
  expect(response.status).toBe(415);
  expect(((await response.json()) as ErrorAnswer).error.message).toContain(
    '`content-type: application/json`',
  );
});

describe('what is no request is told so in the envelope', () => {
  test.each<[string, string, number, string]>([
    ['HTTP/1.1 without Host', 'GET /health HTTP/1.1\r\nconnection: close\r\n\r\n', 400, 'invalid_request'],
    ['two Hosts', 'GET /health HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n', 400, 'invalid_request'],
    ['noise', 'hello\r\n\r\n', 400, 'invalid_request'],
    ['an unknown method', 'BREW /pot HTTP/1.1\r\nhost: x\r\n\r\n', 400, 'invalid_request'],
    ['an unknown version', 'GET / HTTP/3.0\r\nhost: x\r\n\r\n', 400, 'invalid_request'],
    ['a header without a name', 'GET / HTTP/1.1\r\nhost: x\r\n: y\r\n\r\n', 400, 'invalid_request'],
    ['too long a header', `GET / HTTP/1.1\r\nhost: x\r\nx: ${'y'.repeat(20_000)}\r\n\r\n`, 431, 'headers_too_large'],
    ['too long a path', `GET /${'y'.repeat(20_000)} HTTP/1.1\r\nhost: x\r\n\r\n`, 431, 'headers_too_large'],
    ['bad percent-encoding', 'GET /%zz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n', 400, 'invalid_url'],
    ['CONNECT', 'CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n', 400, 'invalid_request'],
    ['an expectation', 'GET /health HTTP/1.1\r\nhost: x\r\nexpect: miracles\r\n\r\n', 417, 'expectation_failed'],
  ])('%s', async (_, bytes, status, code) => {
    api = await startApi();
    const answer = envelopeOf(await raw(api, bytes));
    expect([answer.status, answer.code]).toEqual([status, code]);
    expect(answer.head).toMatch(/^content-type: application\/json/im);
    expect(answer.head).toMatch(/^x-request-id: req_/im);
  }); // prettier-ignore
});

describe('plain HTTP on the TLS port', () => {
  test.each([
    ['a GET', 'GET / HTTP/1.1\r\nhost: x\r\n\r\n'],
    ['the first byte of one', 'G'],
    ['a POST with a key', 'POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer secret\r\ncontent-length: 4\r\n\r\n{}{}'],
    ['a CONNECT', 'CONNECT x:443 HTTP/1.1\r\n\r\n'],
    ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
  ])('gets one plain 400 that says so: %s', async (_, bytes) => {
    await startSecure();
    const text = await raw(api, bytes);
    const answer = envelopeOf(text);
    expect([answer.status, answer.code]).toEqual([400, 'tls_required']);
    expect(answer.message).toBe('this port speaks https; see assay-verify proxy');
    expect(text).not.toContain('secret');
    expect(api.records).toEqual([]);
  }); // prettier-ignore

  test('a client of http:// reads it', async () => {
    await startSecure();
    const response = await fetch(api.url.replace('https:', 'http:'));
    expect([response.status, response.headers.get('connection')]).toEqual([400, 'close']);
  });

  test('counts as a broken request', async () => {
    await startSecure();
    await raw(api, 'GET / HTTP/1.1\r\n\r\n');
    const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });
    const response = await undiciFetch(`${api.url}/health`, { dispatcher });
    expect(response.status).toBe(200);
    await dispatcher.close();
  });

  test('noise is no HTTP, and a TLS record that comes a byte at a time is no noise', async () => {
    await startSecure();
    expect(await raw(api, Buffer.from('0001020304050607', 'hex'))).not.toContain('HTTP/');
    const wire = connect({ host: '127.0.0.1', port: Number(new URL(api.url).port), noDelay: true });
    await once(wire, 'connect');
    const socket = new Duplex({
      read: () => undefined,
      write(chunk: Buffer, _encoding, done) {
        for (const byte of chunk) wire.write(Buffer.of(byte));
        done();
      },
    });
    wire.on('data', (chunk: Buffer) => socket.push(chunk));
    const tls = secure({ socket, rejectUnauthorized: false });
    await once(tls, 'secureConnect');
    tls.write('GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n');
    const [answer] = (await once(tls, 'data')) as [Buffer];
    expect(answer.toString()).toMatch(/^HTTP\/1\.1 200 /);
    tls.destroy();
    wire.destroy();
  });

  test('a client that connects and leaves, or says nothing at all, harms nobody', async () => {
    await startSecure();
    const port = Number(new URL(api.url).port);
    for (let i = 0; i < 20; i += 1) {
      const socket = connect({ host: '127.0.0.1', port });
      await once(socket, 'connect');
      if (i % 2 === 0) socket.resetAndDestroy();
      else socket.end();
      await once(socket, 'close');
    }
    expect(envelopeOf(await raw(api, 'GET / HTTP/1.1\r\n\r\n')).status).toBe(400);
  });
});

test('the list of models has no slash at its end, and models have names', async () => {
  api = await startApi();
  expect((await fetch(`${api.url}/v1/models`)).status).toBe(200);
  const unknown = await fetch(`${api.url}/v1/models/none`);
  expect(((await unknown.json()) as ErrorAnswer).error.code).toBe('model_not_found');
  expect((await post(api, '/v1/models/', {})).status).toBe(405);
});
