// Results of conversions: models/derived/<key>.json says which blob came of which files and type, so that the
// same folder is not converted again. A record is of use only while the store holds its blob; others are
// removed when the folder is opened.

import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { readSmallFile, removeTemporaries, writeAtomically } from '../../base/durable-files.ts';
import { integer, object, text, type Infer } from '../../base/shape.ts';
import { parseStored } from '../../base/stored-json.ts';
import type { ModelStore, StoredBlob } from './store.ts';

const record = object({
  version: integer({ min: 1, max: 1 }),
  sha256: text({ max: 64, pattern: /^[0-9a-f]{64}$/ }),
  type: text({ max: 64 }),
  otherTypes: integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
});

export type DerivedRecord = Omit<Infer<typeof record>, 'version'>;

const MAX_RECORD_BYTES = 4096;
const FILE_NAME = /^([0-9a-f]{64})\.json$/;

export class Derivations {
  readonly #store: ModelStore;
  readonly #folder: string;

  constructor(store: ModelStore) {
    this.#store = store;
    this.#folder = join(store.folder, 'models', 'derived');
  }

  /** Makes the folder, and removes records of blobs that are gone. Call before anything else. */
  async open(): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    await removeTemporaries(this.#folder);
    for (const file of await readdir(this.#folder)) {
      const key = FILE_NAME.exec(file)?.[1];
      const found = key === undefined ? undefined : await this.find(key);
      if (found === undefined) await rm(join(this.#folder, file), { force: true });
      else found.blob.release();
    }
  }

  /** The caller releases the blob. An unreadable record counts as none. */
  async find(key: string): Promise<{ readonly blob: StoredBlob; readonly made: DerivedRecord } | undefined> {
    const found = await readSmallFile(this.#path(key), MAX_RECORD_BYTES);
    if (found === undefined || 'problem' in found) return undefined;
    try {
      const made = parseStored(record, found.text);
      const blob = await this.#store.blob(made.sha256);
      return blob === undefined ? undefined : { blob, made };
    } catch {
      return undefined;
    }
  }

  keep(key: string, { sha256, type, otherTypes }: DerivedRecord): Promise<void> {
    return writeAtomically(this.#path(key), `${JSON.stringify({ version: 1, sha256, type, otherTypes })}\n`);
  }

  #path(key: string): string {
    return join(this.#folder, `${key}.json`);
  }
}
