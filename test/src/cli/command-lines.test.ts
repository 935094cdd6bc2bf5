// The commands the server prints run in any folder, and never ask a registry for a program.

import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, test } from 'vitest';
import { commandLines, shellWord } from '../../../src/cli/command-lines.ts';

const top = fileURLToPath(new URL('../../..', import.meta.url));
const programs = {
  assay: join(top, 'dist/src/cli/main.js'),
  'assay-verify': join(top, 'attestation/bin/assay-verify.js'),
};
const elsewhere = mkdtempSync(join(tmpdir(), 'assay elsewhere '));
afterAll(() => rmSync(elsewhere, { recursive: true, force: true }));

function shell(line: string, path: string): string {
  return execFileSync('/bin/sh', ['-c', line], { cwd: elsewhere, encoding: 'utf8', env: { PATH: path } });
}

/** A folder with both names; `fill` puts something there. */
function folderOf(name: string, fill: (path: string, file: string) => void): string {
  const folder = join(elsewhere, name);
  mkdirSync(folder, { recursive: true });
  for (const [program, file] of Object.entries(programs)) fill(join(folder, program), file);
  return folder;
}

function link(path: string, file: string): void {
  symlinkSync(file, path);
}

function foreign(path: string): void {
  writeFileSync(path, '#!/bin/sh\necho somebody else\n');
  chmodSync(path, 0o755);
}

const BY_PATH = { assay: `node ${programs.assay}`, verify: `node ${programs['assay-verify']}` };

test('in a checkout: node and the path, from wherever', () => {
  const path = dirname(process.execPath);
  expect(commandLines(path)).toMatchObject(BY_PATH);
  expect(shell(`${commandLines(path).verify} --version`, path)).toMatch(/^assay-verify \d/);
  expect(shell(`${commandLines(path).assay} --version`, path)).toMatch(/^assay \d|^\d/);
  expect(commandLines(path).verifierPackage).toBe(join(top, 'attestation'));
});

test('where the PATH has no node, its own path', () => {
  const { assay } = commandLines('/nowhere');
  expect(assay).toBe(`${shellWord(process.execPath)} ${programs.assay}`);
  expect(shell(`${assay} --version`, '/nowhere')).toMatch(/\d/);
});

test('names that a shell finds are used where they are these programs', () => {
  const folder = folderOf('installed', link);
  const path = `${folder}:${dirname(process.execPath)}`;
  expect(commandLines(path)).toMatchObject({ assay: 'assay', verify: 'assay-verify' });
});

test.each([
  ['of somebody else', folderOf('foreign', foreign)],
  ['that npx and npm put first', folderOf('project/node_modules/.bin', link)],
  ['of a relative folder', '.'],
])('a name %s is not', (_, folder) => {
  expect(commandLines(`${folder}:${dirname(process.execPath)}`)).toMatchObject(BY_PATH);
});
