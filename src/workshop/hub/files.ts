// The files to publish: found below a folder, opened once and measured from that descriptor. Refuses links
// and special files, names a repository cannot have, and too many. Each file is known by what a hub asks
// for: its SHA-256, its git id, its size and its first 512 bytes. `check` throws when a file has changed
// since.

import { createHash } from 'node:crypto';
import { readdir, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { codeOf } from '../../base/durable-files.ts';
import { ApiError } from '../../base/errors.ts';
import { identityOf, sameFile } from '../../models/measure.ts';
import type { FileIdentity } from '../../models/model.ts';
import { openAt } from '../jobs/shown.ts';

/** A file, and its place in the repository. */
export interface NamedFile {
  /** Below the repository, with `/`. */
  readonly path: string;
  readonly file: string;
}

export interface MeasuredFile {
  readonly path: string;
  readonly size: number;
  /** Lower-case hex. */
  readonly sha256: string;
  /** SHA-1 over `blob SIZE NUL` and the bytes. */
  readonly gitId: string;
  /** The first 512 bytes, by which a hub tells text from other files. */
  readonly sample: Uint8Array;
  /** Bytes `from` to `to`, in pieces. 500 model_file_changed where the file changed since it was measured. */
  read(from: number, to: number): AsyncGenerator<Uint8Array>;
  check(): Promise<void>;
  close(): Promise<void>;
}

/** Of one publication. The hub takes about as many in one commit. */
export const MAX_FILES = 10_000;
const MAX_DEPTH = 16;
const MAX_PATH = 512;
const SAMPLE_BYTES = 512;
const CHUNK_BYTES = 1024 * 1024;
const PART = /^[^\p{Cc}/\\]{1,255}$/u;

/** All regular files below a folder, by path. 400 file_not_found, path_not_allowed. */
export async function filesOfFolder(folder: string): Promise<readonly NamedFile[]> {
  const found: NamedFile[] = [];
  await collect(folder, '', 0, found);
  if (found.length === 0) throw new ApiError('file_not_found', 'the folder has no files', { param: 'path' });
  return found.toSorted((a, b) => (a.path < b.path ? -1 : 1));
}

async function collect(folder: string, below: string, depth: number, found: NamedFile[]): Promise<void> {
  if (depth > MAX_DEPTH) throw refusedFile('the folder is too deep');
  const entries = await readdir(folder, { withFileTypes: true }).catch((error: unknown) => {
    throw new ApiError('file_not_found', `the folder cannot be read (${codeOf(error) ?? 'error'})`, {
      param: 'path',
    });
  });
  for (const entry of entries) {
    // Of tools, and what somebody may have forgotten there (`.env`): never sent.
    if (entry.name.startsWith('.')) continue;
    const path = below === '' ? entry.name : `${below}/${entry.name}`;
    const file = join(folder, entry.name);
    if (entry.isDirectory()) await collect(file, path, depth + 1, found);
    else if (entry.isFile()) found.push({ path: assertPath(path), file });
    else throw refusedFile('the folder has a link or a special file; only regular files are published');
    if (found.length > MAX_FILES) throw refusedFile(`the folder has more than ${MAX_FILES} files`);
  }
}

/** The last part of a caller's own name of a file, or `instead` where a repository cannot have it. */
export function repositoryName(given: string, instead?: string): string {
  const last = given.split(/[/\\]/).at(-1) ?? '';
  if (instead === undefined) return assertPath(last);
  return /^[A-Za-z0-9][A-Za-z0-9._ -]{0,127}$/.test(last) ? last : instead;
}

/** A path that a repository may have. Throws 400 path_not_allowed. */
export function assertPath(path: string): string {
  const parts = path.split('/');
  const isPlain = parts.every((part) => PART.test(part) && part !== '.' && part !== '..');
  if (!isPlain || path.length > MAX_PATH || parts.some((part) => part.toLowerCase() === '.git'))
    throw refusedFile('a file has a name that a repository cannot have');
  return path;
}

function refusedFile(message: string): ApiError {
  return new ApiError('path_not_allowed', message, { param: 'path' });
}

/** Opens and measures the file that is really at this path, no link in it. The caller closes it. */
export async function measureNamed({ path, file }: NamedFile, signal: AbortSignal): Promise<MeasuredFile> {
  assertPath(path);
  const handle = await openAt(file, 'path');
  try {
    return await measureHandle(path, handle, signal);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function measureHandle(path: string, handle: FileHandle, signal: AbortSignal): Promise<MeasuredFile> {
  const identity = await identityOf(handle);
  const size = Number(identity.size);
  const check = async (): Promise<void> => assertSame(identity, await identityOf(handle));
  const sha256 = createHash('sha256');
  const gitId = createHash('sha1').update(`blob ${size}\0`);
  let sample: Uint8Array = new Uint8Array(0);
  for await (const chunk of readPieces(handle, 0, size)) {
    signal.throwIfAborted();
    if (sample.length === 0) sample = Uint8Array.from(chunk.subarray(0, SAMPLE_BYTES));
    sha256.update(chunk);
    gitId.update(chunk);
  }
  await check();
  return {
    path,
    size,
    sha256: sha256.digest('hex'),
    gitId: gitId.digest('hex'),
    sample,
    read: async function* read(from, to) {
      await check();
      yield* readPieces(handle, from, to);
      await check();
    },
    check,
    close: () => handle.close(),
  };
}

async function* readPieces(handle: FileHandle, from: number, to: number): AsyncGenerator<Uint8Array> {
  for (let at = from; at < to;) {
    const buffer = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, to - at));
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, at);
    if (bytesRead === 0) throw changed();
    at += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}

/** A small file that is in memory and not of the disk. */
export function measureText(path: string, content: string | Uint8Array): MeasuredFile {
  const bytes = Buffer.from(content);
  return {
    path,
    size: bytes.length,
    sha256: createHash('sha256').update(bytes).digest('hex'),
    gitId: createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex'),
    sample: bytes.subarray(0, SAMPLE_BYTES),
    read: async function* read(from, to) {
      await Promise.resolve();
      yield bytes.subarray(from, to);
    },
    check: () => Promise.resolve(),
    close: () => Promise.resolve(),
  };
}

function assertSame(before: FileIdentity, after: FileIdentity): void {
  if (!sameFile(before, after)) throw changed();
}

function changed(): ApiError {
  return new ApiError('model_file_changed', 'a file changed while it was published', { shouldRetry: true });
}
