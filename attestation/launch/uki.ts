// Predicts the registers of a guest that boots a unified kernel image from a disk: PCR 4, 5, 7, 9, 11, 12 of
// a TPM, and RTMR1 and RTMR2 of a TD (TCG PC Client Platform Firmware Profile 1.06; UEFI 2.10 §38.4.1 for the
// registers of a TD; UAPI.5 and UAPI.7 for the sections an EFI stub measures). Which events there are depends
// on the stub: those of the stubs on our list are known.

import { sha256, sha384 } from '@noble/hashes/sha2.js';
import { fromHex, toHex, utf8 } from '../encoding/bytes.ts';
import { malformed, refused } from '../transcript/errors.ts';
import { utf16 } from './utf16.ts';
import { readGpt } from './gpt.ts';
import { authenticode, readPe } from './pe.ts';
import { secureBootOff } from './secure-boot.ts';

/** Sections an EFI stub of our list measures, in the order in which it does. */
export const UKI_SECTIONS = ['.linux', '.cmdline', '.initrd', '.uname', '.sbat'] as const;
/** The name of one of them. */
export type UkiSection = (typeof UKI_SECTIONS)[number];

/** Sections that such a stub would act on, and that ours never have. */
const OTHER_SECTIONS = /^\.(?:osrel|ucode|splash|dtb|dtbauto|pcrsig|pcrpkey|profile|hwids|efifw)$/;

/**
 * EFI stubs whose events were looked at. `code`: SHA-256 of the sections they have from the start, name and
 * content each, in file order: a unified kernel image says with which stub it was made.
 */
const KNOWN_STUBS: readonly { readonly code: string; readonly source: string }[] = [
  {
    code: 'de5640e410d4f756c35e1e798619a4c90e35070b7592dc4d607e9580dd6f6990',
    source: 'Debian systemd-boot-efi 257.13-1~deb13u1, usr/lib/systemd/boot/efi/linuxx64.efi.stub',
  },
];

/** A unified kernel image, taken apart. */
export interface UnifiedKernel {
  readonly sections: Readonly<Record<UkiSection, Uint8Array>>;
  /** The stub as our list names it. */
  readonly stub: string;
}

/**
 * Takes a unified kernel image apart. Throws `malformed_uki` for another shape and `stub_not_listed` for a
 * stub whose events are not known.
 * @example const { sections } = readUki(bytes);
 */
export function readUki(image: Uint8Array): UnifiedKernel {
  const found = new Map<string, Uint8Array>();
  const code = sha256.create();
  for (const { name, virtualSize, rawOffset, rawSize } of readPe(image).sections) {
    if (rawOffset + rawSize > image.length)
      throw malformed('malformed_uki', `section ${name} lies outside the file`);
    if (found.has(name)) throw malformed('malformed_uki', `there are two sections ${name}`);
    if (OTHER_SECTIONS.test(name)) throw malformed('malformed_uki', `section ${name} is not expected`);
    const content = image.subarray(rawOffset, rawOffset + Math.min(virtualSize, rawSize));
    found.set(name, content);
    if (name === '.sbat' || !(UKI_SECTIONS as readonly string[]).includes(name))
      code.update(utf8(`${name}\0`)).update(content);
  }
  const missing = UKI_SECTIONS.find((name) => !found.has(name));
  if (missing !== undefined) throw malformed('malformed_uki', `there is no section ${missing}`);
  const digest = toHex(code.digest());
  const known = KNOWN_STUBS.find((stub) => stub.code === digest);
  if (known === undefined)
    throw refused('stub_not_listed', 'it is not known what this EFI stub measures', {
      expected: KNOWN_STUBS.map((stub) => stub.code).join(' or '),
      actual: digest,
    });
  return {
    sections: Object.fromEntries(found) as unknown as UnifiedKernel['sections'],
    stub: known.source,
  };
}

const ASKED = 'Exit Boot Services Invocation';
const FAILED = 'Exit Boot Services Returned with Failure';
const LEFT = 'Exit Boot Services Returned with Success';

/** Digests of the events of a boot, in the order of each register. */
export interface BootEvents {
  readonly pcr4: readonly Uint8Array[];
  readonly pcr5: readonly Uint8Array[];
  /** Of a firmware without Secure Boot variables (our own); a cloud's firmware has others. */
  readonly pcr7: readonly Uint8Array[];
  readonly pcr9: readonly Uint8Array[];
  readonly pcr11: readonly Uint8Array[];
  /** None: it would hold a command line from outside. */
  readonly pcr12: readonly Uint8Array[];
  /** In the order of RTMR1 (PCR 2 to 6) and RTMR2 (PCR 8 to 15) of a TD. */
  readonly rtmr1: readonly Uint8Array[];
  readonly rtmr2: readonly Uint8Array[];
  /**
   * The same where the firmware's memory changed while the kernel left it, so that it had to ask a second
   * time (UEFI 2.10 §7.4.6; the kernel's EFI stub asks twice at most): two events more.
   */
  readonly repeatedExit: Readonly<Record<'pcr5' | 'rtmr1', readonly Uint8Array[]>>;
}

/** A disk to boot from. */
export interface BootDisk {
  /** The file that firmware starts. */
  readonly uki: Uint8Array;
  /** The disk from its first byte, GPT_HEAD_BYTES at least. */
  readonly head: Uint8Array;
}

/**
 * The events of a boot from the disk, for a bank of SHA-256 or SHA-384. Throws as {@link readUki} and
 * {@link readGpt} do.
 * @example const { pcr4 } = bootEvents({ uki, head }, 'sha256');
 */
export function bootEvents({ uki, head }: BootDisk, bank: 'sha256' | 'sha384'): BootEvents {
  const hash = bank === 'sha256' ? sha256 : sha384;
  const { sections } = readUki(uki);
  const calling = hash(utf8('Calling EFI Application from Boot Option'));
  const separator = hash(fromHex('00000000'));
  const table = hash(readGpt(head).event);
  const programs = [authenticode(uki, hash), authenticode(sections['.linux'], hash)];
  const [asked, failed, left] = [hash(utf8(ASKED)), hash(utf8(FAILED)), hash(utf8(LEFT))];
  const initrd = hash(sections['.initrd']);
  const contentOf = (name: UkiSection): Uint8Array => (name === '.initrd' ? initrd : hash(sections[name]));
  const measured = UKI_SECTIONS.flatMap((name) => [hash(utf8(`${name}\0`)), contentOf(name)]);
  const kernel = [hash(loadOptions(sections['.cmdline'])), initrd];
  const pcr5 = [separator, table, asked];
  const rtmr1 = [calling, separator, table, ...programs, asked];
  return {
    pcr4: [calling, separator, ...programs],
    pcr5: [...pcr5, left],
    pcr7: [...secureBootOff(hash), separator],
    pcr9: kernel,
    pcr11: measured,
    pcr12: [],
    rtmr1: [...rtmr1, left],
    rtmr2: [...measured, ...kernel],
    repeatedExit: { pcr5: [...pcr5, failed, asked, left], rtmr1: [...rtmr1, failed, asked, left] },
  };
}

/** The kernel is given its section as UTF-16LE, and measures that with a final NUL. */
function loadOptions(cmdline: Uint8Array): Uint8Array {
  if (!cmdline.every((byte) => byte >= 0x20 && byte <= 0x7e))
    throw malformed('malformed_uki', 'the command line is not printable ASCII');
  return utf16(`${String.fromCharCode(...cmdline)}\0`);
}
