// From the name a caller gave an input to a file or folder the jail can show: an own stored file, an output
// of an own job, a configured model, a path below a configured root, or a repository of the hub. Refuses
// links, other owners' things and everything that is no regular file. Digests are over the bytes the job
// reads: files only this process can change are shown in place and compared afterwards, all others are copied
// first.

import { createHash } from 'node:crypto';
import { open, readdir, realpath, stat } from 'node:fs/promises';
import { isAbsolute, join, relative, resolve, sep } from 'node:path';
import { ApiError } from '../../base/errors.ts';
import { storageError } from '../../base/durable-files.ts';
import type { FileStore } from '../../files/file-store.ts';
import type { InputRef } from '../kind.ts';
import type { HubInputs } from '../pulls/inputs.ts';
import { hubNameOf, type HubName } from '../pulls/name.ts';
import { fromHub } from './hub-input.ts';
import {
  type JobInputFiles,
  notAllowed,
  notFound,
  type Recorded,
  show,
  type ShowOptions,
  type Shown,
  unchanging,
} from './shown.ts';

export interface InputSources {
  /** Null: no files are stored. */
  readonly files: Pick<FileStore, 'get' | 'read'> | null;
  /** Ids of models to absolute paths of files or folders. */
  readonly models: ReadonlyMap<string, string>;
  readonly roots: readonly string[];
  /** The path of an output of an own job; undefined when there is none. */
  readonly outputOf: (owner: string, job: string, name: string) => string | undefined;
  /** Null: no hub is asked (workshop.pull). */
  readonly hub: Pick<HubInputs, 'fetch'> | null;
}

export interface InputOptions extends ShowOptions {
  readonly owner: string;
  readonly sources: InputSources;
  /** From 0 to 1, of what is fetched. */
  readonly onProgress?: ((progress: number) => void) | undefined;
}

const MAX_FILES = 2000;
const MAX_DEPTH = 4;
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;
const JOB_OUTPUT = /^([a-z]{1,12}-[0-9a-f]{32})\/(.{1,512})$/;
const FILE_ID = /^file-[0-9a-f]{32}$/;

/** Of this machine. */
export async function findInput(
  ref: InputRef,
  options: Pick<InputOptions, 'owner' | 'sources'>,
): Promise<LocatedInput> {
  const found = await locate(ref, options);
  if (found.kind === 'hub') throw notAllowed(ref.field);
  return found;
}

/** Checks at once what the request can be refused for; `resolveInput` does it again when the job starts. */
export async function assertInput(
  ref: InputRef,
  options: Pick<InputOptions, 'owner' | 'sources'>,
): Promise<void> {
  await locate(ref, options);
}

/** 400 path_not_allowed, file_not_found, invalid_value; 404 no_such_file; 500 model_file_changed; 507. */
export async function resolveInput(ref: InputRef, options: InputOptions): Promise<JobInputFiles> {
  const { staging, signal } = options;
  const found = await locate(ref, options);
  signal.throwIfAborted();
  if (found.kind === 'hub') {
    const { sources, onProgress = () => undefined } = options;
    if (sources.hub === null) throw hubIsOff(ref.field);
    return fromHub(found.name, ref, { ...options, hub: sources.hub, onProgress });
  }
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
  { given, field, accepts, hub }: InputRef,
  { owner, sources }: Pick<InputOptions, 'owner' | 'sources'>,
): Promise<LocatedInput | { readonly kind: 'hub'; readonly name: HubName }> {
  if (given.includes('\0')) throw notAllowed(field);
  if (FILE_ID.test(given)) {
    if (sources.files === null)
      throw new ApiError('files_disabled', 'no files are stored here', { param: field });
    sources.files.get(owner, given);
    if (accepts === 'folder') throw wrongKind(field, 'a folder');
    return { kind: 'stored', id: given };
  }
  const local = await pathOf(given, field, owner, sources);
  if (local === null) {
    const name = hub === undefined ? undefined : hubNameOf(given, hub);
    if (name === undefined) throw notAllowed(field);
    if (sources.hub === null) throw hubIsOff(field);
    return { kind: 'hub', name };
  }
  const path = local ?? '';
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

/** Undefined: it names something that is not there. Null: it is no name of this machine's. */
async function pathOf(
  given: string,
  field: string,
  owner: string,
  { models, roots, outputOf }: InputSources,
): Promise<string | undefined | null> {
  const [, job, name] = JOB_OUTPUT.exec(given) ?? [];
  if (job !== undefined && name !== undefined) {
    const output = outputOf(owner, job, name);
    if (output === undefined)
      throw new ApiError('no_such_file', 'there is no such output of a job of this API key', {
        param: field,
      });
    return realpath(output).catch(() => undefined);
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
  return null;
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
      // A record has no other names, those of folders neither.
      if (!path.split('/').every((part) => NAME.test(part)))
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

async function unseal(
  { owner, sources }: InputOptions,
  id: string,
  path: string,
  name: string,
): Promise<Recorded> {
  if (sources.files === null) throw new ApiError('files_disabled', 'no files are stored here');
  const file = await open(path, 'wx', 0o444).catch((error: unknown) => {
    throw storageError(error, 'an input');
  });
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

function hubIsOff(param: string): ApiError {
  return new ApiError(
    'pull_disabled',
    `${param} is nothing of this workshop, and no hub is asked for it: the operator may set workshop.pull`,
    { param },
  );
}

function wrongKind(field: string, expected: string): ApiError {
  return new ApiError('invalid_value', `${field} is not ${expected}`, { param: field });
}
