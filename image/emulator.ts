// QEMU 10 and swtpm from the lock, unpacked into a folder and run with their own loader and libraries: nothing is installed, and
// the host's distribution does not matter. For tests under software emulation only; no part of the image.

import { existsSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createHash } from 'node:crypto';
import { readDeb } from './archive.ts';
import type { Lock } from './lock.ts';
import type { Inputs } from './mirror.ts';

export interface Emulator {
  readonly folder: string;
  /** Program and arguments that run `usr/bin/<name>` of the emulator's tree. */
  command(name: string, args: readonly string[]): readonly [string, readonly string[]];
  /** Needed so that QEMU finds its modules. */
  readonly environment: Readonly<Record<string, string>>;
}

const LIBRARIES = 'usr/lib/x86_64-linux-gnu';

/** Unpacks into `cache/<digest of the packages>` unless it is there. The C library comes with the image's own inputs. */
export async function openEmulator(lock: Lock, inputs: Inputs, cache: string): Promise<Emulator> {
  const packages = lock.debian.filter(({ use, package: name }) => use === 'emulator' || name.startsWith('lib'));
  const digest = createHash('sha256').update(JSON.stringify(packages)).digest('hex').slice(0, 16);
  const folder = join(cache, digest);
  if (!existsSync(folder)) {
    const partial = `${folder}.${process.pid}`;
    rmSync(partial, { recursive: true, force: true });
    for (const input of packages) {
      for (const entry of await readDeb(await inputs.debian(input))) {
        const path = join(partial, entry.path);
        if (entry.kind === 'directory' || !path.startsWith(`${partial}/`)) continue;
        mkdirSync(dirname(path), { recursive: true });
        if (entry.kind === 'link') {
          rmSync(path, { force: true });
          symlinkSync(entry.target, path);
        } else if (entry.kind === 'file') writeFileSync(path, entry.data, { mode: entry.mode & 0o777 });
      }
    }
    renameSync(partial, folder);
  }
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
