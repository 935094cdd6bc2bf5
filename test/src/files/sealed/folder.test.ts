// The key of a folder: a key file of its owner alone, memory, or the hardware; and no start with another key.

import { chmod, mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { flag, object } from '../../../../src/base/shape.ts';
import { type KeySource, openSealedFolder } from '../../../../src/files/sealed/folder.ts';
import { readState, writeState } from '../../../../src/files/sealed/state.ts';
import { configRefusalOf } from '../../../fixtures/refusal.ts';

let folder: string;
let keyFile: KeySource & { readonly path: string };

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assay-sealed-'));
  keyFile = { kind: 'file', path: join(folder, 'elsewhere', 'files.key') };
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const opened = (source: KeySource) => openSealedFolder(folder, source, ['files', 'batches']);
const one = { id: 'one', shape: object({ kept: flag() }) };
async function keep(source: KeySource): Promise<void> {
  const { key } = await opened(source);
  await mkdir(join(folder, 'files'), { recursive: true });
  await writeState(join(folder, 'files', 'one'), key, 'one', { kept: true });
}
const kept = async (source: KeySource) =>
  readState(join(folder, 'files', 'one'), (await opened(source)).key, one);
const chip = (byte: number): KeySource => ({
  kind: 'hardware',
  derive: () => Promise.resolve(new Uint8Array(32).fill(byte)),
});

describe('a key file', () => {
  test('is made once, for its owner alone, and opens what it sealed', async () => {
    await keep(keyFile);
    expect((await stat(keyFile.path)).mode & 0o777).toBe(0o600);
    expect(await kept(keyFile)).toEqual({ kept: true });
  });

  test('of the operator is taken as it is', async () => {
    await mkdir(join(folder, 'elsewhere'));
    await writeFile(keyFile.path, 'ab'.repeat(32), { mode: 0o600 });
    await keep(keyFile);
    expect(await readFile(keyFile.path, 'utf8')).toBe('ab'.repeat(32));
    expect(await kept(keyFile)).toEqual({ kept: true });
  });

  test.each<readonly [string, (path: string) => Promise<unknown>, RegExp]>([
    ['others may read', (path) => chmod(path, 0o640), /chmod 600/],
    ['holds no key', (path) => writeFile(path, 'secret'), /no key of 64 hex digits/],
    ['holds another key', (path) => writeFile(path, 'cd'.repeat(32)), /not the one/],
    ['is gone', (path) => rm(path), /without it/],
    ['is a link', (path) => rm(path).then(() => symlink('/dev/zero', path)), /ELOOP/],
    ['is a folder', (path) => rm(path).then(() => mkdir(path)), /not a regular file|chmod 600/],
  ])('that %s is refused, and nothing is lost', async (_what, change, message) => {
    await keep(keyFile);
    const text = await readFile(keyFile.path, 'utf8');
    await change(keyFile.path);
    expect((await configRefusalOf(opened(keyFile))).message).toMatch(message);
    await rm(keyFile.path, { recursive: true, force: true });
    await writeFile(keyFile.path, text, { mode: 0o600 });
    expect(await kept(keyFile)).toEqual({ kept: true });
  });
});

test('a key in memory ends with its process: the next one removes what cannot be read', async () => {
  await keep({ kind: 'memory' });
  expect((await opened({ kind: 'memory' })).removed).toBe(1);
  expect((await opened({ kind: 'memory' })).removed).toBe(0);
});

test('a key of the hardware opens on this chip, and no other', async () => {
  await keep(chip(1));
  expect(await kept(chip(1))).toEqual({ kept: true });
  expect((await configRefusalOf(opened(chip(2)))).message).toContain('another chip');
  expect(await kept(chip(1))).toEqual({ kept: true });
});

test.each<readonly [KeySource, () => KeySource]>([
  [chip(1), () => keyFile],
  [chip(1), () => ({ kind: 'memory' })],
  [{ kind: 'memory' }, () => keyFile],
])('a folder of %o is refused to another kind of key', async (first, second) => {
  await keep(first);
  expect((await configRefusalOf(opened(second()))).message).toContain(`"${first.kind}"`);
});

test('files without a word of how they are sealed are refused', async () => {
  await keep(keyFile);
  await rm(join(folder, 'sealed-by.json'));
  expect((await configRefusalOf(opened({ kind: 'memory' }))).message).toContain('sealed-by.json');
});
