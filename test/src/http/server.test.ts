// Alike on every route: the envelope on every path, headers, bounds, keep-alive, broken HTTP.

import type { Socket } from 'node:net';
import { Agent, type IncomingMessage, request as httpRequest } from 'node:http';
import { once } from 'node:events';
import { afterEach, describe, expect, test } from 'vitest';
import { DEFAULT_CONFIG } from '../../../src/http/deps.ts';
import { ApiError } from '../../../src/base/errors.ts';
import { type ApiServer, type ErrorAnswer, events, post, startApi } from '../../fixtures/http/api-server.ts';
import { raw } from '../../fixtures/http/raw.ts';

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

test('a content-type without a body is no body: DELETE and GET are answered, and a POST that needs one says so', async () => {
  api = await startApi();
  const headers = { 'content-type': 'application/json' };
  expect(
    await (await fetch(`${api.url}/v1/models/reranker`, { method: 'DELETE', headers })).json(),
  ).toMatchObject({ deleted: true });
  expect((await fetch(`${api.url}/v1/models`, { headers })).status).toBe(200);
  const empty =
    'DELETE /v1/models/text-embed HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 0\r\nconnection: close\r\n\r\n';
  expect(await raw(api, empty)).toMatch(/^HTTP\/1\.1 200 /);
  const chunked =
    'DELETE /v1/models/demo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n0\r\n\r\n';
  expect(await raw(api, chunked)).toMatch(/^HTTP\/1\.1 200 /);
  expect(
    await errorOf(await fetch(`${api.url}/v1/chat/completions`, { method: 'POST', headers })),
  ).toMatchObject({ code: 'invalid_json' });
});

const REFUSED: readonly (readonly [string, string, RequestInit, number, string])[] = [
  ['unknown route', '/v1/nothing', {}, 404, 'unknown_url'],
  ['unknown route with a body of any kind', '/v1/nothing', { method: 'POST', body: 'x' }, 404, 'unknown_url'],
  ['another method', '/v1/chat/completions', {}, 405, 'method_not_allowed'],
  [
    'another method on a path with a parameter',
    '/v1/models/x',
    { method: 'PUT', body: 'x' },
    405,
    'method_not_allowed',
  ],
  [
    'text',
    '/v1/chat/completions',
    { method: 'POST', body: 'x', headers: { 'content-type': 'text/plain' } },
    415,
    'unsupported_media_type',
  ],
  [
    'no content-type',
    '/v1/chat/completions',
    { method: 'POST', body: new Uint8Array([123, 125]) },
    415,
    'unsupported_media_type',
  ],
  [
    'another charset',
    '/v1/chat/completions',
    { method: 'POST', body: '{}', headers: { 'content-type': 'application/json; charset=utf-16' } },
    415,
    'unsupported_media_type',
  ],
  [
    'gzip',
    '/v1/chat/completions',
    {
      method: 'POST',
      body: 'x',
      headers: { 'content-type': 'application/json', 'content-encoding': 'gzip' },
    },
    415,
    'unsupported_content_encoding',
  ],
  [
    'malformed JSON',
    '/v1/chat/completions',
    { method: 'POST', body: '{"model":', headers: { 'content-type': 'application/json' } },
    400,
    'invalid_json',
  ],
  [
    'no body',
    '/v1/chat/completions',
    { method: 'POST', headers: { 'content-type': 'application/json' } },
    400,
    'invalid_json',
  ],
  [
    'not UTF-8',
    '/v1/chat/completions',
    {
      method: 'POST',
      body: new Uint8Array([0x22, 0xff, 0x22]),
      headers: { 'content-type': 'application/json' },
    },
    400,
    'invalid_json',
  ],
  [
    'an array',
    '/v1/chat/completions',
    { method: 'POST', body: '[]', headers: { 'content-type': 'application/json' } },
    400,
    'invalid_type',
  ],
  [
    '__proto__',
    '/v1/chat/completions',
    {
      method: 'POST',
      body: '{"__proto__":{"model":"demo"}}',
      headers: { 'content-type': 'application/json' },
    },
    400,
    'invalid_json',
  ],
  [
    '__proto__ in disguise',
    '/v1/chat/completions',
    {
      method: 'POST',
      body: String.raw`{"a":{"\u005f_proto__":1}}`,
      headers: { 'content-type': 'application/json' },
    },
    400,
    'invalid_json',
  ],
  [
    'too deep',
    '/v1/chat/completions',
    { method: 'POST', body: '['.repeat(101), headers: { 'content-type': 'application/json' } },
    400,
    'json_too_deep',
  ],
  [
    'a hundred thousand levels',
    '/v1/chat/completions',
    {
      method: 'POST',
      body: `{"a":${'['.repeat(100_000)}`,
      headers: { 'content-type': 'application/json' },
    },
    400,
    'json_too_deep',
  ],
  ['bad percent-encoding', '/v1/models/%zz', {}, 400, 'invalid_url'],
  ['unknown model', '/v1/models/none', {}, 404, 'model_not_found'],
  ['an endless id', `/v1/models/${'x'.repeat(2000)}`, {}, 404, 'model_not_found'],
  ['an unknown query parameter', '/v1/attestation?nonse=1', {}, 400, 'unknown_parameter'],
  ['no TEE', '/v1/attestation', {}, 503, 'tee_not_enabled'],
  ['metrics that are off', '/metrics', {}, 404, 'unknown_url'],
];

