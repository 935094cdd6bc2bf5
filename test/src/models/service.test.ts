// The model service: what may be registered from where, digests as the verifier computes them, what outlives a restart,
// pulls that register whether or not anybody watches. Real store, real GGUF files, engines that only say what they were given.

import { createHash } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  fstatSync,
  mkdirSync,
  mkdtempSync,
  readSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { attestedModel, fromHex, toHex } from '@assay/attestation';
import { ensureDemoModels } from '../../../scripts/demo-model/main.ts';
import type { LifecycleEvent } from '../../../src/models/slot.ts';
import type { OpenSpec } from '../../../src/models/load.ts';
import { manifestOf } from '../../../src/models/stored-model.ts';
import type { PullProgress, PullService } from '../../../src/models/pull/pull.ts';
import { createModels, type Models, type ServiceOptions } from '../../../src/models/service.ts';
import { openStore, type ModelStore } from '../../../src/models/store/store.ts';
import { manualClock } from '../../fixtures/clock.ts';

const demo = await ensureDemoModels(['demo-chat', 'demo-embed']);
const chat = demo['demo-chat'];
const signal = new AbortController().signal;

interface FakeEngine {
  readonly spec: OpenSpec;
  /** SHA-256 of what the engine would have read. */
  readonly read: string;
  readonly closed: Promise<Error | null>;
  close(): Promise<void>;
}

let folder: string;
let roots: string;
let store: ModelStore;
let models: Models<FakeEngine>;
let engines: FakeEngine[];
let events: LifecycleEvent[];

async function setUp(options: Partial<ServiceOptions<FakeEngine>> = {}): Promise<void> {
  store = await openStore({ folder: join(folder, 'data') });
  engines = [];
  events = [];
  models = createModels<FakeEngine>({
    openEngine: async (spec) => {
      let settle: (error: Error | null) => void;
      const closed = new Promise<Error | null>((resolve) => (settle = resolve));
      const engine = { spec, read: digestOfDescriptor(spec.fd!), closed, close: async () => settle(null) };
      engines.push(engine);
      return engine;
    },
    store,
    pulls: null,
    modelRoots: [roots],
    residency: 'auto',
    hardware: false,
    stagingFolder: '/dev/shm',
    slots: 4,
    threads: 0,
    contextLength: 1024,
    maxLoaded: 4,
    memoryBudgetBytes: 8e9,
    keepAlive: '5m',
    maxWaiting: 10,
    loadTimeoutMs: 60_000,
    clock: manualClock(1_700_000_000_000),
    onEvent: (event) => events.push(event),
    ...options,
  });
}

function digestOfDescriptor(fd: number): string {
  const bytes = Buffer.alloc(fstatSync(fd).size);
  readSync(fd, bytes, 0, bytes.length, 0);
  return createHash('sha256').update(bytes).digest('hex');
}

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'assay-registry-'));
  roots = join(folder, 'models');
  mkdirSync(roots);
  copyFileSync(chat.path, join(roots, 'chat.gguf'));
  await setUp();
});
afterEach(async () => {
  await models.close(AbortSignal.abort());
  rmSync(folder, { recursive: true, force: true });
});

async function restart(
  options: Partial<ServiceOptions<FakeEngine>> = {},
): Promise<readonly { readonly file: string }[]> {
  await models.close(AbortSignal.abort());
  await setUp(options);
  return models.restore();
}

