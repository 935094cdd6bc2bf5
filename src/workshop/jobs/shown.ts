// A file as a job is shown it: in place where only this process can change it, else a copy; with its SHA-256,
// and a check that it is still the one that was hashed.

import { createHash } from 'node:crypto';
import { constants, type Stats } from 'node:fs';
import { copyFile, type FileHandle, lstat, mkdir, open, readlink } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { ApiError } from '../../base/errors.ts';
import { codeOf, storageError } from '../../base/durable-files.ts';
import type { InputRef } from '../kind.ts';
import type { Mount } from '../jail/jail.ts';

export interface Recorded {
  readonly name: string;
  readonly sha256: string;
  readonly size: number;
}

export interface JobInputFiles {
  readonly name: string;
  readonly mounts: readonly Mount[];
  /** Where it is in the jail. */
  readonly target: string;
  /** Where it is outside of any jail. */
  readonly source: string;
  readonly recorded: readonly Recorded[];
  /** Of a hub: the repository, its commit, and the file of a data set: `dataset:owner/name@COMMIT/FILE`. */
  readonly origin?: string | undefined;
  /** Throws 500 model_file_changed when a file is not the one that was hashed. */
  check(): Promise<void>;
  /** Once the job is over. */
  release?(): void;
}

export interface ShowOptions {
  /** The folder copies go to; the job's own. */
  readonly staging: string;
  /** The user of the jail is another one than this process's. */
  readonly otherUser: boolean;
  readonly signal: AbortSignal;
}

export interface Shown {
  readonly mount: Mount;
  readonly recorded: Recorded;
  readonly copied: boolean;
  readonly check: () => Promise<void>;
}

/** `below` is a path below `base`, or empty: `base` itself. 400 path_not_allowed. */
export async function show(base: string, below: string, ref: InputRef, options: ShowOptions): Promise<Shown> {
  const source = below === '' ? base : join(base, below);
  const name = below === '' ? ref.name : `${ref.name}/${below}`;
  const target = `/job/in/${name}`;
  const file = await openAt(source, ref.field);
  try {
    if (options.otherUser && ((await file.stat()).mode & 0o004) === 0) {
      const path = join(options.staging, name);
      await copied(`/proc/self/fd/${file.fd}`, path);
      const recorded = { name, ...(await digestOfFile(path, options.signal)).measured };
      return { mount: { source: path, target }, recorded, copied: true, check: unchanging };
    }
    const { measured, identity } = await digestOf(file, options.signal);
    const check = async (): Promise<void> => {
      const now = await lstat(source).catch(() => undefined);
      if (now === undefined || identityOf(now) !== identity)
        throw new ApiError('model_file_changed', `${basename(name)} changed while the job ran`, {
          shouldRetry: true,
        });
    };
    const [device, inode] = identity.split(' ');
    return {
      mount: { source, target, identity: `${device}:${inode}` },
      recorded: { name, ...measured },
      copied: false,
      check,
    };
  } finally {
    await file.close();
  }
}

const READ = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/**
 * Opens the regular file that is really at this path, which has no link in it: a part of the path that has
 * become a link since it was looked up leads elsewhere. 400 path_not_allowed, file_not_found.
 */
export async function openAt(path: string, field: string): Promise<FileHandle> {
  const file = await open(path, READ).catch((error: unknown) => {
    throw codeOf(error) === 'ELOOP' ? notAllowed(field) : notFound(field);
  });
  try {
    const real = await readlink(`/proc/self/fd/${file.fd}`);
    if (real !== path || !(await file.stat()).isFile()) throw notAllowed(field);
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function copied(source: string, path: string): Promise<void> {
  try {
    await mkdir(resolve(path, '..'), { recursive: true });
    await copyFile(source, path, constants.COPYFILE_FICLONE | constants.COPYFILE_EXCL);
    const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      await file.chmod(0o444);
    } finally {
      await file.close();
    }
  } catch (error) {
    throw storageError(error, 'an input');
  }
}

/** Of a regular file that no link leads to. */
export async function digestOfFile(
  path: string,
  signal: AbortSignal,
): Promise<{
  readonly measured: { readonly sha256: string; readonly size: number };
  readonly identity: string;
}> {
  const file = await open(path, READ);
  try {
    return await digestOf(file, signal);
  } finally {
    await file.close();
  }
}

async function digestOf(file: FileHandle, signal: AbortSignal): ReturnType<typeof digestOfFile> {
  const before = await file.stat();
  if (!before.isFile()) throw new ApiError('path_not_allowed', 'what is to be hashed is no file');
  const hash = createHash('sha256');
  let size = 0;
  const buffer = Buffer.allocUnsafe(1024 * 1024);
  for (;;) {
    // No stream with the signal: one that is made after an abort throws where no handler is.
    signal.throwIfAborted();
    const { bytesRead } = await file.read(buffer, 0, buffer.length, size);
    if (bytesRead === 0) break;
    hash.update(buffer.subarray(0, bytesRead));
    size += bytesRead;
  }
  const identity = identityOf(await file.stat());
  if (identity !== identityOf(before))
    throw new ApiError('model_file_changed', 'a file changed while it was read', { shouldRetry: true });
  return { measured: { sha256: hash.digest('hex'), size }, identity };
}

function identityOf({ dev, ino, size, mtimeMs, ctimeMs }: Stats): string {
  return `${dev} ${ino} ${size} ${mtimeMs} ${ctimeMs}`;
}

export function unchanging(): Promise<void> {
  return Promise.resolve();
}

export function notAllowed(field: string): ApiError {
  return new ApiError(
    'path_not_allowed',
    `${field} is no file id, no output of a job, no configured model, and no path below a root of this workshop`,
    { param: field },
  );
}

export function notFound(field: string): ApiError {
  return new ApiError('file_not_found', `${field} names nothing that is there`, { param: field });
}
