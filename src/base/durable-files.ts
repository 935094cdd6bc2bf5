// File writes that a kill -9 or a power cut cannot leave half done: write beside the place, fsync,
// rename, fsync the folder. A name that begins with `.tmp-` is always such an unfinished file, and is
// removed when its folder is opened.

import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { lstat, open, readdir, rename, rm, stat } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ApiError } from './errors.ts';

const TEMPORARY_PREFIX = '.tmp-';

/** A new name in `folder` for a file under construction. */
export function temporaryPath(folder: string): string {
  return join(folder, `${TEMPORARY_PREFIX}${randomUUID()}`);
}

/** Makes renames and unlinks in `folder` durable. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, constants.O_RDONLY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Replaces or creates `path` with a text or bytes, as one step. */
export async function writeAtomically(path: string, content: string | Uint8Array): Promise<void> {
  const folder = dirname(path);
  const temporary = temporaryPath(folder);
  try {
    const handle = await open(temporary, 'wx', 0o600);
    try {
      await handle.writeFile(content);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw storageError(error, path);
  }
  await syncFolder(folder);
}

/**
 * A small regular file's text. Never blocks on a FIFO, never follows a link; undefined
 * when there is no such file.
 */
export async function readSmallFile(
  path: string,
  maxBytes: number,
): Promise<{ readonly text: string } | { readonly problem: string } | undefined> {
  const found = await readSmallBytes(path, { maxBytes });
  if (found === undefined || 'problem' in found) return found;
  try {
    return { text: new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(found.bytes) };
  } catch {
    return { problem: 'is not UTF-8' };
  }
}

export interface SmallFileLimits {
  readonly maxBytes: number;
  /** For files an operator mounts: volumes of Kubernetes are links. Absent: a link is refused. */
  readonly followLinks?: boolean | undefined;
}

/** A small regular file's bytes. Never blocks on a FIFO; undefined when there is no such file. */
export async function readSmallBytes(
  path: string,
  { maxBytes, followLinks = false }: SmallFileLimits,
): Promise<{ readonly bytes: Buffer } | { readonly problem: string } | undefined> {
  let handle: FileHandle | undefined;
  try {
    const about = followLinks ? await stat(path) : await lstat(path);
    if (!about.isFile()) return { problem: 'is not a regular file' };
    handle = await open(
      path,
      constants.O_RDONLY | constants.O_NONBLOCK | (followLinks ? 0 : constants.O_NOFOLLOW),
    );
    const { size } = await handle.stat();
    if (size > maxBytes) return { problem: `has ${size} bytes, at most ${maxBytes} are expected` };
    return { bytes: await handle.readFile() };
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    return { problem: `cannot be read (${codeOf(error) ?? 'error'})` };
  } finally {
    await handle?.close();
  }
}

export async function removeTemporaries(folder: string): Promise<void> {
  for (const name of await readdir(folder))
    if (name.startsWith(TEMPORARY_PREFIX)) await rm(join(folder, name), { force: true, recursive: true });
}

/** errno name of a system error. */
export function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/** No room on the device, or none left of a quota. */
export function isFull(error: unknown): boolean {
  const code = codeOf(error);
  if (code === 'ENOSPC' || code === 'EDQUOT') return true;
  return error instanceof ApiError && error.code === 'storage_full';
}

/**
 * Turns a full disk into an error for the operator that names the full place: errors of writes through an
 * open file do not name the file. Every other error stays as it was.
 */
export function storageError(error: unknown, path: string): unknown {
  if (!isFull(error) || error instanceof ApiError) return error;
  return storageFull(`no space left for ${path}`, error);
}

export function storageFull(message: string, cause?: unknown): ApiError {
  return new ApiError('storage_full', message, { cause, shouldRetry: false });
}
