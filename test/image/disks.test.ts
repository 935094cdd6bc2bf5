// Disks with a hash tree behind: the verifier computes the root hash as the builder wrote it.

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { verityRootHash } from '@assay/attestation/launch';
import { writeVerityImage } from '../../image/disks.ts';
import { addFile, newTree } from '../../image/tree.ts';

let folder = '';

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'assay-image-'));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('disks with a hash tree', () => {
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
