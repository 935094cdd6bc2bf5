// A PE32+ file (Microsoft PE Format, "Optional Header", "Section Table"), as far as a boot is measured by it:
// its sections, and its Authenticode digest, which UEFI firmware extends when it loads the program (Windows
// Authenticode Portable Executable Signature Format, "Calculating the PE Image Hash"; edk2
// OvmfPkg/Tcg/TdTcg2Dxe/MeasureBootPeCoff.c). The digest covers all of the file but the checksum, the
// certificate directory entry and the certificates.

import { type sha256, sha384 } from '@noble/hashes/sha2.js';
import { viewOf } from '../encoding/bytes.ts';
import { malformed } from '../transcript/errors.ts';

const MAX_IMAGE_BYTES = 256 << 20;
const OPTIONAL_HEADER = {
  magic: 0,
  sectionAlignment: 32,
  fileAlignment: 36,
  sizeOfHeaders: 60,
  checkSum: 64,
  directories: 108,
  certificates: 144,
} as const;
const PE32_PLUS = 0x20b;
/** Bytes of a header in the section table. */
export const SECTION_HEADER_BYTES = 40;

/** A section of a PE file; offsets and sizes in bytes. */
export interface PeSection {
  /** As in the header, without its zeros. */
  readonly name: string;
  readonly virtualAddress: number;
  readonly virtualSize: number;
  readonly rawOffset: number;
  readonly rawSize: number;
}

/** Where things lie in a PE file; offsets from its start. */
export interface PeFile {
  readonly fileHeader: number;
  readonly optionalHeader: number;
  readonly sectionTable: number;
  readonly sectionAlignment: number;
  readonly fileAlignment: number;
  readonly sizeOfHeaders: number;
  readonly hasCertificates: boolean;
  readonly sections: readonly PeSection[];
}

/**
 * `malformed_firmware` for anything but a PE32+ file whose tables and sections lie in the file.
 * @example const { sections } = readPe(image);
 */
export function readPe(image: Uint8Array): PeFile {
  if (image.length > MAX_IMAGE_BYTES)
    throw malformed(
      'input_too_large',
      `PE image is ${image.length} bytes, at most ${MAX_IMAGE_BYTES} are read`,
    );
  const view = viewOf(image);
  if (image.length < 64 || view.getUint16(0, true) !== 0x5a4d) throw bad('no MZ signature');
  const signature = view.getUint32(60, true);
  const fileHeader = signature + 4;
  const optionalHeader = signature + 24;
  if (optionalHeader + OPTIONAL_HEADER.certificates + 8 > image.length) throw bad('header outside the file');
  if (view.getUint32(signature, true) !== 0x4550) throw bad('no PE signature');
  if (view.getUint16(optionalHeader + OPTIONAL_HEADER.magic, true) !== PE32_PLUS)
    throw bad('optional header is not PE32+');
  const count = view.getUint16(fileHeader + 2, true);
  const sectionTable = optionalHeader + view.getUint16(fileHeader + 16, true);
  if (sectionTable + count * SECTION_HEADER_BYTES > image.length) throw bad('headers outside the file');
  return {
    fileHeader,
    optionalHeader,
    sectionTable,
    sectionAlignment: view.getUint32(optionalHeader + OPTIONAL_HEADER.sectionAlignment, true),
    fileAlignment: view.getUint32(optionalHeader + OPTIONAL_HEADER.fileAlignment, true),
    sizeOfHeaders: view.getUint32(optionalHeader + OPTIONAL_HEADER.sizeOfHeaders, true),
    hasCertificates: view.getUint32(optionalHeader + OPTIONAL_HEADER.directories, true) > 4,
    sections: Array.from({ length: count }, (_, index) => {
      const at = sectionTable + index * SECTION_HEADER_BYTES;
      return {
        name: String.fromCharCode(...image.subarray(at, at + 8)).replace(/\0+$/, ''),
        virtualSize: view.getUint32(at + 8, true),
        virtualAddress: view.getUint32(at + 12, true),
        rawSize: view.getUint32(at + 16, true),
        rawOffset: view.getUint32(at + 20, true),
      };
    }),
  };
}

/** The 48-byte Authenticode digest; throws as {@link readPe}. */
export function authenticodeSha384(image: Uint8Array): Uint8Array {
  return authenticode(image, sha384);
}

/** As {@link authenticodeSha384}, with the hash of a register's bank. */
export function authenticode(image: Uint8Array, bank: typeof sha256 | typeof sha384): Uint8Array {
  const pe = readPe(image);
  const view = viewOf(image);
  const { sizeOfHeaders: headersEnd, hasCertificates, optionalHeader, sections } = pe;
  const checksum = optionalHeader + OPTIONAL_HEADER.checkSum;
  const directory = optionalHeader + OPTIONAL_HEADER.certificates;
  const headerStart = hasCertificates ? directory + 8 : checksum + 4;
  if (headersEnd > image.length || headersEnd < headerStart) throw bad('headers outside the file');
  const certificateBytes = hasCertificates ? view.getUint32(directory + 4, true) : 0;

  const hash = bank.create();
  hash.update(image.subarray(0, checksum));
  if (hasCertificates) hash.update(image.subarray(checksum + 4, directory));
  hash.update(image.subarray(headerStart, headersEnd));
  let hashed = headersEnd;
  const inFileOrder = sections
    .filter(({ rawSize }) => rawSize > 0)
    .toSorted((a, b) => a.rawOffset - b.rawOffset);
  for (const { rawOffset, rawSize } of inFileOrder) {
    if (rawOffset + rawSize > image.length) throw bad('section outside the file');
    hash.update(image.subarray(rawOffset, rawOffset + rawSize));
    hashed += rawSize;
  }
  if (hashed + certificateBytes > image.length)
    throw bad('sections and certificates are longer than the file');
  hash.update(image.subarray(hashed, image.length - certificateBytes));
  return hash.digest();
}

function bad(what: string): Error {
  return malformed('malformed_firmware', `not a PE32+ image: ${what}`);
}
