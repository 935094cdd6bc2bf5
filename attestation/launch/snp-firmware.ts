// The parts of the firmware file that SEV-SNP launch uses: the SEV metadata sections, the reset address of
// the application processors and the place of the kernel-hash table (edk2
// OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm and Ia16/ResetVectorVtf0.asm). Refuses tables that lie outside
// the file and sections that are not whole pages.

import { sha384 } from '@noble/hashes/sha2.js';
import { viewOf } from '../encoding/bytes.ts';
import { malformed } from '../transcript/errors.ts';
import { FIRMWARE_MAX_BYTES, guidTableU32, PAGE_BYTES, parseGuidTable } from './firmware.ts';
import { addPages, PAGE_TYPE } from './snp-digest.ts';

const SEV_METADATA_GUID = 'dc886566-984a-4798-a75e-5585a7bf67cc';
const SEV_ES_RESET_GUID = '00f771de-1a7e-4fcb-890e-68c77e2fb44e';
const SEV_HASH_TABLE_GUID = '7255371f-3a3b-4b04-927b-1da6efa8d454';

/** Section types of the SEV metadata; anything else is refused. */
export const SECTION = { secMem: 1, secrets: 2, cpuid: 3, svsmCaa: 4, kernelHashes: 0x10 } as const;
export type SectionType = (typeof SECTION)[keyof typeof SECTION];

export interface SevSection {
  readonly gpa: number;
  /** Bytes: a multiple of 4096. Zero occurs (a slot the build does not use) and adds no page. */
  readonly size: number;
  readonly type: SectionType;
}

export interface SnpFirmware {
  /** Launch digest after the firmware's own pages. */
  readonly digest: Uint8Array;
  readonly sections: readonly SevSection[];
  /** Entry of the application processors. */
  readonly resetEip: number;
  /** Guest-physical address of the kernel-hash table; 0 when the firmware has none. */
  readonly hashTableGpa: number;
}

/** Parses and measures the file: pages of type NORMAL ending at 4 GiB. Takes about 30 ms for 4 MiB. */
export function parseSnpFirmware(firmware: Uint8Array): SnpFirmware {
  const table = parseGuidTable(firmware);
  const metadataFromEnd = guidTableU32(table, SEV_METADATA_GUID, 'SEV metadata');
  const hashTable = table.get(SEV_HASH_TABLE_GUID);
  if (hashTable !== undefined && hashTable.length !== 8) {
    throw malformed('malformed_firmware', `SEV hash table entry is ${hashTable.length} bytes, expected 8`);
  }
  return {
    sections: parseSections(firmware, metadataFromEnd),
    resetEip: guidTableU32(table, SEV_ES_RESET_GUID, 'SEV-ES reset block'),
    hashTableGpa: hashTable === undefined ? 0 : viewOf(hashTable).getUint32(0, true),
    digest: addPages(new Uint8Array(48), {
      pageType: PAGE_TYPE.normal,
      gpa: 2 ** 32 - firmware.length,
      size: firmware.length,
      contentsOf: (from) => sha384(firmware.subarray(from, from + PAGE_BYTES)),
    }),
  };
}

const HEADER_BYTES = 16;
const SECTION_BYTES = 12;
const MAX_SECTIONS = 64;

function parseSections(firmware: Uint8Array, fromEnd: number): SevSection[] {
  const start = firmware.length - fromEnd;
  if (start < 0 || fromEnd < HEADER_BYTES)
    throw malformed('malformed_firmware', `SEV metadata offset ${fromEnd} lies outside the file`);
  const view = viewOf(firmware);
  if (view.getUint32(start, true) !== 0x56455341)
    throw malformed('malformed_firmware', 'SEV metadata has no ASEV signature');
  const size = view.getUint32(start + 4, true);
  const version = view.getUint32(start + 8, true);
  const count = view.getUint32(start + 12, true);
  if (version !== 1) throw malformed('malformed_firmware', `SEV metadata version is ${version}, expected 1`);
  if (count > MAX_SECTIONS || size !== HEADER_BYTES + count * SECTION_BYTES || size > fromEnd) {
    throw malformed('malformed_firmware', `SEV metadata of ${count} sections and ${size} bytes does not fit`);
  }
  const sections: SevSection[] = [];
  let bytes = 0;
  for (let i = 0; i < count; i++) {
    const at = start + HEADER_BYTES + i * SECTION_BYTES;
    const section = parseSection(
      view.getUint32(at, true),
      view.getUint32(at + 4, true),
      view.getUint32(at + 8, true),
    );
    bytes += section.size;
    sections.push(section);
  }
  if (bytes > FIRMWARE_MAX_BYTES)
    throw malformed('input_too_large', `SEV metadata sections cover ${bytes} bytes`);
  return sections;
}

function parseSection(gpa: number, size: number, number: number): SevSection {
  if (gpa % PAGE_BYTES !== 0 || size % PAGE_BYTES !== 0) {
    throw malformed(
      'malformed_firmware',
      `SEV metadata section at 0x${gpa.toString(16)} of 0x${size.toString(16)} bytes is not whole pages`,
    );
  }
  const type = Object.values(SECTION).find((known) => known === number);
  if (type === undefined)
    throw malformed('malformed_firmware', `SEV metadata section type ${number} is not known`);
  const single = type === SECTION.secrets || type === SECTION.cpuid || type === SECTION.kernelHashes;
  if (single && size > PAGE_BYTES)
    throw malformed(
      'malformed_firmware',
      `SEV metadata section type ${type} is 0x${size.toString(16)} bytes, expected one page`,
    );
  return { gpa, size, type };
}
