// Pulls that share a disk: room is reserved together, some is kept for the server's own files, what a failed
// pull holds is given back when another needs it, and a full disk does not keep the server from starting. On
// a file system of 24 MiB.

import { createHash } from 'node:crypto';
import { readdirSync, statfsSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { systemClock } from '../../../../src/base/clock.ts';
import { lockFolder } from '../../../../src/base/folder-lock.ts';
import { KEPT_BYTES } from '../../../../src/models/pull/download.ts';
import { createPulls, type PullProgress, type PullService } from '../../../../src/models/pull/pull.ts';
import { openStore, type ModelStore } from '../../../../src/models/store/store.ts';
import { tinyGguf } from '../../../fixtures/models/gguf-tiny.ts';
import { etagOf, startHub, type Hub, type HubFileSpec } from '../../../fixtures/models/hub.ts';
import { canMount, mountSmallDisk, type SmallDisk } from '../../../fixtures/small-disk.ts';

const MODEL_BYTES = 10_600_000;

/** Four models of different bytes, each a good third of the disk. */
const files: readonly HubFileSpec[] = ['a', 'b', 'c', 'd'].map((letter) => ({
  name: `${letter}-Q8_0.gguf`,
  bytes: tinyGguf({ metadata: { 'general.description': { string: letter.repeat(MODEL_BYTES) } } }),
}));

const mountable = canMount();
let disk: SmallDisk;
let store: ModelStore;
let hub: Hub;
let service: PullService;
let folder: string;

beforeEach(async () => {
  if (!mountable) return;
  disk = mountSmallDisk(24)!;
  folder = join(disk.folder, 'data');
  hub = await startHub(files);
  await start();
});
afterEach(async () => {
  if (!mountable) return;
  await service.close();
  await store.close();
  await hub.close();
  disk.remove();
});

async function start(): Promise<void> {
  store = await openStore({ folder });
  const clock = { ...systemClock, after: (_: number, call: () => void) => systemClock.after(0, call) };
  service = await createPulls({ store, endpoint: hub.endpoint, allowPrivate: true, clock, maxFailures: 2 });
}

async function stop(): Promise<void> {
  await service.close();
  await store.close();
}

async function pull(letter: string): Promise<PullProgress> {
  let last: PullProgress | undefined;
  for await (const event of service.pull({ name: `owner/repo/${letter}-Q8_0.gguf` })) last = event;
  return last!;
}

function free(): number {
  const { bavail, bsize } = statfsSync(folder);
  return bavail * bsize;
}

function parts(): readonly string[] {
  return readdirSync(join(folder, 'pulls')).filter((name) => name.endsWith('.part'));
}

/** Fills the disk to the last byte but so many. */
function fill(leave: number): void {
  const name = join(disk.folder, `filler-${free()}`);
  const bytes = free() - leave;
  for (let size = bytes; size > 0; size -= 4096) {
    try {
      writeFileSync(name, Buffer.alloc(size));
      return;
    } catch {
      // A page too many.
    }
  }
}

describe.skipIf(!mountable)('pulls on a disk of 24 MiB', { timeout: 180_000 }, () => {
  test('of four pulls at once as many succeed as fit; the others are refused before they fetch', async () => {
    const ends = await Promise.all(['a', 'b', 'c', 'd'].map((letter) => pull(letter)));
    const codes = ends.map((end) => (end.kind === 'error' ? end.code : end.kind)).toSorted();
    expect(codes).toEqual(['storage_full', 'storage_full', 'success', 'success']);
    expect(hub.seen.filter(({ at }) => at === 'cdn')).toHaveLength(2);
    expect(ends.find((end) => end.kind === 'error')).toMatchObject({
      status: 507,
      message: expect.stringContaining(folder) as string,
    });
    expect(free()).toBeGreaterThanOrEqual(KEPT_BYTES);
    expect(parts()).toEqual([]);
  });

  test('what an unfinished pull holds is given back when another needs it, and not before', async () => {
    hub.faults.cdn = (_request, response, nth) => {
      if (nth > 1) return false;
      response.writeHead(200, { 'content-length': files[0]!.bytes.length, etag: etagOf(files[0]!) });
      response.write(files[0]!.bytes.subarray(0, 8_000_000));
      return true;
    };
    const name = 'owner/repo/a-Q8_0.gguf';
    for await (const event of service.pull({ name }))
      if (event.kind === 'downloading' && event.completed > 4_000_000) await service.cancel(name);
    expect(parts()).toHaveLength(1);
    expect(await pull('b')).toMatchObject({ kind: 'success' });
    expect(parts()).toHaveLength(1);
    expect(await pull('c')).toMatchObject({ kind: 'success' });
    expect(parts()).toEqual([]);
    expect(free()).toBeGreaterThanOrEqual(KEPT_BYTES);
    // The status says that the part is gone.
    expect(await pull('a')).toMatchObject({ kind: 'error', code: 'storage_full' });
    expect(await service.status(name)).toMatchObject({ status: 'failed', completed: 0 });
  });

  test('another writer that fills the disk ends the pull; what must stay free is given back', async () => {
    hub.faults.cdn = (_request, response) => {
      response.writeHead(200, { 'content-length': files[0]!.bytes.length, etag: etagOf(files[0]!) });
      response.write(files[0]!.bytes.subarray(0, 6_000_000), () => {
        fill(0);
        response.write(files[0]!.bytes.subarray(6_000_000, 9_000_000));
      });
      return true;
    };
    expect(await pull('a')).toMatchObject({ kind: 'error', code: 'storage_full' });
    expect(free()).toBeGreaterThanOrEqual(KEPT_BYTES - 4096);
    writeFileSync(join(folder, 'audit.jsonl'), Buffer.alloc(KEPT_BYTES / 2));
  });
});

describe.skipIf(!mountable)('a full disk', { timeout: 180_000 }, () => {
  test('a full disk does not keep the store from being opened, closed and opened again', async () => {
    await stop();
    fill(0);
    expect(free()).toBe(0);
    for (let i = 0; i < 3; i++) {
      await start();
      await expect(openStore({ folder })).rejects.toThrow(`${folder} is in use by process ${process.pid}`);
      expect(await pull('a')).toMatchObject({ kind: 'error', code: 'storage_full' });
      await stop();
    }
    const use = { prefix: 'lock-other-', what: 'the other folder', key: 'x.y' };
    const lock = await lockFolder(folder, use);
    await expect(lockFolder(folder, use)).rejects.toThrow(`the other folder ${folder} is in use by process`);
    await lock.release();
    await (await lockFolder(folder, use)).release();
    await start();
  });

  test('what unfinished pulls left on a full disk is removed at the start', async () => {
    const key = createHash('sha256').update('x').digest('hex');
    const record = createHash('sha256').update('owner/repo:Q8_0').digest('hex');
    const state = {
      name: 'owner/repo:Q8_0',
      status: 'failed',
      completed: 1,
      total: 2,
      error: { code: 'storage_full', message: 'no space left' },
      startedAt: 'then',
      finishedAt: 'then',
    };
    writeFileSync(
      join(folder, 'pulls', `${record}.json`),
      JSON.stringify({ version: 1, state, part: { key, etag: '"x"' } }),
    );
    const part = join(folder, 'pulls', `${key}.part`);
    writeFileSync(part, Buffer.concat([Buffer.from('GGUF'), Buffer.alloc(5_000_000)]));
    await stop();
    await start();
    expect(statSync(part).size).toBe(5_000_004);
    await stop();
    fill(0);
    await start();
    expect(parts()).toEqual([]);
    expect(free()).toBeGreaterThan(KEPT_BYTES);
  });
});
