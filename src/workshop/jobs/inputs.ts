// From the name a caller gave an input to a file or folder the jail can show: an own stored file, an output
// of an own job, a configured model, or a path below a configured root. Refuses links, other owners' things
// and everything that is no regular file. Digests are over the bytes the job reads: files only this process
// can change are shown in place and compared afterwards, all others are copied first.

import { createHash } from 'node:crypto';
import { constants, type Stats } from 'node:fs';
import { copyFile, lstat, mkdir, open, readdir, realpath, stat } from 'node:fs/promises';
import { basename, isAbsolute, join, relative, resolve, sep } from 'node:path';
import { ApiError } from '../../base/errors.ts';
import { storageError } from '../../base/durable-files.ts';
import type { FileStore } from '../../files/file-store.ts';
import type { InputRef } from '../kind.ts';
import type { Mount } from '../jail/jail.ts';

export interface InputSources {
  /** Null: no files are stored. */
  readonly files: Pick<FileStore, 'get' | 'read'> | null;
  /** Ids of models to absolute paths of files or folders. */
  readonly models: ReadonlyMap<string, string>;
  readonly roots: readonly string[];
  /** The path of an output of an own job; undefined when there is none. */
  readonly outputOf: (owner: string, job: string, name: string) => string | undefined;
}

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
  /** Throws 500 model_file_changed when a file is not the one that was hashed. */
  check(): Promise<void>;
}

export interface InputOptions {
  readonly owner: string;
  readonly sources: InputSources;
  /** The folder copies go to; the job's own. */
  readonly staging: string;
  /** The user of the jail is another one than this process's. */
  readonly otherUser: boolean;
  readonly signal: AbortSignal;
}

const MAX_FILES = 2000;
const MAX_DEPTH = 4;
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;
const JOB_OUTPUT = /^([a-z]{1,12}-[0-9a-f]{32})\/(.{1,512})$/;
const FILE_ID = /^file-[0-9a-f]{32}$/;

/** Checks at once what the request can be refused for; `resolveInput` does it again when the job starts. */
export function findInput(
  ref: InputRef,
  options: Pick<InputOptions, 'owner' | 'sources'>,
): Promise<LocatedInput> {
  return locate(ref, options);
}

/** 400 path_not_allowed, file_not_found, invalid_value; 404 no_such_file; 500 model_file_changed; 507. */
export async function resolveInput(ref: InputRef, options: InputOptions): Promise<JobInputFiles> {
  const { staging, signal } = options;
  const found = await locate(ref, options);
  signal.throwIfAborted();
  const target = `/job/in/${ref.name}`;
  if (found.kind === 'stored') {
    const path = join(staging, ref.name);
    const recorded = await unseal(options, found.id, path, ref.name);
    return {
      name: ref.name,
      mounts: [{ source: path, target }],
      target,
      source: path,
      recorded: [recorded],
      check: unchanging,
    };
  }
  const files = found.kind === 'file' ? [''] : await filesBelow(found.path, ref);
  const shown: Shown[] = [];
  for (const file of files) {
    signal.throwIfAborted();
    shown.push(await show(found.path, file, ref, options));
  }
  return {
    name: ref.name,
    target,
    source: outside(found, shown, join(staging, ref.name)),
    mounts: shown.map(({ mount }) => mount),
    recorded: shown.map(({ recorded }) => recorded),
    async check() {
      for (const { check } of shown) await check();
    },
  };
}

/** Copies of a folder's files lie together only when all of them are copies. */
function outside(
  found: { readonly kind: string; readonly path: string },
  shown: readonly Shown[],
  copy: string,
): string {
  if (found.kind === 'file') return shown[0]?.mount.source ?? found.path;
  return shown.every(({ copied: isCopy }) => isCopy) ? copy : found.path;
}

/** The path has no link in it, but for those an operator made above a root. */
export type LocatedInput =
  | { readonly kind: 'stored'; readonly id: string }
  | { readonly kind: 'file' | 'folder'; readonly path: string };

async function locate(
  { given, field, accepts }: InputRef,
  { owner, sources }: Pick<InputOptions, 'owner' | 'sources'>,
): Promise<LocatedInput> {
  if (given.includes('\0')) throw notAllowed(field);
  if (FILE_ID.test(given)) {
    if (sources.files === null)
      throw new ApiError('files_disabled', 'no files are stored here', { param: field });
    sources.files.get(owner, given);
    if (accepts === 'folder') throw wrongKind(field, 'a folder');
    return { kind: 'stored', id: given };
  }
  const path = (await pathOf(given, field, owner, sources)) ?? '';
  const about = await stat(path).catch(() => undefined);
  if (about === undefined) throw notFound(field);
  const kind = about.isDirectory() ? 'folder' : 'file';
  if (kind === 'file' && !about.isFile()) throw notAllowed(field);
  if (accepts !== 'either' && accepts !== kind) throw wrongKind(field, `a ${accepts}`);
  return { kind, path };
}

/** The id of the job that a name as `job-…/NAME` speaks of. */
export function jobNamed(given: string): string | undefined {
  return JOB_OUTPUT.exec(given)?.[1];
}

