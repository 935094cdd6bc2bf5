// Model disks: one read-only file behind a root hash that the verifier computes as the builder wrote it.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { verityRootHash } from '@assay/attestation/launch';
import { packModel, writeVerityImage } from '../../image/disks.ts';
import { addFile, newTree } from '../../image/tree.ts';

let folder = '';

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'assay-image-'));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('model disks', () => {
  test('pack a GGUF as one read-only file behind its root hash, which the data alone decides', async () => {
    const gguf = join(folder, 'Some Model.Q4.gguf');
    writeFileSync(gguf, Buffer.alloc(100_001, 'weights'));
    const disk = await packModel({ path: gguf, size: 100_001 }, join(folder, 'model.img'));
    expect(disk).toMatchObject({ name: 'some-model.q4', serial: `m-${disk.rootHash.slice(0, 16)}` });
    expect(verityRootHash(readFileSync(join(folder, 'model.img')), disk.blocks)).toBe(disk.rootHash);
    writeFileSync(gguf, Buffer.alloc(100_001, 'weightz'));
    expect((await packModel({ path: gguf, size: 100_001 }, join(folder, 'other.img'))).rootHash).not.toBe(
      disk.rootHash,
    );
  });

  test('the verifier computes the root hash the builder wrote, for trees of one and two levels', async () => {
    for (const size of [1, 300_000, 3_000_000]) {
      const tree = newTree();
      addFile(tree, 'file', Buffer.alloc(size, 'x'));
      const path = join(folder, `tree-${size}`);
      const written = await writeVerityImage(tree, path);
      expect(verityRootHash(readFileSync(path), written.blocks)).toBe(written.rootHash);
    }
  });
});
