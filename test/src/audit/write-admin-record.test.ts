// An admin's action is recorded with its model; the answers of admin routes go to admins.

import { afterEach, expect, test } from 'vitest';
import { DEFAULT_CONFIG } from '../../../src/http/deps.ts';
import { type ApiServer, apiKey as key, type ErrorAnswer, startApi } from '../../fixtures/http/api-server.ts';

let api: ApiServer;
afterEach(() => api.close());

const keys = [key('root', { admin: true }), key('user'), key('tenant', { models: ['demo'] })];
async function start(adminEnabled = true): Promise<void> {
  api = await startApi({ config: { auth: { ...DEFAULT_CONFIG.auth, required: true, adminEnabled, keys } } });
}

function send(method: string, path: string, body: object | undefined, plain: string): Promise<Response> {
  return fetch(api.url + path, {
    method,
    headers: {
      authorization: `Bearer ${plain}`,
      ...(body !== undefined && { 'content-type': 'application/json' }),
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
}

test.each<[string, string, object | undefined, string]>([
  ['POST', '/v1/models/load', { name: 'demo' }, 'demo'],
  ['POST', '/v1/models/unload', { name: 'text-embed' }, 'text-embed'],
  ['POST', '/v1/models', { name: 'new', path: '/models/x.gguf' }, 'new'],
  ['POST', '/v1/lora/load', { lora_name: 'adapter', lora_path: '/models/x.gguf' }, 'adapter'],
  ['POST', '/v1/lora/unload', { lora_name: 'demo' }, 'demo'],
  ['DELETE', '/v1/models/demo', undefined, 'demo'],
  ['POST', '/v1/models/pull', { name: 'demo' }, 'demo'],
])('%s %s records the digest of the model', async (method, path, body, id) => {
  await start();
  const known = api.models.get(id)?.sha256;
  await (await send(method, path, body, 'root')).text();
  const [record] = await api.ended();
  expect(record).toMatchObject({ key: 'root', modelSha256: known ?? api.models.get(id)?.sha256 });
  expect(record?.modelSha256).toMatch(/^[0-9a-f]{64}$/);
});

test('an admin action on a model that is not there records none', async () => {
  await start();
  expect((await send('POST', '/v1/models/load', { name: 'missing' }, 'root')).status).toBe(404);
  expect((await api.ended())[0]).toMatchObject({ key: 'root', status: 404, modelSha256: null });
});

test('the state of a pull takes an admin key where there are keys, under each of its addresses', async () => {
  await start();
  const name = 'private/repo:Q4_K_M';
  await (await send('POST', '/v1/models/pull', { name }, 'root')).text();
  for (const path of [encodeURIComponent(name), 'private%2Frepo:Q4_K_M', name, 'unknown', 'un/known']) {
    for (const plain of ['user', 'tenant']) {
      const refused = await send('GET', `/v1/models/pull/${path}/status`, undefined, plain);
      expect([refused.status, ((await refused.json()) as ErrorAnswer).error.code]).toEqual([
        403,
        'admin_key_required',
      ]);
    }
  }
  for (const path of [encodeURIComponent(name), name]) {
    const told = await send('GET', `/v1/models/pull/${path}/status`, undefined, 'root');
    expect([told.status, await told.json()]).toMatchObject([200, { name }]);
  }
});

test('nobody without a key either, and admins also where the admin routes are off', async () => {
  await start(false);
  for (const path of ['a%2Fb:Q4', 'a/b:Q4']) {
    expect((await send('GET', `/v1/models/pull/${path}/status`, undefined, 'nobody')).status).toBe(401);
    expect((await send('GET', `/v1/models/pull/${path}/status`, undefined, 'user')).status).toBe(403);
    expect((await send('GET', `/v1/models/pull/${path}/status`, undefined, 'root')).status).toBe(404);
  }
});
