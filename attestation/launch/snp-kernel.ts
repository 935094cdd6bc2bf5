// The page of kernel hashes QEMU writes for measured direct boot (`kernel-hashes=on`; QEMU
// target/i386/sev.c, struct SevHashTable): SHA-256 of command line, initrd and kernel, in a table the
// firmware checks before it boots them.

import { sha256 } from '@noble/hashes/sha2.js';
import { concatBytes, utf8 } from '../encoding/bytes.ts';
import { malformed } from '../transcript/errors.ts';
import { guidBytes, PAGE_BYTES } from './firmware.ts';

/** SHA-256 of the three inputs, as the table carries them. */
export interface KernelHashes {
  readonly kernel: Uint8Array;
  readonly initrd: Uint8Array;
  readonly cmdline: Uint8Array;
}

export interface KernelFiles {
  /** The kernel file as given to `-kernel`, unpatched. */
  readonly kernel: Uint8Array;
  /** Absent is the same as empty. */
  readonly initrd?: Uint8Array | undefined;
  /** As given to `-append`, without a trailing NUL. */
  readonly cmdline: string;
}

export function kernelHashes({ kernel, initrd, cmdline }: KernelFiles): KernelHashes {
  if (cmdline.includes('\0'))
    throw malformed('malformed_launch', 'kernel command line contains a NUL character');
  return {
    kernel: sha256(kernel),
    initrd: sha256(initrd ?? new Uint8Array(0)),
    cmdline: sha256(utf8(`${cmdline}\0`)),
  };
}

const TABLE_GUID = guidBytes('9438d606-4f22-4cc9-b479-a793d411fd21');
const CMDLINE_GUID = guidBytes('97d02dd8-bd20-4c94-aa78-e7714d36ab2a');
const INITRD_GUID = guidBytes('44baf731-3a2f-4bd7-9af1-41e29169781d');
const KERNEL_GUID = guidBytes('4de79437-abd2-427f-b835-d5b172d2045b');

const ENTRY_BYTES = 16 + 2 + 32;
const TABLE_BYTES = 16 + 2 + 3 * ENTRY_BYTES;
/** QEMU pads the table to a multiple of 16 bytes; the padding is measured, as zeros. */
const PADDED_TABLE_BYTES = (TABLE_BYTES + 15) & ~15;

/** The whole page, with the table at `hashTableGpa`'s offset in it. */
export function kernelHashPage(hashes: KernelHashes, hashTableGpa: number): Uint8Array {
  const offset = hashTableGpa % PAGE_BYTES;
  if (offset + PADDED_TABLE_BYTES > PAGE_BYTES) {
    throw malformed(
      'malformed_firmware',
      `kernel-hash table at 0x${hashTableGpa.toString(16)} does not end within its page`,
    );
  }
  const page = new Uint8Array(PAGE_BYTES);
  page.set(
    concatBytes(
      TABLE_GUID,
      u16Bytes(TABLE_BYTES),
      entry(CMDLINE_GUID, hashes.cmdline),
      entry(INITRD_GUID, hashes.initrd),
      entry(KERNEL_GUID, hashes.kernel),
    ),
    offset,
  );
  return page;
}

function entry(guid: Uint8Array, digest: Uint8Array): Uint8Array {
  if (digest.length !== 32)
    throw malformed('malformed_length', `kernel hash is ${digest.length} bytes, expected 32`);
  return concatBytes(guid, u16Bytes(ENTRY_BYTES), digest);
}

function u16Bytes(value: number): Uint8Array {
  return Uint8Array.of(value & 0xff, value >> 8);
}
