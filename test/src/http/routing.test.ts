// Paths that climb reach no file and no route.

import { afterEach, expect, test } from 'vitest';
import { type ApiServer, startApi } from '../../fixtures/http/api-server.ts';
import { raw } from '../../fixtures/http/raw.ts';

let api: ApiServer;

afterEach(() => api.close());

test.each([
  '/v1/models/..%2f..%2f..%2fetc%2fpasswd',
  '/v1/models/%2e%2e/%2e%2e/etc/passwd',
  '/v1/models/../../../etc/passwd',
  '//etc/passwd',
  '/v1/models/pull/..%2f..%2fx/status',
  '/%00/health',
])('a path that climbs: %s', async (path) => {
  api = await startApi();
  const text = await raw(api, `GET ${path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`);
  expect(text).toMatch(/^HTTP\/1\.1 (400|404) /);
  expect(text).not.toContain('root:');
});
