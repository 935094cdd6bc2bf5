// Writes the initramfs: cpio in the "newc" form the kernel unpacks (linux
// Documentation/driver-api/early-userspace/ buffer-format.rst), uncompressed, so that no compressor's version
// changes the bytes. Inode numbers count from 1, times are 0.

import { badInput } from './errors.ts';
import { type Node, sortedEntries, type Tree } from './tree.ts';

const TRAILER = 'TRAILER!!!';

export function writeCpio(tree: Tree): Uint8Array {
  const parts: Uint8Array[] = [];
  let inode = 0;
  for (const [path, node] of sortedEntries(tree)) {
    if (path === '') continue;
    inode += 1;
    const data = dataOf(path, node);
    parts.push(
      header(path, {
        inode,
        mode: modeOf(node),
        links: node.kind === 'directory' ? 2 : 1,
        size: data.length,
      }),
      data,
      padding(data.length),
    );
  }
  parts.push(header(TRAILER, { inode: 0, mode: 0, links: 1, size: 0 }));
  return Buffer.concat(parts);
}

/** `st_mode` with the type bits of the node. */
export function modeOf(node: Node): number {
  switch (node.kind) {
    case 'directory':
      return 0o040000 | node.mode;
    case 'file':
      return 0o100000 | node.mode;
    case 'link':
      return 0o120777;
  }
}

function dataOf(path: string, node: Node): Uint8Array {
  if (node.kind === 'link') return Buffer.from(node.target);
  if (node.kind === 'directory') return new Uint8Array(0);
  if (!(node.content instanceof Uint8Array))
    throw badInput(`${path}: files of an initramfs are held in memory`);
  return node.content;
}

function header(
  path: string,
  { inode, mode, links, size }: { inode: number; mode: number; links: number; size: number },
): Uint8Array {
  if (size > 0xffffffff) throw badInput(`${path} is ${size} bytes, too large for cpio`);
  const name = Buffer.from(`${path}\0`);
  // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
  const fields = [inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name.length, 0];
  const head = Buffer.from(
    `070701${fields.map((value) => value.toString(16).toUpperCase().padStart(8, '0')).join('')}`,
  );
  return Buffer.concat([head, name, padding(head.length + name.length)]);
}

function padding(length: number): Uint8Array {
  return new Uint8Array((4 - (length % 4)) % 4);
}
