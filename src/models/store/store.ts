// The model store: content-addressed blobs and one JSON manifest per model, in one data folder owned by one
// process. models/blobs/sha256-<hex> models/manifests/<encoded name>.json pulls/… lock-<n> Every state
// survives kill -9: files are written beside their place, fsynced, renamed, and the folder fsynced. Refuses:
// a folder another live process owns, model names that are not plain ASCII, manifests that we would not
// write. Changes are made one after another; only the copying of large files runs beside them.

import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { ApiError } from '../../base/errors.ts';
import {
  codeOf,
  readSmallFile,
  removeTemporaries,
  storageError,
  syncFolder,
  temporaryPath,
  writeAtomically,
} from '../../base/durable-files.ts';
import { lockFolder, type FolderLock } from '../../base/folder-lock.ts';
import { checkManifest, encodeManifest, decodeManifest, isKept, type ModelManifest } from './manifest.ts';
import { blobFileName, isSha256, manifestFileName, parseModelName } from './names.ts';

/** A manifest file that cannot be read (edited by hand, truncated …). It stays as it is and blocks collection. */
export interface BrokenManifest {
  /** File name inside models/manifests. */
  readonly file: string;
  readonly reason: string;
}

/** Keeps blobs from being collected until `release` (idempotent). */
export interface BlobLease {
  release(): void;
}

export interface StoredBlob extends BlobLease {
  readonly sha256: string;
  readonly size: number;
  /** Absolute path of models/blobs/sha256-<hex>. */
  readonly path: string;
}

export interface ImportOptions {
  readonly signal?: AbortSignal | undefined;
  /** Bytes copied so far. */
  readonly onProgress?: ((completed: number) => void) | undefined;
  /** 400 `digest_mismatch` when the bytes have another digest. */
  readonly expectedSha256?: string | undefined;
}

export interface ModelStore {
  /** The data folder. */
  readonly folder: string;
  /** All models, by name, and the manifests that cannot be read. Never throws for one bad file. */
  list(): Promise<{ readonly models: readonly ModelManifest[]; readonly broken: readonly BrokenManifest[] }>;
  /** undefined: no such model. Throws 500 `manifest_invalid`, naming the file, when there is one that cannot be read. */
  get(name: string): Promise<ModelManifest | undefined>;
  /**
   * Writes a manifest. The same name with the same blobs is updated; with other blobs it is 409
   * `model_already_exists` unless `replace`. Blobs without a `path` must be in the store (they are: you hold
   * the lease of importFile or adopt).
   */
  put(manifest: ModelManifest, options?: { readonly replace?: boolean | undefined }): Promise<void>;
  /** Deregisters and collects. 404 `model_not_found`. Returns what was removed. */
  remove(name: string): Promise<ModelManifest>;
  /**
   * Copies a regular file into the store, hashing it on the way; a handle is read from its start and stays
   * open. 400 `file_not_found` / `digest_mismatch`, 507 `storage_full`.
   */
  importFile(source: string | FileHandle, options?: ImportOptions): Promise<StoredBlob>;
  /** A new name for a file under construction, which `adopt` takes; the next start removes what is left. */
  temporary(): string;
  /** Moves a finished, already hashed file of this data folder (a pull, a temporary one) into the store. */
  adopt(path: string, sha256: string): Promise<StoredBlob>;
  /** undefined when the store does not hold these bytes. */
  blob(sha256: string): Promise<StoredBlob | undefined>;
  /** Protects blobs while an engine uses them. */
  lease(sha256s: readonly string[]): BlobLease;
  /** Removes blobs no manifest names and no lease holds. Without effect while a manifest is broken: it may name any blob. */
  collect(): Promise<{ readonly removed: readonly string[]; readonly bytes: number }>;
  /** Waits for writes under way and gives the folder back. */
  close(): Promise<void>;
}

export interface StoreOptions {
  readonly folder: string;
}

const DATA_FOLDER = { prefix: 'lock-', what: 'the data folder', key: 'store.data_dir' } as const;
const MAX_MANIFEST_BYTES = 1024 * 1024;
const MAX_MODELS = 10_000;
const COPY_BYTES = 4 * 1024 * 1024;

/** Opens (and creates) a data folder. Throws ConfigError when another live process owns it. */
export async function openStore(options: StoreOptions): Promise<ModelStore> {
  const folder = resolve(options.folder);
  const manifests = join(folder, 'models', 'manifests');
  const blobs = join(folder, 'models', 'blobs');
  const lock = await lockFolder(folder, DATA_FOLDER);
  try {
    for (const path of [manifests, blobs]) await mkdir(path, { recursive: true, mode: 0o700 });
    for (const path of [folder, manifests, blobs]) await removeTemporaries(path);
    for (const path of [folder, join(folder, 'models')]) await syncFolder(path);
  } catch (error) {
    await lock.release();
    throw storageError(error, folder);
  }

  return new FolderStore(folder, { manifests, blobs, lock });
}

