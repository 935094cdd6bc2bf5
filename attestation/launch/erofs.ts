// Reads one file out of an EROFS image (linux fs/erofs/erofs_fs.h): extended inodes with flat-plain data, as
// image/erofs.ts writes them. An image of another kind has no file: all it could show is found by its root
// hash, and by the file being absent.

import { fromUtf8 } from '../encoding/bytes.ts';

const BLOCK_BYTES = 4096;
const SUPERBLOCK_AT = 1024;
const MAGIC = 0xe0f5e1e2;
const DIRENT_BYTES = 12;
const SLOT_BYTES = 32;
/** Extended inode, data layout flat-plain. */
const FORMAT = 1;
const MODE_KIND = 0o170000;
const MODE_DIRECTORY = 0o040000;
const MODE_FILE = 0o100000;

interface Inode {
  readonly kind: number;
  readonly size: number;
  readonly at: number;
}

/** The content of a regular file; undefined where the image has none at that path, or is no such image. */
export function erofsFile(image: Uint8Array, path: string): Uint8Array | undefined {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  if (image.length < 2 * BLOCK_BYTES || view.getUint32(SUPERBLOCK_AT, true) !== MAGIC) return undefined;
  const inodesAt = view.getUint32(SUPERBLOCK_AT + 40, true) * BLOCK_BYTES;
  const inode = (nid: number): Inode | undefined => readInode(view, inodesAt + nid * SLOT_BYTES);
  let found = inode(view.getUint16(SUPERBLOCK_AT + 14, true));
  for (const name of path.split('/')) {
    if (found?.kind !== MODE_DIRECTORY) return undefined;
    const nid = entryOf(image.subarray(found.at, found.at + found.size), name);
    found = nid === undefined ? undefined : inode(nid);
  }
  return found?.kind === MODE_FILE ? image.slice(found.at, found.at + found.size) : undefined;
}

/** Undefined where it, or its data, is not within the image. */
function readInode(view: DataView, at: number): Inode | undefined {
  if (at + 64 > view.byteLength || view.getUint16(at, true) !== FORMAT) return undefined;
  const size = Number(view.getBigUint64(at + 8, true));
  const from = view.getUint32(at + 16, true) * BLOCK_BYTES;
  if (size > 0 && from + size > view.byteLength) return undefined;
  return { kind: view.getUint16(at + 4, true) & MODE_KIND, size, at: from };
}

/** The inode number of a name in the blocks of a directory. */
function entryOf(data: Uint8Array, name: string): number | undefined {
  for (let start = 0; start < data.length; start += BLOCK_BYTES) {
    const block = data.subarray(start, start + BLOCK_BYTES);
    const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
    if (block.length < DIRENT_BYTES) return undefined;
    const count = Math.floor(view.getUint16(8, true) / DIRENT_BYTES);
    for (let i = 0; i < count && (i + 1) * DIRENT_BYTES <= block.length; i += 1) {
      const from = view.getUint16(i * DIRENT_BYTES + 8, true);
      const next = (i + 1) * DIRENT_BYTES + 8;
      const to = i + 1 < count && next + 2 <= block.length ? view.getUint16(next, true) : block.length;
      if (textOf(block.subarray(from, to)) === name) return Number(view.getBigUint64(i * DIRENT_BYTES, true));
    }
  }
  return undefined;
}

/** Names are padded with zeros at the end of a block. */
function textOf(bytes: Uint8Array): string | undefined {
  const end = bytes.indexOf(0);
  try {
    return fromUtf8(end < 0 ? bytes : bytes.subarray(0, end));
  } catch {
    return undefined;
  }
}
