// A FAT32 file system (Microsoft "FAT: General Overview of On-Disk Format" 1.03) with a few files in folders:
// the EFI system partition. Short names only, a fixed volume id and no times, so the same files give the same
// bytes. Every file lies in one run of clusters.

import { badInput } from '../errors.ts';
import { SECTOR_BYTES } from './gpt.ts';

const RESERVED_SECTORS = 32;
const FAT_COPIES = 2;
/** Fewer clusters would make it a FAT16 file system. */
const MIN_CLUSTERS = 65_525;
const ENTRY_BYTES = 32;
const END_OF_CHAIN = 0x0fffffff;
const MEDIA = 0xf8;
const VOLUME_ID = 0xa55a0001;
const ATTRIBUTE = { volume: 0x08, directory: 0x10, archive: 0x20 } as const;
const ROOT_CLUSTER = 2;

/** One sector per cluster. */
const CLUSTER_BYTES = SECTOR_BYTES;

interface Entry {
  readonly name: string;
  readonly attribute: number;
  readonly cluster: number;
  readonly size: number;
}

/**
 * The whole file system of `sectors` sectors. `files`: path of short upper-case names
 * (`EFI/BOOT/BOOTX64.EFI`) → content. Throws ImageError `input` when a name is none or the content does not
 * fit.
 */
export function writeFat(files: ReadonlyMap<string, Uint8Array>, sectors: number, label: string): Uint8Array {
  const fatSectors = fatSectorsFor(sectors);
  const dataStart = RESERVED_SECTORS + FAT_COPIES * fatSectors;
  const clusters = sectors - dataStart;
  if (clusters < MIN_CLUSTERS)
    throw badInput(`a FAT32 file system of ${sectors} sectors has too few clusters (${clusters})`);
  const image = Buffer.alloc(sectors * SECTOR_BYTES);
  const fat = Buffer.alloc(fatSectors * SECTOR_BYTES);
  fat.writeUInt32LE(0x0fffff00 | MEDIA, 0);
  fat.writeUInt32LE(END_OF_CHAIN, 4);
  let next = ROOT_CLUSTER;
  /** Puts bytes into the next clusters; gives the first. */
  const place = (bytes: Uint8Array): number => {
    const count = clustersOf(bytes);
    const first = next;
    if (first + count > clusters + 2)
      throw badInput(`the files do not fit a file system of ${sectors} sectors`);
    for (let i = 0; i < count; i++)
      fat.writeUInt32LE(i === count - 1 ? END_OF_CHAIN : first + i + 1, 4 * (first + i));
    image.set(bytes, (dataStart + first - 2) * SECTOR_BYTES);
    next += count;
    return first;
  };
  const folders = foldersOf(files);
  // Folders first, so that the root is cluster 2, where the boot sector says it is.
  const at = new Map(folders.map((path, index) => [path, ROOT_CLUSTER + index]));
  let fileCluster = ROOT_CLUSTER + folders.length;
  const fileAt = new Map<string, number>();
  for (const [path, bytes] of files) {
    fileAt.set(path, fileCluster);
    fileCluster += clustersOf(bytes);
  }
  for (const folder of folders) {
    const entries = childrenOf(folder, { folders, files, at, fileAt });
    const own = at.get(folder) ?? ROOT_CLUSTER;
    const parent = folder.includes('/') ? (at.get(folder.replace(/\/[^/]*$/, '')) ?? 0) : 0;
    const heading: readonly Entry[] =
      folder === ''
        ? [{ name: label.padEnd(11), attribute: ATTRIBUTE.volume, cluster: 0, size: 0 }]
        : [
            { name: '.'.padEnd(11), attribute: ATTRIBUTE.directory, cluster: own, size: 0 },
            { name: '..'.padEnd(11), attribute: ATTRIBUTE.directory, cluster: parent, size: 0 },
          ];
    place(directoryBytes([...heading, ...entries]));
  }
  for (const bytes of files.values()) place(bytes);
  const boot = bootSector(sectors, fatSectors, label);
  const info = informationSector(clusters - (next - 2), next);
  for (const copy of [0, 6]) {
    image.set(boot, copy * SECTOR_BYTES);
    image.set(info, (copy + 1) * SECTOR_BYTES);
  }
  for (let copy = 0; copy < FAT_COPIES; copy++)
    image.set(fat, (RESERVED_SECTORS + copy * fatSectors) * SECTOR_BYTES);
  return image;
}

/** A file has one cluster at least, also when it is empty. */
function clustersOf(bytes: Uint8Array): number {
  return Math.max(1, Math.ceil(bytes.length / CLUSTER_BYTES));
}