class FolderStore implements ModelStore {
  readonly folder: string;
  readonly #manifests: string;
  readonly #blobs: string;
  readonly #lock: FolderLock;
  /** Number of leases of a blob, by digest. */
  readonly #leases = new Map<string, number>();
  readonly #serially = serialQueue();

  constructor(
    folder: string,
    parts: { readonly manifests: string; readonly blobs: string; readonly lock: FolderLock },
  ) {
    this.folder = folder;
    this.#manifests = parts.manifests;
    this.#blobs = parts.blobs;
    this.#lock = parts.lock;
  }

  async #readManifest(file: string): Promise<ModelManifest | BrokenManifest | undefined> {
    const found = await readSmallFile(join(this.#manifests, file), MAX_MANIFEST_BYTES);
    if (found === undefined) return undefined;
    if ('problem' in found) return { file, reason: found.problem };
    try {
      return decodeManifest(found.text, file);
    } catch (error) {
      return { file, reason: error instanceof Error ? error.message : 'cannot be understood' };
    }
  }

  async list(): ReturnType<ModelStore['list']> {
    const files = (await readdir(this.#manifests)).filter((file) => file.endsWith('.json')).toSorted();
    if (files.length > MAX_MODELS)
      throw new ApiError('too_many_models', `${files.length} manifests, at most ${MAX_MODELS} are supported`);
    const models: ModelManifest[] = [];
    const broken: BrokenManifest[] = [];
    for (const file of files) {
      const manifest = await this.#readManifest(file);
      if (manifest === undefined) continue;
      if ('reason' in manifest) broken.push(manifest);
      else models.push(manifest);
    }
    models.sort((a, b) => (a.name < b.name ? -1 : 1));
    return { models, broken };
  }

  async get(name: string): Promise<ModelManifest | undefined> {
    const manifest = await this.#readManifest(manifestFileName(parseModelName(name)));
    if (manifest !== undefined && 'reason' in manifest) {
      throw new ApiError(
        'manifest_invalid',
        `models/manifests/${manifest.file} ${manifest.reason}; repair or remove it`,
      );
    }
    return manifest;
  }

  lease(sha256s: readonly string[]): BlobLease {
    for (const sha256 of sha256s) this.#leases.set(sha256, (this.#leases.get(sha256) ?? 0) + 1);
    let held = true;
    return {
      release: () => {
        if (!held) return;
        held = false;
        for (const sha256 of sha256s) {
          const count = this.#leases.get(sha256)! - 1;
          if (count === 0) this.#leases.delete(sha256);
          else this.#leases.set(sha256, count);
        }
      },
    };
  }

  async blob(sha256: string): Promise<StoredBlob | undefined> {
    if (!isSha256(sha256)) throw new ApiError('invalid_digest', 'a digest is 64 lower-case hex digits');
    const held = this.lease([sha256]);
    const size = await sizeOf(this.#blobPath(sha256));
    if (size === undefined) {
      held.release();
      return undefined;
    }
    return { ...held, sha256, size, path: this.#blobPath(sha256) };
  }

  /** Moves a complete, fsynced file to its place; the same bytes once. */
  #settle(path: string, sha256: string, size: number): Promise<StoredBlob> {
    // Leased before the queue is entered, so that a collection already waiting there spares it.
    const held = this.lease([sha256]);
    return this.#serially(async () => {
      try {
        // Over the same bytes too: a process that has the old file open keeps it, and a damaged one is
        // mended.
        await rename(path, this.#blobPath(sha256));
        await syncFolder(this.#blobs);
      } catch (error) {
        held.release();
        throw storageError(error, this.#blobs);
      }
      return { ...held, sha256, size, path: this.#blobPath(sha256) };
    });
  }

  async #collectNow(): Promise<{ removed: string[]; bytes: number }> {
    const { models, broken } = await this.list();
    const removed: string[] = [];
    let bytes = 0;
    if (broken.length > 0) return { removed, bytes };
    const named = new Set(models.flatMap((model) => model.blobs.filter(isKept).map(({ sha256 }) => sha256)));
    for (const file of await readdir(this.#blobs)) {
      const sha256 = file.slice('sha256-'.length);
      if (file !== blobFileName(sha256) || !isSha256(sha256) || named.has(sha256) || this.#leases.has(sha256))
        continue;
      bytes += (await sizeOf(this.#blobPath(sha256))) ?? 0;
      await rm(this.#blobPath(sha256), { force: true });
      removed.push(sha256);
    }
    if (removed.length > 0) await syncFolder(this.#blobs);
    return { removed, bytes };
  }

  put(
    manifest: ModelManifest,
    { replace = false }: { readonly replace?: boolean | undefined } = {},
  ): Promise<void> {
    return this.#serially(async () => {
      parseModelName(manifest.name);
      checkManifest(manifest);
      for (const entry of manifest.blobs) {
        if (isKept(entry) && (await sizeOf(this.#blobPath(entry.sha256))) !== entry.size) {
          throw new ApiError(
            'blob_missing',
            `the store does not hold sha256 ${entry.sha256} with ${entry.size} bytes`,
          );
        }
      }
      const old = replace ? undefined : await this.get(manifest.name);
      if (old !== undefined && !sameBlobs(old, manifest)) {
        throw new ApiError('model_already_exists', 'a model of this name exists with other bytes', {
          param: 'name',
          shouldRetry: false,
        });
      }
      await writeAtomically(this.#manifestPath(manifest.name), encodeManifest(manifest));
      if (replace) await this.#collectNow();
    });
  }

  remove(name: string): Promise<ModelManifest> {
    return this.#serially(async () => {
      const manifest = await this.get(name);
      if (manifest === undefined)
        throw new ApiError('model_not_found', 'no model of this name is registered', { param: 'model' });
      await rm(this.#manifestPath(name));
      await syncFolder(this.#manifests);
      await this.#collectNow();
      return manifest;
    });
  }

  async importFile(source: string | FileHandle, importOptions: ImportOptions = {}): Promise<StoredBlob> {
    const temporary = temporaryPath(this.#blobs);
    try {
      const { sha256, size } = await copyHashed(source, temporary, importOptions);
      return await this.#settle(temporary, sha256, size);
    } catch (error) {
      await rm(temporary, { force: true });
      throw storageError(error, this.#blobs);
    }
  }

  temporary(): string {
    return temporaryPath(this.#blobs);
  }

  async adopt(path: string, sha256: string): Promise<StoredBlob> {
    if (!isSha256(sha256)) throw new ApiError('invalid_digest', 'a digest is 64 lower-case hex digits');
    const handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      await handle.sync();
      return await this.#settle(path, sha256, (await handle.stat()).size);
    } finally {
      await handle.close();
    }
  }

  collect(): Promise<{ readonly removed: readonly string[]; readonly bytes: number }> {
    return this.#serially(() => this.#collectNow());
  }

  async close(): Promise<void> {
    await this.#serially(async () => undefined);
    await this.#lock.release();
  }

  #blobPath(sha256: string): string {
    return join(this.#blobs, blobFileName(sha256));
  }

  #manifestPath(name: string): string {
    return join(this.#manifests, manifestFileName(name));
  }
}

/** Runs tasks one after another; a failed one does not stop the next. */
function serialQueue(): <T>(task: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve();
  return (task) => {
    const result = last.then(task, task);
    last = result.catch(() => undefined);
    return result;
  };
}

function sameBlobs(a: ModelManifest, b: ModelManifest): boolean {
  const key = (manifest: ModelManifest): string =>
    manifest.blobs.map((entry) => `${entry.role} ${entry.sha256}`).join('\n');
  return key(a) === key(b);
}

async function sizeOf(path: string): Promise<number | undefined> {
  try {
    const found = await stat(path);
    return found.isFile() ? found.size : undefined;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** One pass: read, hash, write. The copy is fsynced. */
async function copyHashed(
  source: string | FileHandle,
  target: string,
  options: ImportOptions,
): Promise<{ sha256: string; size: number }> {
  const input = typeof source === 'string' ? await openForReading(source) : source;
  try {
    if (!(await input.stat()).isFile())
      throw new ApiError('file_not_found', 'path is not a regular file', { param: 'path' });
    const output = await open(target, 'wx', 0o600);
    try {
      const hash = createHash('sha256');
      const buffer = Buffer.alloc(COPY_BYTES);
      let size = 0;
      for (;;) {
        options.signal?.throwIfAborted();
        const { bytesRead } = await input.read(buffer, 0, buffer.length, size);
        if (bytesRead === 0) break;
        const part = buffer.subarray(0, bytesRead);
        hash.update(part);
        await output.writeFile(part);
        size += bytesRead;
        options.onProgress?.(size);
      }
      const sha256 = hash.digest('hex');
      if (options.expectedSha256 !== undefined && options.expectedSha256 !== sha256) {
        throw new ApiError(
          'digest_mismatch',
          `the file has sha256 ${sha256}, expected ${options.expectedSha256}`,
          { param: 'path' },
        );
      }
      await output.sync();
      return { sha256, size };
    } finally {
      await output.close();
    }
  } finally {
    if (typeof source === 'string') await input.close();
  }
}

async function openForReading(path: string): Promise<FileHandle> {
  try {
    return await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw new ApiError('file_not_found', `path cannot be opened (${codeOf(error) ?? 'error'})`, {
      param: 'path',
      cause: error,
    });
  }
}
