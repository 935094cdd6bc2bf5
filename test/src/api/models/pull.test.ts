// A pull that fails in its stream says what it would say as an answer: the same code, and the
// type of that code's status.

import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, test } from 'vitest';
import type { ApiCode } from '../../../../src/base/api-codes.ts';
import { ApiError } from '../../../../src/base/errors.ts';
import { type ApiServer, events, post, startApi } from '../../../fixtures/http/api-server.ts';
import type { PullEvent } from '../../../../src/models/seam.ts';

let api: ApiServer | undefined;
afterEach(async () => {
  await api?.close();
  api = undefined;
});

async function lastOf(pull: () => AsyncIterable<PullEvent>): Promise<unknown> {
  api = await startApi({ pull });
  const data = await events(await post(api, '/v1/models/pull', { name: 'owner/repo:Q4_K_M' }));
  return JSON.parse(data.at(-1) ?? '');
}
async function* failing(code: string): AsyncIterable<PullEvent> {
  yield { status: 'verifying' };
  yield { status: 'error', code, message: 'why' };
}

/** Every code a pull or what it calls can fail with, from the source. */
function codesOfPulls(): ReadonlySet<ApiCode> {
  const folder = fileURLToPath(new URL('../../../../src/models', import.meta.url));
  const codes = new Set<ApiCode>();
  for (const entry of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    if (!/^(pull|store|gguf)\/.*\.ts$/.test(entry)) continue;
    const source = readFileSync(`${folder}/${entry}`, 'utf8');
    for (const [, code = ''] of source.matchAll(/new ApiError\(\s*'([a-z_]+)'/g)) codes.add(code as ApiCode);
  }
  return codes;
}
const CODES = codesOfPulls();

test('the source tells of the codes', () => {
  expect(CODES.size).toBeGreaterThan(20);
});

test.each([...CODES, 'pull_failed' as const])('an event of %s has the type of its status', async (code) => {
  const event = await lastOf(() => failing(code));
  const { type } = new ApiError(code, '');
  expect(event).toMatchObject({ status: 'error', code, message: 'why', error: { code, message: 'why' } });
  expect((event as { error: { type: string } }).error.type).toBe(type);
});

test('what a pull throws keeps its type and its parameter', async () => {
  async function* thrown(): AsyncIterable<PullEvent> {
    yield { status: 'verifying' };
    throw new ApiError('hub_not_found', 'why', { param: 'name' });
  }
  expect(await lastOf(thrown)).toMatchObject({
    status: 'error',
    code: 'hub_not_found',
    error: { type: 'not_found_error', param: 'name' },
  });
});
