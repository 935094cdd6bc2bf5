// Opens the folder of files and batches: its lock, its key, what is in it. A start that cannot have the key
// fails; nothing is ever written in clear instead.

import type { Clock } from '../base/clock.ts';
import { type FolderLock, lockFolder } from '../base/folder-lock.ts';
import { BatchStore, type StoredBatch } from './batch-store.ts';
import { FileStore, type FileStoreOptions } from './file-store.ts';
import { type KeySource, openSealedFolder } from './sealed/folder.ts';

export interface FilesOptions {
  readonly folder: string;
  readonly key: KeySource;
  readonly clock: Clock;
  readonly limits: FileStoreOptions['limits'];
  readonly onDamaged: (what: string) => void;
  readonly freeBytes?: (() => Promise<number>) | undefined;
}

/** Files and batches, behind their routes. */
export interface Files {
  readonly store: FileStore;
  readonly batches: BatchStore;
  /** The batches there were at the start. */
  readonly found: readonly StoredBatch[];
  readonly clock: Clock;
  /** Entries that an earlier process left under a key that was in its memory alone. */
  readonly removed: number;
  close(): Promise<void>;
}

const USE = { prefix: 'files-lock-', what: 'the folder of files', key: 'files.folder' };

export async function openFiles(options: FilesOptions): Promise<Files> {
  const { folder, clock, limits, onDamaged, freeBytes } = options;
  const lock: FolderLock = await lockFolder(folder, USE);
  try {
    const { key, removed } = await openSealedFolder(folder, options.key, ['files', 'contents', 'batches']);
    const store = await FileStore.open({ folder, key, clock, limits, onDamaged, freeBytes });
    const { store: batches, batches: found } = await BatchStore.open(folder, key, onDamaged);
    return {
      store,
      batches,
      found,
      clock,
      removed,
      async close() {
        store.close();
        await lock.release();
      },
    };
  } catch (error) {
    await lock.release();
    throw error;
  }
}
