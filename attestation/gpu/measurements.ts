// Comparison of a report with the reference manifests of its driver and VBIOS: each active entry of either
// names values, and the block of its index must have one of them, byte for byte. A block that is missing
// differs. An index active in both manifests has no one answer, and is a conflict.

import { equalBytes } from '../encoding/bytes.ts';
import type { GpuFields } from './fields.ts';
import type { ManifestValues } from './manifest-values.ts';
import type { GpuReport } from './report.ts';

/** The engine NVDEC0, which does not measure itself where it is off. */
const NVDEC0_INDEX = 35;

/** A measurement that none of the listed values equals. */
export interface Mismatch {
  readonly index: number;
  readonly name: string;
}

export interface Comparison {
  /** Active entries compared. */
  readonly compared: number;
  readonly mismatches: readonly Mismatch[];
  /** Indexes that both manifests claim. */
  readonly conflicts: readonly number[];
}

export function compareMeasurements(
  { measurements }: GpuReport,
  manifests: readonly ManifestValues[],
  nvdec0: GpuFields['nvdec0'],
): Comparison {
  const active = manifests.flatMap(({ entries }) => entries.filter((entry) => entry.active));
  const indexes = active.map(({ index }) => index);
  const judged = active.filter(({ index }) => index !== NVDEC0_INDEX || nvdec0 !== 'disabled');
  const wrong = judged.filter(({ index, alternatives }) => {
    const value = measurements[index];
    return value === undefined || !alternatives.some((each) => equalBytes(each, value));
  });
  return {
    compared: judged.length,
    mismatches: wrong.map(({ index, name }) => ({ index, name })).toSorted((a, b) => a.index - b.index),
    conflicts: indexes.filter((index, i) => indexes.indexOf(index) !== i),
  };
}
