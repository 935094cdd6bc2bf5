// QEMU 10 and swtpm from the lock, unpacked into a folder and run with their own loader and libraries: no
// package is installed, and the host's distribution does not matter. For tests under software emulation
// only; no part of the image.

import {
  copyFileSync,
  existsSync,
  mkdirSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { createHash } from 'node:crypto';
import { readDeb } from './archive.ts';
import { badInput } from './errors.ts';
import type { DebianInput, Lock } from './lock.ts';
import type { Inputs } from './mirror.ts';

export interface Emulator {
  readonly folder: string;
  /** Program and arguments that run `usr/bin/<name>` of the emulator's tree. */
  command(name: string, args: readonly string[]): readonly [string, readonly string[]];
  /** Needed so that QEMU finds its modules. */
  readonly environment: Readonly<Record<string, string>>;
}

const LIBRARIES = 'usr/lib/x86_64-linux-gnu';

/**
 * Unpacks into `cache/<digest of the packages>` unless it is there. The C library comes
 * with the image's own inputs.
 */
export async function openEmulator(lock: Lock, inputs: Inputs, cache: string): Promise<Emulator> {
  const packages = lock.debian.filter(
    ({ use, package: name }) => use === 'emulator' || name.startsWith('lib'),
  );
  const digest = createHash('sha256').update(JSON.stringify(packages)).digest('hex').slice(0, 16);
  const folder = join(cache, digest);
  await unpackInto(folder, packages, inputs);
  const libraries = join(folder, LIBRARIES);
  return {
    folder,
    command: (name, args) => [
      join(libraries, 'ld-linux-x86-64.so.2'),
      ['--library-path', `${libraries}:${join(libraries, 'swtpm')}`, join(folder, 'usr/bin', name), ...args],
    ],
    environment: { QEMU_MODULE_DIR: join(libraries, 'qemu') },
  };
}

/** The files of packages in a folder, which appears when it is whole. Returns at once when it is there. */
export async function unpackInto(
  folder: string,
  packages: readonly DebianInput[],
  inputs: Inputs,
): Promise<void> {
  if (existsSync(folder)) return;
  const partial = `${folder}.${process.pid}`;
  rmSync(partial, { recursive: true, force: true });
  mkdirSync(partial, { recursive: true });
  for (const input of packages) {
    for (const entry of await readDeb(await inputs.debian(input))) {
      if (entry.path === '' || entry.path.split('/').includes('..')) continue;
      const path = join(partial, entry.path);
      if (entry.kind === 'directory') {
        if (!existsSync(path)) mkdirSync(path, { recursive: true });
        continue;
      }
      mkdirSync(dirname(path), { recursive: true });
      if (!realpathSync(dirname(path)).startsWith(realpathSync(partial)))
        throw badInput(`${input.package}: ${entry.path} leaves the folder`);
      rmSync(path, { force: true });
      if (entry.kind === 'link') symlinkSync(entry.target, path);
      else if (entry.kind === 'hardlink') copyFileSync(join(partial, entry.target), path);
      else writeFileSync(path, entry.data, { mode: entry.mode & 0o777 });
    }
  }
  try {
    renameSync(partial, folder);
  } catch (error) {
    // Another process was first, with the same files.
    if (!existsSync(folder)) throw error;
    rmSync(partial, { recursive: true });
  }
}
