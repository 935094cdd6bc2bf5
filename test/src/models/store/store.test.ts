// The model store: what is put is there, the same bytes once, nothing in use collected, one owner, hand-edited nonsense named,
// and kill -9 at any instant loses nothing and leaves nothing half-written.

import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, open, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import * as fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test, onTestFinished } from 'vitest';
import { ApiError, ConfigError } from '../../../../src/base/errors.ts';
import { manifestFileName, parseModelName } from '../../../../src/models/store/names.ts';
import { openStore } from '../../../../src/models/store/store.ts';
import type { ModelStore, StoredBlob } from '../../../../src/models/store/store.ts';
import type { ModelManifest } from '../../../../src/models/store/manifest.ts';

let folder: string;
let data: string;
let store: ModelStore;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assay-store-'));
  data = join(folder, 'data');
  store = await openStore({ folder: data });
});

afterEach(async () => {
  await store.close();
  await rm(folder, { recursive: true });
});

function sha(bytes: string | Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

async function imported(content: string): Promise<StoredBlob> {
  const path = join(folder, 'in');
  await writeFile(path, content);
  return store.importFile(path);
}

function manifestOf(name: string, content: string, path?: string): ModelManifest {
  return {
    version: 1,
    name,
    createdAt: '2026-01-01T00:00:00.000Z',
    format: 'gguf',
    blobs: [
      {
        role: 'weights',
        sha256: sha(content),
        size: content.length,
        ...(path === undefined ? {} : { path }),
      },
    ],
    source: { kind: 'file', path: '/somewhere' },
    gguf: { architecture: 'llama', type: 'chat', contextLength: 2048, parameters: 10, quantization: 'Q8_0' },
  };
}

async function put(name: string, content: string, options?: { replace?: boolean }): Promise<void> {
  const blob = await imported(content);
  await store.put(manifestOf(name, content), options);
  blob.release();
}

function blobs(): string[] {
  return readdirSync(join(data, 'models', 'blobs')).toSorted();
}
async function names(): Promise<string[]> {
  return (await store.list()).models.map((model) => model.name);
}

describe('models and blobs', () => {
  test('keeps what is put, over a restart', async () => {
    const manifest = { ...manifestOf('owner/repo:Q4_K_M', 'abc'), defaultParameters: { temperature: 0.5 } };
    const blob = await imported('abc');
    expect(blob).toMatchObject({
      sha256: sha('abc'),
      size: 3,
      path: join(data, 'models', 'blobs', `sha256-${sha('abc')}`),
    });
    await store.put(manifest);
    await store.close();
    store = await openStore({ folder: data });
    expect(await store.get('owner/repo:Q4_K_M')).toEqual(manifest);
    expect(readFileSync((await store.blob(sha('abc')))!.path, 'utf8')).toBe('abc');
    expect(await store.list()).toEqual({ models: [manifest], broken: [] });
    expect(await store.get('other')).toBeUndefined();
    expect(await store.blob(sha('other'))).toBeUndefined();
  });

  test('stores the same bytes once and collects them with their last model', async () => {
    await put('one', 'same');
    await put('two', 'same');
    expect(blobs()).toEqual([`sha256-${sha('same')}`]);
    await store.remove('one');
    expect(blobs()).toHaveLength(1);
    expect(await store.remove('two')).toMatchObject({ name: 'two' });
    expect(blobs()).toEqual([]);
    await expect(store.remove('two')).rejects.toMatchObject({ status: 404, code: 'model_not_found' });
  });

  test('never collects what is leased, nor an import on its way', async () => {
    await put('one', 'used');
    const held = store.lease([sha('used')]);
    const second = (await store.blob(sha('used')))!;
    await store.remove('one');
    second.release();
    expect(await store.collect()).toEqual({ removed: [], bytes: 0 });
    held.release();
    held.release();
    expect(await store.collect()).toEqual({ removed: [sha('used')], bytes: 4 });
    const fresh = await imported('fresh');
    expect((await store.collect()).removed).toEqual([]);
    fresh.release();
    expect((await store.collect()).removed).toEqual([sha('fresh')]);
  });

  test('refuses other bytes under a known name, unless told to replace', async () => {
    await put('one', 'first');
    await put('one', 'first');
    await expect(put('one', 'second')).rejects.toMatchObject({ status: 409, code: 'model_already_exists' });
    expect((await store.get('one'))?.blobs[0]?.sha256).toBe(sha('first'));
    await put('one', 'second', { replace: true });
    expect((await store.get('one'))?.blobs[0]?.sha256).toBe(sha('second'));
    await store.collect();
    expect(blobs()).toEqual([`sha256-${sha('second')}`]);
  });

  test('will not name bytes it does not hold', async () => {
    await expect(store.put(manifestOf('one', 'absent'))).rejects.toMatchObject({ code: 'blob_missing' });
    await store.put(manifestOf('in-place', 'absent', '/models/x.gguf'));
    expect(await names()).toEqual(['in-place']);
  });

  test('takes over a finished pull, even of bytes it has', async () => {
    for (let i = 0; i < 2; i++) {
      const path = join(data, 'part');
      await writeFile(path, 'pulled');
      const blob = await store.adopt(path, sha('pulled'));
      expect(existsSync(path)).toBe(false);
      expect(readFileSync(blob.path, 'utf8')).toBe('pulled');
    }
  });

  test('refuses a wrong digest, folders, FIFOs and missing files, and leaves nothing', async () => {
    const path = join(folder, 'file');
    await writeFile(path, 'content');
    await expect(store.importFile(path, { expectedSha256: sha('other') })).rejects.toMatchObject({
      code: 'digest_mismatch',
    });
    await expect(store.importFile(folder)).rejects.toMatchObject({ code: 'file_not_found' });
    await expect(store.importFile(join(folder, 'none'))).rejects.toMatchObject({ code: 'file_not_found' });
    execFileSync('mkfifo', [join(folder, 'fifo')]);
    await expect(store.importFile(join(folder, 'fifo'))).rejects.toMatchObject({ code: 'file_not_found' });
    const stopped = AbortSignal.abort(new Error('stopped'));
    await expect(store.importFile(path, { signal: stopped })).rejects.toThrow('stopped');
    expect(blobs()).toEqual([]);
  });

  test('reads from a handle and reports progress', async () => {
    const path = join(folder, 'large');
    await writeFile(path, Buffer.alloc(9_000_000, 7));
    const handle = await open(path);
    const seen: number[] = [];
    const blob = await store.importFile(handle, { onProgress: (completed) => seen.push(completed) });
    expect(blob.size).toBe(9_000_000);
    expect(seen.at(-1)).toBe(9_000_000);
    expect(seen.length).toBeGreaterThan(1);
    await handle.close();
  });

  test('says that the disk is full, and leaves nothing', async () => {
    // /dev/full gives ENOSPC on write; as the store's own target it cannot be used, so the importing handle's write is.
    const path = join(folder, 'file');
    await writeFile(path, 'content');
    const full = await open('/dev/full', 'w');
    const error: unknown = await full.writeFile('x').catch((error: unknown) => error);
    await full.close();
    const { storageError } = await import('../../../../src/base/durable-files.ts');
    expect(storageError(error, '/data')).toMatchObject({ status: 507, code: 'storage_full' });
  });

  test('runs changes one after another', async () => {
    const parts = await Promise.all(
      Array.from({ length: 20 }, async (_, i) => {
        const path = join(folder, `in-${i}`);
        await writeFile(path, `content ${i % 5}`);
        const blob = await store.importFile(path);
        await store.put(manifestOf(`m${i}`, `content ${i % 5}`));
        blob.release();
        if (i % 4 === 0) await store.collect();
        return blob.sha256;
      }),
    );
    expect(await names()).toHaveLength(20);
    expect(blobs()).toHaveLength(new Set(parts).size);
  });
});

describe('names', () => {
  test.each([
    '',
    '..',
    'a/../b',
    '/etc/passwd',
    'a//b',
    'a\0b',
    'x'.repeat(10_000),
    'mоdel', // a Cyrillic o
    'a b',
    '.hidden',
    'a/.',
    'pull',
    'status',
    'a\\b',
    'a%2fb',
  ])('refuses %j', (name) => {
    expect(() => parseModelName(name)).toThrow(ApiError);
  });

  test('gives every name its own file, also where case is ignored', () => {
    const characters = fc.constantFrom(...'abAB01._:/@+-'.split(''));
    const name = fc.string({ unit: characters, minLength: 1, maxLength: 200 });
    fc.assert(
      fc.property(name, name, (a, b) => {
        const [x, y] = [manifestFileName(a), manifestFileName(b)];
        expect(x).toMatch(/^[A-Za-z0-9._%~-]{1,250}$/);
        expect(x.toLowerCase() === y.toLowerCase()).toBe(a === b);
      }),
    );
    expect(manifestFileName('a:b')).not.toBe(manifestFileName('a-b'));
    expect(manifestFileName('x/'.repeat(99) + 'a')).not.toBe(manifestFileName('x/'.repeat(99) + 'b'));
  });
});

function good(): object {
  return JSON.parse(JSON.stringify(manifestOf('m', 'abc'))) as object;
}

describe('what people do to files', () => {
  const cases: readonly (readonly [what: string, text: () => string, reason: string])[] = [
    ['nothing', () => '', 'is not JSON'],
    ['half of it', () => JSON.stringify(good()).slice(0, 100), 'is not JSON'],
    ['a list', () => '[]', 'not an object'],
    ['another version', () => JSON.stringify({ ...good(), version: 2 }), 'version is not 1'],
    ['an unknown key', () => JSON.stringify({ ...good(), extra: 1 }), 'unknown key'],
    [
      'a missing key',
      () => JSON.stringify({ ...good(), blobs: undefined }),
      'blobs of the manifest is missing',
    ],
    ['no blobs', () => JSON.stringify({ ...good(), blobs: [] }), 'blobs is not a list'],
    [
      'a digest in capitals',
      () => JSON.stringify(good()).replace(sha('abc'), sha('abc').toUpperCase()),
      'hex digits',
    ],
    [
      'a digest that is a path',
      () => JSON.stringify(good()).replace(sha('abc'), '../../../etc/passwd'),
      'hex digits',
    ],
    ['a relative path', () => JSON.stringify(manifestOf('m', 'abc', 'x.gguf')), 'not an absolute path'],
    [
      'a negative size',
      () => JSON.stringify(good()).replace('"size":3', '"size":-3'),
      'size of blobs[0] is not a count',
    ],
    ['a wrong role', () => JSON.stringify(good()).replace('weights', 'wights'), 'none of weights'],
    ['another name', () => JSON.stringify(good()).replace('"m"', '"n"'), 'named unlike its model'],
    ['a prototype', () => `{"__proto__":{"version":1}}`, 'missing|version'],
  ];

  test.each(cases)(
    'a manifest with %s is named, harms nothing else, and blocks collection',
    async (_, text, reason) => {
      await put('good', 'abc');
      await writeFile(join(data, 'models', 'manifests', 'm.json'), text());
      const { models, broken } = await store.list();
      expect(models.map((model) => model.name)).toEqual(['good']);
      expect(broken).toEqual([
        {
          file: 'm.json',
          reason: expect.stringMatching(new RegExp(reason.replaceAll(/[[\]]/g, '\\$&'))) as string,
        },
      ]);
      await expect(store.get('m')).rejects.toMatchObject({
        status: 500,
        code: 'manifest_invalid',
        message: expect.stringContaining('m.json') as string,
      });
      await store.remove('good');
      expect(blobs()).toHaveLength(1);
    },
  );

  test('survives links, FIFOs, folders and huge files among the manifests', async () => {
    const manifests = join(data, 'models', 'manifests');
    await symlink('/etc/passwd', join(manifests, 'link.json'));
    await mkdir(join(manifests, 'folder.json'));
    execFileSync('mkfifo', [join(manifests, 'fifo.json')]);
    await writeFile(join(manifests, 'huge.json'), Buffer.alloc(2_000_000, 32));
    await writeFile(join(manifests, 'latin.json'), Buffer.from([0x7b, 0xff, 0x7d]));
    await writeFile(join(manifests, 'README'), 'not a manifest');
    const { broken } = await store.list();
    expect(broken.map(({ file }) => file)).toEqual([
      'fifo.json',
      'folder.json',
      'huge.json',
      'latin.json',
      'link.json',
    ]);
    expect(broken.every(({ reason }) => /regular file|bytes, at most|UTF-8/.test(reason))).toBe(true);
  });
});

describe('one owner', () => {
  test('refuses a second store on the folder, and gives it back on close', async () => {
    await expect(openStore({ folder: data })).rejects.toThrow(ConfigError);
    await expect(openStore({ folder: data })).rejects.toThrow(`in use by process ${process.pid}`);
    await store.close();
    store = await openStore({ folder: data });
    await store.close();
    store = await openStore({ folder: data });
    expect((await readdir(data)).filter((name) => name.startsWith('lock-'))).toHaveLength(1);
  });

  test('takes over from a process that died, from a reused pid and from another boot', async () => {
    await store.close();
    const own = JSON.parse(
      readFileSync(
        join(
          data,
          (await readdir(data)).find((name) => name.startsWith('lock-'))!,
        ),
        'utf8',
      ),
    ) as Record<string, unknown>;
    const owners = [
      { ...own, released: undefined, pid: 2 ** 22 + 1 },
      { ...own, released: undefined, started: '1' },
      { ...own, released: undefined, boot: 'earlier' },
      'nonsense',
    ];
    for (const owner of owners) {
      await writeFile(join(data, 'lock-1000'), JSON.stringify(owner));
      const next = await openStore({ folder: data });
      await next.close();
      expect(await readdir(data)).toContain('lock-1001');
      for (const name of await readdir(data)) if (name.startsWith('lock-')) await rm(join(data, name));
    }
    store = await openStore({ folder: data });
  });

  test('lets exactly one of many take over at once', async () => {
    await store.close();
    for (let round = 0; round < 20; round++) {
      const opened = await Promise.allSettled(Array.from({ length: 8 }, () => openStore({ folder: data })));
      const won = opened.filter((result) => result.status === 'fulfilled');
      expect(won).toHaveLength(1);
      await won[0]!.value.close();
    }
    store = await openStore({ folder: data });
  });

  test('removes what a killed process had begun', async () => {
    await store.close();
    await writeFile(join(data, 'models', 'blobs', '.tmp-x'), 'half');
    await writeFile(join(data, 'models', 'manifests', '.tmp-y'), 'half');
    store = await openStore({ folder: data });
    expect(blobs()).toEqual([]);
    expect(readdirSync(join(data, 'models', 'manifests'))).toEqual([]);
  });
});

async function buildWorker(outfile: string): Promise<void> {
  const entry = fileURLToPath(new URL('../../../fixtures/models/store-worker.ts', import.meta.url));
  await build({
    entryPoints: [entry],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    logLevel: 'error',
  });
}

describe('kill -9', () => {
  test('is what it takes to get a folder from a living process', async () => {
    await store.close();
    const worker = join(folder, 'worker.mjs');
    await buildWorker(worker);
    const child = spawn(process.execPath, [worker, data, folder, '1'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    onTestFinished(() => void child.kill('SIGKILL'));
    const ended = once(child, 'exit');
    await once(child.stdout, 'data');
    child.stdout.resume();
    await expect(openStore({ folder: data })).rejects.toThrow(`in use by process ${child.pid}`);
    child.kill('SIGKILL');
    await ended;
    store = await openStore({ folder: data });
  });

  test(
    'at 200 random instants loses nothing and leaves nothing half-written',
    { timeout: 500_000 },
    async () => {
      await store.close();
      const worker = join(folder, 'worker.mjs');
      await buildWorker(worker);
      // Four folders worked on beside each other; each is killed and reopened again and again.
      const kills = await Promise.all(
        Array.from({ length: 4 }, (_, lane) =>
          killRepeatedly(worker, join(folder, `lane-${lane}`), lane, 50),
        ),
      );
      expect(kills.flat().filter((lines) => lines > 1).length).toBeGreaterThan(100);
      store = await openStore({ folder: data });
    },
  );
});

/** Runs, kills and inspects `rounds` times; returns how much each process had said. */
async function killRepeatedly(
  worker: string,
  lane: string,
  seed: number,
  rounds: number,
): Promise<readonly number[]> {
  const scratch = join(lane, 'scratch');
  const laneData = join(lane, 'data');
  await mkdir(scratch, { recursive: true });
  let expected = new Map<string, string | undefined>();
  const counts: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const said = await runAndKill(
      worker,
      [laneData, scratch, `${seed * 1000 + round + 1}`],
      (seed * 7919 + round * 104_729) % 60,
    );
    counts.push(said.length);
    let pending: { readonly name: string; readonly sha256: string | undefined } | undefined;
    for (const [what, name, sha256] of said) {
      if (what === 'putting' || what === 'removing') pending = { name: name!, sha256 };
      if (what === 'put' || what === 'removed') {
        expected.set(name!, sha256);
        pending = undefined;
      }
    }
    const found = await inspect(laneData);
    for (const name of ['m0', 'm1', 'm2', 'm3']) {
      const allowed = [expected.get(name), ...(pending?.name === name ? [pending.sha256] : [])];
      expect(allowed, `round ${round}, ${name}`).toContain(found.get(name));
    }
    expected = new Map(found);
  }
  return counts;
}

/** Kills the worker so many milliseconds after it said that the store is open. */
function runAndKill(
  worker: string,
  args: readonly string[],
  delayMs: number,
): Promise<readonly (readonly string[])[]> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [worker, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
    let text = '';
    child.stdout.on('data', (chunk: Buffer) => {
      if (text === '') setTimeout(() => child.kill('SIGKILL'), delayMs);
      text += chunk.toString();
    });
    child.once('error', reject);
    child.once('close', (code, signal) => {
      if (signal !== 'SIGKILL') reject(new Error(`the worker ended by itself with ${code}: ${text}`));
      else
        resolve(
          text
            .split('\n')
            .slice(0, -1)
            .map((line) => line.split(' ')),
        );
    });
  });
}

/** Opens the folder as the next server would and checks every byte; returns name → digest. */
async function inspect(laneData: string): Promise<Map<string, string>> {
  const reopened = await openStore({ folder: laneData });
  try {
    const { models, broken } = await reopened.list();
    expect(broken).toEqual([]);
    for (const model of models) {
      for (const { sha256, size } of model.blobs) {
        const bytes = readFileSync(join(laneData, 'models', 'blobs', `sha256-${sha256}`));
        expect(bytes.length).toBe(size);
        expect(sha(bytes)).toBe(sha256);
      }
    }
    for (const file of readdirSync(join(laneData, 'models', 'blobs'))) {
      expect(`sha256-${sha(readFileSync(join(laneData, 'models', 'blobs', file)))}`).toBe(file);
    }
    await reopened.collect();
    const named = new Set(models.map((model) => `sha256-${model.blobs[0]!.sha256}`));
    expect(new Set(readdirSync(join(laneData, 'models', 'blobs')))).toEqual(named);
    expect((await stat(join(laneData, 'models', 'manifests'))).isDirectory()).toBe(true);
    return new Map(models.map((model) => [model.name, model.blobs[0]!.sha256]));
  } finally {
    await reopened.close();
  }
}
