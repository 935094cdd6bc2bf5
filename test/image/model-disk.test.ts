// Model disks: read-only files behind a root hash that the verifier computes as the builder wrote it, named
// and digested as the server will find and attest them.

import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { attestedModel, toHex } from '@assay/attestation';
import { verityRootHash } from '@assay/attestation/launch';
import { ImageError } from '../../image/errors.ts';
import { packModel } from '../../image/model-disk.ts';

let folder = '';

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'assay-model-disk-'));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

function put(name: string, text: string, length = 10_000): string {
  const path = join(folder, name);
  mkdirSync(join(path, '..'), { recursive: true });
  writeFileSync(path, Buffer.alloc(length, text));
  return path;
}

function digest(path: string): Uint8Array {
  return createHash('sha256').update(readFileSync(path)).digest();
}

/** The names of files stand in the directory as they are. */
function names(disk: string, ...wanted: readonly string[]): readonly string[] {
  const bytes = readFileSync(disk);
  return wanted.filter((name) => bytes.includes(name));
}

test('a GGUF is one read-only file behind its root hash, which the data alone decides', async () => {
  const gguf = put('Some Model.Q4.gguf', 'weights', 100_001);
  const out = join(folder, 'model.img');
  const disk = await packModel(gguf, out);
  expect(disk).toMatchObject({
    name: 'some-model.q4',
    serial: `m-${disk.rootHash.slice(0, 16)}`,
    path: '/run/models/some-model.q4/model.gguf',
    sha256: toHex(digest(gguf)),
  });
  expect(verityRootHash(readFileSync(out), disk.blocks)).toBe(disk.rootHash);
  put('Some Model.Q4.gguf', 'weightz', 100_001);
  expect((await packModel(gguf, join(folder, 'other.img'))).rootHash).not.toBe(disk.rootHash);
});

test('a whisper model keeps the ending that says so', async () => {
  const disk = await packModel(put('ggml-tiny.bin', 'sound'), join(folder, 'whisper.img'));
  expect(disk).toMatchObject({ name: 'ggml-tiny', path: '/run/models/ggml-tiny/model.bin' });
});

test('a folder is its model and projector under their names, with the digest of both', async () => {
  const weights = put('Sees/tiny.gguf', 'weights');
  const projector = put('Sees/mmproj-tiny.gguf', 'projector');
  put('Sees/README.md', 'not of the model');
  const out = join(folder, 'sees.img');
  const disk = await packModel(join(folder, 'Sees'), out);
  const blobs = [
    { role: 'weights', sha256: digest(weights), size: 10_000 },
    { role: 'projector', sha256: digest(projector), size: 10_000 },
  ];
  expect(disk).toMatchObject({
    name: 'sees',
    path: '/run/models/sees',
    sha256: toHex(attestedModel('sees', blobs).sha256),
  });
  expect(names(out, 'tiny.gguf', 'mmproj-tiny.gguf', 'README.md')).toEqual(['tiny.gguf', 'mmproj-tiny.gguf']);
});

test('a split model is all its parts, named by the first or by the folder', async () => {
  const first = put('split/big-00001-of-00002.gguf', 'one');
  put('split/big-00002-of-00002.gguf', 'two');
  const byFile = await packModel(first, join(folder, 'parts.img'));
  const byFolder = await packModel(join(folder, 'split'), join(folder, 'folder.img'));
  expect(byFolder.rootHash).toBe(byFile.rootHash);
  expect(byFolder.sha256).toBe(byFile.sha256);
  expect(byFile.path).toBe('/run/models/big');
});

test.each([
  ['a missing file', () => join(folder, 'missing.gguf'), /no such file.*file_not_found/],
  ['a folder without a model', () => join(put('empty/README.md', 'x'), '..'), /no model/],
  ['a missing part', () => put('cut/a-00001-of-00003.gguf', 'x'), /a-00002-of-00003\.gguf/],
  ['a part that is not the first', () => put('cut/a-00003-of-00003.gguf', 'x'), /expected its first part/],
  [
    'a link to a folder',
    () => {
      mkdirSync(join(folder, 'links'), { recursive: true });
      symlinkSync(tmpdir(), join(folder, 'links/a.gguf'));
      return join(folder, 'links');
    },
    /not a regular file/,
  ],
])('%s is refused', async (_, source, message) => {
  const packed = packModel(source(), join(folder, 'never.img'));
  await expect(packed).rejects.toThrow(ImageError);
  await expect(packed).rejects.toThrow(message);
});