describe('registering a file', () => {
  test('takes its digest as sha256sum does, and reads what it is', async () => {
    const registered = await models.register({
      name: 'chat',
      path: join(roots, 'chat.gguf'),
      defaultParameters: { temperature: 0.2 },
    });
    expect(registered).toMatchObject({
      id: 'chat',
      created: 1_700_000_000,
      type: 'chat',
      format: 'gguf',
      kind: 'blob',
      sha256: chat.sha256,
      sizeBytes: chat.size,
      contextLength: 1024,
      residency: 'memory',
      blobs: [{ role: 'weights', sha256: chat.sha256, size: chat.size }],
      defaults: { temperature: 0.2 },
      loaded: false,
      inFlight: 0,
    });
    expect(registered.details).toMatchObject({ architecture: 'llama', hasChatTemplate: true });
    const attested = models.registry.attested();
    expect(attested).toEqual([
      attestedModel('chat', [{ role: 'weights', sha256: fromHex(chat.sha256), size: chat.size }]),
    ]);
  });

  test('again with the same bytes changes nothing; with other bytes it is a conflict that names the registered digest', async () => {
    await models.register({ name: 'chat', path: join(roots, 'chat.gguf') });
    copyFileSync(chat.path, join(roots, 'same.gguf'));
    expect(await models.register({ name: 'chat', path: join(roots, 'same.gguf') })).toMatchObject({
      sha256: chat.sha256,
    });
    copyFileSync(demo['demo-embed'].path, join(roots, 'other.gguf'));
    const conflict = models.register({ name: 'chat', path: join(roots, 'other.gguf') });
    await expect(conflict).rejects.toMatchObject({
      status: 409,
      code: 'model_already_exists',
      param: 'name',
    });
    await expect(conflict).rejects.toThrow(chat.sha256);
    expect(models.list()).toHaveLength(1);
  });

  test('outside the roots, by whatever way, is refused, and the answer does not tell what exists there', async () => {
    const outside = join(folder, 'outside.gguf');
    copyFileSync(chat.path, outside);
    symlinkSync(outside, join(roots, 'link.gguf'));
    symlinkSync(folder, join(roots, 'up'));
    for (const path of [
      outside,
      join(roots, 'link.gguf'),
      join(roots, 'up', 'outside.gguf'),
      `${roots}/../outside.gguf`,
      `${roots}/../nothing.gguf`,
      '/etc/passwd',
      '/nowhere/at/all',
      roots,
      `${roots}x/chat.gguf`,
      'chat.gguf',
    ]) {
      await expect(models.register({ name: 'm', path }), path).rejects.toMatchObject({
        status: 400,
        code: 'path_not_allowed',
        param: 'path',
      });
    }
    expect(models.list()).toEqual([]);
  });

  test('what is no file, no GGUF or no name is refused with its own code', async () => {
    execFileSync('mkfifo', [join(roots, 'fifo')]);
    mkdirSync(join(roots, 'folder'));
    writeFileSync(join(roots, 'random.gguf'), createHash('sha512').update('x').digest());
    const at = (name: string): string => join(roots, name);
    const cases: [object, string][] = [
      [{ name: 'm', path: at('fifo') }, 'file_not_found'],
      [{ name: 'm', path: at('folder') }, 'file_not_found'],
      [{ name: 'm', path: at('missing.gguf') }, 'file_not_found'],
      [{ name: 'm', path: '' }, 'file_not_found'],
      [{ name: 'm', path: `${at('chat.gguf')}\0` }, 'file_not_found'],
      [{ name: 'm', path: 'x'.repeat(10_000) }, 'file_not_found'],
      [{ name: 'm', path: at('random.gguf') }, 'invalid_gguf'],
      [{ name: 'm', path: at('chat.gguf'), format: 'safetensors' }, 'unsupported_model_format'],
      [{ name: '../m', path: at('chat.gguf') }, 'invalid_model_name'],
      [{ name: 'a/../b', path: at('chat.gguf') }, 'invalid_model_name'],
      [{ name: 'm\0', path: at('chat.gguf') }, 'invalid_model_name'],
      [{ name: 'm'.repeat(10_000), path: at('chat.gguf') }, 'invalid_model_name'],
      [{ name: 'сhat', path: at('chat.gguf') }, 'invalid_model_name'], // a Cyrillic с
      [{ name: '', path: at('chat.gguf') }, 'invalid_model_name'],
      [{ name: 'pull', path: at('chat.gguf') }, 'invalid_model_name'],
      [{ name: '*', path: at('chat.gguf') }, 'invalid_model_name'],
    ];
    for (const [request, code] of cases) {
      await expect(
        models.register(request as { name: string; path: string }),
        JSON.stringify(request).slice(0, 80),
      ).rejects.toMatchObject({
        status: 400,
        code,
      });
    }
    expect(models.list()).toEqual([]);
    expect((await store.list()).models).toEqual([]);
  });

  test('without roots nothing can be registered', async () => {
    await restart({ modelRoots: [] });
    await expect(models.register({ name: 'm', path: join(roots, 'chat.gguf') })).rejects.toMatchObject({
      code: 'path_not_allowed',
    });
  });
});

