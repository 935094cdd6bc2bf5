// The contents of the initramfs: busybox, dmsetup with its libraries, kernel modules, and one script. It
// does not depend on the root image, whose hash is on the command line: so it stays the same from release
// to release of the server.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { VERITY_SALT } from '@assay/attestation/launch';
import type { Sources } from './sources.ts';
import { TOP } from './top.ts';
import { addDirectory, addFile, addLink, newTree, type Tree } from './tree.ts';

/** In loading order. */
export const MODULES: readonly string[] = [
  'configfs',
  'tsm',
  'tdx-guest',
  'sev-guest',
  'failover',
  'net_failover',
  'virtio_net',
  'virtio_blk',
  'dm-mod',
  'dm-bufio',
  'reed_solomon',
  'dm-verity',
  'libcrc32c',
  'erofs',
];

/**
 * In loading order, and loaded only where no disk has our serial: SCSI, Hyper-V, and the network cards of
 * Google Cloud, AWS and Azure (NVMe is in the kernel).
 */
export const CLOUD_MODULES: readonly string[] = [
  'scsi_common',
  'scsi_mod',
  'sd_mod',
  'virtio_scsi',
  'scsi_transport_fc',
  'hv_vmbus',
  'hv_storvsc',
  'hv_netvsc',
  'pci-hyperv-intf',
  'pci-hyperv',
  'gve',
  'ena',
  'mana',
];

/** Shared libraries of dmsetup: package and file, all in one folder. */
const LIBRARIES: readonly (readonly [string, string])[] = [
  ['libc6', 'libc.so.6'],
  ['libc6', 'libm.so.6'],
  ['libc6', 'ld-linux-x86-64.so.2'],
  ['libdevmapper1.02.1', 'libdevmapper.so.1.02.1'],
  ['libselinux1', 'libselinux.so.1'],
  ['libudev1', 'libudev.so.1'],
  ['libpcre2-8-0', 'libpcre2-8.so.0'],
  ['libcap2', 'libcap.so.2'],
];

export const LIBRARY_FOLDER = 'usr/lib/x86_64-linux-gnu';

export interface InitramfsOptions {
  /** Modules beyond the list, loaded last; only the test image of the end-to-end test has one. */
  readonly extraModules?: ReadonlyMap<string, Uint8Array> | undefined;
}

export async function initramfsTree(sources: Sources, options: InitramfsOptions = {}): Promise<Tree> {
  const tree = newTree();
  for (const path of ['dev', 'proc', 'sys', 'root']) addDirectory(tree, path);
  addFile(tree, 'usr/bin/busybox', sources.debian('busybox-static', 'usr/bin/busybox'), 0o755);
  addFile(tree, 'usr/sbin/dmsetup', sources.debian('dmsetup', 'usr/sbin/dmsetup'), 0o755);
  for (const [name, file] of LIBRARIES)
    addFile(tree, `${LIBRARY_FOLDER}/${file}`, sources.debian(name, `${LIBRARY_FOLDER}/${file}`), 0o755);
  addLink(tree, 'bin', 'usr/bin');
  addLink(tree, 'lib64', 'usr/lib/x86_64-linux-gnu');
  for (const name of [...MODULES, ...CLOUD_MODULES])
    addFile(tree, `lib/modules/${name}.ko`, await sources.module(name));
  for (const [name, module] of options.extraModules ?? []) addFile(tree, `lib/modules/${name}.ko`, module);
  const modules = [...MODULES, ...(options.extraModules?.keys() ?? [])].join(' ');
  addFile(
    tree,
    'init',
    Buffer.from(
      guestScript('initramfs-init.sh', {
        MODULES: modules,
        CLOUDMODULES: CLOUD_MODULES.join(' '),
        SALT: VERITY_SALT,
        FINDDISK: findDisk(),
      }),
    ),
    0o755,
  );
  return tree;
}

/** The part both scripts have. */
export function findDisk(): string {
  return guestScript('find-disk.sh').trimEnd();
}

/** A script of image/guest with its `@NAME@` places filled; every place has to be known, every value used. */
export function guestScript(name: string, values: Readonly<Record<string, string>> = {}): string {
  const text = readFileSync(join(TOP, 'image/guest', name), 'utf8');
  const used = new Set<string>();
  const filled = text.replace(/@([A-Z]+)@/g, (_match, key: string) => {
    const value = values[key];
    if (value === undefined) throw new Error(`${name} has a place @${key}@ nothing is known for`);
    used.add(key);
    return value;
  });
  const unused = Object.keys(values).find((key) => !used.has(key));
  if (unused !== undefined) throw new Error(`${name} has no place for ${unused}`);
  return filled;
}
