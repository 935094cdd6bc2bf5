// The adapter routes over a model service of the test's own: what an answer says, and that an adapter its
// base cannot be loaded with is taken back, but not one that was there before.

import { afterEach, expect, test } from 'vitest';
import { ApiError } from '../../../../src/base/errors.ts';
import { startApi, post, type ApiServer } from '../../../fixtures/http/api-server.ts';

let api: ApiServer;

afterEach(() => api.close());

const LOAD = { model: 'demo', lora_name: 'sql', lora_path: '/models/sql.gguf' };

async function failing(code: 'model_load_failed' | 'engine_overloaded'): Promise<void> {
  api = await startApi();
  const load = api.models.load.bind(api.models);
  Object.assign(api.models, {
    load: (...given: Parameters<typeof load>) =>
      given[0] === 'sql' ? Promise.reject(new ApiError(code, 'an adapter cannot be loaded')) : load(...given),
  });
}

test('loaded: its base, its digest and when', async () => {
  api = await startApi();
  const answer = await post(api, '/v1/lora/load', LOAD);
  expect([answer.status, await answer.json()]).toEqual([
    200,
    {
      status: 'loaded',
      model: 'sql',
      parent: 'demo',
      sha256: api.models.get('sql')?.sha256,
      loaded_at: null,
    },
  ]);
  expect((await (await fetch(`${api.url}/v1/models/sql`)).json()) as object).toMatchObject({
    parent: 'demo',
  });
});

test('one its base cannot be loaded with is taken back', async () => {
  await failing('model_load_failed');
  const answer = await post(api, '/v1/lora/load', LOAD);
  expect([answer.status, await answer.json()]).toMatchObject([500, { error: { code: 'model_load_failed' } }]);
  expect(api.models.get('sql')).toBeUndefined();
});

test('one that was there before stays, and so does one whose base is only busy', async () => {
  await failing('model_load_failed');
  await api.models.addAdapter(
    { name: 'sql', base: 'demo', path: '/models/sql.gguf', scale: 1 },
    new AbortController().signal,
  );
  expect((await post(api, '/v1/lora/load', LOAD)).status).toBe(500);
  expect(api.models.get('sql')).toBeDefined();
  await api.close();
  await failing('engine_overloaded');
  expect((await post(api, '/v1/lora/load', LOAD)).status).toBe(429);
  expect(api.models.get('sql')).toBeDefined();
});

test('a refusal of the file names the field of this route', async () => {
  api = await startApi();
  const answer = await post(api, '/v1/lora/load', { ...LOAD, lora_path: '/models/missing.gguf' });
  expect([answer.status, await answer.json()]).toMatchObject([
    400,
    { error: { code: 'file_not_found', param: 'lora_path' } },
  ]);
});