describe('one envelope', () => {
  test.each(REFUSED)('%s', async (...[, path, init, status, code]) => {
    api = await startApi();
    const response = await fetch(api.url + path, init);
    expect(response.status).toBe(status);
    expect((await errorOf(response)).code).toBe(code);
  });

  test('a body that is too large', async () => {
    api = await startApi({ config: { limits: { ...DEFAULT_CONFIG.limits, maxBodyBytes: 1024 } } });
    const response = await post(api, '/v1/chat/completions', { ...CHAT, user: 'x'.repeat(2000) });
    expect(response.status).toBe(413);
    expect((await errorOf(response)).code).toBe('request_too_large');
  });

  test('an error nobody foresaw says nothing of its cause, to the client or the log', async () => {
    api = await startApi({
      engine: { failAt: { position: 0, error: new Error('secret-canary of the engine') } },
    });
    const response = await post(api, '/v1/chat/completions', CHAT);
    expect(response.status).toBe(500);
    expect(response.headers.get('x-should-retry')).toBe('false');
    const error = await errorOf(response);
    expect(error).toMatchObject({ code: 'internal_error', type: 'server_error' });
    expect(JSON.stringify([error, api.logged])).not.toContain('secret-canary');
    expect(api.logged.some((line) => line['msg'] === 'unexpected error')).toBe(true);
  });

  test('an error in a stream is its one terminal event', async () => {
    api = await startApi({
      engine: {
        failAt: {
          position: 2,
          error: new ApiError('engine_crashed', 'the engine ended', { retryAfterSeconds: 1 }),
        },
      },
    });
    const data = await events(await post(api, '/v1/chat/completions', { ...CHAT, stream: true }));
    expect(JSON.parse(data.at(-1) ?? '')).toEqual({
      error: {
        message: 'the engine ended',
        type: 'service_unavailable_error',
        param: null,
        code: 'engine_crashed',
      },
    });
    expect(data).not.toContain('[DONE]');
    expect(data.filter((each) => each.includes('"error"'))).toHaveLength(1);
  });
});

