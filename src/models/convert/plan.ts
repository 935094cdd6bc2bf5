// The plan of a conversion: metadata in order, and for each tensor where its bytes come from. It is made of
// headers and descriptions alone; no weight is read before all of it is known to fit.

import type { FloatType } from './floats.ts';
import type { GgufValue } from './gguf-header.ts';
import type { SafeTensor } from './safetensors.ts';

/** Metadata in the order of its first writing; a later value takes the place of an earlier one. */
export type Metadata = Map<string, GgufValue>;

export interface CopiedTensor {
  readonly kind: 'copied';
  readonly source: SafeTensor;
  /**
   * Rows of each head are taken as (2, half) and written as (half, 2): rotary pairs side by
   * side, as llama.cpp has them.
   */
  readonly heads?: number | undefined;
  /** Added to each value. */
  readonly shift?: 1 | undefined;
  /** The first rows only. */
  readonly rows?: number | undefined;
}

export interface ComputedTensor {
  readonly kind: 'computed';
  readonly values: Float32Array;
}

export interface PlannedTensor {
  readonly name: string;
  readonly type: FloatType;
  /** Slowest dimension first, as PyTorch has it. */
  readonly shape: readonly number[];
  readonly from: CopiedTensor | ComputedTensor;
}

/** Sizes that shapes are made of. */
export interface Sizes {
  readonly layers: number;
  /** Of a vector, the inner layer, all query heads, all key heads, and one head. */
  readonly embedding: number;
  readonly feedForward: number;
  readonly queries: number;
  readonly keys: number;
  readonly head: number;
  readonly vocabulary: number;
  readonly context: number;
  readonly tokenTypes: number;
  /** Rows of queries, keys and values, and of gate and up, where one matrix has them. */
  readonly fused: number;
  readonly gateUp: number;
}

export interface Plan {
  readonly metadata: Metadata;
  readonly tensors: readonly PlannedTensor[];
}

export function elementsOf(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

const SCALES = [
  [1e12, 1e-12, 'T'],
  [1e9, 1e-9, 'B'],
  [1e6, 1e-6, 'M'],
  [-1, 1e-3, 'K'],
] as const;

/** general.size_label: parameters in K, M, B or T with two digits at least (gguf-py, utility.py). */
export function sizeLabel(parameters: number): string {
  const [, scale, suffix] = SCALES.find(([above]) => parameters > above) ?? SCALES[3];
  const scaled = parameters * scale;
  const digits = fixed(scaled, 0).replace(/^0+/, '').length;
  return `${fixed(scaled, Math.max(2 - digits, 0))}${suffix}`;
}

/**
 * toFixed that rounds a tie to even, as Python does. A double is an exact tie only if it is a
 * multiple of a power of two.
 */
function fixed(value: number, digits: number): string {
  const doubled = value * 2 ** (digits + 1);
  if (!Number.isInteger(doubled) || doubled % 2 === 0) return value.toFixed(digits);
  const below = Math.floor(value * 10 ** digits);
  return ((below % 2 === 0 ? below : below + 1) / 10 ** digits).toFixed(digits);
}
