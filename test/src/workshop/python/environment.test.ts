// The environment's status says the truth of every state a machine can be in, and its creation: whole or
// not at all. A shell script plays Python, so that this runs where there is none.

import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { PythonEnvironment, SETUP_COMMAND } from '../../../../src/workshop/python/environment.ts';
import { finetuneStatus } from '../../../../src/workshop/python/finetune-status.ts';
import { fakePython, LOCK, type FakePython } from '../../../fixtures/workshop/fake-python.ts';

const FAKES: FakePython[] = [];
afterEach(() => {
  for (const { folder } of FAKES.splice(0)) rmSync(folder, { recursive: true });
});

function setUp(answer: object = {}, more: object = {}): { fake: FakePython; environment: PythonEnvironment } {
  const fake = fakePython(answer);
  FAKES.push(fake);
  const { command, lockPath, folder } = fake;
  const platform = 'linux-x64';
  const options = { folder: join(folder, 'env/python'), lockPath, candidates: [command], platform, ...more };
  return { fake, environment: new PythonEnvironment(options) };
}

const SMALL = { neededBytes: 1 };

describe('status', () => {
  test('missing: everything, and the command', async () => {
    const { environment } = setUp();
    expect(await environment.status()).toEqual({
      state: 'missing',
      folder: environment.folder,
      lock: environment.lock.sha256,
      python: '3.11.7',
      missing: [
        { name: 'first-package', wanted: '1.0', found: null },
        { name: 'second-package', wanted: '2.1', found: null },
      ],
      reason: 'the environment has not been made',
      command: SETUP_COMMAND,
    });
    expect(await environment.missing(['first_package'])).toBe(
      `first-package not installed: run "${SETUP_COMMAND}"`,
    );
    expect(await finetuneStatus(environment, { driver: '/nowhere' })).toMatchObject({
      ready: false,
      command: SETUP_COMMAND,
      unsloth: { available: false },
      cuda: { available: false },
    });
  });

  test.each<[string, object, object, RegExp]>([
    ['no Python', {}, { candidates: ['/nowhere/python3.11'] }, /no Python is installed/],
    ['another version', { version: '3.12.1' }, {}, /is 3\.12\.1/],
    ['a version that only begins like it', { version: '3.110.1' }, {}, /is 3\.110\.1/],
    ['another implementation', { implementation: 'PyPy' }, {}, /is not CPython/],
    ['no venv', { venv: false }, {}, /3\.11\.7 without venv/],
    ['another platform', {}, { platform: 'linux-arm64' }, /for linux-x64, and this is linux-arm64/],
  ])('unsupported: %s', async (_what, answer, more, reason) => {
    const { environment } = setUp(answer, more);
    const status = await environment.status();
    expect(status).toMatchObject({ state: 'unsupported', python: null });
    expect(status.reason).toMatch(reason);
    expect(await environment.missing(['x'])).toMatch(/install that, then run "assay workshop setup"$/);
    await expect(environment.create(SMALL)).rejects.toMatchObject({ name: 'ConfigError' });
    expect(existsSync(environment.folder)).toBe(false);
  });

  test('incomplete: a package that is gone, or has another version', async () => {
    const { environment } = setUp();
    await environment.create(SMALL);
    const site = join(environment.folder, 'lib/python3.11/site-packages');
    renameSync(join(site, 'Second.Package-2.1.dist-info'), join(site, 'Second.Package-2.0.dist-info'));
    expect(await environment.status()).toMatchObject({
      state: 'incomplete',
      missing: [{ name: 'second-package', wanted: '2.1', found: '2.0' }],
      reason: 'not installed as locked: second-package 2.1 (is 2.0)',
    });
    rmSync(join(site, 'first_package-1.0.dist-info'), { recursive: true });
    expect((await environment.status()).missing).toHaveLength(2);
    await environment.create(SMALL);
    expect((await environment.status()).state).toBe('ready');
  });

  test('incomplete: all packages, and no mark of its end; of another lock; a mark that is none', async () => {
    const { fake, environment } = setUp();
    await environment.create(SMALL);
    const mark = join(environment.folder, 'assay-environment.json');
    for (const text of ['{}', 'x', '[]', '{"lock":1,"python":"3.11.7"}']) {
      writeFileSync(mark, text);
      expect(await environment.status(), text).toMatchObject({ state: 'incomplete', missing: [] });
    }
    rmSync(mark);
    expect((await environment.status()).reason).toMatch(/did not end/);
    await environment.create(SMALL);
    writeFileSync(fake.lockPath, `${LOCK}# another\n`);
    const later = new PythonEnvironment({ folder: environment.folder, lockPath: fake.lockPath });
    expect(await later.status()).toMatchObject({ state: 'incomplete', missing: [] });
  });
});

