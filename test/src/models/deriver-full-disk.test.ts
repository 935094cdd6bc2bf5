// A disk that is full while a folder is converted or quantised: 507 storage_full, and the room is given back.
// Mounts a small disk; skipped where that is not allowed. The confined processes run from dist/.

import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Deriver, type DerivedBlob } from '../../../src/models/deriver.ts';
import { openModelFolder } from '../../../src/models/model-folder.ts';
import { openStore, type ModelStore } from '../../../src/models/store/store.ts';
import { converters } from '../../fixtures/models/converters.ts';
import { mistral, writeFolder } from '../../fixtures/models/hf-folder.ts';
import { canMount, mountSmallDisk, type SmallDisk } from '../../fixtures/small-disk.ts';

const mountable = canMount();
if (!mountable) console.warn('\n! no file system can be mounted here: full disks are not tried\n');

/** Converted it has 4 MiB, as Q8_0 half of that. */
const files = mistral(16, 1024);

describe.skipIf(!mountable)('a full disk', () => {
  let disk: SmallDisk;
  let folder: string;
  let store: ModelStore;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'assay-full-'));
    writeFolder(folder, files);
  });
  afterEach(async () => {
    await store.close();
    disk.remove();
    rmSync(folder, { recursive: true });
  });

  async function derive(mebibytes: number, isq?: 'Q8_0'): Promise<DerivedBlob> {
    disk = mountSmallDisk(mebibytes)!;
    store = await openStore({ folder: disk.folder });
    const open = (): ReturnType<typeof openModelFolder> => openModelFolder(folder);
    return new Deriver(store, converters).derive({ open, isq, signal: new AbortController().signal });
  }

  function blobs(): readonly string[] {
    return readdirSync(join(disk.folder, 'models/blobs'));
  }

  test('has room for both', async () => {
    const { blob } = await derive(16, 'Q8_0');
    expect(blob.size).toBeGreaterThan(1 << 20);
    blob.release();
    expect(blobs()).toHaveLength(1);
  });

  test.each([
    ['converted', 2, undefined],
    ['quantised', 5, 'Q8_0'],
  ] as const)('while it is %s', async (_title, mebibytes, isq) => {
    await expect(derive(mebibytes, isq)).rejects.toMatchObject({ code: 'storage_full', status: 507 });
    expect(blobs()).toEqual([]);
  });
});
