// The digest of a program is that of its bytes now: digests that are kept are given up with any change of a
// file, also one that leaves its size and time of change as they were.

import { createHash, randomBytes } from 'node:crypto';
import { cpSync, mkdirSync, renameSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { encodeCbor } from '@assay/attestation';
import { toolDigest } from '../../../../src/workshop/jobs/tool.ts';
import { scratch } from '../../../fixtures/workshop/kinds.ts';

const NEVER = new AbortController().signal;
/** Read at once, and as a stream. */
const FILES = { 'a.js': Buffer.from('one'), 'sub/b.bin': randomBytes(600 * 1024) } as const;
let folder: ReturnType<typeof scratch>;
let program: string;

beforeEach(() => {
  folder = scratch();
  program = join(folder.path, 'program');
  mkdirSync(join(program, 'sub'), { recursive: true });
  for (const [name, bytes] of Object.entries(FILES)) writeFileSync(join(program, name), bytes);
});
afterEach(() => folder.remove());

async function digest(path = program): Promise<string> {
  return Buffer.from(await toolDigest([path], NEVER)).toString('hex');
}

function sha256(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHash('sha256').update(bytes).digest());
}

test('is over the names and digests of its files, wherever they are', async () => {
  const entries = Object.entries(FILES).map(([name, bytes]) => [`program/${name}`, sha256(bytes)]);
  const written = encodeCbor(new Map<number, unknown>([[0, 'assay/tool/v1'], [1, entries]]) as never); // prettier-ignore
  expect(await digest()).toBe(Buffer.from(sha256(written)).toString('hex'));
  mkdirSync(join(folder.path, 'elsewhere'));
  cpSync(program, join(folder.path, 'elsewhere/program'), { recursive: true });
  expect(await digest(join(folder.path, 'elsewhere/program'))).toBe(await digest());
});

test('types, maps and links do not count', async () => {
  const before = await digest();
  for (const name of ['a.d.ts', 'a.js.map', 'c.pyc']) writeFileSync(join(program, name), 'x');
  symlinkSync('/etc/passwd', join(program, 'link.js'));
  expect(await digest()).toBe(before);
});

test.each(Object.keys(FILES) as (keyof typeof FILES)[])('%s: every change is seen', async (name) => {
  const path = join(program, name);
  // Whole seconds: not every file system gives back the fraction it was given.
  const time = new Date('2026-01-02T03:04:05Z');
  utimesSync(path, time, time);
  const before = await digest();
  expect(await digest()).toBe(before);
  const altered = Buffer.from(FILES[name]);
  altered[0] = (altered[0] ?? 0) ^ 1;

  writeFileSync(path, altered);
  utimesSync(path, time, time);
  expect(statSync(path)).toMatchObject({ size: altered.length, mtimeMs: time.getTime() });
  const inPlace = await digest();
  expect(inPlace).not.toBe(before);

  writeFileSync(`${path}.new`, FILES[name]);
  renameSync(`${path}.new`, path);
  utimesSync(path, time, time);
  expect(await digest()).toBe(before);
});

test('a file that is added or gone changes it', async () => {
  const before = await digest();
  writeFileSync(join(program, 'sub/c.js'), '');
  expect(await digest()).not.toBe(before);
  renameSync(join(program, 'sub/c.js'), join(folder.path, 'c.js'));
  expect(await digest()).toBe(before);
});