/** The formula of the specification: it may give a little more than is needed. */
function fatSectorsFor(sectors: number): number {
  return Math.ceil((sectors - RESERVED_SECTORS) / ((256 + FAT_COPIES) / 2));
}

/** Every folder on the way to a file; the root, which is '', first, parents before children. */
function foldersOf(files: ReadonlyMap<string, Uint8Array>): readonly string[] {
  const folders = new Set(['']);
  for (const path of files.keys()) {
    const parts = path.split('/');
    for (let i = 1; i < parts.length; i++) folders.add(parts.slice(0, i).join('/'));
  }
  return [...folders].sort();
}

function childrenOf(
  folder: string,
  known: {
    readonly folders: readonly string[];
    readonly files: ReadonlyMap<string, Uint8Array>;
    readonly at: ReadonlyMap<string, number>;
    readonly fileAt: ReadonlyMap<string, number>;
  },
): readonly Entry[] {
  const isIn = (path: string): boolean =>
    path !== '' && (path.includes('/') ? path.replace(/\/[^/]*$/, '') : '') === folder;
  const nameOf = (path: string): string => shortName(path.slice(path.lastIndexOf('/') + 1));
  return [
    ...known.folders.filter(isIn).map((path) => ({
      name: nameOf(path),
      attribute: ATTRIBUTE.directory,
      cluster: known.at.get(path) ?? 0,
      size: 0,
    })),
    ...[...known.files]
      .filter(([path]) => isIn(path))
      .map(([path, bytes]) => ({
        name: nameOf(path),
        attribute: ATTRIBUTE.archive,
        cluster: known.fileAt.get(path) ?? 0,
        size: bytes.length,
      })),
  ];
}

/** `BOOTX64.EFI` → the eleven characters of a directory entry. */
function shortName(name: string): string {
  const [, stem, extension] = /^([A-Z0-9_-]{1,8})(?:\.([A-Z0-9_-]{1,3}))?$/.exec(name) ?? [];
  if (stem === undefined) throw badInput(`${JSON.stringify(name)} is no short name of a FAT file`);
  return stem.padEnd(8) + (extension ?? '').padEnd(3);
}

function directoryBytes(entries: readonly Entry[]): Uint8Array {
  if (entries.length * ENTRY_BYTES > CLUSTER_BYTES)
    throw badInput(`a folder of ${entries.length} entries is not written`);
  const bytes = Buffer.alloc(CLUSTER_BYTES);
  entries.forEach(({ name, attribute, cluster, size }, index) => {
    const at = index * ENTRY_BYTES;
    bytes.write(name, at, 'latin1');
    bytes.writeUInt8(attribute, at + 11);
    bytes.writeUInt16LE(cluster >>> 16, at + 20);
    bytes.writeUInt16LE(cluster & 0xffff, at + 26);
    bytes.writeUInt32LE(size, at + 28);
  });
  return bytes;
}

function bootSector(sectors: number, fatSectors: number, label: string): Uint8Array {
  const bytes = Buffer.alloc(SECTOR_BYTES);
  bytes.set([0xeb, 0x58, 0x90], 0);
  bytes.write('ASSAY   ', 3, 'latin1');
  bytes.writeUInt16LE(SECTOR_BYTES, 11);
  bytes.writeUInt8(1, 13);
  bytes.writeUInt16LE(RESERVED_SECTORS, 14);
  bytes.writeUInt8(FAT_COPIES, 16);
  bytes.writeUInt8(MEDIA, 21);
  bytes.writeUInt16LE(63, 24);
  bytes.writeUInt16LE(255, 26);
  bytes.writeUInt32LE(sectors, 32);
  bytes.writeUInt32LE(fatSectors, 36);
  bytes.writeUInt32LE(ROOT_CLUSTER, 44);
  bytes.writeUInt16LE(1, 48);
  bytes.writeUInt16LE(6, 50);
  bytes.writeUInt8(0x80, 64);
  bytes.writeUInt8(0x29, 66);
  bytes.writeUInt32LE(VOLUME_ID, 67);
  bytes.write(label.padEnd(11), 71, 'latin1');
  bytes.write('FAT32   ', 82, 'latin1');
  bytes.writeUInt16LE(0xaa55, 510);
  return bytes;
}

/** FSInfo: how many clusters are free, and the first of them. */
function informationSector(free: number, next: number): Uint8Array {
  const bytes = Buffer.alloc(SECTOR_BYTES);
  bytes.writeUInt32LE(0x41615252, 0);
  bytes.writeUInt32LE(0x61417272, 484);
  bytes.writeUInt32LE(free, 488);
  bytes.writeUInt32LE(next, 492);
  bytes.writeUInt32LE(0xaa550000, 508);
  return bytes;
}
