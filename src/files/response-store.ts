// Stored responses: each one sealed file, in a folder of its key, so that a kill leaves whole answers alone.
// The index is read from the names of the files; what it says of one is believed once the file opened, whose
// seal covers key, id and time. Bounded for each key in count and bytes, where the oldest make room, and over
// all keys in bytes, where new ones are refused; callers without a known key share the room of one. Refuses:
// response_not_found, storage_full, file_damaged.

import { mkdir, readdir, rm, rmdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ApiError } from '../base/errors.ts';
import {
  codeOf,
  readSmallBytes,
  removeTemporaries,
  syncFolder,
  writeAtomically,
} from '../base/durable-files.ts';
import { anyObject, type Infer, integer, list, object, text } from '../base/shape.ts';
import { HEADER_BYTES, type MasterKey } from './sealed/format.ts';
import { openState, sealState } from './sealed/state.ts';

/** Of one stored response: its conversation and its answer. */
const MAX_BYTES = 16 * 1024 * 1024;
const MAX_ITEMS = 1_000_000;
const NAME = /^(\d{1,15})\.(resp_[0-9a-f]{32})$/;
const PLACE = /^[0-9a-f]{64}$/;

/** Whose a response is. */
export interface StoredFor {
  /** The caller that may have it. */
  readonly owner: string;
  /** Whose room it takes. */
  readonly share: string;
}

export interface StoredResponse {
  /** The items that were answered, those of earlier responses before them. */
  readonly input: readonly Readonly<Record<string, unknown>>[];
  /** As the caller got it. */
  readonly response: Readonly<Record<string, unknown>>;
}

export interface FoundResponse extends StoredResponse {
  /** Of the file. */
  readonly bytes: number;
}

const storedShape = object({
  version: integer({ min: 1, max: 1 }),
  owner: text({ max: 1024 }),
  input: list(anyObject(''), { max: MAX_ITEMS }),
  response: anyObject(''),
});

export interface StoredLimits {
  /** Responses of one key. */
  readonly maxCount: number;
  readonly maxBytesPerKey: number;
  readonly maxBytes: number;
  readonly expiryMs: number;
}

export interface ResponseStoreOptions {
  readonly folder: string;
  readonly key: MasterKey;
  readonly limits: StoredLimits;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

interface Entry {
  readonly name: string;
  /** Seconds since 1970. */
  readonly created: number;
  readonly bytes: number;
}

/** The stored responses of one share by id, the oldest first. */
type Shelf = Map<string, Entry>;

export class ResponseStore {
  readonly #options: ResponseStoreOptions;
  readonly #shelves = new Map<string, Shelf>();
  #bytes = 0;

  private constructor(options: ResponseStoreOptions) {
    this.#options = options;
  }

  /** The caller owns the folder. Half-written files are removed, and what has expired. */
  static async open(options: ResponseStoreOptions): Promise<ResponseStore> {
    const store = new ResponseStore(options);
    const { folder } = options;
    await mkdir(folder, { recursive: true, mode: 0o700 });
    for (const place of (await readdir(folder)).filter((name) => PLACE.test(name))) {
      const shelf = join(folder, place);
      await removeTemporaries(shelf);
      const entries = await Promise.all((await readdir(shelf)).map((name) => entryOf(shelf, name)));
      for (const found of entries
        .flatMap((entry) => entry ?? [])
        .sort((a, b) => a.entry.created - b.entry.created))
        store.#add(place, found.id, found.entry);
    }
    await store.expire();
    return store;
  }

