// The registration of an id may change while a request waits: the request acts on what it was decided for,
// and what was acknowledged survives. Real store, real GGUF files, engines that only exist.

import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ensureDemoModels } from '../../../scripts/demo-model/main.ts';
import type { OpenSpec } from '../../../src/models/load.ts';
import type { PullProgress, PullService } from '../../../src/models/pull/pull.ts';
import { Deriver } from '../../../src/models/deriver.ts';
import { createModels, type Models } from '../../../src/models/service.ts';
import type { ServiceOptions } from '../../../src/models/service-options.ts';
import { openStore, type ModelStore } from '../../../src/models/store/store.ts';
import { converters } from '../../fixtures/models/converters.ts';
import { manualClock } from '../../fixtures/clock.ts';

const demo = await ensureDemoModels(['demo-embed', 'demo-rerank']);
const [first, second] = [demo['demo-embed'], demo['demo-rerank']];
const signal = new AbortController().signal;

interface BareEngine {
  readonly spec: OpenSpec;
  readonly closed: Promise<Error | null>;
  close(): Promise<void>;
}

let folder: string;
let roots: string;
let store: ModelStore;
let models: Models<BareEngine>;
/** Set: an engine opens only after it. */
let gate: Promise<void> | undefined;

async function setUp(options: Partial<ServiceOptions<BareEngine>> = {}): Promise<void> {
  store = await openStore({ folder: join(folder, 'data') });
  models = createModels<BareEngine>({
    adapted: (engine) => engine,
    openEngine: async (spec) => {
      await gate;
      let settle: (error: Error | null) => void;
      const closed = new Promise<Error | null>((resolve) => (settle = resolve));
      return { spec, closed, close: async () => settle(null) };
    },
    store,
    deriver: new Deriver(store, converters),
    pulls: null,
    modelRoots: [roots],
    residency: 'auto',
    hardware: false,
    stagingFolder: '/dev/shm',
    adaptersAllowed: true,
    slots: 4,
    threads: 0,
    contextLength: 1024,
    maxLoaded: 4,
    memoryBudgetBytes: 8e9,
    keepAlive: '5m',
    maxWaiting: 10,
    loadTimeoutMs: 60_000,
    clock: manualClock(1_700_000_000_000),
    ...options,
  });
}

beforeEach(async () => {
  gate = undefined;
  folder = mkdtempSync(join(tmpdir(), 'assay-races-'));
  roots = join(folder, 'models');
  mkdirSync(roots);
  copyFileSync(first.path, join(roots, 'first.gguf'));
  copyFileSync(second.path, join(roots, 'second.gguf'));
  await setUp();
});
afterEach(async () => {
  await models.close(AbortSignal.abort());
  rmSync(folder, { recursive: true, force: true });
});

async function restart(): Promise<readonly string[]> {
  await models.close(AbortSignal.abort());
  await setUp();
  await models.restore();
  return models.list().map(({ id, sha256 }) => `${id} ${sha256}`);
}

function register(name: string, file: string): Promise<unknown> {
  return models.register({ name, path: join(roots, `${file}.gguf`) });
}

/** Everything that can happen without the lease being released has happened. */
async function turns(): Promise<void> {
  for (let i = 0; i < 50; i++) await new Promise((resolve) => setImmediate(resolve));
}

describe('a removal that waits for work in flight', () => {
  test.each(['first', 'second'])('spares what is registered meanwhile (%s)', async (file) => {
    await register('m', 'first');
    const lease = await models.acquire('m', { signal });
    const removing = models.remove('m');
    await turns();
    await register('m', file);
    lease.release();
    await removing;
    const sha256 = file === 'first' ? first.sha256 : second.sha256;
    expect(models.list().map((model) => [model.id, model.sha256])).toEqual([['m', sha256]]);
    expect(await restart()).toEqual([`m ${sha256}`]);
  });

  test('spares a model of the configuration that is brought back; nothing else takes its place', async () => {
    await models.add({ id: 'm', path: first.path }, signal);
    const lease = await models.acquire('m', { signal });
    const removing = models.remove('m');
    await turns();
    await expect(register('m', 'second')).rejects.toMatchObject({ code: 'model_already_exists' });
    await register('m', 'first');
    lease.release();
    await removing;
    expect(models.list().map((model) => [model.id, model.sha256])).toEqual([['m', first.sha256]]);
    // The store holds none of it: the configuration names it again.
    expect(await restart()).toEqual([]);
  });

  test('and a second removal of what came meanwhile takes just that', async () => {
    await register('m', 'first');
    const lease = await models.acquire('m', { signal });
    const removing = models.remove('m');
    await turns();
    await register('m', 'second');
    await models.remove('m');
    await expect(models.remove('m')).rejects.toMatchObject({ code: 'model_not_found' });
    lease.release();
    await removing;
    expect(await restart()).toEqual([]);
  });

  test('at once with a registration: what the last answer said is true after a restart', async () => {
    for (const order of ['remove first', 'register first']) {
      await register('m', 'first');
      const changes = [(): Promise<unknown> => models.remove('m'), () => register('m', 'first')];
      if (order === 'register first') changes.reverse();
      await Promise.all(changes.map((change) => change()));
      const served = models.list().map(({ id, sha256 }) => `${id} ${sha256}`);
      expect(await restart(), order).toEqual(served);
      if (models.get('m') !== undefined) await models.remove('m');
    }
  });

  test('requests for what came meanwhile wait for the old engine to end, and get the new one', async () => {
    await register('m', 'first');
    const lease = await models.acquire('m', { signal });
    const removing = models.remove('m');
    await turns();
    await register('m', 'second');
    expect(models.get('m')).toMatchObject({ loaded: false, inFlight: 0 });
    const waiting = models.acquire('m', { signal });
    lease.release();
    await removing;
    const next = await waiting;
    expect(next.model.sha256).toBe(second.sha256);
    expect(next.engine).not.toBe(lease.engine);
    next.release();
  });
});