async function pathOf(
  given: string,
  field: string,
  owner: string,
  { models, roots, outputOf }: InputSources,
): Promise<string | undefined> {
  const [, job, name] = JOB_OUTPUT.exec(given) ?? [];
  if (job !== undefined && name !== undefined) {
    const output = outputOf(owner, job, name);
    if (output === undefined)
      throw new ApiError('no_such_file', 'there is no such output of a job of this API key', {
        param: field,
      });
    return output;
  }
  const model = models.get(given);
  if (model !== undefined) return realpath(model).catch(() => undefined);
  for (const root of roots) {
    const real = await realpath(root).catch(() => undefined);
    if (real === undefined) continue;
    // Relative to the root, or absolute as the operator wrote it or as it really is.
    const below = isAbsolute(given) ? belowOf(given, [root, real]) : given;
    if (below === undefined || below === '' || below.split(/[/\\]/).includes('..')) continue;
    const path = resolve(real, below);
    // A link anywhere below the root would lead to another path.
    if (path.startsWith(real + sep) && (await realpath(path).catch(() => undefined)) === path) return path;
  }
  throw notAllowed(field);
}

function belowOf(path: string, roots: readonly string[]): string | undefined {
  const root = roots.find((each) => path.startsWith(each + sep));
  return root === undefined ? undefined : relative(root, path);
}

async function filesBelow(folder: string, { field, only }: InputRef): Promise<readonly string[]> {
  const wanted = only === undefined ? undefined : new RegExp(only);
  const files: string[] = [];
  const walk = async (below: string, depth: number): Promise<void> => {
    for (const entry of await readdir(join(folder, below), { withFileTypes: true })) {
      const path = below === '' ? entry.name : `${below}/${entry.name}`;
      // Hidden ones are not shown, and neither is what the kind does not read.
      if (entry.name.startsWith('.')) continue;
      if (entry.isDirectory()) {
        if (depth < MAX_DEPTH) await walk(path, depth + 1);
        continue;
      }
      if (wanted?.test(path) === false) continue;
      if (!entry.isFile())
        throw new ApiError('path_not_allowed', `${field} has an entry that is a link or no file`, {
          param: field,
        });
      if (!NAME.test(entry.name))
        throw new ApiError('invalid_value', `${field} has a file with a name of other characters`, {
          param: field,
        });
      files.push(path);
      if (files.length > MAX_FILES)
        throw new ApiError('invalid_value', `${field} has more than ${MAX_FILES} files`, { param: field });
    }
  };
  await walk('', 0);
  if (files.length === 0) throw notFound(field);
  return files.toSorted();
}

interface Shown {
  readonly mount: Mount;
  readonly recorded: Recorded;
  readonly copied: boolean;
  readonly check: () => Promise<void>;
}

async function show(base: string, below: string, ref: InputRef, options: InputOptions): Promise<Shown> {
  const source = below === '' ? base : join(base, below);
  const name = below === '' ? ref.name : `${ref.name}/${below}`;
  const target = `/job/in/${name}`;
  const about = await lstat(source);
  if (!about.isFile()) throw notAllowed(ref.field);
  if (options.otherUser && (about.mode & 0o004) === 0) {
    const path = join(options.staging, name);
    await copied(source, path);
    const recorded = { name, ...(await digestOfFile(path, options.signal)).measured };
    return { mount: { source: path, target }, recorded, copied: true, check: unchanging };
  }
  const { measured, identity } = await digestOfFile(source, options.signal);
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
}

async function copied(source: string, path: string): Promise<void> {
  await mkdir(resolve(path, '..'), { recursive: true });
  try {
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

async function unseal(
  { owner, sources }: InputOptions,
  id: string,
  path: string,
  name: string,
): Promise<Recorded> {
  if (sources.files === null) throw new ApiError('files_disabled', 'no files are stored here');
  const file = await open(path, 'wx', 0o444);
  const hash = createHash('sha256');
  let size = 0;
  try {
    for await (const piece of sources.files.read(owner, id)) {
      hash.update(piece);
      size += piece.length;
      await file.writeFile(piece);
    }
  } catch (error) {
    throw storageError(error, 'an input');
  } finally {
    await file.close();
  }
  return { name, sha256: hash.digest('hex'), size };
}

/** Of a regular file that no link leads to. */
export async function digestOfFile(
  path: string,
  signal: AbortSignal,
): Promise<{
  readonly measured: { readonly sha256: string; readonly size: number };
  readonly identity: string;
}> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const before = await file.stat();
    if (!before.isFile()) throw new ApiError('path_not_allowed', 'what is to be hashed is no file');
    const hash = createHash('sha256');
    let size = 0;
    const buffer = Buffer.allocUnsafe(1024 * 1024);
    for (;;) {
      // No stream with the signal: one that is made after an abort throws where nobody catches it.
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
  } finally {
    await file.close();
  }
}

function identityOf({ dev, ino, size, mtimeMs, ctimeMs }: Stats): string {
  return `${dev} ${ino} ${size} ${mtimeMs} ${ctimeMs}`;
}

function unchanging(): Promise<void> {
  return Promise.resolve();
}

function notAllowed(field: string): ApiError {
  return new ApiError(
    'path_not_allowed',
    `${field} is no file id, no output of a job, no configured model, and no path below a root of this workshop`,
    { param: field },
  );
}

function notFound(field: string): ApiError {
  return new ApiError('file_not_found', `${field} names nothing that is there`, { param: field });
}

function wrongKind(field: string, expected: string): ApiError {
  return new ApiError('invalid_value', `${field} is not ${expected}`, { param: field });
}
