// Where fetched endorsements are kept: a folder with one file per item, or memory. Files are written whole
// and renamed into place, so that a reader never sees half of one. What is read back is verified again like
// what is fetched: a store is not trusted either. Refused: items over 2 MiB, files that are not what their
// name says (they count as absent).

import { createHash, randomBytes } from 'node:crypto';
import { mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fromBase64, fromUtf8, toBase64 } from '../../encoding/bytes.ts';
import { AttestationError, malformed } from '../../transcript/errors.ts';
import { parseJson, shapeReaders } from '../../encoding/json.ts';

export interface StoredItem {
  /**
   * `kds/vcek/Genoa/<chip>/<tcb>`, `pcs/tcb/<fmspc>` …: product, chip and TCB are part of it, so a
   * TCB change is a new item.
   */
  readonly key: string;
  /** Milliseconds since 1970. */
  readonly fetchedAt: number;
  readonly parts: Readonly<Record<string, Uint8Array>>;
}

/**
 * Where fetched endorsements stay. The store is not trusted: each item is verified again whenever it is read.
 */
export interface EndorsementStore {
  get(key: string): Promise<StoredItem | undefined>;
  put(item: StoredItem): Promise<void>;
  /** Every item, in no order. */
  items(): Promise<readonly StoredItem[]>;
}

const MAX_ITEM_BYTES = 2 << 20;
const MAX_ITEMS = 4096;
const MAX_KEY = 512;
const ITEM_FILE = /^[0-9a-f]{64}\.json$/;

/**
 * A store that lives as long as the process, filled with `items`.
 * @example const endorsements = createEndorsements({ store: memoryStore() });
 */
export function memoryStore(items: Iterable<StoredItem> = []): EndorsementStore {
  const held = new Map<string, StoredItem>();
  for (const item of items) held.set(item.key, item);
  return {
    get: (key) => Promise.resolve(held.get(key)),
    put: (item) => {
      if (!held.has(item.key) && held.size >= MAX_ITEMS)
        for (const oldest of held.keys()) {
          held.delete(oldest);
          break;
        }
      held.set(item.key, item);
      return Promise.resolve();
    },
    items: () => Promise.resolve([...held.values()]),
  };
}

/**
 * Files `<sha256 of the key>.json` in `folder`, which is made when the first item is put; the oldest go
 * when there are too many.
 * @example const store = folderStore('endorsements', 100);
 */
export function folderStore(folder: string, maxItems = MAX_ITEMS): EndorsementStore {
  const pathOf = (key: string): string =>
    join(folder, `${createHash('sha256').update(key).digest('hex')}.json`);
  return {
    async get(key) {
      const item = await readItem(pathOf(key));
      return item?.key === key ? item : undefined;
    },
    async put(item) {
      const text = encodeItem(item);
      if (text.length > MAX_ITEM_BYTES)
        throw malformed('input_too_large', `endorsement ${item.key} is over ${MAX_ITEM_BYTES} bytes`);
      await mkdir(folder, { recursive: true, mode: 0o700 });
      const path = pathOf(item.key);
      const fresh = `${path}.${randomBytes(6).toString('hex')}.tmp`;
      try {
        const file = await open(fresh, 'wx', 0o600);
        try {
          await file.writeFile(text);
          await file.sync();
        } finally {
          await file.close();
        }
        await rename(fresh, path);
        await dropOldest(folder, maxItems);
      } catch (error) {
        await rm(fresh, { force: true });
        throw error;
      }
    },
    async items() {
      let names: string[];
      try {
        names = await readdir(folder);
      } catch (error) {
        if (isMissing(error)) return [];
        throw error;
      }
      const files = names.filter((name) => ITEM_FILE.test(name)).slice(0, MAX_ITEMS);
      const found = await Promise.all(files.map((name) => readItem(join(folder, name))));
      return found.filter((item) => item !== undefined);
    },
  };
}

async function readItem(path: string): Promise<StoredItem | undefined> {
  try {
    if ((await stat(path)).size > MAX_ITEM_BYTES) return undefined;
    return decodeItem(fromUtf8(new Uint8Array(await readFile(path)), 'stored endorsement'));
  } catch (error) {
    // Absent, cut short or not ours: fetched again rather than trusted or fatal.
    if (error instanceof AttestationError || isMissing(error)) return undefined;
    throw error;
  }
}

/** Keeps the folder bounded: half of the files stay when there are more than the store may have. */
async function dropOldest(folder: string, maxItems: number): Promise<void> {
  const names = (await readdir(folder)).filter((name) => ITEM_FILE.test(name));
  if (names.length <= maxItems) return;
  const aged = await Promise.all(
    names.map(async (name) => ({ name, at: (await stat(join(folder, name))).mtimeMs })),
  );
  const old = aged.toSorted((a, b) => a.at - b.at).slice(0, names.length - Math.ceil(maxItems / 2));
  await Promise.all(old.map(({ name }) => rm(join(folder, name), { force: true })));
}

export function encodeItem({ key, fetchedAt, parts }: StoredItem): string {
  return JSON.stringify({
    key,
    fetchedAt,
    parts: Object.fromEntries(Object.entries(parts).map(([name, bytes]) => [name, toBase64(bytes)])),
  });
}

const read = shapeReaders('malformed_json');

/** @throws malformed_json, malformed_base64 */
function decodeItem(text: string): StoredItem {
  return itemOf(parseJson(text, 'stored endorsement', MAX_ITEM_BYTES));
}

export function itemOf(value: unknown): StoredItem {
  const object = read.object(value, 'endorsement', ['key', 'fetchedAt', 'parts']);
  const entries = Object.entries(read.record(object['parts'], 'endorsement parts'));
  if (entries.length > 8)
    throw malformed('malformed_json', `endorsement has ${entries.length} parts, expected at most 8`);
  return {
    key: read.string(object['key'], 'endorsement key', MAX_KEY),
    fetchedAt: read.integer(object['fetchedAt'], 'endorsement fetchedAt'),
    parts: Object.fromEntries(
      entries.map(([name, part]) => [
        name,
        fromBase64(read.string(part, `endorsement part ${name}`, MAX_ITEM_BYTES), name),
      ]),
    ),
  };
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR');
}