describe('create', () => {
  test('says where it is, and ends ready, without programs that name another folder', async () => {
    const { environment } = setUp();
    const stages: string[] = [];
    await environment.create({
      ...SMALL,
      onProgress: ({ stage, done, total }) => void stages.push(`${stage} ${done}/${total}`),
    });
    expect(stages).toEqual([
      'venv 0/2',
      'download 1/2',
      'download 2/2',
      'install 2/2',
      'install 2/2',
      'done 2/2',
    ]);
    expect(await environment.status()).toMatchObject({
      state: 'ready',
      python: '3.11.7',
      missing: [],
      reason: null,
    });
    expect(await environment.missing(['first-package'])).toBeNull();
    expect(readdirSync(join(environment.folder, 'bin'))).toEqual(['python']);
  });

  test.each(['well', 'fail'] as const)(
    'wheels lie in the new environment and go with it: %s',
    async (how) => {
      const { fake, environment } = setUp();
      fake.behave(how);
      await environment.create(SMALL).catch(() => undefined);
      const parent = join(environment.folder, '..');
      const wheels = readFileSync(join(fake.folder, 'temporary'), 'utf8').trim();
      expect(wheels.startsWith(join(parent, '.python-new-'))).toBe(true);
      const left = readdirSync(parent, { recursive: true, encoding: 'utf8' });
      expect(left.filter((name) => name.includes('wheel'))).toEqual([]);
    },
  );

  test('what fails leaves nothing, and keeps what was there', async () => {
    const { fake, environment } = setUp();
    fake.behave('fail');
    await expect(environment.create(SMALL)).rejects.toThrow(/no matching distribution/);
    expect((await environment.status()).state).toBe('missing');
    fake.behave('well');
    await environment.create(SMALL);
    fake.behave('fail');
    await expect(environment.create(SMALL)).rejects.toThrow(/could not be made/);
    expect((await environment.status()).state).toBe('ready');
  });

  test('ended half-way it counts as nothing, and the next one removes what is left', async () => {
    const { fake, environment } = setUp();
    const parent = join(environment.folder, '..');
    // As kill -9 leaves it.
    mkdirSync(join(parent, '.python-new/bin'), { recursive: true });
    writeFileSync(join(parent, '.python-new/assay-environment.json'), '{}');
    expect((await environment.status()).state).toBe('missing');
    fake.behave('hang');
    const end = new AbortController();
    const running = environment.create({
      ...SMALL,
      signal: end.signal,
      onProgress: ({ stage }) => {
        if (stage === 'download') end.abort(new Error('given up'));
      },
    });
    await expect(running).rejects.toThrow('given up');
    expect((await environment.status()).state).toBe('missing');
    expect(readdirSync(parent).filter((name) => name.includes('python-new'))).toEqual([]);
    fake.behave('well');
    await environment.create(SMALL);
    expect((await environment.status()).state).toBe('ready');
  });

  test('one at a time', async () => {
    const { environment } = setUp();
    const both = await Promise.allSettled([environment.create(SMALL), environment.create(SMALL)]);
    expect(both.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected']);
    expect((await environment.status()).state).toBe('ready');
  });

  test('without room for it nothing is begun: storage_full', async () => {
    const { environment } = setUp();
    await expect(environment.create({ neededBytes: Number.MAX_SAFE_INTEGER })).rejects.toMatchObject({
      code: 'storage_full',
    });
    expect(existsSync(environment.folder)).toBe(false);
  });
});