describe('one envelope, below the routes', () => {
  test('a large body that is refused unread closes the connection; a small one does not', async () => {
    api = await startApi({ config: { auth: { required: true, keys: [], adminEnabled: true } } });
    const large = await raw(
      api,
      'POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n{',
    );
    expect(large).toMatch(/^HTTP\/1\.1 401 [\s\S]*connection: close/i);
    expect((await post(api, '/v1/chat/completions', CHAT)).headers.get('connection')).toBe('keep-alive');
  });

  test('what is not HTTP', async () => {
    api = await startApi();
    expect(await raw(api, 'nonsense\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 [\s\S]*"code":"invalid_request"/);
  });

  test('a header that is too large', async () => {
    api = await startApi();
    expect(await raw(api, `GET /health HTTP/1.1\r\nhost: x\r\nx: ${'a'.repeat(20_000)}\r\n\r\n`)).toMatch(
      /^HTTP\/1\.1 431 [\s\S]*"code":"headers_too_large"/,
    );
  });

  test('two lengths (request smuggling)', async () => {
    api = await startApi();
    const answer = await raw(
      api,
      'POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\nhost: x\r\n\r\n',
    );
    expect(answer).toMatch(/^HTTP\/1\.1 400 /);
    expect(answer.match(/^HTTP\/1\.1 \d/gm)).toHaveLength(1);
  });

  test('no Host', async () => {
    api = await startApi();
    expect(await raw(api, 'GET /health HTTP/1.1\r\nconnection: close\r\n\r\n')).toMatch(
      /^HTTP\/1\.1 400 [\s\S]*"code":"invalid_request"/,
    );
  });

  test('an expectation that is not 100-continue', async () => {
    api = await startApi();
    expect(
      await raw(
        api,
        'POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nexpect: miracles\r\ncontent-length: 0\r\n\r\n',
      ),
    ).toMatch(/^HTTP\/1\.1 417 [\s\S]*x-request-id: req_[\s\S]*"code":"expectation_failed"/i);
  });

  test('CONNECT', async () => {
    api = await startApi();
    expect(await raw(api, 'CONNECT example.org:443 HTTP/1.1\r\nhost: example.org\r\n\r\n')).toMatch(
      /^HTTP\/1\.1 400 /,
    );
  });
});

test('plain HTTP is not served to the network', async () => {
  api = await startApi();
  await expect(startApi({ config: { host: '0.0.0.0' } })).rejects.toThrow(
    /plain HTTP is served on loopback only/,
  );
});

describe('headers', () => {
  test('x-request-id is given, or echoed if it is one', async () => {
    api = await startApi();
    expect((await fetch(`${api.url}/health`)).headers.get('x-request-id')).toMatch(/^req_[0-9a-f]{32}$/);
    expect(
      (await fetch(`${api.url}/health`, { headers: { 'x-request-id': 'mine-1' } })).headers.get(
        'x-request-id',
      ),
    ).toBe('mine-1');
    expect(
      (await fetch(`${api.url}/health`, { headers: { 'x-request-id': 'no spaces' } })).headers.get(
        'x-request-id',
      ),
    ).toMatch(/^req_/);
  });

  test('openai-processing-ms on plain answers, streams and errors', async () => {
    api = await startApi();
    for (const body of [CHAT, { ...CHAT, stream: true }, { ...CHAT, n: 0 }]) {
      const response = await post(api, '/v1/chat/completions', body);
      await response.text();
      expect(response.headers.get('openai-processing-ms')).toMatch(/^\d+$/);
    }
  });

  test('a connection is kept and used again', async () => {
    api = await startApi();
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const sockets = new Set<Socket>();
    for (const path of ['/health', '/v1/models', '/v1/nothing', '/health']) {
      const request = httpRequest({ ...hostPort(), path, agent });
      request.end();
      const [response] = (await once(request, 'response')) as [IncomingMessage];
      sockets.add(response.socket);
      response.resume();
      await once(response, 'end');
      expect(response.headers['keep-alive']).toBe('timeout=75');
    }
    agent.destroy();
    expect(sockets.size).toBe(1);
  });
});

describe('the log', () => {
  test('one line per request, with nothing of what was asked', async () => {
    api = await startApi();
    const canary = 'canary-91c2';
    await (
      await post(
        api,
        `/v1/chat/completions?x=${canary}`,
        { ...CHAT, messages: [{ role: 'user', content: canary }] },
        { headers: { authorization: `Bearer ${canary}`, 'user-agent': canary } },
      )
    ).text();
    await (await fetch(`${api.url}/v1/models/${canary}`)).text();
    await (await fetch(`${api.url}/${canary}`)).text();
    await api.ended(3);
    const lines = api.logged.filter((line) => line['msg'] === 'request');
    expect(lines).toHaveLength(3);
    expect(lines[0]).toMatchObject({
      method: 'POST',
      route: '/v1/chat/completions',
      status: 200,
      completionTokens: 4,
    });
    expect(lines[2]).toMatchObject({ route: '(none)', status: 404, code: 'unknown_url' });
    expect(JSON.stringify(api.logged)).not.toContain(canary);
    expect(JSON.stringify(api.records)).not.toContain(canary);
  });
});
