// The layout of the disk that boots by itself, on bare metal and in the clouds: an EFI system partition
// with the unified kernel image, the root image, the measured configuration, model disks, and room for the
// operator's configuration. A partition that is measured has a GUID made of its digest, by which the guest
// finds it; the digest itself decides. All of it follows from the files: no time, no random number.

import { MAX_OPERATOR_BYTES } from '../disks.ts';
import { badInput } from '../errors.ts';
import type { Content } from '../tree.ts';
import { writeFat } from './fat.ts';
import {
  ALIGNMENT_SECTORS,
  type Partition,
  type PartitionTable,
  partitionTable,
  SECTOR_BYTES,
} from './gpt.ts';

/** Constants, so that the table is the same for the same content. */
const DISK_GUID = 'a55a7000-c0de-4a55-81a9-000000000010';
const ESP_GUID = 'a55a7000-c0de-4a55-81a9-000000000012';
/** Stands for a digest: what an operator writes is not measured. */
export const OPERATOR_DIGEST = 'a55a7000c0de4a5581a9000000000011';
const TYPE = {
  esp: 'c12a7328-f81f-11d2-ba4b-00a0c93ec93b',
  linux: '0fc63daf-8483-4772-8e79-3d69d8477de4',
} as const;

/** For folders, tables and the clusters a FAT32 file system has at least. */
const ESP_MIN_BYTES = 40 << 20;
const ESP_SPARE_BYTES = 4 << 20;
const BOOT_PATH = 'EFI/BOOT/BOOTX64.EFI';

/** A file that becomes a partition. */
export type FileContent = Exclude<Content, Uint8Array>;

export interface DiskContent {
  readonly uki: Uint8Array;
  readonly root: FileContent & { readonly rootHash: string };
  /** `sha256`: of the text, as on the command line. */
  readonly config: FileContent & { readonly sha256: string };
  readonly models: readonly (FileContent & { readonly name: string; readonly rootHash: string })[];
}

export interface DiskLayout {
  readonly table: PartitionTable;
  readonly bytes: number;
  /** The content of each partition; absent: zeros. */
  readonly parts: readonly { readonly at: number; readonly content: Content }[];
}

/** The first 32 of the hex digits of a digest, written as a GUID (as UAPI.2 has it for root hashes). */
export function guidOf(digest: string): string {
  const [, a, b, c, d, e] = /^(.{8})(.{4})(.{4})(.{4})(.{12})/.exec(digest) ?? [];
  if (e === undefined) throw badInput(`${JSON.stringify(digest)} is no digest`);
  return [a, b, c, d, e].join('-');
}

/** Throws ImageError `input` where two partitions would have one GUID: the same model twice. */
export function layoutDisk(content: DiskContent): DiskLayout {
  const partitions: Partition[] = [];
  const parts: { at: number; content: Content }[] = [];
  let next = ALIGNMENT_SECTORS;
  const add = (entry: { name: string; guid: string; type?: string; bytes: number }, what?: Content): void => {
    const { name, guid, type = TYPE.linux, bytes } = entry;
    const sectors = Math.ceil(bytes / SECTOR_BYTES);
    partitions.push({ name, guid, type, firstSector: next, sectors });
    if (what !== undefined) parts.push({ at: next * SECTOR_BYTES, content: what });
    next += Math.ceil(sectors / ALIGNMENT_SECTORS) * ALIGNMENT_SECTORS;
  };
  const { root, config, models } = content;
  const esp = espFor(content.uki);
  add({ name: 'EFI system', guid: ESP_GUID, type: TYPE.esp, bytes: esp.length }, esp);
  add({ name: 'assay root', guid: guidOf(root.rootHash), bytes: root.size }, root);
  add({ name: 'assay configuration', guid: guidOf(config.sha256), bytes: config.size }, config);
  for (const model of models)
    add({ name: `model ${model.name.slice(0, 30)}`, guid: guidOf(model.rootHash), bytes: model.size }, model);
  add({ name: 'assay operator', guid: guidOf(OPERATOR_DIGEST), bytes: MAX_OPERATOR_BYTES });
  const sectors = next + ALIGNMENT_SECTORS;
  return {
    table: partitionTable(partitions, { guid: DISK_GUID, sectors }),
    bytes: sectors * SECTOR_BYTES,
    parts,
  };
}

function espFor(uki: Uint8Array): Uint8Array {
  const mebibyte = 1 << 20;
  const bytes = Math.max(ESP_MIN_BYTES, Math.ceil((uki.length + ESP_SPARE_BYTES) / mebibyte) * mebibyte);
  return writeFat(new Map([[BOOT_PATH, uki]]), bytes / SECTOR_BYTES, 'ASSAY');
}
