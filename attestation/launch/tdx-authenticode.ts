// Authenticode SHA-384 of a PE/COFF image, which UEFI firmware measures when it loads the kernel (Windows
// Authenticode Portable Executable Signature Format, "Calculating the PE Image Hash"; edk2
// OvmfPkg/Tcg/TdTcg2Dxe/MeasureBootPeCoff.c). Covers all of the file but the checksum, the certificate
// directory entry and the certificates. Refuses what is not a PE32+ image.

import { sha384 } from '@noble/hashes/sha2.js';
import { viewOf } from '../encoding/bytes.ts';
import { malformed } from '../transcript/errors.ts';

const MAX_IMAGE_BYTES = 256 << 20;
const OPTIONAL_HEADER = {
  magic: 0,
  sizeOfHeaders: 60,
  checkSum: 64,
  directories: 108,
  certificates: 144,
} as const;
const PE32_PLUS = 0x20b;
const SECTION_HEADER_BYTES = 40;

/** The 48-byte digest; `malformed_firmware` for anything but a PE32+ image whose tables lie in the file. */
export function authenticodeSha384(image: Uint8Array): Uint8Array {
  if (image.length > MAX_IMAGE_BYTES)
    throw malformed(
      'input_too_large',
      `kernel is ${image.length} bytes, at most ${MAX_IMAGE_BYTES} are read`,
    );
  const view = viewOf(image);
  if (image.length < 64 || view.getUint16(0, true) !== 0x5a4d) throw bad('no MZ signature');
  const pe = view.getUint32(60, true);
  const optional = pe + 24;
  if (optional + OPTIONAL_HEADER.certificates + 8 > image.length) throw bad('header outside the file');
  if (view.getUint32(pe, true) !== 0x4550) throw bad('no PE signature');
  if (view.getUint16(optional + OPTIONAL_HEADER.magic, true) !== PE32_PLUS)
    throw bad('optional header is not PE32+');
  const sectionCount = view.getUint16(pe + 6, true);
  const sectionTable = optional + view.getUint16(pe + 20, true);
  const headersEnd = view.getUint32(optional + OPTIONAL_HEADER.sizeOfHeaders, true);
  const hasCertificates = view.getUint32(optional + OPTIONAL_HEADER.directories, true) > 4;
  const checksum = optional + OPTIONAL_HEADER.checkSum;
  const directory = optional + OPTIONAL_HEADER.certificates;
  const headerStart = hasCertificates ? directory + 8 : checksum + 4;
  const sectionTableEnd = sectionTable + sectionCount * SECTION_HEADER_BYTES;
  if (headersEnd > image.length || headersEnd < headerStart || sectionTableEnd > image.length)
    throw bad('headers outside the file');
  const certificateBytes = hasCertificates ? view.getUint32(directory + 4, true) : 0;

  const hash = sha384.create();
  hash.update(image.subarray(0, checksum));
  if (hasCertificates) hash.update(image.subarray(checksum + 4, directory));
  hash.update(image.subarray(headerStart, headersEnd));
  let hashed = headersEnd;
  for (const { from, size } of sectionsInFileOrder(view, sectionTable, sectionCount)) {
    if (from + size > image.length) throw bad('section outside the file');
    hash.update(image.subarray(from, from + size));
    hashed += size;
  }
  if (hashed + certificateBytes > image.length)
    throw bad('sections and certificates are longer than the file');
  hash.update(image.subarray(hashed, image.length - certificateBytes));
  return hash.digest();
}

function sectionsInFileOrder(view: DataView, table: number, count: number): { from: number; size: number }[] {
  return Array.from({ length: count }, (_, index) => table + index * SECTION_HEADER_BYTES)
    .map((at) => ({ size: view.getUint32(at + 16, true), from: view.getUint32(at + 20, true) }))
    .filter(({ size }) => size > 0)
    .sort((a, b) => a.from - b.from);
}

function bad(what: string): Error {
  return malformed('malformed_firmware', `kernel is not a PE32+ image: ${what}`);
}
