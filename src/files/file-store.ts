// Stored files: a sealed state and a sealed content for each, the content first. A kill leaves a content
// without a state, which the next start removes, or a temporary file. Only the owner of a file finds it;
// every other caller gets 404, as for a file that does not exist. A file ends at its time, by the injected
// clock.

import { mkdir, readdir, rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../base/clock.ts';
import { DiskRoom, NoRoom, type Reservation } from '../base/disk-room.ts';
import { codeOf, isFull, removeTemporaries, storageFull, syncFolder } from '../base/durable-files.ts';
import { ApiError } from '../base/errors.ts';
import { choice, type Infer, integer, object, optional, text } from '../base/shape.ts';
import { isId, newId } from './ids.ts';
import { Quota, type QuotaLimits } from './quota.ts';
import { ContentWriter, readContent, sealedSize } from './sealed/content.ts';
import { type MasterKey, SealedError } from './sealed/format.ts';
import { readState, writeState } from './sealed/state.ts';

export const PURPOSES = [
  'assistants',
  'batch',
  'fine-tune',
  'vision',
  'user_data',
  'evals',
  'batch_output',
] as const;
export type Purpose = (typeof PURPOSES)[number];

const MAX = Number.MAX_SAFE_INTEGER;
const fileShape = object({
  id: text({ max: 64 }),
  owner: text({ max: 200 }),
  bytes: integer({ min: 0, max: MAX }),
  /** Unix milliseconds. */
  createdAt: integer({ min: 0, max: MAX }),
  expiresAt: optional(integer({ min: 0, max: MAX })),
  filename: text({ max: 2048 }),
  purpose: choice(PURPOSES),
});
export type StoredFile = Infer<typeof fileShape>;

/** Known when a file is whole: in a form its fields may stand behind it. */
export interface FileDetails {
  readonly filename: string;
  readonly purpose: Purpose;
  readonly expiresAfterMs?: number | undefined;
}

/** A file that the server itself makes: no limit keeps a caller from the results of its batch. */
export interface OwnFile {
  /** Chosen before, so that a file that is made again after a kill replaces what the first try left. */
  readonly id: string;
}

export interface FileStoreOptions {
  /** `files` and `contents` are in it. */
  readonly folder: string;
  readonly key: MasterKey;
  readonly clock: Clock;
  readonly limits: QuotaLimits & { readonly fileBytes: number };
  /** A stored thing that cannot be read is left as it is, and told. */
  readonly onDamaged: (what: string) => void;
  readonly freeBytes?: (() => Promise<number>) | undefined;
}

/** Never promised to a file: states, logs and the audit log must always be written. */
const KEPT_BYTES = 64 * 1024 * 1024;
const ROOM_STEP_BYTES = 8 * 1024 * 1024;
/** Timers of Node end at 24.8 days. */
const LONGEST_WAIT_MS = 86_400_000;

export class FileStore {
  readonly #options: FileStoreOptions;
  readonly #quota: Quota;
  readonly #room: DiskRoom;
  /** By id. */
  readonly #files = new Map<string, StoredFile>();
  /** Ids that a batch reads: they neither end nor are deleted meanwhile. */
  readonly #held = new Map<string, number>();
  #cancelSweep: () => void = () => undefined;

  private constructor(options: FileStoreOptions) {
    this.#options = options;
    this.#quota = new Quota(options.limits);
    this.#room = new DiskRoom({
      freeBytes: options.freeBytes ?? (() => freeBytesOf(options.folder)),
      keep: KEPT_BYTES,
    });
  }

  static async open(options: FileStoreOptions): Promise<FileStore> {
    const store = new FileStore(options);
    await store.#load();
    await store.#sweep();
    return store;
  }

  /** Begins a file. 409 too_many_files, 413 request_too_large, 507 storage_full, also while it is written. */
  async create(owner: string, own?: OwnFile): Promise<FileUpload> {
    const { clock, key, limits } = this.#options;
    const id = own?.id ?? newId('file-', clock.now());
    const again = this.#files.get(id);
    if (again !== undefined) await this.#remove(again);
    if (own === undefined) this.#quota.addFile(owner);
    else this.#quota.found(owner, 0);
    try {
      const writer = await ContentWriter.create(this.#content(id), key, id);
      return new FileUpload({
        writer,
        quota: this.#quota,
        room: this.#room,
        owner,
        maxBytes: own === undefined ? limits.fileBytes : Number.POSITIVE_INFINITY,
        done: (details, bytes) => this.#added({ ...details, id, owner, bytes }),
      });
    } catch (error) {
      this.#quota.remove(owner, 0);
      throw noRoomFor(error);
    }
  }

  /** 404 no_such_file. */
  get(owner: string, id: string): StoredFile {
    const file = this.#files.get(id);
    if (file?.owner !== owner || this.#isOver(file)) throw noSuchFile();
    return file;
  }

  /** In the order of their making, oldest first. */
  list(owner: string): readonly StoredFile[] {
    return [...this.#files.values()]
      .filter((file) => file.owner === owner && !this.#isOver(file))
      .toSorted((a, b) => (a.id < b.id ? -1 : 1));
  }

  /** 404 no_such_file; 500 file_damaged, also in the middle of it. */
  read(owner: string, id: string): AsyncGenerator<Buffer, void> {
    const file = this.get(owner, id);
    return asFile(readContent(this.#content(file.id), this.#options.key, file.id));
  }

  /** 404 no_such_file, 409 file_in_use. */
  async delete(owner: string, id: string): Promise<void> {
    const file = this.get(owner, id);
    if (this.#held.has(id)) throw new ApiError('file_in_use', 'a batch that is not over reads this file');
    await this.#remove(file);
  }

  /** Keeps a file for a batch; the returned function gives it free. Idempotent. */
  hold(id: string): () => void {
    this.#held.set(id, (this.#held.get(id) ?? 0) + 1);
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      const left = (this.#held.get(id) ?? 1) - 1;
      if (left === 0) this.#held.delete(id);
      else this.#held.set(id, left);
    };
  }

  close(): void {
    this.#cancelSweep();
  }

  #state(id: string): string {
    return join(this.#options.folder, 'files', id);
  }

  #content(id: string): string {
    return join(this.#options.folder, 'contents', id);
  }

  #isOver({ id, expiresAt }: StoredFile): boolean {
    return expiresAt !== undefined && expiresAt <= this.#options.clock.now() && !this.#held.has(id);
  }

  async #added(added: FileDetails & Pick<StoredFile, 'id' | 'owner' | 'bytes'>): Promise<StoredFile> {
    const { id, owner, bytes, filename, purpose, expiresAfterMs } = added;
    const now = this.#options.clock.now();
    const file: StoredFile = {
      id,
      owner,
      bytes,
      createdAt: now,
      expiresAt: expiresAfterMs === undefined ? undefined : now + expiresAfterMs,
      filename,
      purpose,
    };
    try {
      await writeState(this.#state(id), this.#options.key, id, file);
    } catch (error) {
      await rm(this.#content(id), { force: true });
      throw noRoomFor(error);
    }
    this.#files.set(id, file);
    this.#plan();
    return file;
  }

  /** The state first: what is left after a kill is a content without one. */
  async #remove({ id, owner, bytes }: StoredFile): Promise<void> {
    this.#files.delete(id);
    this.#quota.remove(owner, bytes);
    await rm(this.#state(id), { force: true });
    await syncFolder(join(this.#options.folder, 'files'));
    await rm(this.#content(id), { force: true, recursive: true });
  }

  async #load(): Promise<void> {
    const { folder, key, onDamaged } = this.#options;
    for (const name of ['files', 'contents']) {
      await mkdir(join(folder, name), { recursive: true, mode: 0o700 });
      await removeTemporaries(join(folder, name));
    }
    const states = new Set(await readdir(join(folder, 'files')));
    for (const id of states) {
      if (!isId('file-', id)) continue;
      try {
        const file = await readState(this.#state(id), key, { id, shape: fileShape });
        if (file === undefined) continue;
        this.#files.set(id, file);
        this.#quota.found(file.owner, file.bytes);
      } catch {
        onDamaged('the state of a stored file');
      }
    }
    for (const id of await readdir(join(folder, 'contents')))
      if (isId('file-', id) && !states.has(id)) await rm(this.#content(id), { force: true, recursive: true });
  }

  async #sweep(): Promise<void> {
    for (const file of Array.from(this.#files.values())) if (this.#isOver(file)) await this.#remove(file);
    this.#plan();
  }

  /** One timer, for the file that ends first. */
  #plan(): void {
    this.#cancelSweep();
    const { clock, onDamaged } = this.#options;
    let next = Number.POSITIVE_INFINITY;
    for (const { id, expiresAt } of this.#files.values())
      if (expiresAt !== undefined && !this.#held.has(id)) next = Math.min(next, expiresAt);
    if (next === Number.POSITIVE_INFINITY && this.#held.size === 0) return;
    const wait = Math.max(1000, Math.min(LONGEST_WAIT_MS, next - clock.now()));
    this.#cancelSweep = clock.after(wait, () => {
      this.#sweep().catch(() => onDamaged('the folder of stored files'));
    });
  }
}

interface UploadParts {
  readonly writer: ContentWriter;
  readonly quota: Quota;
  readonly room: DiskRoom;
  readonly owner: string;
  readonly maxBytes: number;
  readonly done: (details: FileDetails, bytes: number) => Promise<StoredFile>;
}

/** A file that is being written. It must be finished or abandoned. */
export class FileUpload {
  readonly #parts: UploadParts;
  readonly #reservations: Reservation[] = [];
  #room = 0;
  /** Bytes the quota counts for it. */
  #counted = 0;
  #over = false;

  constructor(parts: UploadParts) {
    this.#parts = parts;
  }

  get bytes(): number {
    return this.#parts.writer.bytes;
  }

  async write(bytes: Uint8Array): Promise<void> {
    const { writer, quota, owner, maxBytes } = this.#parts;
    if (writer.bytes + bytes.length > maxBytes)
      throw new ApiError('request_too_large', `the file has more than ${maxBytes} bytes`, { param: 'file' });
    while (sealedSize(writer.bytes + bytes.length) > this.#room) await this.#reserve();
    quota.addBytes(owner, bytes.length, maxBytes === Number.POSITIVE_INFINITY);
    this.#counted += bytes.length;
    await writer.write(bytes).catch((error: unknown) => {
      throw noRoomFor(error);
    });
  }

  async finish(details: FileDetails): Promise<StoredFile> {
    try {
      await this.#parts.writer.finish();
      const stored = await this.#parts.done(details, this.#parts.writer.bytes);
      this.#over = true;
      return stored;
    } catch (error) {
      await this.abandon();
      throw noRoomFor(error);
    } finally {
      this.#release();
    }
  }

  /** Idempotent; a finished file stays. */
  async abandon(): Promise<void> {
    if (this.#over) return;
    this.#over = true;
    this.#release();
    this.#parts.quota.remove(this.#parts.owner, this.#counted);
    await this.#parts.writer.abandon();
  }

  async #reserve(): Promise<void> {
    try {
      this.#reservations.push(await this.#parts.room.reserve(ROOM_STEP_BYTES));
    } catch (error) {
      throw error instanceof NoRoom ? storageFull(NO_ROOM, error) : error;
    }
    this.#room += ROOM_STEP_BYTES;
  }

  #release(): void {
    for (const each of this.#reservations) each.release();
  }
}

const NO_ROOM = 'there is no room for the file';

/** A full disk as a caller is told it: without the server's own paths. */
function noRoomFor(error: unknown): unknown {
  return isFull(error) ? storageFull(NO_ROOM, error) : error;
}

async function freeBytesOf(folder: string): Promise<number> {
  const { bavail, bsize } = await statfs(folder);
  return bavail * bsize;
}

async function* asFile(content: AsyncGenerator<Buffer, void>): AsyncGenerator<Buffer, void> {
  try {
    yield* content;
  } catch (error) {
    if (error instanceof SealedError || codeOf(error) === 'ENOENT')
      throw new ApiError('file_damaged', 'the stored file is damaged or was changed', { cause: error });
    throw error;
  }
}

function noSuchFile(): ApiError {
  return new ApiError('no_such_file', 'there is no such file, or it is not of this API key');
}
