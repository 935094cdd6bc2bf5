// The key of a folder of sealed objects, and whether it is the right one. Three ways to a key: a key file that
// only its owner may read, memory alone (what an earlier process left is unreadable, and removed), or derived
// by the hardware. A folder says in clear which way it was sealed, and holds a sealed check; a start with
// another way or another key is refused, never a quiet loss.

import { constants } from 'node:fs';
import { mkdir, open, readdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { randomBytes } from 'node:crypto';
import { codeOf, readSmallFile, writeAtomically } from '../../base/durable-files.ts';
import { ConfigError } from '../../base/errors.ts';
import { choice, flag, integer, object } from '../../base/shape.ts';
import { parseStored } from '../../base/stored-json.ts';
import { MASTER_KEY_BYTES, MasterKey, SealedError } from './format.ts';
import { readState, writeState } from './state.ts';

export const KEY_KINDS = ['file', 'memory', 'hardware'] as const;
export type KeyKind = (typeof KEY_KINDS)[number];

export type KeySource =
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'memory' }
  /** Gives 32 bytes that this chip derives for this measurement alone; throws ConfigError where it cannot. */
  | { readonly kind: 'hardware'; readonly derive: () => Promise<Uint8Array> };

const SEALED_BY = 'sealed-by.json';
const CHECK = 'key-check';
const MAX_KEY_FILE_BYTES = 4096;
const KEY_TEXT = /^[0-9a-f]{64}\n?$/;

const sealedByShape = object({ version: integer({ min: 1, max: 1 }), key: choice(KEY_KINDS) });
const checkShape = object({ check: flag() });

export interface SealedFolder {
  readonly key: MasterKey;
  /** Entries of an earlier process that were removed, because their key was in its memory alone. */
  readonly removed: number;
}

/** The caller owns the folder (base/folder-lock). `entries`: the names in it that hold sealed objects. */
export async function openSealedFolder(
  folder: string,
  source: KeySource,
  entries: readonly string[],
): Promise<SealedFolder> {
  const kind = await sealedBy(folder);
  if (kind !== undefined && kind !== source.kind)
    throw new ConfigError(
      `the files in ${folder} are sealed with files.key "${kind}", not "${source.kind}": name another folder, or that way`,
      'files.key',
    );
  const fresh = kind === undefined;
  if (fresh && (await holds(folder, [CHECK, ...entries])) > 0)
    throw new ConfigError(
      `${folder} holds files but not ${SEALED_BY}, which says how they are sealed`,
      'files.folder',
    );
  const removed = source.kind === 'memory' ? await removeAll(folder, [CHECK, ...entries]) : 0;
  const key = await keyOf(folder, source, fresh);
  if (fresh)
    await writeAtomically(join(folder, SEALED_BY), `${JSON.stringify({ version: 1, key: source.kind })}\n`);
  await checkKey(folder, key, source.kind);
  return { key, removed };
}

async function sealedBy(folder: string): Promise<KeyKind | undefined> {
  const path = join(folder, SEALED_BY);
  const found = await readSmallFile(path, MAX_KEY_FILE_BYTES);
  if (found === undefined) return undefined;
  if ('problem' in found) throw new ConfigError(`${path} ${found.problem}`, 'files.folder');
  try {
    return parseStored(sealedByShape, found.text).key;
  } catch (error) {
    throw new ConfigError(`${path} ${error instanceof Error ? error.message : ''}`, 'files.folder', error);
  }
}

async function holds(folder: string, names: readonly string[]): Promise<number> {
  let count = 0;
  for (const name of names)
    count += await readdir(join(folder, name)).then(
      (entries) => entries.length,
      (error: unknown) => Number(codeOf(error) === 'ENOTDIR'),
    );
  return count;
}

async function removeAll(folder: string, names: readonly string[]): Promise<number> {
  const count = await holds(
    folder,
    names.filter((name) => name !== CHECK),
  );
  for (const name of names) await rm(join(folder, name), { recursive: true, force: true });
  return count;
}

async function keyOf(folder: string, source: KeySource, fresh: boolean): Promise<MasterKey> {
  if (source.kind === 'memory') return MasterKey.random();
  if (source.kind === 'hardware') return new MasterKey(await source.derive());
  const found = await readKeyFile(source.path);
  if (found !== undefined) return found;
  const written = (await holds(folder, [CHECK])) > 0;
  if (!fresh && written)
    throw new ConfigError(
      `there is no key file ${source.path}: without it the files in ${folder} cannot be opened`,
      'files.key_file',
    );
  return makeKeyFile(source.path);
}

async function readKeyFile(path: string): Promise<MasterKey | undefined> {
  const refused = (why: string): ConfigError =>
    new ConfigError(`the key file ${path} ${why}`, 'files.key_file');
  let handle;
  try {
    handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw refused(`cannot be read (${codeOf(error) ?? 'error'})`);
  }
  try {
    const about = await handle.stat();
    if (!about.isFile()) throw refused('is not a regular file');
    if ((about.mode & 0o077) !== 0) throw refused('may be read by others than its owner: chmod 600');
    if (about.size > MAX_KEY_FILE_BYTES) throw refused('is no key of 64 hex digits');
    const text = await handle.readFile('latin1');
    if (!KEY_TEXT.test(text)) throw refused('is no key of 64 hex digits');
    return new MasterKey(Buffer.from(text.trim(), 'hex'));
  } finally {
    await handle.close();
  }
}

/** Durable before anything is sealed with it. */
async function makeKeyFile(path: string): Promise<MasterKey> {
  const bytes = randomBytes(MASTER_KEY_BYTES);
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await writeAtomically(path, `${bytes.toString('hex')}\n`);
  } catch (error) {
    if (codeOf(error) === undefined) throw error;
    throw new ConfigError(`the key file ${path} cannot be made (${codeOf(error)})`, 'files.key_file', error);
  }
  return new MasterKey(bytes);
}

async function checkKey(folder: string, key: MasterKey, kind: KeyKind): Promise<void> {
  const path = join(folder, CHECK);
  try {
    if ((await readState(path, key, { id: CHECK, shape: checkShape })) === undefined)
      await writeState(path, key, CHECK, { check: true });
  } catch (error) {
    if (!(error instanceof SealedError)) throw error;
    throw new ConfigError(
      kind === 'hardware'
        ? `the files in ${folder} were sealed on another chip or by another measurement; they open only there`
        : `the key is not the one the files in ${folder} are sealed with`,
      kind === 'hardware' ? 'files.key' : 'files.key_file',
      error,
    );
  }
}