describe('loading', () => {
  test('gives the engine the bytes that were hashed, and frees them', async () => {
    await models.register({ name: 'chat', path: join(roots, 'chat.gguf') });
    expect(await models.load('chat', signal)).toBe('loaded');
    expect(await models.load('chat', signal)).toBe('already_loaded');
    expect(engines).toHaveLength(1);
    expect(engines[0]).toMatchObject({
      read: chat.sha256,
      spec: { path: '/proc/self/fd/4', type: 'chat', contextLength: 1024, slots: 4 },
    });
    expect(() => fstatSync(engines[0]!.spec.fd!)).toThrow(expect.objectContaining({ code: 'EBADF' }));
    expect(models.get('chat')).toMatchObject({ loaded: true, inFlight: 0 });
    await models.unload('chat');
    expect(models.get('chat')).toMatchObject({ loaded: false });
    await expect(models.unload('chat')).rejects.toMatchObject({ status: 404, code: 'model_not_loaded' });
    await expect(models.unload('nothing')).rejects.toMatchObject({ status: 404, code: 'model_not_found' });
  });

  test('a file that was exchanged since it was registered is not loaded, and both digests are named', async () => {
    await models.register({ name: 'chat', path: join(roots, 'chat.gguf') });
    copyFileSync(demo['demo-embed'].path, join(roots, 'chat.gguf'));
    const loading = models.load('chat', signal);
    await expect(loading).rejects.toMatchObject({ code: 'model_digest_mismatch' });
    await expect(loading).rejects.toThrow(new RegExp(`${demo['demo-embed'].sha256}.*${chat.sha256}`));
    expect(engines).toEqual([]);
    expect(events.at(-1)).toMatchObject({ kind: 'load_failed', id: 'chat' });
  });

  test('a pinned digest is what is attested without reading the file, and what is enforced when it is read', async () => {
    const path = join(roots, 'chat.gguf');
    await models.add({ id: 'right', path, sha256: chat.sha256 }, signal);
    await models.add({ id: 'wrong', path, sha256: 'ab'.repeat(32) }, signal);
    expect(models.registry.attested().map((m) => toHex(m.sha256))).toEqual([chat.sha256, 'ab'.repeat(32)]);
    await models.load('right', signal);
    await expect(models.load('wrong', signal)).rejects.toMatchObject({ code: 'model_digest_mismatch' });
  });

  test('a replaced chat template is a blob of its own, so the attested digest is that of the manifest', async () => {
    const chatTemplate = '{{ messages[0].content }}';
    const { model } = await models.add({ id: 'm', path: chat.path, chatTemplate }, signal);
    const template = createHash('sha256').update(chatTemplate).digest('hex');
    expect(model).toMatchObject({
      kind: 'manifest',
      blobs: [{ role: 'weights' }, { role: 'template', sha256: template, size: 25 }],
    });
    expect(model.sha256).not.toBe(chat.sha256);
    await models.load('m', signal);
    expect(engines[0]!.spec.chatTemplate).toBe(chatTemplate);
  });

  test('residency: disk when it must be, and said; never by itself on hardware', async () => {
    const small = { stagingFolder: join(folder, 'no-tmpfs') };
    await restart(small);
    await models.add({ id: 'm', path: chat.path }, signal);
    const disk = createHash('sha256').update('disk').digest('hex');
    expect(models.get('m')).toMatchObject({
      residency: 'disk',
      sizeBytes: chat.size,
      blobs: [
        { role: 'weights', sha256: chat.sha256 },
        { role: 'residency', sha256: disk, size: 4 },
      ],
    });
    // Signed, not only said: a policy that pins the file itself refuses it.
    const [attested] = models.registry.attested();
    expect(attested).toMatchObject({ kind: 'manifest' });
    expect(toHex(attested!.sha256)).not.toBe(chat.sha256);
    await models.load('m', signal);
    expect(engines[0]!.read).toBe(chat.sha256);
    await restart({ ...small, hardware: true });
    await models.add({ id: 'm', path: chat.path }, signal);
    expect(models.get('m')).toMatchObject({ residency: 'memory' });
    await expect(models.load('m', signal)).rejects.toMatchObject({ status: 503, code: 'model_load_failed' });
  });

  test('residency "verity" is only said of files that really are there, and they are hashed once', async () => {
    const verityFolder = join(folder, 'verity');
    mkdirSync(verityFolder);
    copyFileSync(chat.path, join(verityFolder, 'm.gguf'));
    symlinkSync(join(roots, 'chat.gguf'), join(verityFolder, 'link.gguf'));
    await restart({ verityFolder, residency: 'verity', hardware: true });
    await models.add({ id: 'm', path: join(verityFolder, 'm.gguf'), sha256: chat.sha256 }, signal);
    expect(models.get('m')).toMatchObject({ residency: 'verity' });
    for (const path of [join(roots, 'chat.gguf'), join(verityFolder, 'link.gguf')]) {
      await expect(models.add({ id: 'x', path }, signal)).rejects.toMatchObject({ code: 'path_not_allowed' });
    }
    const steps = (): number => events.filter((event) => event.kind === 'loading').length;
    await models.load('m', signal);
    expect(steps()).toBeGreaterThan(1);
    await models.unload('m');
    const before = steps();
    await models.load('m', signal);
    expect(steps()).toBe(before);
    await models.unload('m');
    copyFileSync(demo['demo-embed'].path, join(verityFolder, 'm.gguf'));
    await expect(models.load('m', signal)).rejects.toMatchObject({ code: 'model_digest_mismatch' });
    // "auto" takes what is measured as it lies, and stages the rest.
    await restart({ verityFolder, hardware: true });
    await models.add({ id: 'v', path: join(verityFolder, 'm.gguf') }, signal);
    await models.add({ id: 's', path: join(roots, 'chat.gguf') }, signal);
    expect(models.list().map((model) => model.residency)).toEqual(['verity', 'memory']);
  });

  test('attesting a hundred models reads none of them', async () => {
    for (let i = 0; i < 100; i++)
      await models.add({ id: `m${i}`, path: chat.path, sha256: chat.sha256 }, signal);
    rmSync(join(roots, 'chat.gguf'));
    expect(models.registry.attested()).toHaveLength(100);
    expect(models.registry.attested()).toBe(models.registry.attested());
  });
});

