// Makes the Python environment: beside its place, package by package from the lock, then a mark, then one
// rename. Whatever ends it earlier leaves a folder of another name, which does not count and which the next
// creation removes. The registry and its certificates are those pip is set up with on this machine.

import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, rename, rm, statfs } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { codeOf, storageFull, syncFolder, writeAtomically } from '../../base/durable-files.ts';
import { ConfigError } from '../../base/errors.ts';
import { lockFolder } from '../../base/folder-lock.ts';
import type { Interpreter } from './interpreter.ts';
import type { PythonLock } from './lock.ts';

/** Written last, in the environment's folder. */
export const MARK = 'assay-environment.json';
/** An hour for six gigabytes: slow networks. */
const DEFAULT_TIMEOUT_MS = 60 * 60 * 1000;
/** It has 5.9 GB, and all its wheels (2.9 GB) lie beside it until the last one is installed. */
const NEEDED_BYTES = 9 * 1024 ** 3;
/**
 * In the new environment: what a killed pip leaves is removed with it, and is of the disk that was looked at.
 */
const WHEELS = '.wheels';
/** Of what pip said, for the message of a failure. */
const KEPT_LINES = 5;
const KEPT_CHARACTERS = 300;
const LOCK_PREFIX = 'python-lock-';

export interface CreateProgress {
  readonly stage: 'venv' | 'download' | 'install' | 'done';
  /** Packages. */
  readonly done: number;
  readonly total: number;
}

export interface CreateOptions {
  readonly onProgress?: ((progress: CreateProgress) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs?: number | undefined;
  /** For tests: the room that must be free. */
  readonly neededBytes?: number | undefined;
}

export interface Creation {
  readonly folder: string;
  readonly lock: PythonLock;
  readonly interpreter: Interpreter;
}

/** ConfigError: no Python fits, another creation is under way, or pip failed. 507 storage_full. */
export async function createEnvironment(
  { folder, lock, interpreter }: Creation,
  options: CreateOptions,
): Promise<void> {
  const { command, version, reason } = interpreter;
  if (command === undefined || version === undefined)
    throw new ConfigError(reason ?? 'there is no Python', 'workshop.python');
  const parent = dirname(folder);
  await mkdir(parent, { recursive: true });
  const owned = await lockFolder(parent, {
    prefix: LOCK_PREFIX,
    what: 'the folder of the Python environment',
    key: 'workshop.python',
  });
  try {
    await removeLeft(folder);
    await assertRoom(parent, options.neededBytes ?? NEEDED_BYTES);
    const made = beside(folder, 'new');
    try {
      await fill(made, { command, lock }, options);
      const mark = { lock: lock.sha256, python: version };
      await writeAtomically(join(made, MARK), `${JSON.stringify(mark)}\n`);
      await replace(folder, made);
    } catch (error) {
      await rm(made, { recursive: true, force: true });
      throw error;
    }
    options.onProgress?.({ stage: 'done', done: lock.packages.length, total: lock.packages.length });
  } finally {
    await owned.release();
  }
}

async function fill(
  made: string,
  { command, lock }: { readonly command: string; readonly lock: PythonLock },
  { onProgress, signal, timeoutMs = DEFAULT_TIMEOUT_MS }: CreateOptions,
): Promise<void> {
  const total = lock.packages.length;
  const bounded = AbortSignal.any([
    AbortSignal.timeout(timeoutMs),
    ...(signal === undefined ? [] : [signal]),
  ]);
  onProgress?.({ stage: 'venv', done: 0, total });
  await run([command, '-I', '-m', 'venv', made], { signal: bounded });
  const wheels = join(made, WHEELS);
  await mkdir(wheels);
  let collected = 0;
  let installing = false;
  const arguments_ = ['--no-deps', '--require-hashes', '--only-binary=:all:', '--no-input', '--no-cache-dir'];
  const quiet = ['--disable-pip-version-check', '--progress-bar=off'];
  await run(
    [join(made, 'bin/python'), '-I', '-m', 'pip', 'install', ...arguments_, ...quiet, '-r', lock.path],
    {
      signal: bounded,
      temporary: wheels,
      onLine(line) {
        if (line.startsWith('Collecting ')) collected = Math.min(total, collected + 1);
        // The last line says that all are installed.
        installing ||= line.startsWith('Installing collected packages');
        if (installing) collected = total;
        onProgress?.({ stage: installing ? 'install' : 'download', done: collected, total });
      },
    },
  );
  await rm(wheels, { recursive: true, force: true });
  await removeScripts(join(made, 'bin'));
}

/**
 * Programs of packages name the folder they were installed in, which is renamed; all is run as `python
 * -m`.
 */
async function removeScripts(bin: string): Promise<void> {
  for (const name of await readdir(bin))
    if (!/^python[0-9.]*$/.test(name)) await rm(join(bin, name), { force: true });
}

async function replace(folder: string, made: string): Promise<void> {
  const old = beside(folder, 'old');
  await rename(folder, old).catch((error: unknown) => {
    if (codeOf(error) !== 'ENOENT') throw error;
  });
  await rename(made, folder);
  await syncFolder(dirname(folder));
  await rm(old, { recursive: true, force: true });
}

/** A new name each time: pip of a creation that was killed may still write under the last one. */
function beside(folder: string, what: 'new' | 'old'): string {
  return join(dirname(folder), `.${basename(folder)}-${what}-${randomBytes(6).toString('hex')}`);
}

async function removeLeft(folder: string): Promise<void> {
  const left = [`.${basename(folder)}-new`, `.${basename(folder)}-old`];
  for (const name of await readdir(dirname(folder)))
    if (left.some((prefix) => name.startsWith(prefix)))
      await rm(join(dirname(folder), name), { recursive: true, force: true });
}

async function assertRoom(parent: string, needed: number): Promise<void> {
  const { bavail, bsize } = await statfs(parent);
  if (bavail * bsize < needed)
    throw storageFull(`the Python environment needs ${Math.ceil(needed / 1024 ** 3)} GiB free in ${parent}`);
}

interface RunOptions {
  /** The whole process group ends with it. */
  readonly signal: AbortSignal;
  readonly temporary?: string | undefined;
  readonly onLine?: ((line: string) => void) | undefined;
}

async function run(
  [command = '', ...arguments_]: readonly string[],
  { signal, temporary, onLine }: RunOptions,
): Promise<void> {
  signal.throwIfAborted();
  const [program, ...given] = temporary === undefined ? [command] : ['env', `TMPDIR=${temporary}`, command];
  const child = spawn(program, [...given, ...arguments_], {
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  const end = (): void => endGroup(child.pid);
  signal.addEventListener('abort', end, { once: true });
  const said: string[] = [];
  const keep = (line: string): void => {
    said.push(line.slice(0, KEPT_CHARACTERS));
    if (said.length > KEPT_LINES) said.shift();
  };
  createInterface({ input: child.stdout }).on('line', onLine ?? keep);
  createInterface({ input: child.stderr }).on('line', keep);
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    signal.throwIfAborted();
    if (code !== 0)
      throw new ConfigError(
        `the Python environment could not be made: ${said.join(' | ') || `exit ${code ?? 'by a signal'}`}`,
      );
  } finally {
    signal.removeEventListener('abort', end);
  }
}

function endGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // It has ended.
  }
}
