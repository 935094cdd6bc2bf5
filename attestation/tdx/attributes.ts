// The bit fields of a TD that Intel has given meaning: ATTRIBUTES and XFAM (Intel TDX ABI 348551, TD
// attributes and extended features). One table each, by what a bit does to the guest. Such tables age: a bit
// that only protects is accepted, one that does more is accepted where a policy pins the exact value, and
// debugging, profiling and what is not defined are refused, pinned or not.

import { fromHex, viewOf } from '../encoding/bytes.ts';

export interface TdBit {
  readonly bit: bigint;
  readonly name: string;
  /** `needed`: must be set. `pinned`: accepted only in a value the policy pins. */
  readonly kind: 'needed' | 'accepted' | 'pinned' | 'refused';
  /** The effect of the bit, where a refusal names it. */
  readonly means?: string | undefined;
}

export const TD_ATTRIBUTES = [
  { bit: 0n, name: 'DEBUG', kind: 'refused', means: 'the host reads and writes the guest' },
  { bit: 4n, name: 'HGS_PLUS_PROF', kind: 'refused', means: 'the guest takes part in HGS+ profiling of the whole system' },
  { bit: 5n, name: 'PERF_PROF', kind: 'refused', means: 'performance counters of the host run on while the guest does' },
  { bit: 6n, name: 'PMT_PROF', kind: 'refused', means: 'out-of-band telemetry of the core watches the guest' },
  { bit: 16n, name: 'ICSSD', kind: 'accepted' },
  { bit: 27n, name: 'LASS', kind: 'accepted' },
  { bit: 28n, name: 'SEPT_VE_DISABLE', kind: 'accepted' },
  { bit: 29n, name: 'MIGRATABLE', kind: 'pinned', means: 'a migration TD that is not judged here may move the guest elsewhere' },
  { bit: 30n, name: 'PKS', kind: 'accepted' },
  { bit: 31n, name: 'KL', kind: 'pinned', means: 'the guest may use Key Locker' },
  { bit: 62n, name: 'TPA', kind: 'pinned', means: 'the guest provisions TDX Connect' },
  { bit: 63n, name: 'PERFMON', kind: 'pinned', means: 'the guest may use performance counters' },
] as const satisfies readonly TdBit[]; // prettier-ignore

/** Bits by state component. Those that are refused are defined for processors, and no TD has them. */
export const XFAM_BITS = [
  { bit: 0n, name: 'FP', kind: 'needed' },
  { bit: 1n, name: 'SSE', kind: 'needed' },
  { bit: 2n, name: 'AVX', kind: 'accepted' },
  { bit: 3n, name: 'MPX', kind: 'refused', means: 'no TD has it' },
  { bit: 4n, name: 'MPX', kind: 'refused', means: 'no TD has it' },
  { bit: 5n, name: 'AVX-512', kind: 'accepted' },
  { bit: 6n, name: 'AVX-512', kind: 'accepted' },
  { bit: 7n, name: 'AVX-512', kind: 'accepted' },
  { bit: 8n, name: 'PT', kind: 'accepted' },
  { bit: 9n, name: 'PKRU', kind: 'accepted' },
  { bit: 10n, name: 'PASID', kind: 'refused', means: 'no TD has it' },
  { bit: 11n, name: 'CET_U', kind: 'accepted' },
  { bit: 12n, name: 'CET_S', kind: 'accepted' },
  { bit: 13n, name: 'HDC', kind: 'refused', means: 'no TD has it' },
  { bit: 14n, name: 'UINTR', kind: 'accepted' },
  { bit: 15n, name: 'LBR', kind: 'accepted' },
  { bit: 16n, name: 'HWP', kind: 'refused', means: 'no TD has it' },
  { bit: 17n, name: 'AMX (TILECFG)', kind: 'accepted' },
  { bit: 18n, name: 'AMX (TILEDATA)', kind: 'accepted' },
  { bit: 19n, name: 'APX', kind: 'pinned', means: 'the guest may use the registers of APX' },
] as const satisfies readonly TdBit[]; // prettier-ignore

/** The bits of a value that need a decision, each as a person reads it. */
export interface JudgedBits {
  /** Needed and not set. */
  readonly missing: readonly string[];
  /** Defined and never accepted. */
  readonly refused: readonly string[];
  /** Not defined in the tables above. */
  readonly undefined: readonly string[];
  /** Accepted only where the policy pins the value. */
  readonly pinned: readonly string[];
}

/** Each set bit of a little-endian 64-bit field, looked up in its table. */
export function judgeBits(value: bigint, table: readonly TdBit[]): JudgedBits {
  const isSet = (bit: bigint): boolean => ((value >> bit) & 1n) === 1n;
  const of = (kind: TdBit['kind']): readonly string[] =>
    table
      .filter((row) => row.kind === kind && isSet(row.bit) !== (kind === 'needed'))
      .map(({ bit, name, means }) => `${name} (bit ${bit})${means === undefined ? '' : `: ${means}`}`);
  const known = new Set(table.map(({ bit }) => bit));
  const unknown = Array.from({ length: 64 }, (_, at) => BigInt(at)).filter(
    (bit) => isSet(bit) && !known.has(bit),
  );
  return {
    missing: of('needed'),
    refused: of('refused'),
    undefined: unknown.map((bit) => `bit ${bit}, which Intel has not defined`),
    pinned: of('pinned'),
  };
}

/** The names of the bits that are set, for the transcript; bits without a name by their number. */
export function bitNames(value: bigint, table: readonly TdBit[]): string {
  const set = Array.from({ length: 64 }, (_, at) => BigInt(at)).filter((bit) => ((value >> bit) & 1n) === 1n);
  const names = set.map((bit) => table.find((row) => row.bit === bit)?.name ?? `bit ${bit}`);
  return names.length === 0 ? 'none' : [...new Set(names)].join(', ');
}

/**
 * Remarks on a value that a policy pins (hex, little-endian): bits it allows, and bits with
 * which it can never pass.
 */
export function lintPinnedBits(key: string, hex: string, table: readonly TdBit[]): readonly string[] {
  const judged = judgeBits(viewOf(fromHex(hex, key)).getBigUint64(0, true), table);
  const never = [...judged.refused, ...judged.undefined];
  return [
    ...judged.pinned.map((bit) => `${key} accepts ${bit}`),
    ...never.map((bit) => `${key} lists a value that is always refused: ${bit}`),
  ];
}
