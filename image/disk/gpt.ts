// A GUID partition table (UEFI 2.10 §5.3), byte for byte from its inputs: protective MBR, header and entries
// at the start, the same backwards at the end. 512-byte sectors; 128 entries; partitions begin on whole MiB.

import { crc32 } from 'node:zlib';
import { guidBytes } from '@assay/attestation/launch';
import { badInput } from '../errors.ts';

export const SECTOR_BYTES = 512;
/** Partitions and the disk itself are whole MiB, as clouds want their images. */
export const ALIGNMENT_SECTORS = (1024 * 1024) / SECTOR_BYTES;

const ENTRY_COUNT = 128;
const ENTRY_BYTES = 128;
const ENTRY_SECTORS = (ENTRY_COUNT * ENTRY_BYTES) / SECTOR_BYTES;
const HEADER_BYTES = 92;
const REVISION = 0x00010000;
const MAX_NAME = 36;

export interface Partition {
  /** At most 36 printable ASCII characters. */
  readonly name: string;
  /** GUIDs in lower-case text form. */
  readonly type: string;
  readonly guid: string;
  readonly firstSector: number;
  readonly sectors: number;
}

export interface PartitionTable {
  /** From sector 0: MBR, header, entries. */
  readonly head: Uint8Array;
  /** The last sectors of the disk: entries, header. */
  readonly tail: Uint8Array;
}

/** Throws ImageError `input` for partitions that overlap, repeat a GUID, or do not fit the disk. */
export function partitionTable(
  partitions: readonly Partition[],
  disk: { readonly guid: string; readonly sectors: number },
): PartitionTable {
  const firstUsable = 2 + ENTRY_SECTORS;
  const lastUsable = disk.sectors - 2 - ENTRY_SECTORS;
  check(partitions, firstUsable, lastUsable);
  const entries = Buffer.alloc(ENTRY_COUNT * ENTRY_BYTES);
  partitions.forEach((partition, index) => writeEntry(entries, index * ENTRY_BYTES, partition));
  const header = (own: number, other: number, entriesAt: number): Buffer => {
    const bytes = Buffer.alloc(SECTOR_BYTES);
    bytes.write('EFI PART', 0, 'latin1');
    bytes.writeUInt32LE(REVISION, 8);
    bytes.writeUInt32LE(HEADER_BYTES, 12);
    bytes.writeBigUInt64LE(BigInt(own), 24);
    bytes.writeBigUInt64LE(BigInt(other), 32);
    bytes.writeBigUInt64LE(BigInt(firstUsable), 40);
    bytes.writeBigUInt64LE(BigInt(lastUsable), 48);
    bytes.set(guidBytes(disk.guid), 56);
    bytes.writeBigUInt64LE(BigInt(entriesAt), 72);
    bytes.writeUInt32LE(ENTRY_COUNT, 80);
    bytes.writeUInt32LE(ENTRY_BYTES, 84);
    bytes.writeUInt32LE(crc32(entries), 88);
    bytes.writeUInt32LE(crc32(bytes.subarray(0, HEADER_BYTES)), 16);
    return bytes;
  };
  const last = disk.sectors - 1;
  return {
    head: Buffer.concat([protectiveMbr(disk.sectors), header(1, last, 2), entries]),
    tail: Buffer.concat([entries, header(last, 1, last - ENTRY_SECTORS)]),
  };
}

function check(partitions: readonly Partition[], firstUsable: number, lastUsable: number): void {
  if (partitions.length > ENTRY_COUNT)
    throw badInput(`a disk has at most ${ENTRY_COUNT} partitions, not ${partitions.length}`);
  let free = firstUsable;
  const seen = new Set<string>();
  for (const { name, guid, firstSector, sectors } of partitions) {
    if (!/^[\x20-\x7e]*$/.test(name) || name.length > MAX_NAME)
      throw badInput(`${JSON.stringify(name)} cannot name a partition`);
    if (seen.has(guid)) throw badInput(`partition ${name} has the GUID of another, ${guid}`);
    seen.add(guid);
    if (firstSector < free || sectors < 1 || firstSector + sectors - 1 > lastUsable)
      throw badInput(`partition ${name} overlaps another or does not fit the disk`);
    free = firstSector + sectors;
  }
}

function writeEntry(entries: Buffer, at: number, partition: Partition): void {
  entries.set(guidBytes(partition.type), at);
  entries.set(guidBytes(partition.guid), at + 16);
  entries.writeBigUInt64LE(BigInt(partition.firstSector), at + 32);
  entries.writeBigUInt64LE(BigInt(partition.firstSector + partition.sectors - 1), at + 40);
  entries.write(partition.name, at + 56, 'utf16le');
}

/** One partition of type 0xee over the whole disk, so that old programs see no free space. */
function protectiveMbr(sectors: number): Buffer {
  const bytes = Buffer.alloc(SECTOR_BYTES);
  const entry = 446;
  bytes.set([0x00, 0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff], entry);
  bytes.writeUInt32LE(1, entry + 8);
  bytes.writeUInt32LE(Math.min(sectors - 1, 0xffffffff), entry + 12);
  bytes.writeUInt16LE(0xaa55, 510);
  return bytes;
}