describe('a restart', () => {
  test('finds what was registered, and loads it only if the bytes are still the same', async () => {
    await models.register({ name: 'a:b/c', path: join(roots, 'chat.gguf'), defaultParameters: { topK: 7 } });
    expect(await restart()).toEqual([]);
    expect(models.get('a:b/c')).toMatchObject({
      sha256: chat.sha256,
      defaults: { topK: 7 },
      created: 1_700_000_000,
      type: 'chat',
    });
    await models.load('a:b/c', signal);
    expect(engines[0]!.read).toBe(chat.sha256);
  });

  test('leaves out what cannot be served, says so, and the configuration has the last word', async () => {
    await models.register({ name: 'gone', path: join(roots, 'chat.gguf') });
    copyFileSync(chat.path, join(roots, 'other.gguf'));
    await models.register({ name: 'mine', path: join(roots, 'other.gguf') });
    rmSync(join(roots, 'chat.gguf'));
    writeFileSync(join(folder, 'data', 'models', 'manifests', 'broken.json'), '{');
    await models.close(AbortSignal.abort());
    await setUp();
    await models.add({ id: 'mine', path: demo['demo-embed'].path }, signal);
    expect((await models.restore()).map((failure) => failure.file).toSorted()).toEqual([
      'broken.json',
      'gone',
    ]);
    expect(models.list().map((model) => [model.id, model.sha256])).toEqual([
      ['mine', demo['demo-embed'].sha256],
    ]);
  });

  test('a second server on the same folder does not start', async () => {
    await expect(openStore({ folder: join(folder, 'data') })).rejects.toMatchObject({ name: 'ConfigError' });
  });
});

describe('removing', () => {
  test('unloads, deregisters, and is still gone after a restart; the file of the operator stays', async () => {
    await models.register({ name: 'chat', path: join(roots, 'chat.gguf') });
    await models.load('chat', signal);
    await models.remove('chat');
    expect(models.list()).toEqual([]);
    await expect(models.remove('chat')).rejects.toMatchObject({ status: 404, code: 'model_not_found' });
    await restart();
    expect(models.list()).toEqual([]);
    await models.register({ name: 'chat', path: join(roots, 'chat.gguf') });
  });

  test('a model of the configuration keeps its name: what another took there would be gone after a restart', async () => {
    await models.add({ id: 'mine', path: demo['demo-embed'].path, defaults: { topK: 3 } }, signal);
    copyFileSync(demo['demo-embed'].path, join(roots, 'embed.gguf'));
    await models.remove('mine');
    await expect(models.register({ name: 'mine', path: join(roots, 'chat.gguf') })).rejects.toMatchObject({
      status: 409,
      code: 'model_already_exists',
      param: 'name',
    });
    expect([models.get('mine'), await store.get('mine')]).toEqual([undefined, undefined]);
    // The same bytes bring back what the configuration says of them, which is what a restart would.
    await models.register({ name: 'mine', path: join(roots, 'embed.gguf'), defaultParameters: { topK: 9 } });
    expect(models.get('mine')).toMatchObject({ sha256: demo['demo-embed'].sha256, defaults: { topK: 3 } });
    expect(await store.get('mine')).toBeUndefined();
  });

  test('waits for work in flight', async () => {
    await models.register({ name: 'chat', path: join(roots, 'chat.gguf') });
    const lease = await models.acquire('chat', { signal });
    let removed = false;
    const removing = models.remove('chat').then(() => (removed = true));
    await new Promise((resolve) => setImmediate(resolve));
    expect(removed).toBe(false);
    await expect(models.acquire('chat', { signal })).rejects.toMatchObject({ code: 'model_not_found' });
    lease.release();
    await removing;
  });

  test('blobs of the store are kept while an engine reads them and collected afterwards', async () => {
    const blob = await store.importFile(chat.path);
    const { model, files, summary } = await models.add(
      { id: 'from-store', path: blob.path, sha256: blob.sha256 },
      signal,
    );
    const manifest = manifestOf({ model, files, summary, hashed: false }, { kind: 'file', path: chat.path });
    await store.put({ ...manifest, blobs: [{ role: 'weights', sha256: blob.sha256, size: blob.size }] });
    blob.release();
    await models.load('from-store', signal);
    const lease = await models.acquire('from-store', { signal });
    const removing = models.remove('from-store');
    await store.collect();
    const held = await store.blob(blob.sha256);
    expect(held).toMatchObject({ sha256: blob.sha256 });
    held?.release();
    lease.release();
    await removing;
    expect(await store.blob(blob.sha256)).toBeUndefined();
  });
});

