// The SEV-SNP launch digest is a chain: each guest page added by SNP_LAUNCH_UPDATE replaces the digest
// by SHA-384(PAGE_INFO), which holds the digest before it (SEV-SNP Firmware ABI Specification, rev.
// 1.55, §8.17.2, table 67).

import { sha384 } from '@noble/hashes/sha2.js';
import { viewOf } from '../encoding/bytes.ts';
import { encodeLayout, raw, u16, u64, u8 } from '../encoding/layout.ts';
import { PAGE_BYTES } from './firmware.ts';

export const PAGE_TYPE = { normal: 1, vmsa: 2, zero: 3, unmeasured: 4, secrets: 5, cpuid: 6 } as const;
export type PageType = (typeof PAGE_TYPE)[keyof typeof PAGE_TYPE];

const PAGE_INFO_BYTES = 0x70;
const PAGE_INFO = {
  digestCur: raw(0x00, 48), // launch digest so far
  contents: raw(0x30, 48), // SHA-384 of the page for NORMAL and VMSA, else zero
  length: u16(0x60), // length of this structure
  pageType: u8(0x62), // page type
  imiPage: u8(0x63), // initial migration image: never
  vmpl3Perms: u8(0x64), // permissions of VMPL 3
  vmpl2Perms: u8(0x65), // permissions of VMPL 2
  vmpl1Perms: u8(0x66), // permissions of VMPL 1
  gpa: u64(0x68), // guest-physical address
} as const;

/** Consecutive pages of one type. */
export interface PageRun {
  readonly pageType: PageType;
  /** Guest-physical address of the first page. */
  readonly gpa: number;
  /** Bytes, a multiple of 4096. */
  readonly size: number;
  /**
   * The 48-byte CONTENTS of the page at an offset; without it CONTENTS is zero, as for every
   * type but NORMAL and VMSA.
   */
  readonly contentsOf?: ((offset: number) => Uint8Array) | undefined;
}

/** The digest after adding the pages. */
export function addPages(digest: Uint8Array, { pageType, gpa, size, contentsOf }: PageRun): Uint8Array {
  const info = encodeLayout(
    PAGE_INFO,
    { digestCur: digest, length: PAGE_INFO_BYTES, pageType },
    PAGE_INFO_BYTES,
  );
  const view = viewOf(info);
  for (let offset = 0; offset < size; offset += PAGE_BYTES) {
    if (contentsOf !== undefined) info.set(contentsOf(offset), PAGE_INFO.contents.at);
    view.setBigUint64(PAGE_INFO.gpa.at, BigInt(gpa + offset), true);
    info.set(sha384(info), 0);
  }
  return info.slice(0, 48);
}
