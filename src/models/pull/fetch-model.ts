// The files of one model, one after another, into the store: room for all of them is reserved before the
// first byte, what an earlier attempt fetched is taken up, and files enter the store together, once each
// has its digest and the whole is a model.

import { open, type FileHandle } from 'node:fs/promises';
import { basename } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { NoRoom, type DiskRoom } from '../../base/disk-room.ts';
import { ApiError } from '../../base/errors.ts';
import { checkProjector, fileSource, inspectGguf, inspectParts, type GgufInfo } from '../gguf/read.ts';
import type { ModelStore, StoredBlob } from '../store/store.ts';
import { downloadFile, noDiskRoom, type Disk } from './download.ts';
import { movingRate, type ProgressFeed } from './events.ts';
import type { HubFile, HubModelFile } from './hub.ts';
import type { Web } from './http.ts';
import type { PartialFiles } from './partials.ts';
import type { RetryOptions } from './retry.ts';
import { digestOf, type PartRecord, type PullState } from './state.ts';

/** Ten progress events a second. */
const PROGRESS_EVERY_MS = 100;

/** The running pull that a fetch belongs to. */
export interface Fetching {
  readonly force: boolean;
  readonly token: string | undefined;
  readonly feed: Pick<ProgressFeed, 'emit'>;
  readonly abort: AbortController;
  state: PullState;
  /** Partial files of this pull. */
  parts: readonly PartRecord[];
  /** Bytes of the model that the store had already. */
  heldBytes: number;
}

export interface DownloadsOptions {
  /** On the file system of the partial files. */
  readonly store: Pick<ModelStore, 'folder'>;
  readonly partials: PartialFiles;
  readonly disk: Disk;
  readonly web: Web;
  readonly clock: Clock;
  readonly retry: RetryOptions;
  /** Writes the record of the pull. */
  readonly save: () => Promise<void>;
}

export interface FetchOptions extends DownloadsOptions {
  readonly store: ModelStore;
}

export interface FetchedModel {
  /** In the order of the files. */
  readonly blobs: readonly StoredBlob[];
  readonly info: GgufInfo;
}

export function keyOf(file: HubFile): string {
  return digestOf(file.url.href);
}

/** The caller releases the blobs. */
export async function fetchModel(
  job: Fetching,
  files: readonly HubModelFile[],
  options: FetchOptions,
): Promise<FetchedModel> {
  const { store, partials } = options;
  const { records } = partials;
  const held = new Map<HubModelFile, StoredBlob>();
  const missing: HubModelFile[] = [];
  try {
    for (const file of files) {
      const blob = job.force ? undefined : await store.blob(file.sha256);
      if (blob === undefined) missing.push(file);
      else held.set(file, blob);
    }
    job.heldBytes = bytesOfFiles([...held.keys()]);
    job.state = { ...job.state, completed: job.heldBytes };
    const pathOf = (file: HubModelFile): string => held.get(file)?.path ?? records.partPath(keyOf(file));
    if (missing.length > 0) await fetchMissing(job, missing, options);
    const info = await inspect(files, pathOf).catch(async (error: unknown) => {
      // Bytes with the promised digests that are no usable model never will be one.
      if (error instanceof ApiError && error.code === 'invalid_gguf')
        for (const file of missing) await records.removePart(keyOf(file));
      throw error;
    });
    job.abort.signal.throwIfAborted();
    for (const file of missing) held.set(file, await store.adopt(pathOf(file), file.sha256));
    return { blobs: files.map((file) => held.get(file)!), info };
  } catch (error) {
    for (const blob of held.values()) blob.release();
    throw error;
  } finally {
    for (const file of missing) await dropEmpty(job, keyOf(file), options);
  }
}

/** Leaves each file complete and checked in its partial file. */
export async function fetchMissing(
  job: Fetching,
  missing: readonly HubFile[],
  options: DownloadsOptions,
): Promise<void> {
  await takeUp(job, missing, options);
  await options.save();
  await downloadAll(job, missing, options);
  job.feed.emit({ kind: 'verifying' });
}

