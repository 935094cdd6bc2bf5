// Writes a read-only EROFS image (linux fs/erofs/erofs_fs.h): 4096-byte blocks, uncompressed flat-plain data,
// 64-byte inodes, fixed identifier and times. Layout: superblock, inodes, directories and link targets, then
// file data in tree order; so the same tree gives the same bytes everywhere, whatever mkfs.erofs is
// installed. Files may be larger than memory.

import { badInput } from './errors.ts';
import { modeOf } from './cpio.ts';
import {
  contentBytes,
  childNames,
  type Content,
  type Node,
  parentOf,
  sizeOf,
  sortedEntries,
  type Tree,
} from './tree.ts';

export const BLOCK_BYTES = 4096;

export interface ErofsLayout {
  /** Superblock, inodes, directories and link targets: whole blocks. */
  readonly metadata: Uint8Array;
  /** File data in the order it follows, each padded to whole blocks. */
  readonly files: readonly Content[];
  readonly blocks: number;
}

const SUPERBLOCK_AT = 1024;
const MAGIC = 0xe0f5e1e2;
const INODE_BYTES = 64;
/** Inode numbers ("nids") count 32-byte slots from the start of the inode area. */
const SLOTS_PER_INODE = INODE_BYTES / 32;
const META_BLOCK = 1;
const NO_BLOCK = 0xffffffff;
/** Compatible features: per-inode times. */
const FEATURE_COMPAT_MTIME = 2;
/** A constant: an identifier that differed per build would change the root hash. */
const IDENTIFIER = Buffer.from('a55a7000c0de4a5581a9000000000001', 'hex');

export function layoutErofs(tree: Tree): ErofsLayout {
  const entries = sortedEntries(tree);
  const nids = new Map(entries.map(([path], index) => [path, index * SLOTS_PER_INODE]));
  const children = childNames(tree);
  const inodeBlocks = blocksFor(entries.length * INODE_BYTES);
  const small: Uint8Array[] = [];
  const files: Content[] = [];
  const inodes = Buffer.alloc(inodeBlocks * BLOCK_BYTES);
  const firstSmall = META_BLOCK + inodeBlocks;
  const smallData = entries.map(([path, node]) => smallDataOf(path, node, { tree, children, nids }));
  let nextSmall = firstSmall;
  let nextFile = firstSmall + smallData.reduce((sum, data) => sum + blocksFor(data?.length ?? 0), 0);
  entries.forEach(([path, node], index) => {
    const data = smallData[index];
    const size = node.kind === 'file' ? sizeOf(node.content) : (data?.length ?? 0);
    const blocks = blocksFor(size);
    let block = NO_BLOCK;
    if (data !== undefined) {
      block = nextSmall;
      nextSmall += blocks;
      small.push(padded(data));
    } else if (node.kind === 'file' && size > 0) {
      block = nextFile;
      nextFile += blocks;
      files.push(node.content);
    }
    const links = node.kind === 'directory' ? 2 + subdirectories(path, tree, children) : 1;
    writeInode(inodes, index, { mode: modeOf(node), size, block, links });
  });
  if (nextFile >= NO_BLOCK) throw badInput(`the tree needs ${nextFile} blocks, too many for one image`);
  const superblock = superblockOf({ rootNid: 0, inodes: entries.length, blocks: nextFile });
  return { metadata: Buffer.concat([superblock, inodes, ...small]), files, blocks: nextFile };
}

/**
 * The whole image in order, in chunks of no particular size. Throws if a file on disk is not the size it was.
 */
export async function* erofsBytes(layout: ErofsLayout): AsyncGenerator<Uint8Array> {
  yield layout.metadata;
  for (const content of layout.files) {
    const size = sizeOf(content);
    yield* contentBytes(content);
    if (size % BLOCK_BYTES !== 0) yield new Uint8Array(BLOCK_BYTES - (size % BLOCK_BYTES));
  }
}

function blocksFor(bytes: number): number {
  return Math.ceil(bytes / BLOCK_BYTES);
}

function padded(data: Uint8Array): Uint8Array {
  const blocks = Buffer.alloc(blocksFor(data.length) * BLOCK_BYTES);
  blocks.set(data);
  return blocks;
}

