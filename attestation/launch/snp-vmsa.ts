// The first register state of a vCPU, which SNP_LAUNCH_UPDATE measures as one page of type VMSA per vCPU
// (AMD64 Architecture Programmer's Manual vol. 2, rev. 3.42, appendix B, table B-4). It depends on the
// machine monitor: QEMU takes the CPU model's signature into RDX, Amazon's and Google's monitors do not.

import { encodeLayout, raw, u16, u32, u64 } from '../encoding/layout.ts';
import { PAGE_BYTES } from './firmware.ts';

/**
 * `ec2` is Amazon's monitor as seen in 2026 (RDX 0x600; virtee/sev-snp-measure#60), `ec2-2023` as it
 * was at its launch (RDX 0).
 */
export type Vmm = 'qemu' | 'ec2' | 'ec2-2023' | 'gce';

/** CPUID(1).EAX of QEMU's CPU models, which QEMU places in RDX at reset. */
export const VCPU_SIGNATURES: Readonly<Record<string, number>> = {
  EPYC: 0x800f12,
  'EPYC-v1': 0x800f12,
  'EPYC-v2': 0x800f12,
  'EPYC-IBPB': 0x800f12,
  'EPYC-v3': 0x800f12,
  'EPYC-v4': 0x800f12,
  'EPYC-Rome': 0x830f10,
  'EPYC-Rome-v1': 0x830f10,
  'EPYC-Rome-v2': 0x830f10,
  'EPYC-Rome-v3': 0x830f10,
  'EPYC-Milan': 0xa00f11,
  'EPYC-Milan-v1': 0xa00f11,
  'EPYC-Milan-v2': 0xa00f11,
  'EPYC-Genoa': 0xa10f10,
  'EPYC-Genoa-v1': 0xa10f10,
  'EPYC-Turin': 0xb00f00,
};

const VMSA = {
  es: raw(0x000, 16), // segment
  cs: raw(0x010, 16), // segment
  ss: raw(0x020, 16), // segment
  ds: raw(0x030, 16), // segment
  fs: raw(0x040, 16), // segment
  gs: raw(0x050, 16), // segment
  gdtr: raw(0x060, 16), // segment
  ldtr: raw(0x070, 16), // segment
  idtr: raw(0x080, 16), // segment
  tr: raw(0x090, 16), // segment
  efer: u64(0x0d0), // EFER: SVME
  cr4: u64(0x148), // CR4: MCE
  cr0: u64(0x158), // CR0: ET
  dr7: u64(0x160), // DR7 at reset
  dr6: u64(0x168), // DR6 at reset
  rflags: u64(0x170), // RFLAGS at reset
  rip: u64(0x178), // low 16 bits of the entry
  gPat: u64(0x268), // page attribute table
  rdx: u64(0x310), // CPU signature
  sevFeatures: u64(0x3b0), // SEV_FEATURES: bit 0 SNPActive, bit 5 DebugSwap
  xcr0: u64(0x3e8), // XCR0: x87
  mxcsr: u32(0x408), // MXCSR
  x87Fcw: u16(0x410), // x87 control word
} as const;

const SEGMENT = {
  selector: u16(0),
  attributes: u16(2),
  limit: u32(4),
  base: u64(8),
} as const;

/** Entry of the boot processor: the x86 reset vector. */
export const RESET_EIP = 0xfffffff0;

/** The 4096-byte page for a vCPU starting at `eip`. `signature` matters for QEMU only. */
export function vmsaPage(eip: number, signature: number, sevFeatures: bigint, vmm: Vmm): Uint8Array {
  const model = MODELS[vmm];
  const data = segment(0, 0x93, 0xffff);
  const state = {
    es: data,
    cs: segment(0xf000, model.csAttributes(eip), 0xffff, BigInt((eip & 0xffff0000) >>> 0)),
    ss: segment(0, model.ssAttributes, 0xffff),
    ds: data,
    fs: data,
    gs: data,
    gdtr: segment(0, 0, 0xffff),
    ldtr: segment(0, 0x82, 0xffff),
    idtr: segment(0, 0, 0xffff),
    tr: segment(0, model.trAttributes, 0xffff),
    efer: 0x1000n,
    cr4: 0x40n,
    cr0: 0x10n,
    dr7: 0x400n,
    dr6: 0xffff0ff0n,
    rflags: 2n,
    rip: BigInt(eip & 0xffff),
    gPat: model.gPat,
    rdx: BigInt(model.rdx ?? signature),
    sevFeatures,
    xcr0: 1n,
    mxcsr: model.mxcsr,
    x87Fcw: model.x87Fcw,
  };
  return encodeLayout(VMSA, state, PAGE_BYTES);
}

interface ResetModel {
  readonly csAttributes: (eip: number) => number;
  readonly ssAttributes: number;
  readonly trAttributes: number;
  readonly gPat: bigint;
  /** Fixed value; undefined: the CPU model's signature. */
  readonly rdx: number | undefined;
  readonly mxcsr: number;
  readonly x87Fcw: number;
}

const EC2: ResetModel = {
  csAttributes: (eip) => (eip === RESET_EIP ? 0x9a : 0x9b),
  ssAttributes: 0x92,
  trAttributes: 0x83,
  gPat: 0x7040600070406n,
  rdx: 0,
  mxcsr: 0,
  x87Fcw: 0,
};

const MODELS: Readonly<Record<Vmm, ResetModel>> = {
  qemu: {
    csAttributes: () => 0x9b,
    ssAttributes: 0x93,
    trAttributes: 0x8b,
    gPat: 0x7040600070406n,
    rdx: undefined,
    mxcsr: 0x1f80,
    x87Fcw: 0x37f,
  },
  ec2: { ...EC2, rdx: 0x600 },
  'ec2-2023': EC2,
  gce: {
    csAttributes: () => 0x9b,
    ssAttributes: 0x93,
    trAttributes: 0x8b,
    gPat: 0x70106n,
    rdx: 0x600,
    mxcsr: 0,
    x87Fcw: 0,
  },
};

function segment(selector: number, attributes: number, limit: number, base = 0n): Uint8Array {
  return encodeLayout(SEGMENT, { selector, attributes, limit, base }, 16);
}