describe('pulling', () => {
  /** A hub that stores the chat model when told to go on. */
  function hub(after: Promise<void>): PullService {
    const run = async function* (name: string): AsyncIterable<PullProgress> {
      yield { kind: 'downloading', completed: 1, total: 2, bytesPerSecond: 1 };
      await after;
      if ((await store.get(name)) === undefined) {
        const blob = await store.importFile(chat.path);
        await store.put({
          version: 1,
          name,
          createdAt: '2026-01-01T00:00:00.000Z',
          format: 'gguf',
          blobs: [{ role: 'weights', sha256: blob.sha256, size: blob.size }],
          source: {
            kind: 'hub',
            repo: 'o/r',
            revision: 'main',
            file: 'f.gguf',
            url: 'https://hub.invalid/f',
          },
          gguf: {
            architecture: 'llama',
            type: 'chat',
            contextLength: 2048,
            parameters: 1,
            quantization: 'F16',
          },
        });
        blob.release();
      }
      yield { kind: 'success', id: name, sha256: chat.sha256, size: chat.size };
    };
    return {
      pull: ({ name }) => run(name),
      status: async () => undefined,
      cancel: async () => true,
      close: async () => undefined,
    };
  }

  test('nothing is pulled over a model of the configuration, also while that is deleted', async () => {
    await restart({ pulls: hub(Promise.resolve()) });
    await models.add({ id: 'o/r:F16', path: demo['demo-embed'].path }, signal);
    const pulled = async (): Promise<unknown> => {
      for await (const event of models.pull({ name: 'o/r:F16' }, signal)) return event;
      return undefined;
    };
    await expect(pulled()).rejects.toMatchObject({ status: 409, code: 'model_already_exists' });
    await models.remove('o/r:F16');
    await expect(pulled()).rejects.toMatchObject({ status: 409, code: 'model_already_exists' });
    expect(await store.get('o/r:F16')).toBeUndefined();
  });

  test('registers the model before it says success', async () => {
    await restart({ pulls: hub(Promise.resolve()) });
    const seen: string[] = [];
    for await (const event of models.pull({ name: 'o/r:F16' }, signal)) {
      seen.push(event.status);
      if (event.status === 'success') expect(models.get('o/r:F16')).toMatchObject({ sha256: chat.sha256 });
    }
    expect(seen).toEqual(['downloading', 'success']);
    await models.load('o/r:F16', signal);
  });

  test('registers the model also when the one who asked has left', async () => {
    let go = (): void => undefined;
    await restart({ pulls: hub(new Promise((resolve) => (go = resolve))) });
    const abort = new AbortController();
    const watching = (async () => {
      for await (const event of models.pull({ name: 'o/r:F16' }, abort.signal))
        expect(event.status).toBe('downloading');
    })();
    await new Promise((resolve) => setImmediate(resolve));
    abort.abort(new Error('left'));
    await expect(watching).rejects.toThrow('left');
    go();
    await expect.poll(() => models.get('o/r:F16')?.sha256).toBe(chat.sha256);
  });

  test('is refused where it is switched off', async () => {
    const pulling = async (): Promise<void> => {
      for await (const _ of models.pull({ name: 'o/r:F16' }, signal)) throw new Error('an event came');
    };
    await expect(pulling()).rejects.toMatchObject({ status: 403, code: 'pull_disabled' });
    expect(await models.pullStatus('o/r:F16')).toBeUndefined();
    expect(await models.cancelPull('o/r:F16')).toBe(false);
  });
});