interface Numbered {
  readonly tree: Tree;
  readonly children: ReadonlyMap<string, readonly string[]>;
  readonly nids: ReadonlyMap<string, number>;
}

/** Data of directories and links; undefined for files. */
function smallDataOf(path: string, node: Node, { tree, children, nids }: Numbered): Uint8Array | undefined {
  if (node.kind === 'link') return Buffer.from(node.target);
  if (node.kind === 'file') return undefined;
  const self = nids.get(path) ?? 0;
  const entries: DirectoryEntry[] = [
    { name: Buffer.from('.'), nid: self, type: TYPE.directory },
    { name: Buffer.from('..'), nid: nids.get(parentOf(path)) ?? 0, type: TYPE.directory },
  ];
  for (const name of children.get(path) ?? []) {
    const child = path === '' ? name : `${path}/${name}`;
    const kind = tree.get(child)?.kind ?? 'file';
    entries.push({ name: Buffer.from(name), nid: nids.get(child) ?? 0, type: TYPE[kind] });
  }
  entries.sort((a, b) => Buffer.compare(a.name, b.name));
  return directoryData(entries);
}

interface DirectoryEntry {
  readonly name: Buffer;
  readonly nid: number;
  readonly type: number;
}

const TYPE = { file: 1, directory: 2, link: 7 } as const;
const DIRENT_BYTES = 12;

/** Blocks of `dirent[]` followed by the names; all but the last padded with zeros. */
function directoryData(entries: readonly DirectoryEntry[]): Uint8Array {
  const blocks: Uint8Array[] = [];
  let group: DirectoryEntry[] = [];
  let used = 0;
  for (const entry of entries) {
    const size = DIRENT_BYTES + entry.name.length;
    if (used + size > BLOCK_BYTES) {
      blocks.push(padded(directoryBlock(group)));
      group = [];
      used = 0;
    }
    group.push(entry);
    used += size;
  }
  blocks.push(directoryBlock(group));
  return Buffer.concat(blocks);
}

function directoryBlock(group: readonly DirectoryEntry[]): Uint8Array {
  const table = Buffer.alloc(group.length * DIRENT_BYTES);
  let nameAt = table.length;
  group.forEach(({ name, nid, type }, index) => {
    table.writeBigUInt64LE(BigInt(nid), index * DIRENT_BYTES);
    table.writeUInt16LE(nameAt, index * DIRENT_BYTES + 8);
    table.writeUInt8(type, index * DIRENT_BYTES + 10);
    nameAt += name.length;
  });
  return Buffer.concat([table, ...group.map(({ name }) => name)]);
}

function subdirectories(path: string, tree: Tree, children: Map<string, string[]>): number {
  return (children.get(path) ?? []).filter(
    (name) => tree.get(path === '' ? name : `${path}/${name}`)?.kind === 'directory',
  ).length;
}

function writeInode(
  inodes: Buffer,
  index: number,
  { mode, size, block, links }: { mode: number; size: number; block: number; links: number },
): void {
  const at = index * INODE_BYTES;
  inodes.writeUInt16LE(1, at); // extended inode, data layout flat-plain
  inodes.writeUInt16LE(mode, at + 4);
  inodes.writeBigUInt64LE(BigInt(size), at + 8);
  inodes.writeUInt32LE(block, at + 16);
  inodes.writeUInt32LE(index + 1, at + 20);
  inodes.writeUInt32LE(links, at + 44);
}

function superblockOf({
  rootNid,
  inodes,
  blocks,
}: {
  rootNid: number;
  inodes: number;
  blocks: number;
}): Uint8Array {
  const block = Buffer.alloc(BLOCK_BYTES);
  const at = SUPERBLOCK_AT;
  block.writeUInt32LE(MAGIC, at);
  block.writeUInt32LE(FEATURE_COMPAT_MTIME, at + 8);
  block.writeUInt8(Math.log2(BLOCK_BYTES), at + 12);
  block.writeUInt16LE(rootNid, at + 14);
  block.writeBigUInt64LE(BigInt(inodes), at + 16);
  block.writeUInt32LE(blocks, at + 36);
  block.writeUInt32LE(META_BLOCK, at + 40);
  block.set(IDENTIFIER, at + 48);
  return block;
}
