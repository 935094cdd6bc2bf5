// TCB_VERSION: eight bytes, laid out per product (AMD 56860 rev 1.58 §2.2; AMD 57230 §3.1). Milan and Genoa:
// bootloader, tee, four reserved, snp, microcode. Turin: fmc, bootloader, tee, snp, three reserved,
// microcode. Components are compared one by one; the eight bytes are never compared as a number.

import { isZero } from '../encoding/bytes.ts';

export type Product = 'Milan' | 'Genoa' | 'Turin';
export const PRODUCTS: readonly Product[] = ['Milan', 'Genoa', 'Turin'];

/** Security version numbers of one TCB_VERSION (AMD 56860 §2.2), each 0 to 255. */
export interface Tcb {
  readonly bootloader: number;
  readonly tee: number;
  readonly snp: number;
  readonly microcode: number;
  /** Turin only. */
  readonly fmc?: number | undefined;
}

export type TcbComponent = keyof Tcb;

const OFFSETS: Readonly<Record<Product, Readonly<Partial<Record<TcbComponent, number>>>>> = {
  Milan: { bootloader: 0, tee: 1, snp: 6, microcode: 7 },
  Genoa: { bootloader: 0, tee: 1, snp: 6, microcode: 7 },
  Turin: { fmc: 0, bootloader: 1, tee: 2, snp: 3, microcode: 7 },
};

/** The components a product has, in the order of its layout. */
export function tcbComponents(product: Product): readonly TcbComponent[] {
  return Object.keys(OFFSETS[product]) as TcbComponent[];
}

export function decodeTcb(bytes: Uint8Array, product: Product): Tcb {
  const tcb: Partial<Record<TcbComponent, number>> = {};
  for (const component of tcbComponents(product))
    tcb[component] = bytes[OFFSETS[product][component] ?? 0] ?? 0;
  return tcb as Tcb;
}

/** Whether the bytes no component of the product uses are zero. */
export function tcbReservedIsZero(bytes: Uint8Array, product: Product): boolean {
  const used = new Set(Object.values(OFFSETS[product]));
  return isZero(bytes.filter((_, at) => !used.has(at)));
}

export function encodeTcb(tcb: Tcb, product: Product): Uint8Array {
  const bytes = new Uint8Array(8);
  for (const component of tcbComponents(product))
    bytes[OFFSETS[product][component] ?? 0] = tcb[component] ?? 0;
  return bytes;
}

/**
 * The components of `actual` below `minimum`, as `microcode 209 < 219`; empty when none
 * is. An absent minimum is 0.
 */
export function tcbShortfalls(actual: Tcb, minimum: Partial<Tcb>): readonly string[] {
  return (['fmc', 'bootloader', 'tee', 'snp', 'microcode'] as const).flatMap((component) => {
    const needed = minimum[component] ?? 0;
    const found = actual[component] ?? 0;
    return found < needed ? [`${component} ${found} < ${needed}`] : [];
  });
}

export function tcbText(tcb: Tcb): string {
  return Object.entries(tcb)
    .map(([component, value]) => `${component} ${value}`)
    .join(', ');
}

/**
 * The product line of a CPUID (extended family and model), AMD 57230 §4 and AMD PPRs.
 * 0x19/0xA0–0xAF is Bergamo and Siena, which share Genoa's keys. Lines this verifier has no root
 * for are named but not a `Product`.
 */
export function productOfCpuid(family: number, model: number): Product | 'Venice' | undefined {
  const within = (from: number, to: number): boolean => model >= from && model <= to;
  if (family === 0x19) {
    if (within(0x00, 0x0f)) return 'Milan';
    if (within(0x10, 0x1f) || within(0xa0, 0xaf)) return 'Genoa';
  }
  if (family === 0x1a) {
    if (within(0x00, 0x11)) return 'Turin';
    if (within(0x50, 0x57) || within(0x90, 0xaf) || within(0xc0, 0xc7)) return 'Venice';
  }
  return undefined;
}
