// Keys: which key may use which route and which model.

import { afterEach, describe, expect, test } from 'vitest';
import { type ApiKey, DEFAULT_CONFIG, type ServerConfig } from '../../../../src/http/deps.ts';
import {
  type ApiServer,
  apiKey as key,
  type ErrorAnswer,
  post,
  startApi,
} from '../../../fixtures/http/api-server.ts';

let api: ApiServer;
afterEach(() => api.close());

function withKeys(keys: readonly ApiKey[], o: Partial<ServerConfig['auth']> = {}): Partial<ServerConfig> {
  return {
    auth: { ...DEFAULT_CONFIG.auth, required: true, keys, ...o },
  };
}
function bearer(plain: string): RequestInit {
  return { headers: { authorization: `Bearer ${plain}` } };
}
const CHAT = { model: 'demo', messages: [{ role: 'user', content: 'Hi' }] };

async function codeOf(response: Response): Promise<[number, string]> {
  return [response.status, ((await response.json()) as ErrorAnswer).error.code];
}

describe('keys required', () => {
  test('the right key, a wrong one, none, another scheme', async () => {
    api = await startApi({ config: withKeys([key('sk-one'), key('sk-two')]) });
    for (const good of ['sk-one', 'sk-two'])
      expect((await post(api, '/v1/chat/completions', CHAT, bearer(good))).status).toBe(200);
    for (const init of [
      bearer('sk-three'),
      bearer('sk-one '.repeat(2)),
      bearer(''),
      {},
      { headers: { authorization: 'Basic c2stb25l' } },
    ]) {
      const response = await post(api, '/v1/chat/completions', CHAT, init);
      expect(response.headers.get('www-authenticate')).toBe('Bearer');
      expect(await codeOf(response)).toEqual([401, 'invalid_api_key']);
    }
  });

  test.each(['/v1/models', '/v1/models/demo', '/v1/models/status'])('GET %s takes a key', async (path) => {
    api = await startApi({ config: withKeys([key('sk-one')]) });
    expect(await codeOf(await fetch(api.url + path))).toEqual([401, 'invalid_api_key']);
    expect((await fetch(api.url + path, bearer('sk-one'))).status).toBe(200);
  });

  test('/health and /v1/attestation are open: a client proves the server before it shows a key', async () => {
    api = await startApi({ config: withKeys([key('sk-one')]) });
    expect((await fetch(`${api.url}/health`)).status).toBe(200);
    expect(await codeOf(await fetch(`${api.url}/v1/attestation`))).toEqual([503, 'tee_not_enabled']);
  });

  test('the key is checked before the body is read', async () => {
    api = await startApi({ config: withKeys([key('sk-one')]) });
    expect(await codeOf(await post(api, '/v1/chat/completions', '{broken'))).toEqual([
      401,
      'invalid_api_key',
    ]);
  });
});

test('no keys: any bearer is as good as none', async () => {
  api = await startApi();
  for (const init of [{}, bearer('unused'), bearer('any')])
    expect((await post(api, '/v1/chat/completions', CHAT, init)).status).toBe(200);
});

