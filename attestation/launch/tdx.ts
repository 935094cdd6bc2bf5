// Predicts MRTD of a TDX guest from its firmware: the pages the machine monitor adds by TDH.MEM.PAGE.ADD and
// extends by TDH.MR.EXTEND (Intel TDX Module 1.5 ABI Specification; section table: edk2
// OvmfPkg/ResetVector/X64/IntelTdxMetadata.asm). The order of adding and extending depends on the monitor, so
// both results are given. RTMR0–2 are in tdx-rtmr.ts. Refuses firmware that is not on our list unless told,
// and section tables that do not fit the file.

import { sha384 } from '@noble/hashes/sha2.js';
import { utf8, viewOf } from '../encoding/bytes.ts';
import { malformed } from '../transcript/errors.ts';
import {
  acceptFirmware,
  type AcceptedFirmware,
  FIRMWARE_MAX_BYTES,
  guidTableU32,
  PAGE_BYTES,
  parseGuidTable,
} from './firmware.ts';

/**
 * MRTD of one firmware: 48 bytes for each order in which a VMM adds and extends pages (Intel TDX
 * Module ABI, TDH.MR.EXTEND).
 */
export interface MrTd {
  /** Each page added and extended before the next: upstream QEMU since TDX support was merged (10.1). */
  readonly singlePass: Uint8Array;
  /** All pages added, then all extended: the QEMU 8 forks vendors shipped before. */
  readonly twoPass: Uint8Array;
  readonly firmware: AcceptedFirmware;
}

/**
 * MRTD (48 bytes) in both page orders. Takes about 100 ms for a 4 MiB firmware.
 * @example const { singlePass, twoPass } = measureMrTd(firmware);
 */
export function measureMrTd(
  firmware: Uint8Array,
  options: { readonly allowUnlistedFirmware?: boolean | undefined } = {},
): MrTd {
  const accepted = acceptFirmware(firmware, 'tdx', { allowUnlisted: options.allowUnlistedFirmware === true });
  const sections = parseTdvfSections(firmware);
  return {
    singlePass: mrTdOf(firmware, sections, 'single'),
    twoPass: mrTdOf(firmware, sections, 'two'),
    firmware: accepted,
  };
}

export interface TdvfSection {
  readonly dataOffset: number;
  readonly rawSize: number;
  readonly gpa: bigint;
  readonly memorySize: number;
  readonly type: number;
  readonly attributes: number;
}

export const TDVF_TYPE = {
  bfv: 0,
  cfv: 1,
  tdHob: 2,
  tempMem: 3,
  permMem: 4,
  payload: 5,
  payloadParam: 6,
} as const;
const ATTRIBUTE = { extend: 1, pageAug: 2 } as const;

const TDX_METADATA_GUID = 'e47a6535-984a-4798-865e-4685a7bf8ec2';
const HEADER_BYTES = 16;
const SECTION_BYTES = 32;
const MAX_SECTIONS = 64;

export function parseTdvfSections(firmware: Uint8Array): readonly TdvfSection[] {
  const fromEnd = guidTableU32(parseGuidTable(firmware), TDX_METADATA_GUID, 'TDX metadata');
  const start = firmware.length - fromEnd;
  if (start < 0 || fromEnd < HEADER_BYTES)
    throw malformed('malformed_firmware', `TDX metadata offset ${fromEnd} lies outside the file`);
  const view = viewOf(firmware);
  if (view.getUint32(start, true) !== 0x46564454)
    throw malformed('malformed_firmware', 'TDX metadata has no TDVF signature');
  const length = view.getUint32(start + 4, true);
  const version = view.getUint32(start + 8, true);
  const count = view.getUint32(start + 12, true);
  if (version !== 1) throw malformed('malformed_firmware', `TDX metadata version is ${version}, expected 1`);
  if (count > MAX_SECTIONS || length !== HEADER_BYTES + count * SECTION_BYTES || length > fromEnd) {
    throw malformed(
      'malformed_firmware',
      `TDX metadata of ${count} sections and ${length} bytes does not fit`,
    );
  }
  const sections: TdvfSection[] = [];
  let bytes = 0;
  for (let i = 0; i < count; i++) {
    const section = parseSection(
      firmware.subarray(start + HEADER_BYTES + i * SECTION_BYTES),
      firmware.length,
    );
    bytes += section.memorySize;
    if (bytes > FIRMWARE_MAX_BYTES)
      throw malformed('input_too_large', `TDX metadata sections cover over ${FIRMWARE_MAX_BYTES} bytes`);
    sections.push(section);
  }
  return sections;
}

