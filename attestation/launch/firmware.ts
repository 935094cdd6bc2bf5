// Guest firmware (OVMF) as launch measurement needs it: the GUIDed table at its end (edk2
// OvmfPkg/ResetVector/Ia16/ ResetVectorVtf0.asm) and our list of accepted files. The SNP_KERNEL_HASHES
// section is no proof: edk2's generic OvmfPkgX64 build declares it and links BlobVerifierLibNull, which
// enforces no hash. So firmware is accepted by the SHA-256 of the whole file, never by what it declares.

import { sha256 } from '@noble/hashes/sha2.js';
import { toHex, viewOf } from '../encoding/bytes.ts';
import { malformed, refused } from '../transcript/errors.ts';

/** How a TDX firmware turns `-kernel`, `-initrd`, `-append` into events; differs between OVMF releases. */
export type DirectBootEvents =
  /**
   * edk2 from 2025 on with QEMU ≥ 10: the kernel file as given, and `initrd=initrd ` before the command line.
   */
  'kernel-as-given, initrd first';

/** A firmware file (OVMF) we have read and found to enforce what it measures; `sha256` in hex. */
export interface KnownFirmware {
  readonly sha256: string;
  /** Where the file comes from: distribution package, version and path. */
  readonly source: string;
  /** Boots `-kernel` on SEV-SNP only if it matches the measured hashes. */
  readonly snp?: { readonly enforcesKernelHashes: true } | undefined;
  /** Boots `-kernel` on TDX and measures it into RTMR1 and RTMR2. */
  readonly tdx?: { readonly directBoot: DirectBootEvents } | undefined;
}

/** Firmware whose build was looked at. One file may be sound for one TEE and useless for the other. */
export const KNOWN_FIRMWARE: readonly KnownFirmware[] = [
  {
    // AmdSevX64.dsc links BlobVerifierLibSevHashes: a kernel, initrd or command line that is not in
    // the table is not booted.
    sha256: '3e4fd0b3fe3b2dbe481c3d9e99418a034174f26cbe1f55aa212b0f18c12d2d6f',
    source: 'Debian ovmf-amdsev 2026.08+ds-2, usr/share/ovmf/OVMF.amdsev.fd',
    snp: { enforcesKernelHashes: true },
  },
  {
    // OvmfPkgX64.dsc with TDX support and no Secure Boot keys enrolled. Not for SNP: it
    // links BlobVerifierLibNull.
    sha256: '6a3e8f438ad7269f5dfd884647587b88391fb23965bb3aa7902b519438dba129',
    source: 'Debian ovmf-generic 2026.08+ds-2, usr/share/ovmf/OVMF.fd',
    tdx: { directBoot: 'kernel-as-given, initrd first' },
  },
];

export interface AcceptedFirmware {
  readonly sha256: string;
  /** False only when the caller overrode the list: the measurement may not bind the kernel at all. */
  readonly listed: boolean;
  readonly known?: KnownFirmware | undefined;
}

/**
 * Finds the file on the list for this TEE, or throws `firmware_not_listed`; `allowUnlisted`
 * accepts it, marked as such.
 * @example const { sha256 } = acceptFirmware(firmware, 'snp');
 */
export function acceptFirmware(
  firmware: Uint8Array,
  tee: 'snp' | 'tdx',
  options: { readonly allowUnlisted?: boolean | undefined } = {},
): AcceptedFirmware {
  const digest = toHex(sha256(firmware));
  const known = KNOWN_FIRMWARE.find((entry) => entry.sha256 === digest);
  if (known?.[tee] !== undefined) return { sha256: digest, listed: true, known };
  if (options.allowUnlisted === true) return { sha256: digest, listed: false };
  const allowed = KNOWN_FIRMWARE.filter((entry) => entry[tee] !== undefined);
  throw refused(
    'firmware_not_listed',
    known === undefined
      ? `firmware sha256 ${digest} is not on the list of accepted ${tee} firmware (${allowed.length} known)`
      : `firmware ${known.source} is known, but not accepted for ${tee}`,
    { expected: allowed.map((entry) => entry.sha256).join(' or '), actual: digest },
  );
}