function send(method: string, path: string, body: object | undefined, plain?: string): Promise<Response> {
  return fetch(api.url + path, {
    method,
    headers: {
      ...(body !== undefined && { 'content-type': 'application/json' }),
      ...(plain !== undefined && { authorization: `Bearer ${plain}` }),
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
}

describe('admin routes', () => {
  const admin = [key('sk-user'), key('sk-root', { admin: true })];
  const calls: [string, string, object | undefined][] = [
    ['POST', '/v1/models', { name: 'new', path: '/models/x.gguf' }],
    ['DELETE', '/v1/models/demo', undefined],
    ['POST', '/v1/models/pull', { name: 'a/b:Q4' }],
    ['DELETE', '/v1/models/pull/x', undefined],
    ['POST', '/v1/models/load', { name: 'demo' }],
    ['POST', '/v1/models/unload', { name: 'demo' }],
  ];
  test.each(calls)('%s %s takes an admin key', async (method, path, body) => {
    api = await startApi({ config: withKeys(admin) });
    expect(await codeOf(await send(method, path, body))).toEqual([401, 'invalid_api_key']);
    expect(await codeOf(await send(method, path, body, 'sk-user'))).toEqual([403, 'admin_key_required']);
    const response = await send(method, path, body, 'sk-root');
    await response.text();
    expect([200, 201, 404]).toContain(response.status);
  });

  test.each(calls)('%s %s can be switched off for everyone', async (method, path, body) => {
    api = await startApi({ config: withKeys(admin, { adminEnabled: false }) });
    expect(await codeOf(await send(method, path, body, 'sk-root'))).toEqual([403, 'admin_disabled']);
  });

  test('an admin key alone guards the admin routes without closing the others', async () => {
    api = await startApi({ config: withKeys([key('sk-root', { admin: true })], { required: false }) });
    expect((await post(api, '/v1/chat/completions', CHAT)).status).toBe(200);
    expect(await codeOf(await send('POST', '/v1/models/load', { name: 'demo' }))).toEqual([
      401,
      'admin_key_required',
    ]);
    expect(await codeOf(await send('POST', '/v1/models/load', { name: 'demo' }, 'wrong'))).toEqual([
      403,
      'admin_key_required',
    ]);
    expect((await send('POST', '/v1/models/load', { name: 'demo' }, 'sk-root')).status).toBe(200);
  });
});

describe('/metrics tells how much others ask, so', () => {
  const keys = [key('sk-user'), key('sk-root', { admin: true })];
  test.each(['/metrics', '/v1/metrics'])('%s takes an admin key where there are keys', async (path) => {
    for (const o of [{}, { adminEnabled: false }, { required: false }]) {
      api = await startApi({ config: { ...withKeys(keys, o), metrics: 'on' } });
      expect((await codeOf(await send('GET', path, undefined)))[0]).toBe(401);
      expect(await codeOf(await send('GET', path, undefined, 'sk-user'))).toEqual([
        403,
        'admin_key_required',
      ]);
      const read = await send('GET', path, undefined, 'sk-root');
      expect([read.status, await read.text()]).toEqual([
        200,
        expect.stringContaining('assay_completion_tokens_total'),
      ]);
      await api.close();
    }
    api = await startApi({ config: { metrics: 'on' } });
    expect((await send('GET', path, undefined)).status).toBe(200);
  });
});

test('keep_alive of a key that is no admin key only ever lengthens, and not for ever', async () => {
  const keys = [key('sk-user'), key('sk-root', { admin: true })];
  api = await startApi({ config: { ...withKeys(keys, { required: false }), maxKeepAliveMs: 1234 } });
  for (const plain of ['sk-user', 'sk-root', 'sk-unknown']) {
    expect((await post(api, '/v1/chat/completions', { ...CHAT, keep_alive: 0 }, bearer(plain))).status).toBe(
      200,
    );
  }
  expect(
    (
      await post(
        api,
        '/v1/embeddings',
        { model: 'text-embed', input: 'x', keep_alive: -1 },
        bearer('sk-user'),
      )
    ).status,
  ).toBe(200);
  expect(api.models.acquired).toEqual([
    { id: 'demo', keepAlive: 0, keepAliveUpToMs: 1234 },
    { id: 'demo', keepAlive: 0 },
    { id: 'demo', keepAlive: 0, keepAliveUpToMs: 1234 },
    { id: 'text-embed', keepAlive: -1, keepAliveUpToMs: 1234 },
  ]);
});

test('a known key that is refused is named in the record; an unknown one is not', async () => {
  const keys = [key('sk-user', { models: ['demo'] }), key('sk-root', { admin: true })];
  api = await startApi({ config: withKeys(keys) });
  const load = { name: 'demo' };
  await (await send('POST', '/v1/models/load', load, 'sk-user')).text();
  await (await send('POST', '/v1/models/load', load, 'sk-wrong')).text();
  await (await send('POST', '/v1/embeddings', { model: 'text-embed', input: 'x' }, 'sk-user')).text();
  const records = await api.ended(3);
  expect(records.map(({ status, key: name }) => [status, name])).toEqual([
    [403, 'sk-user'],
    [401, null],
    [403, 'sk-user'],
  ]);
  await api.close();
  api = await startApi({ config: withKeys(keys, { adminEnabled: false }) });
  await (await send('POST', '/v1/models/load', load, 'sk-root')).text();
  expect((await api.ended()).map(({ status, key: name }) => [status, name])).toEqual([[403, 'sk-root']]);
});

test('a key for some models sees and uses only those', async () => {
  api = await startApi({ config: withKeys([key('sk-few', { models: ['demo'] })]) });
  const few = bearer('sk-few');
  const { data } = (await (await fetch(`${api.url}/v1/models`, few)).json()) as { data: { id: string }[] };
  expect(data.map((model) => model.id)).toEqual(['demo']);
  expect((await post(api, '/v1/chat/completions', CHAT, few)).status).toBe(200);
  expect(await codeOf(await fetch(`${api.url}/v1/models/text-embed`, few))).toEqual([404, 'model_not_found']);
  // The same for a model that exists and one that does not.
  for (const model of ['text-embed', 'no-such-model'])
    expect(await codeOf(await post(api, '/v1/embeddings', { model, input: 'x' }, few))).toEqual([
      403,
      'model_not_allowed',
    ]);
});

test('prompt caches are shared within a key and never across', async () => {
  api = await startApi({ config: withKeys([key('sk-one'), key('sk-two')]) });
  for (const plain of ['sk-one', 'sk-two', 'sk-one'])
    await (await post(api, '/v1/chat/completions', CHAT, bearer(plain))).text();
  const [one, two, again] = api.engine.requests.map((request) => request.cacheScope);
  expect(one).toBe(again);
  expect(one).not.toBe(two);
  expect(one).not.toContain(key('sk-one').sha256);
});
