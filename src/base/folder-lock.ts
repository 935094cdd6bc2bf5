// One process per folder and use. The owner is the process named in the highest-numbered `lock-<n>`: its pid,
// the time it started (a reused pid has another) and the boot it belongs to. To take over from a dead owner a
// process creates lock-<n+1>, which only one can (the name must be new); the highest is never removed, so two
// never both succeed. A killed owner counts as dead. On a full disk a symbolic link holds the same text,
// which takes no room. Not for folders shared between machines or pid namespaces.

import { link, lstat, mkdir, open, readdir, readFile, readlink, rename, rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import {
  codeOf,
  isFull,
  readSmallFile,
  syncFolder,
  temporaryPath,
  writeAtomically,
} from './durable-files.ts';
import { ConfigError } from './errors.ts';
import { flag, integer, openObject, optional, text, type Shape } from './shape.ts';
import { parseStored } from './stored-json.ts';

const MAX_OWNER_BYTES = 4096;

/** The text of a lock file; why numbered files and no flock: docs/decisions/models.md. */
interface Owner {
  readonly pid: number;
  readonly started: string;
  readonly boot: string;
  readonly released?: boolean | undefined;
}

const ownerShape: Shape<Owner> = openObject({
  pid: integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
  started: text({ max: MAX_OWNER_BYTES }),
  boot: text({ max: MAX_OWNER_BYTES }),
  released: optional(flag()),
});

/** The use a process owns a folder for. Two uses of one folder do not exclude each other. */
export interface FolderUse {
  /** Lock files are `<prefix><n>`. */
  readonly prefix: string;
  /** For messages: `the data folder`. */
  readonly what: string;
  /** The setting that names the folder. */
  readonly key: string;
}

export interface FolderLock {
  /** Marks the lock as free for the next process. Idempotent. */
  release(): Promise<void>;
}

const ATTEMPTS = 100;

/**
 * Throws ConfigError while another live process (or this one) owns the folder for this use,
 * or when it cannot be used.
 */
export async function lockFolder(folder: string, use: FolderUse): Promise<FolderLock> {
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    return await takeLock(folder, use);
  } catch (error) {
    if (codeOf(error) === undefined) throw error;
    throw new ConfigError(`${use.what} ${folder} cannot be used (${codeOf(error)})`, use.key, error);
  }
}

async function takeLock(folder: string, use: FolderUse): Promise<FolderLock> {
  const self: Owner = { pid: process.pid, started: await startTimeOf(process.pid), boot: await bootId() };
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const highest = Math.max(0, ...(await lockNumbers(folder, use)));
    if (highest > 0) {
      const owner = await readOwner(join(folder, `${use.prefix}${highest}`), use);
      if (owner === 'gone') continue;
      if (owner !== undefined && (await isAlive(owner)))
        throw new ConfigError(`${use.what} ${folder} is in use by process ${owner.pid}`, use.key);
    }
    const path = join(folder, `${use.prefix}${highest + 1}`);
    if (!(await createExclusively(folder, path, self))) continue;
    for (const number of await lockNumbers(folder, use))
      if (number <= highest) await rm(join(folder, `${use.prefix}${number}`), { force: true });
    await syncFolder(folder);
    let released: Promise<void> | undefined;
    return { release: () => (released ??= replaceOwner(folder, path, { ...self, released: true })) };
  }
  throw new ConfigError(`${use.what} ${folder} could not be locked: other processes keep taking it`, use.key);
}

async function lockNumbers(folder: string, { prefix }: FolderUse): Promise<readonly number[]> {
  return (await readdir(folder)).flatMap((name) => {
    const number = name.startsWith(prefix) ? name.slice(prefix.length) : '';
    return /^\d{1,15}$/.test(number) ? [Number(number)] : [];
  });
}

/** Appears complete or not at all; false when it exists already. */
async function createExclusively(folder: string, path: string, owner: Owner): Promise<boolean> {
  const temporary = temporaryPath(folder);
  try {
    const handle = await open(temporary, 'wx', 0o600);
    try {
      await handle.writeFile(JSON.stringify(owner));
      await handle.sync();
    } finally {
      await handle.close();
    }
    await link(temporary, path);
    return true;
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false;
    if (isFull(error)) return await linkExclusively(path, owner);
    throw error;
  } finally {
    await rm(temporary, { force: true });
  }
}

/** Short link targets are kept in the inode itself (ext4: up to 59 bytes, XFS and tmpfs more). */
async function linkExclusively(path: string, owner: Owner): Promise<boolean> {
  try {
    await symlink(linkTarget(owner), path);
    return true;
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false;
    throw error;
  }
}

function linkTarget({ pid, started, boot, released }: Owner): string {
  return released === true ? 'released' : `${pid} ${started} ${boot}`;
}

async function replaceOwner(folder: string, path: string, owner: Owner): Promise<void> {
  try {
    await writeAtomically(path, JSON.stringify(owner));
  } catch (error) {
    if (!isFull(error)) throw error;
    const temporary = temporaryPath(folder);
    await symlink(linkTarget(owner), temporary);
    await rename(temporary, path);
  }
}

/** undefined: no process that may be alive wrote this. 'gone': the file was removed meanwhile, read again. */
async function readOwner(path: string, { key }: FolderUse): Promise<Owner | undefined | 'gone'> {
  const linked = await readLinkedOwner(path);
  if (linked !== 'file') return linked;
  const file = await readSmallFile(path, MAX_OWNER_BYTES);
  if (file === undefined) return 'gone';
  if ('problem' in file)
    throw new ConfigError(`${path} ${file.problem}; remove it if no server uses this folder`, key);
  try {
    const found = parseStored(ownerShape, file.text);
    return found.released === true ? undefined : found;
  } catch {
    return undefined;
  }
}

async function readLinkedOwner(path: string): Promise<Owner | undefined | 'gone' | 'file'> {
  try {
    if (!(await lstat(path)).isSymbolicLink()) return 'file';
    const [pid, started = '', boot = ''] = (await readlink(path)).split(' ');
    return /^\d{1,10}$/.test(pid ?? '') ? { pid: Number(pid), started, boot } : undefined;
  } catch (error) {
    return codeOf(error) === 'ENOENT' ? 'gone' : 'file';
  }
}

async function isAlive(owner: Owner): Promise<boolean> {
  if (owner.boot !== (await bootId())) return false;
  try {
    process.kill(owner.pid, 0);
  } catch (error) {
    if (codeOf(error) === 'ESRCH') return false;
  }
  const started = await startTimeOf(owner.pid);
  return started === '' || owner.started === '' || started === owner.started;
}

/**
 * Field 22 of /proc/<pid>/stat, in clock ticks since boot; '' where there is no /proc
 * (then only the pid counts).
 */
async function startTimeOf(pid: number): Promise<string> {
  const stat = await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => '');
  // The command name, field 2, is in parentheses and may hold anything.
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
}

async function bootId(): Promise<string> {
  return (await readFile('/proc/sys/kernel/random/boot_id', 'latin1').catch(() => '')).trim();
}
