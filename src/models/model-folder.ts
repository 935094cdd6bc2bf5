// Opens the files of a Hugging Face folder that a conversion may read, by a closed list of names, and hashes
// them. Other files stay closed: pickles, Python, and whatever lies in a folder that is no pooling. A link is
// followed only inside of the folder; what is no regular file is refused. The descriptors go to the process
// that converts, which opens none itself.

import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { open, readdir, readlink, realpath } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { join, sep } from 'node:path';
import { codeOf } from '../base/durable-files.ts';
import { ApiError } from '../base/errors.ts';
import type { FolderKind } from '../base/job-proof.ts';

export interface FolderSource {
  /** Path below the folder, with `/`. */
  readonly name: string;
  readonly size: number;
  readonly handle: FileHandle;
}

export interface ModelFolder {
  /** By name. */
  readonly sources: readonly FolderSource[];
  /** Files by the name of which a refusal can say what is wrong. */
  readonly unopened: readonly string[];
  close(): Promise<void>;
}

const DESCRIPTIONS = new Set([
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'tokenizer.model',
  'added_tokens.json',
  'merges.txt',
  'chat_template.jinja',
  'chat_template.json',
  'modules.json',
  'model.safetensors.index.json',
]);
const WEIGHTS = /^model[\w.-]{0,200}\.safetensors$/;
/** Of a repository, which may have the same weights in other types beside. */
const WHOLE_WEIGHTS = /^model(?:-\d{5}-of-\d{5})?\.safetensors$/;
const POOLING = /^\d_Pooling$/;
const PICKLE = /\.(?:bin|pt|pth|ckpt|pkl|pickle|joblib|msgpack|h5)$/i;
const MAX_ENTRIES = 10_000;
/** An attestation names 64 blobs of a model at most. */
const MAX_SOURCES = 60;

/** Of a model that sees: what is done to an image. */
const IMAGES = new Set(['preprocessor_config.json', 'processor_config.json']);

/** The files of a PEFT adapter. */
const ADAPTER = new Set(['adapter_config.json', 'adapter_model.safetensors']);

/**
 * The caller has checked that the folder is one that models may come from. Of an adapter's folder only the
 * adapter's files are opened.
 */
export async function openModelFolder(folder: string, kind: FolderKind = 'model'): Promise<ModelFolder> {
  const root = await realpath(folder);
  const names: string[] = [];
  const unopened: string[] = [];
  for (const entry of await list(root)) {
    if (isWanted(entry, kind)) names.push(entry);
    else if (PICKLE.test(entry) && unopened.length < 16) unopened.push(entry);
    else if (
      kind === 'model' &&
      POOLING.test(entry) &&
      (await listPooling(join(root, entry))).includes('config.json')
    )
      names.push(`${entry}/config.json`);
  }
  return openAll(names, unopened, (name) => openSource(root, name));
}

function isWanted(entry: string, kind: FolderKind): boolean {
  if (kind === 'adapter') return ADAPTER.has(entry);
  return DESCRIPTIONS.has(entry) || WEIGHTS.test(entry) || (kind === 'vision' && IMAGES.has(entry));
}

/** Whether a file of this name, below a folder of this kind, is one that is read. */
export function isRead(name: string, kind: FolderKind): boolean {
  const [first = '', second, ...more] = name.split('/');
  if (second === undefined) return isWanted(first, kind);
  return kind === 'model' && POOLING.test(first) && second === 'config.json' && more.length === 0;
}

/** Files of one model that lie elsewhere, under other names. Their folder is ours. */
export function openModelFiles(
  files: readonly { readonly name: string; readonly path: string }[],
): Promise<ModelFolder> {
  const paths = new Map(files.map(({ name, path }) => [name, path]));
  return openAll([...paths.keys()], [], async (name) => {
    const handle = await open(paths.get(name)!, constants.O_RDONLY | constants.O_NOFOLLOW);
    return { name, size: (await handle.stat()).size, handle };
  });
}

/** Whether a conversion reads a file of this name of a repository. */
export function isSourceName(name: string): boolean {
  const [folder = '', file, ...more] = name.split('/');
  if (file === undefined) return DESCRIPTIONS.has(name) || WHOLE_WEIGHTS.test(name);
  return POOLING.test(folder) && file === 'config.json' && more.length === 0;
}

async function openAll(
  names: readonly string[],
  unopened: readonly string[],
  openOne: (name: string) => Promise<FolderSource>,
): Promise<ModelFolder> {
  if (names.length > MAX_SOURCES)
    throw notAllowed(`the folder has ${names.length} files of a model, at most ${MAX_SOURCES} are read`);
  const sources: FolderSource[] = [];
  const close = async (): Promise<void> => {
    await Promise.all(sources.map(({ handle }) => handle.close()));
  };
  try {
    for (const name of names.toSorted()) sources.push(await openOne(name));
  } catch (error) {
    await close();
    throw error;
  }
  return { sources, unopened, close };
}

/** A file of that name is no pooling. */
async function listPooling(folder: string): Promise<readonly string[]> {
  return list(folder).catch((error: unknown) => {
    if (codeOf(error) === 'ENOTDIR') return [];
    throw error;
  });
}

async function list(folder: string): Promise<readonly string[]> {
  const entries = await readdir(folder);
  if (entries.length > MAX_ENTRIES) throw notAllowed(`the folder has more than ${MAX_ENTRIES} entries`);
  return entries;
}

/**
 * Of a name that may be a link: the open file is asked for its path, so the link cannot change in between.
 */
async function openSource(root: string, name: string): Promise<FolderSource> {
  const path = await realpath(join(root, name)).catch((error: unknown) => {
    throw notAllowed(`${name} is a link to a file that is not there`, error);
  });
  if (!path.startsWith(root + sep)) throw notAllowed(`${name} is a link out of the folder`);
  const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
  try {
    const stat = await handle.stat();
    if (!stat.isFile()) throw notAllowed(`${name} is not a regular file`);
    const opened = await readlink(`/proc/self/fd/${handle.fd}`).catch((error: unknown) => {
      // Where there is no such folder, as on macOS, the path above has to do.
      if (codeOf(error) === 'ENOENT') return path;
      throw error;
    });
    if (!opened.startsWith(root + sep)) throw notAllowed(`${name} is a link out of the folder`);
    return { name, size: stat.size, handle };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

function notAllowed(message: string, cause?: unknown): ApiError {
  return new ApiError('path_not_allowed', message, { cause });
}

export interface SourceDigest {
  readonly name: string;
  readonly size: number;
  readonly sha256: string;
}

const PIECE_BYTES = 4 * 1024 * 1024;

/** Of each source, in their order. Refuses one that ends before its size. */
export async function digestSources(
  sources: readonly FolderSource[],
  { signal }: { readonly signal?: AbortSignal | undefined } = {},
): Promise<readonly SourceDigest[]> {
  const buffer = Buffer.allocUnsafe(PIECE_BYTES);
  const digests: SourceDigest[] = [];
  for (const { name, size, handle } of sources) {
    const hash = createHash('sha256');
    for (let position = 0; position < size;) {
      signal?.throwIfAborted();
      const { bytesRead } = await handle.read(buffer, 0, Math.min(PIECE_BYTES, size - position), position);
      if (bytesRead === 0)
        throw new ApiError('model_file_changed', `${name} became shorter while it was read`);
      hash.update(buffer.subarray(0, bytesRead));
      position += bytesRead;
    }
    digests.push({ name, size, sha256: hash.digest('hex') });
  }
  return digests;
}