describe('a disk that refuses a removal', () => {
  test('leaves the model registered', async () => {
    await register('m', 'first');
    const original = store.remove.bind(store);
    store.remove = () => Promise.reject(new Error('EIO'));
    await expect(models.remove('m')).rejects.toThrow('EIO');
    expect(models.get('m')).toMatchObject({ sha256: first.sha256 });
    store.remove = original;
    await models.remove('m');
    expect(models.get('m')).toBeUndefined();
  });
});

describe('a load that loses', () => {
  let open = (): void => undefined;
  beforeEach(() => {
    gate = new Promise((resolve) => (open = resolve));
  });

  test('against a removal says that the model is gone', async () => {
    await register('m', 'first');
    const loading = models.load('m', signal);
    await turns();
    const removing = models.remove('m');
    open();
    await expect(loading).rejects.toMatchObject({ status: 404, code: 'model_not_found' });
    await removing;
    expect(models.get('m')).toBeUndefined();
  });

  test('against a replacement says that it was replaced', async () => {
    await register('m', 'first');
    const loading = models.load('m', signal);
    await turns();
    const removing = models.remove('m');
    await turns();
    await register('m', 'second');
    open();
    await expect(loading).rejects.toMatchObject({ status: 503, code: 'model_replaced' });
    await removing;
    await models.load('m', signal);
    expect(models.get('m')).toMatchObject({ loaded: true, sha256: second.sha256 });
  });

  test('against an unload tells of the model while it was loaded', async () => {
    await register('m', 'first');
    const seen: unknown[] = [];
    const loading = models.load('m', signal, { onLoaded: (model) => seen.push(model.loadedAt) });
    await turns();
    const unloading = models.unload('m');
    open();
    expect(await loading).toBe('loaded');
    await unloading;
    expect(seen).toEqual([1_700_000_000_000]);
    expect(models.get('m')).toMatchObject({ loaded: false });
  });
});

describe('a pull that ends meanwhile', () => {
  /** Stores the second model under the name, as a pull with `force` does, and then says so. */
  function hub(after: Promise<void>): PullService {
    const run = async function* (name: string): AsyncIterable<PullProgress> {
      await after;
      const blob = await store.importFile(second.path);
      const manifest = {
        version: 1 as const,
        name,
        createdAt: '2026-01-01T00:00:00.000Z',
        format: 'gguf' as const,
        blobs: [{ role: 'weights' as const, sha256: blob.sha256, size: blob.size }],
        source: {
          kind: 'hub' as const,
          repo: 'o/r',
          revision: 'a',
          file: 'f.gguf',
          url: 'https://h.invalid/f',
        },
        gguf: {
          architecture: 'bert',
          type: 'rerank' as const,
          contextLength: 512,
          parameters: 1,
          quantization: 'F16',
        },
      };
      await store.put(manifest, { replace: true });
      blob.release();
      yield { kind: 'success', id: name, sha256: blob.sha256, size: blob.size };
    };
    const shared = new Map<string, AsyncIterable<PullProgress>>();
    return {
      // The follower and the client watch the same pull.
      pull: ({ name }) => {
        const running = shared.get(name);
        if (running !== undefined) return once(second.sha256, name, after);
        const started = run(name);
        shared.set(name, started);
        return started;
      },
      status: async () => undefined,
      cancel: async () => true,
      close: async () => undefined,
    };
  }
  async function* once(sha256: string, id: string, after: Promise<void>): AsyncIterable<PullProgress> {
    await after;
    yield { kind: 'success', id, sha256, size: 1 };
  }

  test('is not taken by a removal that waits', async () => {
    await models.close(AbortSignal.abort());
    let go = (): void => undefined;
    const after = new Promise<void>((resolve) => (go = resolve));
    await setUp({ pulls: hub(after) });
    await register('o/r:F16', 'first');
    const lease = await models.acquire('o/r:F16', { signal });
    const pulling = (async () => {
      for await (const event of models.pull({ name: 'o/r:F16', force: true }, signal)) return event.status;
      return 'nothing';
    })();
    await turns();
    const removing = models.remove('o/r:F16');
    await turns();
    go();
    expect(await pulling).toBe('success');
    expect(models.get('o/r:F16')).toMatchObject({ sha256: second.sha256 });
    lease.release();
    await removing;
    expect(await restart()).toEqual([`o/r:F16 ${second.sha256}`]);
  });
});
