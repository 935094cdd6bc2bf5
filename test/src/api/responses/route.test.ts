import { afterEach, expect, test } from 'vitest';
import { type ApiServer, post, startApi } from '../../../fixtures/http/api-server.ts';

let api: ApiServer;
afterEach(() => api.close());
test('smoke', async () => {
  api = await startApi();
  console.log(await (await post(api, '/v1/responses', { model: 'demo', input: 'Hi' })).text());
  console.log(await (await post(api, '/v1/responses', { model: 'demo', input: 'Hi', stream: true })).text());
  expect(1).toBe(1);
});
