// One process per data folder. The owner is the process named in the highest-numbered `lock-<n>` file: its pid, the time it
// started (a reused pid has another) and the boot it belongs to. To take over from a dead owner one creates lock-<n+1>,
// which only one process can (link fails when it exists); nobody removes the highest, so two can never both succeed.
// Survives kill -9: a dead owner is seen as dead. Not for folders shared between machines or pid namespaces.

import { link, mkdir, open, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ConfigError } from '../../base/errors.ts';
import { codeOf, readSmallFile, syncFolder, temporaryPath, writeAtomically } from './files.ts';

interface Owner {
  readonly pid: number;
  readonly started: string;
  readonly boot: string;
  readonly released?: boolean | undefined;
}

export interface FolderLock {
  /** Marks the lock as free for the next process. Idempotent. */
  release(): Promise<void>;
}

const ATTEMPTS = 100;

/** Throws ConfigError while another live process (or this one) owns the folder. */
export async function lockFolder(folder: string): Promise<FolderLock> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const self: Owner = { pid: process.pid, started: await startTimeOf(process.pid), boot: await bootId() };
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const highest = Math.max(0, ...(await lockNumbers(folder)));
    if (highest > 0) {
      const owner = await readOwner(join(folder, `lock-${highest}`));
      if (owner === 'gone') continue;
      if (owner !== undefined && (await isAlive(owner))) {
        throw new ConfigError(
          `the data folder ${folder} is in use by process ${owner.pid}`,
          'store.data_dir',
        );
      }
    }
    const path = join(folder, `lock-${highest + 1}`);
    if (!(await createExclusively(folder, path, self))) continue;
    for (const number of await lockNumbers(folder))
      if (number <= highest) await rm(join(folder, `lock-${number}`), { force: true });
    await syncFolder(folder);
    let released: Promise<void> | undefined;
    return {
      release: () => (released ??= writeAtomically(path, JSON.stringify({ ...self, released: true }))),
    };
  }
  throw new ConfigError(
    `the data folder ${folder} could not be locked: others keep taking it`,
    'store.data_dir',
  );
}

async function lockNumbers(folder: string): Promise<readonly number[]> {
  return (await readdir(folder)).flatMap((name) => {
    const number = /^lock-(\d{1,15})$/.exec(name)?.[1];
    return number === undefined ? [] : [Number(number)];
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
    throw error;
  } finally {
    await rm(temporary, { force: true });
  }
}

/** undefined: nobody who could be alive wrote this. 'gone': the file was removed meanwhile, look again. */
async function readOwner(path: string): Promise<Owner | undefined | 'gone'> {
  const file = await readSmallFile(path, 4096);
  if (file === undefined) return 'gone';
  if ('problem' in file)
    throw new ConfigError(
      `${path} ${file.problem}; remove it if no server uses this folder`,
      'store.data_dir',
    );
  try {
    const value: unknown = JSON.parse(file.text);
    if (typeof value !== 'object' || value === null) return undefined;
    const { pid, started, boot, released } = value as Record<string, unknown>;
    if (
      released === true ||
      typeof pid !== 'number' ||
      typeof started !== 'string' ||
      typeof boot !== 'string'
    )
      return undefined;
    return { pid, started, boot };
  } catch {
    return undefined;
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

/** Field 22 of /proc/<pid>/stat, in clock ticks since boot; '' where there is no /proc (then only the pid counts). */
async function startTimeOf(pid: number): Promise<string> {
  const stat = await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => '');
  // The command name, field 2, is in parentheses and may hold anything.
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
}

async function bootId(): Promise<string> {
  return (await readFile('/proc/sys/kernel/random/boot_id', 'latin1').catch(() => '')).trim();
}