  /** `created`: seconds since 1970. Makes room among the caller's own; resolves once it is durable. */
  async save(
    { owner, share }: StoredFor,
    { id, created }: { readonly id: string; readonly created: number },
    value: StoredResponse,
  ): Promise<void> {
    const { key, limits, folder } = this.#options;
    await this.expire();
    const place = this.#placeOf(share);
    const name = `${created}.${id}`;
    const sealed = sealState(key, `${place}/${name}`, { version: 1, owner, ...value });
    const bytes = sealed.length;
    if (bytes > Math.min(MAX_BYTES, limits.maxBytesPerKey))
      throw full('the answer is larger than one may be');
    const entry = { name, created, bytes };
    const leaving = this.#oldest(place, bytes);
    const freed = leaving.reduce((sum, [, each]) => sum + each.bytes, 0);
    if (this.#bytes - freed + bytes > limits.maxBytes) throw full('there is no room for another answer');
    // Its room is taken before any wait, so that no two take the same.
    for (const [old] of leaving) this.#drop(place, old);
    this.#add(place, id, entry);
    try {
      const shelf = join(folder, place);
      await mkdir(shelf, { recursive: true, mode: 0o700 });
      await syncFolder(folder);
      for (const [, old] of leaving) await rm(join(shelf, old.name), { force: true });
      await writeAtomically(join(shelf, name), sealed);
    } catch (error) {
      this.#drop(place, id);
      throw error;
    }
  }

  /** Refuses: response_not_found, also for those of other callers. `param`: the field that names it. */
  async get({ owner, share }: StoredFor, id: string, param?: string): Promise<FoundResponse> {
    await this.expire();
    const place = this.#placeOf(share);
    const entry = this.#shelves.get(place)?.get(id);
    if (entry === undefined) throw responseNotFound(param);
    const path = join(this.#options.folder, place, entry.name);
    const found = await readSmallBytes(path, { maxBytes: MAX_BYTES });
    // Deleted while it was read.
    if (found === undefined) throw responseNotFound(param);
    if ('problem' in found) throw damaged(param);
    const { owner: of, input, response } = this.#opened(found.bytes, `${place}/${entry.name}`, param);
    if (of !== owner) throw responseNotFound(param);
    return { input, response, bytes: found.bytes.length };
  }

  #opened(bytes: Buffer, id: string, param?: string): Infer<typeof storedShape> {
    try {
      return openState(bytes, this.#options.key, { id, shape: storedShape });
    } catch (error) {
      throw damaged(param, error);
    }
  }

  /** Refuses: response_not_found. Resolves once it is gone for good; a damaged one of a key can go, too. */
  async delete(caller: StoredFor, id: string): Promise<void> {
    try {
      await this.get(caller, id);
    } catch (error) {
      // A share has responses of one caller alone.
      const own = caller.share === caller.owner;
      if (!own || !(error instanceof ApiError && error.code === 'file_damaged')) throw error;
    }
    const place = this.#placeOf(caller.share);
    const entry = this.#drop(place, id);
    if (entry === undefined) throw responseNotFound();
    await this.#remove(place, [entry]);
  }

  /** Removes what is older than it may be. */
  async expire(): Promise<void> {
    const { now, limits } = this.#options;
    const oldest = (now() - limits.expiryMs) / 1000;
    for (const [place, shelf] of this.#shelves) {
      const gone: Entry[] = [];
      for (const [id, entry] of shelf) {
        if (entry.created > oldest) break;
        this.#drop(place, id);
        gone.push(entry);
      }
      if (gone.length > 0) await this.#remove(place, gone);
    }
  }

  /** The folder of a share: a name that is random without the key. */
  #placeOf(share: string): string {
    const none = Buffer.alloc(HEADER_BYTES);
    return this.#options.key.objectKey(none, { kind: 'state', id: share }, 'place').toString('hex');
  }

  /** Those that leave for an answer of so many bytes. */
  #oldest(place: string, bytes: number): readonly (readonly [id: string, entry: Entry])[] {
    const { maxCount, maxBytesPerKey } = this.#options.limits;
    const shelf = [...(this.#shelves.get(place) ?? [])];
    let held = shelf.reduce((sum, [, entry]) => sum + entry.bytes, 0);
    let count = 0;
    while (count < shelf.length && (shelf.length - count >= maxCount || held + bytes > maxBytesPerKey)) {
      held -= shelf[count]?.[1].bytes ?? 0;
      count += 1;
    }
    return shelf.slice(0, count);
  }

  #add(place: string, id: string, entry: Entry): void {
    const shelf = this.#shelves.get(place) ?? new Map<string, Entry>();
    this.#shelves.set(place, shelf);
    shelf.set(id, entry);
    this.#bytes += entry.bytes;
  }

  #drop(place: string, id: string): Entry | undefined {
    const shelf = this.#shelves.get(place);
    const entry = shelf?.get(id);
    if (shelf === undefined || entry === undefined) return undefined;
    shelf.delete(id);
    if (shelf.size === 0) this.#shelves.delete(place);
    this.#bytes -= entry.bytes;
    return entry;
  }

  async #remove(place: string, entries: readonly Entry[]): Promise<void> {
    const shelf = join(this.#options.folder, place);
    for (const { name } of entries) await rm(join(shelf, name), { force: true });
    await syncFolder(shelf).catch(ifGone);
    // A folder that is not empty stays.
    if (!this.#shelves.has(place)) await rmdir(shelf).catch(ifGone);
  }
}

async function entryOf(
  shelf: string,
  name: string,
): Promise<{ readonly id: string; readonly entry: Entry } | undefined> {
  const [, created, id] = NAME.exec(name) ?? [];
  if (created === undefined || id === undefined) return undefined;
  const { size } = await stat(join(shelf, name));
  return { id, entry: { name, created: Number(created), bytes: size } };
}

function ifGone(error: unknown): void {
  if (!['ENOENT', 'ENOTEMPTY', 'EEXIST'].includes(codeOf(error) ?? '')) throw error;
}

function responseNotFound(param?: string): ApiError {
  return new ApiError('response_not_found', 'there is no stored response of that id for this key', { param });
}

function damaged(param?: string, cause?: unknown): ApiError {
  return new ApiError('file_damaged', 'the stored response is damaged or was changed', { param, cause });
}

function full(message: string): ApiError {
  return new ApiError('storage_full', message, { param: 'store', shouldRetry: false });
}
