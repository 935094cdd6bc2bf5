// Native parts of an image: only files with the recorded digests go in, and then all of them.

import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { addServer } from '../../image/bundle.ts';
import { nativeParts } from '../../image/native.ts';
import { newTree } from '../../image/tree.ts';

const BYTES = { 'libmtmd.so': Buffer.from('one'), 'libwhisper.so': Buffer.from('two') };
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'assay-native-parts-'));
  mkdirSync(join(folder, 'image'));
  const libraries = Object.fromEntries(
    Object.entries(BYTES).map(([name, bytes]) => [name, createHash('sha256').update(bytes).digest('hex')]),
  );
  const lock = { sources: {}, results: { 'linux-x64': { toolchain: 'one of a test', libraries } } };
  writeFileSync(join(folder, 'image/native.lock.json'), JSON.stringify(lock));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test.each([
  ['a missing file', { 'libmtmd.so': BYTES['libmtmd.so'] }, /libwhisper\.so cannot be read/],
  ['another file', { ...BYTES, 'libwhisper.so': Buffer.from('2') }, /libwhisper\.so has the SHA-256/],
])('%s is refused', (_, files, message) => {
  const from = mkdtempSync(join(folder, 'parts-'));
  for (const [name, bytes] of Object.entries(files)) writeFileSync(join(from, name), bytes);
  expect(() => nativeParts(from, folder)).toThrow(message);
});

test('the recorded ones go where the server looks', async () => {
  for (const [name, bytes] of Object.entries(BYTES)) writeFileSync(join(folder, name), bytes);
  const native = nativeParts(folder, folder);
  expect(Object.fromEntries(native)).toEqual(BYTES);
  const tree = newTree();
  const sources = { npm: () => new Uint8Array(), npmPaths: () => [] };
  await addServer(tree, sources, { native });
  const files = [...tree.keys()].filter((path) => path.endsWith('.so')).toSorted();
  expect(files).toEqual(Object.keys(BYTES).map((name) => `opt/assay/dist/native/linux-x64/${name}`));
});
