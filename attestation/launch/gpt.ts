// The part of a GUID partition table that firmware extends (UEFI 2.10 §5.3; TCG PC Client Platform Firmware
// Profile
// 1.06 §10.4.8, UEFI_GPT_DATA): the header and the entries in use, not the MBR, not the copy at the end.

import { viewOf } from '../encoding/bytes.ts';
import { malformed } from '../transcript/errors.ts';
import { guidAt } from './firmware.ts';

const SECTOR_BYTES = 512;
const HEADER_BYTES = 92;
const ENTRY_BYTES = 128;
const MAX_ENTRIES = 128;
/** As much of a disk as is read: MBR, header, entries. */
export const GPT_HEAD_BYTES = SECTOR_BYTES * (2 + (MAX_ENTRIES * ENTRY_BYTES) / SECTOR_BYTES);
const UNUSED = '00000000-0000-0000-0000-000000000000';

/** A partition; GUIDs as text, sectors of 512 bytes. */
export interface GptEntry {
  readonly type: string;
  readonly guid: string;
  readonly firstSector: number;
  readonly lastSector: number;
}

/** A partition table, and the event firmware extends into PCR 5 (TDX: RTMR1) for the disk it boots from. */
export interface Gpt {
  readonly entries: readonly GptEntry[];
  /** UEFI_GPT_DATA; the digest of the event is the hash of it. */
  readonly event: Uint8Array;
}

/**
 * Reads the beginning of a disk of 512-byte sectors. Throws `malformed_gpt`; its checksums are for the
 * firmware to judge.
 * @example const { entries } = readGpt(disk);
 */
export function readGpt(head: Uint8Array): Gpt {
  if (head.length < GPT_HEAD_BYTES)
    throw malformed('malformed_gpt', `${head.length} bytes of a disk, ${GPT_HEAD_BYTES} are needed`);
  const view = viewOf(head);
  const header = head.subarray(SECTOR_BYTES, SECTOR_BYTES + HEADER_BYTES);
  const text = String.fromCharCode(...header.subarray(0, 8));
  const count = view.getUint32(SECTOR_BYTES + 80, true);
  if (
    text !== 'EFI PART' ||
    view.getUint32(SECTOR_BYTES + 12, true) !== HEADER_BYTES ||
    view.getBigUint64(SECTOR_BYTES + 72, true) !== 2n ||
    view.getUint32(SECTOR_BYTES + 84, true) !== ENTRY_BYTES ||
    count > MAX_ENTRIES
  )
    throw malformed('malformed_gpt', 'no GUID partition table of 128-byte entries at sector 2');
  const used: Uint8Array[] = [];
  for (let index = 0; index < count; index++) {
    const at = 2 * SECTOR_BYTES + index * ENTRY_BYTES;
    const entry = head.subarray(at, at + ENTRY_BYTES);
    if (guidAt(entry, 0) !== UNUSED) used.push(entry);
  }
  const event = new Uint8Array(HEADER_BYTES + 8 + used.length * ENTRY_BYTES);
  event.set(header);
  viewOf(event).setBigUint64(HEADER_BYTES, BigInt(used.length), true);
  used.forEach((entry, index) => event.set(entry, HEADER_BYTES + 8 + index * ENTRY_BYTES));
  return {
    event,
    entries: used.map((entry) => ({
      type: guidAt(entry, 0),
      guid: guidAt(entry, 16),
      firstSector: Number(viewOf(entry).getBigUint64(32, true)),
      lastSector: Number(viewOf(entry).getBigUint64(40, true)),
    })),
  };
}
