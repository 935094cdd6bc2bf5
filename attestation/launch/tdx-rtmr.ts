// Predicts RTMR0, RTMR1 and RTMR2 of a TDX guest booted directly (`-kernel -initrd -append`): the events the
// firmware and the kernel's EFI stub extend (UEFI 2.10 §38, TCG PC Client Platform Firmware Profile 1.06;
// edk2 OvmfPkg/Tcg/TdTcg2Dxe). Which events, and in which order, depends on the firmware build: the predictor
// is chosen by the firmware's entry in our list. RTMR0 depends on the machine's shape as well, which only its
// ACPI tables and memory map tell: those digests are inputs.

import { sha384 } from '@noble/hashes/sha2.js';
import { fromHex, utf8 } from '../encoding/bytes.ts';
import { malformed } from '../transcript/errors.ts';
import type { DirectBootEvents } from './firmware.ts';
import { authenticodeSha384 } from './pe.ts';
import { extendAll } from './registers.ts';
import { secureBootOff } from './secure-boot.ts';
import { parseTdvfSections, TDVF_TYPE } from './tdx.ts';
import { utf16 } from './utf16.ts';

/** The files QEMU boots directly (`-kernel`, `-initrd`, `-append`); RTMR1 and RTMR2 measure it. */
export interface DirectBoot {
  /** The kernel file as given to `-kernel`, unpatched. */
  readonly kernel: Uint8Array;
  readonly initrd: Uint8Array;
  /** As given to `-append`. */
  readonly cmdline: string;
}

/**
 * Extends a register of zeros by each 48-byte digest in turn.
 * @example const rtmr1 = replay(rtmr1Events({ kernel }));
 */
export function replay(digests: readonly Uint8Array[]): Uint8Array {
  return extendAll(digests, 'sha384');
}

/**
 * Digests of the events in RTMR1, in order.
 * @example const rtmr1 = replay(rtmr1Events({ kernel }));
 */
export function rtmr1Events({ kernel }: Pick<DirectBoot, 'kernel'>): readonly Uint8Array[] {
  return [
    authenticodeSha384(kernel),
    sha384(utf8('Calling EFI Application from Boot Option')),
    SEPARATOR,
    sha384(utf8('Exit Boot Services Invocation')),
    sha384(utf8('Exit Boot Services Returned with Success')),
  ];
}

/**
 * Digests of the events in RTMR2, in order: load options and initrd, measured by the kernel's EFI stub.
 * @example const rtmr2 = replay(rtmr2Events({ cmdline, initrd }, events));
 */
export function rtmr2Events(
  { cmdline, initrd }: Pick<DirectBoot, 'cmdline' | 'initrd'>,
  events: DirectBootEvents,
): readonly Uint8Array[] {
  return [sha384(loadOptions(cmdline, events)), sha384(initrd)];
}

/** The kernel's load options: UTF-16LE with a final NUL. */
function loadOptions(cmdline: string, events: DirectBootEvents): Uint8Array {
  if (!/^[\x20-\x7e]*$/.test(cmdline))
    throw malformed('malformed_launch', 'kernel command line is not printable ASCII');
  switch (events) {
    case 'kernel-as-given, initrd first':
      return utf16(`initrd=initrd ${cmdline}\0`);
  }
}

/** The inputs of RTMR0 for one TD shape, from its VMM: SHA-384 digests, 48 bytes each. */
export interface Rtmr0Shape {
  /** SHA-384 of the TD hand-off block: the memory map, so the memory size. */
  readonly tdHob: Uint8Array;
  /**
   * SHA-384 of fw_cfg `etc/table-loader`, `etc/acpi/rsdp`, `etc/acpi/tables`, in the order
   * the firmware reads them.
   */
  readonly acpi: readonly Uint8Array[];
  /** SHA-384 of the data of BootOrder and each Boot####, in that order. */
  readonly bootVariables: readonly Uint8Array[];
}

/**
 * Digests of the events in RTMR0, in order, for a firmware without Secure Boot keys.
 * @example const rtmr0 = replay(rtmr0Events(firmware, shape));
 */
export function rtmr0Events(firmware: Uint8Array, shape: Rtmr0Shape): readonly Uint8Array[] {
  for (const digest of [shape.tdHob, ...shape.acpi, ...shape.bootVariables]) {
    if (digest.length !== 48)
      throw malformed('malformed_length', `rtmr0 shape has a digest of ${digest.length} bytes, expected 48`);
  }
  return [
    shape.tdHob,
    configurationVolume(firmware),
    ...secureBootOff(sha384),
    SEPARATOR,
    ...shape.acpi,
    ...shape.bootVariables,
  ];
}

/**
 * SHA-384 of the configuration firmware volume (variables as built), measured because MRTD does not cover it.
 */
export function configurationVolume(firmware: Uint8Array): Uint8Array {
  const section = parseTdvfSections(firmware).find(({ type }) => type === TDVF_TYPE.cfv);
  if (section === undefined)
    throw malformed('malformed_firmware', 'firmware has no configuration volume section');
  return sha384(firmware.subarray(section.dataOffset, section.dataOffset + section.rawSize));
}

const SEPARATOR = sha384(fromHex('00000000'));
