// Files that are kept of hubs: a share for each caller, the oldest makes room, what a job reads stays.

import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { HubCache } from '../../../../src/workshop/pulls/cache.ts';
import { scratch } from '../../../fixtures/workshop/kinds.ts';

let folder: ReturnType<typeof scratch>;
let now = 1000;
beforeEach(() => {
  folder = scratch();
  now = 1000;
});
afterEach(() => folder.remove());

function open(maxBytes: number): Promise<HubCache> {
  return HubCache.open({ folder: join(folder.path, 'hub'), maxBytes, now: () => (now += 1000) });
}

async function kept(cache: HubCache, owner: string, repository: string, size: number): Promise<string> {
  const lease = await cache.lease(owner, repository, [{ key: 'k', size }]);
  writeFileSync(join(lease.path, 'files', 'k-1'), Buffer.alloc(size));
  lease.release();
  return lease.path;
}

test('a caller has half of it; its oldest makes room, another caller’s does not', async () => {
  const cache = await open(200);
  const theirs = await kept(cache, 'you', 'a', 60);
  const [first, second] = [await kept(cache, 'me', 'a', 60), await kept(cache, 'me', 'b', 40)];
  expect(existsSync(first)).toBe(true);
  const third = await kept(cache, 'me', 'c', 50);
  expect([theirs, first, second, third].map((path) => existsSync(path))).toEqual([true, false, true, true]);
  await expect(cache.lease('me', 'd', [{ key: 'k', size: 101 }])).rejects.toMatchObject({
    code: 'request_too_large',
  });
});

test('all together have all of it; the oldest of anyone makes room, also after a restart', async () => {
  const before = await open(200);
  const oldest = await kept(before, 'you', 'a', 90);
  await kept(before, 'me', 'a', 90);
  const cache = await open(200);
  await kept(cache, 'they', 'a', 90);
  expect(existsSync(oldest)).toBe(false);
});

test('what a job reads stays; a request that finds no room is refused, and goes on later', async () => {
  const cache = await open(200);
  const lease = await cache.lease('me', 'a', [{ key: 'k', size: 90 }]);
  await expect(cache.lease('me', 'b', [{ key: 'k', size: 90 }])).rejects.toMatchObject({
    code: 'storage_full',
  });
  // The same repository again is no second one.
  (await cache.lease('me', 'a', [{ key: 'k', size: 90 }])).release();
  lease.release();
  lease.release();
  (await cache.lease('me', 'b', [{ key: 'k', size: 90 }])).release();
  expect(existsSync(lease.path)).toBe(false);
});

test('other files of the same repository count, and a stranger’s folder is left alone', async () => {
  mkdirSync(join(folder.path, 'hub', 'notes'), { recursive: true });
  const cache = await open(200);
  const path = await kept(cache, 'me', 'a', 60);
  await expect(cache.lease('me', 'a', [{ key: 'other', size: 60 }])).rejects.toMatchObject({
    code: 'storage_full',
  });
  expect(existsSync(path)).toBe(true);
  expect(existsSync(join(folder.path, 'hub', 'notes'))).toBe(true);
});