function parseSection(bytes: Uint8Array, fileSize: number): TdvfSection {
  const view = viewOf(bytes);
  const memorySize = view.getBigUint64(16, true);
  if (memorySize > BigInt(FIRMWARE_MAX_BYTES))
    throw malformed('input_too_large', `TDX metadata section covers ${memorySize} bytes`);
  const section = {
    dataOffset: view.getUint32(0, true),
    rawSize: view.getUint32(4, true),
    gpa: view.getBigUint64(8, true),
    memorySize: Number(memorySize),
    type: view.getUint32(24, true),
    attributes: view.getUint32(28, true),
  };
  const name = `TDX metadata section at 0x${section.gpa.toString(16)}`;
  if (!(Object.values(TDVF_TYPE) as number[]).includes(section.type))
    throw malformed('malformed_firmware', `${name} has type ${section.type}, which is not known`);
  if (section.attributes > 3)
    throw malformed(
      'malformed_firmware',
      `${name} has attributes 0x${section.attributes.toString(16)}, which are not known`,
    );
  if (section.gpa % 4096n !== 0n || section.memorySize % PAGE_BYTES !== 0 || section.gpa >= 1n << 52n) {
    throw malformed('malformed_firmware', `${name} is not whole pages`);
  }
  if (section.dataOffset + section.rawSize > fileSize)
    throw malformed('malformed_firmware', `${name} takes data from outside the file`);
  if (section.rawSize > section.memorySize)
    throw malformed('malformed_firmware', `${name} has more data than memory`);
  // The page is extended as it was added; the monitor fills a section longer than its data with zeros.
  return section;
}

const RECORD_BYTES = 128;
const EXTEND_BYTES = 256;
const PAGE_ADD = utf8('MEM.PAGE.ADD');
const MR_EXTEND = utf8('MR.EXTEND');

function mrTdOf(firmware: Uint8Array, sections: readonly TdvfSection[], order: 'single' | 'two'): Uint8Array {
  const hash = sha384.create();
  const add = (gpa: bigint): void => void hash.update(record(PAGE_ADD, gpa));
  const extend = (gpa: bigint, page: Uint8Array): void => {
    for (let at = 0; at < PAGE_BYTES; at += EXTEND_BYTES) {
      hash.update(record(MR_EXTEND, gpa + BigInt(at)));
      hash.update(page.subarray(at, at + EXTEND_BYTES));
    }
  };
  for (const section of sections) {
    const adds = (section.attributes & ATTRIBUTE.pageAug) === 0;
    const extends_ = (section.attributes & ATTRIBUTE.extend) !== 0;
    const pages = Array.from({ length: section.memorySize / PAGE_BYTES }, (_, index) => index * PAGE_BYTES);
    for (const offset of pages) {
      if (adds) add(section.gpa + BigInt(offset));
      if (extends_ && order === 'single')
        extend(section.gpa + BigInt(offset), pageAt(firmware, section, offset));
    }
    if (extends_ && order === 'two')
      for (const offset of pages) extend(section.gpa + BigInt(offset), pageAt(firmware, section, offset));
  }
  return hash.digest();
}

function pageAt(firmware: Uint8Array, section: TdvfSection, offset: number): Uint8Array {
  const page = new Uint8Array(PAGE_BYTES);
  const from = section.dataOffset + offset;
  const to = Math.min(from + PAGE_BYTES, section.dataOffset + section.rawSize);
  if (from < to) page.set(firmware.subarray(from, to));
  return page;
}

/** The 128 bytes TDX hashes for an operation: its name, the guest-physical address, zeros. */
function record(operation: Uint8Array, gpa: bigint): Uint8Array {
  const bytes = new Uint8Array(RECORD_BYTES);
  bytes.set(operation);
  viewOf(bytes).setBigUint64(16, gpa, true);
  return bytes;
}
