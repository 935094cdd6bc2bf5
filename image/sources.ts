// The files of the locked inputs, unpacked in memory and asked for one by one. What is not asked for does not
// get into the image: packages are neither installed nor configured, and their scripts never run.

import { decompress, readDeb, readTgz, type TarEntry } from './archive.ts';
import { badInput } from './errors.ts';
import type { Lock } from './lock.ts';
import type { Inputs } from './mirror.ts';

export interface Sources {
  /** A regular file of a Debian package; links inside the package are followed. */
  debian(name: string, path: string): Uint8Array;
  /** A file below `package/` of an npm tarball. */
  npm(name: string, path: string): Uint8Array;
  npmPaths(name: string): readonly string[];
  /** Kernel release, as in `uname -r`. */
  readonly kernelRelease: string;
  readonly kernel: Uint8Array;
  /** Decompressed, with its signature, by module name. */
  module(name: string): Promise<Uint8Array>;
}

const KERNEL_PACKAGE = /^linux-image-(\d[a-z0-9.+-]*)$/;

export async function openSources(lock: Lock, inputs: Inputs): Promise<Sources> {
  const debs = new Map<string, Map<string, TarEntry>>();
  for (const input of lock.debian.filter(({ use }) => use === 'image')) {
    debs.set(input.package, byPath(await readDeb(await inputs.debian(input))));
  }
  const npms = new Map<string, Map<string, TarEntry>>();
  for (const input of lock.npm) npms.set(input.package, byPath(readTgz(await inputs.npm(input))));
  const kernelPackage = [...debs.keys()].find((name) => KERNEL_PACKAGE.test(name));
  if (kernelPackage === undefined) throw badInput('the lock has no kernel package');
  const kernelRelease = KERNEL_PACKAGE.exec(kernelPackage)?.[1] ?? '';
  const debian = (name: string, path: string): Uint8Array => fileOf(debs.get(name), name, path);
  return {
    debian,
    npm: (name, path) => fileOf(npms.get(name), name, `package/${path}`),
    npmPaths: (name) =>
      [...(npms.get(name)?.keys() ?? [])].map((path) => path.replace(/^package\//, '')).sort(),
    kernelRelease,
    kernel: debian(kernelPackage, `boot/vmlinuz-${kernelRelease}`),
    async module(name) {
      const entry = [...(debs.get(kernelPackage)?.values() ?? [])].find(({ path }) =>
        path.endsWith(`/${name}.ko.xz`),
      );
      if (entry === undefined) throw badInput(`the kernel package has no module ${name}`);
      return decompress(entry.data);
    },
  };
}

function byPath(entries: readonly TarEntry[]): Map<string, TarEntry> {
  return new Map(entries.map((entry) => [entry.path, entry]));
}

function fileOf(files: Map<string, TarEntry> | undefined, name: string, path: string): Uint8Array {
  let entry = files?.get(path);
  // A library's name is a link to its versioned file in the same folder.
  if (entry?.kind === 'link' && !entry.target.includes('/'))
    entry = files?.get(path.replace(/[^/]*$/, entry.target));
  if (entry?.kind !== 'file') throw badInput(`${name} has no file ${path}`);
  return entry.data;
}