export const FIRMWARE_MAX_BYTES = 64 << 20;
export const PAGE_BYTES = 4096;

const FOOTER_GUID = '96b582de-1fb2-45f7-baea-a366c55a082d';
/** The footer entry ends 32 bytes before the end of the file: the reset vector follows. */
const FOOTER_FROM_END = 32;
const ENTRY_HEADER_BYTES = 18;

/**
 * The firmware's size and table, checked: whole pages, at most 64 MiB, a table that lies inside
 * the file. Keys are GUIDs.
 */
export function parseGuidTable(firmware: Uint8Array): ReadonlyMap<string, Uint8Array> {
  const size = firmware.length;
  if (size > FIRMWARE_MAX_BYTES)
    throw malformed('input_too_large', `firmware is ${size} bytes, at most ${FIRMWARE_MAX_BYTES} are read`);
  if (size === 0 || size % PAGE_BYTES !== 0)
    throw malformed('malformed_firmware', `firmware is ${size} bytes, not a whole number of 4096-byte pages`);
  const view = viewOf(firmware);
  const footerEnd = size - FOOTER_FROM_END;
  const footer = footerEnd - ENTRY_HEADER_BYTES;
  const found = guidAt(firmware, footer + 2);
  if (found !== FOOTER_GUID)
    throw malformed('malformed_firmware', 'firmware has no guid table', {
      expected: FOOTER_GUID,
      actual: found,
    });
  const tableBytes = view.getUint16(footer, true);
  if (tableBytes < ENTRY_HEADER_BYTES || tableBytes > footerEnd) {
    throw malformed(
      'malformed_firmware',
      `guid table is ${tableBytes} bytes long, which does not fit the file`,
    );
  }
  const start = footerEnd - tableBytes;
  const entries = new Map<string, Uint8Array>();
  // Entries are read backwards: data, u16 length (of the whole entry), guid.
  for (let end = footer; end > start;) {
    const length = end - start < ENTRY_HEADER_BYTES ? 0 : view.getUint16(end - ENTRY_HEADER_BYTES, true);
    if (length < ENTRY_HEADER_BYTES || length > end - start)
      throw malformed(
        'malformed_firmware',
        `guid table entry is ${length} bytes, which does not fit the table`,
      );
    const guid = guidAt(firmware, end - 16);
    if (entries.has(guid)) throw malformed('malformed_firmware', `guid table has two entries for ${guid}`);
    entries.set(guid, firmware.subarray(end - length, end - ENTRY_HEADER_BYTES));
    end -= length;
  }
  return entries;
}

/** A 4-byte little-endian value of the table; throws unless the entry is there and exactly that long. */
export function guidTableU32(table: ReadonlyMap<string, Uint8Array>, guid: string, name: string): number {
  const data = table.get(guid);
  if (data === undefined) throw malformed('malformed_firmware', `firmware has no ${name} entry (${guid})`);
  if (data.length !== 4)
    throw malformed('malformed_firmware', `${name} entry is ${data.length} bytes, expected 4`);
  return viewOf(data).getUint32(0, true);
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}

/** GUID as text, from the mixed-endian bytes of UEFI. */
export function guidAt(bytes: Uint8Array, at: number): string {
  const view = viewOf(bytes);
  const tail = toHex(bytes.subarray(at + 8, at + 16));
  return `${hex(view.getUint32(at, true), 8)}-${hex(view.getUint16(at + 4, true), 4)}-${hex(view.getUint16(at + 6, true), 4)}-${tail.slice(0, 4)}-${tail.slice(4)}`;
}

/**
 * The mixed-endian bytes of a GUID written as text (a constant of ours, so not checked further).
 * @example const type = guidBytes('c12a7328-f81f-11d2-ba4b-00a0c93ec93b');
 */
export function guidBytes(guid: string): Uint8Array {
  const digits = guid.replaceAll('-', '');
  const byte = (index: number): number => Number.parseInt(digits.slice(2 * index, 2 * index + 2), 16);
  return Uint8Array.from([3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15], byte);
}
