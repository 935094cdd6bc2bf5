// The model store: it keeps what is put, the same bytes once, collects no blob in use, has one owner, names
// hand-edited nonsense, and kill -9 at any instant loses no model and leaves no half-written file.

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, open, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ApiError } from '../../../../src/base/errors.ts';
import { manifestFileName, parseModelName } from '../../../../src/models/store/names.ts';
import { openStore } from '../../../../src/models/store/store.ts';
import { sha, manifestOf, useStore } from '../../../fixtures/models/store-folder.ts';

const fixture = useStore();
const { imported, put, blobs, names } = fixture;

describe('models and blobs', () => {
  test('keeps what is put, over a restart', async () => {
    const manifest = { ...manifestOf('owner/repo:Q4_K_M', 'abc'), defaultParameters: { temperature: 0.5 } };
    const blob = await imported('abc');
    expect(blob).toMatchObject({
      sha256: sha('abc'),
      size: 3,
      path: join(fixture.data, 'models', 'blobs', `sha256-${sha('abc')}`),
    });
    await fixture.store.put(manifest);
    await fixture.store.close();
    fixture.store = await openStore({ folder: fixture.data });
    expect(await fixture.store.get('owner/repo:Q4_K_M')).toEqual(manifest);
    expect(readFileSync((await fixture.store.blob(sha('abc')))!.path, 'utf8')).toBe('abc');
    expect(await fixture.store.list()).toEqual({ models: [manifest], broken: [] });
    expect(await fixture.store.get('other')).toBeUndefined();
    expect(await fixture.store.blob(sha('other'))).toBeUndefined();
  });

  test('stores the same bytes once and collects them with their last model', async () => {
    await put('one', 'same');
    await put('two', 'same');
    expect(blobs()).toEqual([`sha256-${sha('same')}`]);
    await fixture.store.remove('one');
    expect(blobs()).toHaveLength(1);
    expect(await fixture.store.remove('two')).toMatchObject({ name: 'two' });
    expect(blobs()).toEqual([]);
    await expect(fixture.store.remove('two')).rejects.toMatchObject({ status: 404, code: 'model_not_found' });
  });

  test('never collects what is leased, nor an import on its way', async () => {
    await put('one', 'used');
    const held = fixture.store.lease([sha('used')]);
    const second = (await fixture.store.blob(sha('used')))!;
    await fixture.store.remove('one');
    second.release();
    expect(await fixture.store.collect()).toEqual({ removed: [], bytes: 0 });
    held.release();
    held.release();
    expect(await fixture.store.collect()).toEqual({ removed: [sha('used')], bytes: 4 });
    const fresh = await imported('fresh');
    expect((await fixture.store.collect()).removed).toEqual([]);
    fresh.release();
    expect((await fixture.store.collect()).removed).toEqual([sha('fresh')]);
  });

  test('refuses other bytes under a known name, unless told to replace', async () => {
    await put('one', 'first');
    await put('one', 'first');
    await expect(put('one', 'second')).rejects.toMatchObject({ status: 409, code: 'model_already_exists' });
    expect((await fixture.store.get('one'))?.blobs[0]?.sha256).toBe(sha('first'));
    await put('one', 'second', { replace: true });
    expect((await fixture.store.get('one'))?.blobs[0]?.sha256).toBe(sha('second'));
    await fixture.store.collect();
    expect(blobs()).toEqual([`sha256-${sha('second')}`]);
  });

  test('will not name bytes it does not hold', async () => {
    await expect(fixture.store.put(manifestOf('one', 'absent'))).rejects.toMatchObject({
      code: 'blob_missing',
    });
    await fixture.store.put(manifestOf('in-place', 'absent', '/models/x.gguf'));
    expect(await names()).toEqual(['in-place']);
  });

  test('takes over a finished pull, even of bytes it has', async () => {
    for (let i = 0; i < 2; i++) {
      const path = join(fixture.data, 'part');
      await writeFile(path, 'pulled');
      const blob = await fixture.store.adopt(path, sha('pulled'));
      expect(existsSync(path)).toBe(false);
      expect(readFileSync(blob.path, 'utf8')).toBe('pulled');
    }
  });

  test('refuses a wrong digest, folders, FIFOs and missing files, and leaves nothing', async () => {
    const path = join(fixture.folder, 'file');
    await writeFile(path, 'content');
    await expect(fixture.store.importFile(path, { expectedSha256: sha('other') })).rejects.toMatchObject({
      code: 'digest_mismatch',
    });
    await expect(fixture.store.importFile(fixture.folder)).rejects.toMatchObject({ code: 'file_not_found' });
    await expect(fixture.store.importFile(join(fixture.folder, 'none'))).rejects.toMatchObject({
      code: 'file_not_found',
    });
    execFileSync('mkfifo', [join(fixture.folder, 'fifo')]);
    await expect(fixture.store.importFile(join(fixture.folder, 'fifo'))).rejects.toMatchObject({
      code: 'file_not_found',
    });
    const stopped = AbortSignal.abort(new Error('stopped'));
    await expect(fixture.store.importFile(path, { signal: stopped })).rejects.toThrow('stopped');
    expect(blobs()).toEqual([]);
  });

  test('reads from a handle and reports progress', async () => {
    const path = join(fixture.folder, 'large');
    await writeFile(path, Buffer.alloc(9_000_000, 7));
    const handle = await open(path);
    const seen: number[] = [];
    const blob = await fixture.store.importFile(handle, { onProgress: (completed) => seen.push(completed) });
    expect(blob.size).toBe(9_000_000);
    expect(seen.at(-1)).toBe(9_000_000);
    expect(seen.length).toBeGreaterThan(1);
    await handle.close();
  });

  test('says that the disk is full, and leaves nothing', async () => {
    // /dev/full gives ENOSPC on write; as the store's own target it cannot be used, so the
    // importing handle's write is.
    const path = join(fixture.folder, 'file');
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
        const path = join(fixture.folder, `in-${i}`);
        await writeFile(path, `content ${i % 5}`);
        const blob = await fixture.store.importFile(path);
        await fixture.store.put(manifestOf(`m${i}`, `content ${i % 5}`));
        blob.release();
        if (i % 4 === 0) await fixture.store.collect();
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
    ['a missing key', () => JSON.stringify({ ...good(), blobs: undefined }), 'blobs is missing'],
    ['no blobs', () => JSON.stringify({ ...good(), blobs: [] }), 'blobs has 0 items, expected at least 1'],
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
      'blobs[0].size is too small',
    ],
    ['a wrong role', () => JSON.stringify(good()).replace('weights', 'wights'), "none of 'weights'"],
    ['another name', () => JSON.stringify(good()).replace('"m"', '"n"'), 'named unlike its model'],
    ['a prototype', () => `{"__proto__":{"version":1}}`, 'unknown key'],
  ];

  test.each(cases)(
    'a manifest with %s is named, harms nothing else, and blocks collection',
    async (_, text, reason) => {
      await put('good', 'abc');
      await writeFile(join(fixture.data, 'models', 'manifests', 'm.json'), text());
      const { models, broken } = await fixture.store.list();
      expect(models.map((model) => model.name)).toEqual(['good']);
      expect(broken).toEqual([
        {
          file: 'm.json',
          reason: expect.stringMatching(new RegExp(reason.replaceAll(/[[\]]/g, '\\$&'))) as string,
        },
      ]);
      await expect(fixture.store.get('m')).rejects.toMatchObject({
        status: 500,
        code: 'manifest_invalid',
        message: expect.stringContaining('m.json') as string,
      });
      await fixture.store.remove('good');
      expect(blobs()).toHaveLength(1);
    },
  );

  test('survives links, FIFOs, folders and huge files among the manifests', async () => {
    const manifests = join(fixture.data, 'models', 'manifests');
    await symlink('/etc/passwd', join(manifests, 'link.json'));
    await mkdir(join(manifests, 'folder.json'));
    execFileSync('mkfifo', [join(manifests, 'fifo.json')]);
    await writeFile(join(manifests, 'huge.json'), Buffer.alloc(2_000_000, 32));
    await writeFile(join(manifests, 'latin.json'), Buffer.from([0x7b, 0xff, 0x7d]));
    await writeFile(join(manifests, 'README'), 'not a manifest');
    const { broken } = await fixture.store.list();
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
