// A unified kernel image (UAPI.5): the EFI stub with the kernel, its initrd and its command line as further
// sections, so that firmware measures all of it as one program. Written byte for byte; not signed.

import { readPe, SECTION_HEADER_BYTES, type UkiSection } from '@assay/attestation/launch';
import { badInput } from '../errors.ts';

const READ_DATA = 0x40000040;

/** Their order in the file. The kernel is last, so that it may unpack itself behind its own. */
const ORDER = ['.cmdline', '.uname', '.initrd', '.linux'] as const satisfies readonly UkiSection[];

export type UkiContent = Readonly<Record<(typeof ORDER)[number], Uint8Array>>;

/** Throws for a stub that is no PE32+ program, has such sections already, or has no room for more headers. */
export function writeUki(stub: Uint8Array, content: UkiContent): Uint8Array {
  const pe = readPe(stub);
  const taken = pe.sections.find(({ name }) => (ORDER as readonly string[]).includes(name));
  if (taken !== undefined) throw badInput(`the EFI stub has a section ${taken.name} already`);
  const tableEnd = pe.sectionTable + (pe.sections.length + ORDER.length) * SECTION_HEADER_BYTES;
  if (tableEnd > pe.sizeOfHeaders)
    throw badInput('the EFI stub has no room for the headers of more sections');
  const last = pe.sections.reduce((end, { virtualAddress, virtualSize }) => {
    return Math.max(end, virtualAddress + virtualSize);
  }, 0);
  const head = Buffer.alloc(alignedTo(stub.length, pe.fileAlignment));
  head.set(stub);
  const parts: Buffer[] = [head];
  let fileAt = head.length;
  let address = alignedTo(last, pe.sectionAlignment);
  let initialised = 0;
  ORDER.forEach((name, index) => {
    const bytes = content[name];
    const raw = Buffer.alloc(alignedTo(bytes.length, pe.fileAlignment));
    raw.set(bytes);
    const at = pe.sectionTable + (pe.sections.length + index) * SECTION_HEADER_BYTES;
    head.write(name.padEnd(8, '\0'), at, 'latin1');
    head.writeUInt32LE(bytes.length, at + 8);
    head.writeUInt32LE(address, at + 12);
    head.writeUInt32LE(raw.length, at + 16);
    head.writeUInt32LE(fileAt, at + 20);
    head.writeUInt32LE(READ_DATA, at + 36);
    parts.push(raw);
    fileAt += raw.length;
    initialised += raw.length;
    address = alignedTo(address + bytes.length, pe.sectionAlignment);
  });
  head.writeUInt16LE(pe.sections.length + ORDER.length, pe.fileHeader + 2);
  head.writeUInt32LE(head.readUInt32LE(pe.optionalHeader + 8) + initialised, pe.optionalHeader + 8);
  head.writeUInt32LE(address, pe.optionalHeader + 56);
  head.writeUInt32LE(0, pe.optionalHeader + 64);
  return Buffer.concat(parts);
}

function alignedTo(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}