/** The partial files of the missing ones are this pull's; others that an earlier attempt left are removed. */
async function takeUp(
  job: Fetching,
  missing: readonly HubFile[],
  { partials }: DownloadsOptions,
): Promise<void> {
  const keys = missing.map(keyOf);
  for (const { key } of job.parts) if (!keys.includes(key)) await partials.removeIdle(key);
  job.parts = keys.map((key) => job.parts.find((part) => part.key === key) ?? { key });
}

export async function dropEmpty(job: Fetching, key: string, { partials }: DownloadsOptions): Promise<void> {
  if ((await partials.records.partSize(key)) > 0) return;
  await partials.records.removePart(key);
  job.parts = job.parts.filter((part) => part.key !== key);
}

async function downloadAll(
  job: Fetching,
  missing: readonly HubFile[],
  options: DownloadsOptions,
): Promise<void> {
  const { partials, store } = options;
  const left: number[] = [];
  for (const [i, file] of missing.entries()) left.push(file.size - (await partials.kept([job.parts[i]!])));
  const whole = left.reduce((sum, bytes) => sum + Math.max(0, bytes), 0);
  const reserved =
    missing.length === 1
      ? undefined
      : await partials.room.reserve(whole).catch((error: unknown) => {
          throw error instanceof NoRoom ? noDiskRoom(store.folder, whole, error.available) : error;
        });
  try {
    let later = whole;
    let before = job.heldBytes;
    for (const [i, file] of missing.entries()) {
      later -= Math.max(0, left[i]!);
      const share = later;
      const room = reserved === undefined ? partials.room : shareOf(reserved, share, partials.room);
      await downloadOne(job, file, { ...options, room, before });
      before += file.size;
    }
  } finally {
    reserved?.release();
  }
}

/** One file's part of a reservation for several; `later` bytes of it are for those that follow. */
function shareOf(
  reserved: { update(remaining: number): void },
  later: number,
  room: DiskRoom,
): Pick<DiskRoom, 'reserve' | 'isKept'> {
  const update = (remaining: number): void => reserved.update(remaining + later);
  return {
    isKept: () => room.isKept(),
    reserve: (bytes) => {
      update(bytes);
      return Promise.resolve({ update, release: () => update(0) });
    },
  };
}

interface OneFile extends DownloadsOptions {
  readonly room: Pick<DiskRoom, 'reserve' | 'isKept'>;
  /** Bytes of the model that are there before it. */
  readonly before: number;
}

function downloadOne(job: Fetching, file: HubFile, options: OneFile): Promise<void> {
  const { store, partials, disk, web, clock, retry, room, before, save } = options;
  const { total } = job.state;
  const key = keyOf(file);
  let reported = -Infinity;
  const rate = movingRate();
  return downloadFile({
    ...retry,
    web,
    file,
    token: job.token,
    folder: store.folder,
    partPath: partials.records.partPath(key),
    disk,
    room,
    etag: job.parts.find((part) => part.key === key)?.etag,
    onEtag: async (etag) => {
      job.parts = job.parts.map((part) => (part.key === key ? { key, etag } : part));
      await save();
    },
    onResume: (size) => {
      job.state = { ...job.state, completed: before + size };
      job.feed.emit({ kind: 'resuming', offset: before + size, total });
    },
    onProgress: (size) => {
      const completed = before + size;
      job.state = { ...job.state, completed };
      const now = clock.now();
      if (now - reported < PROGRESS_EVERY_MS && now >= reported) return;
      reported = now;
      job.feed.emit({ kind: 'downloading', completed, total, bytesPerSecond: rate(now, completed) });
    },
  });
}

async function inspect(
  files: readonly HubModelFile[],
  pathOf: (file: HubModelFile) => string,
): Promise<GgufInfo> {
  const handles: FileHandle[] = [];
  try {
    const sources = [];
    for (const file of files) {
      const handle = await open(pathOf(file));
      handles.push(handle);
      if (file.role === 'projector') await checkProjector(handle);
      else sources.push({ name: basename(file.file), source: await fileSource(handle) });
    }
    return sources.length === 1 ? await inspectGguf(sources[0]!.source) : await inspectParts(sources);
  } finally {
    for (const handle of handles) await handle.close();
  }
}

export function bytesOfFiles(files: readonly HubFile[]): number {
  return files.reduce((sum, { size }) => sum + size, 0);
}
