// The types a model can be quantised to, by the names llama.cpp has (`llama_ftype`), and the order and result
// of one run, as the server and the process that quantises know them.

import type { TaskOrder } from './task.ts';

export interface QuantizeType {
  /** enum llama_ftype */
  readonly id: number;
  /** Whether llama.cpp refuses it without an importance matrix. */
  readonly needsMatrix: boolean;
}

function type(id: number, needsMatrix = false): QuantizeType {
  return { id, needsMatrix };
}

export const QUANTIZE_TYPES = {
  F32: type(0),
  F16: type(1),
  BF16: type(32),
  Q4_0: type(2),
  Q4_1: type(3),
  Q5_0: type(8),
  Q5_1: type(9),
  Q8_0: type(7),
  Q2_K: type(10),
  Q3_K_S: type(11),
  Q3_K_M: type(12),
  Q3_K_L: type(13),
  Q4_K_S: type(14),
  Q4_K_M: type(15),
  Q5_K_S: type(16),
  Q5_K_M: type(17),
  Q6_K: type(18),
  IQ4_NL: type(25),
  IQ1_S: type(24, true),
  IQ2_XXS: type(19, true),
  IQ2_XS: type(20, true),
  IQ3_XXS: type(23, true),
} as const satisfies Readonly<Record<string, QuantizeType>>;

export type QuantizeName = keyof typeof QUANTIZE_TYPES;

/** The sums of squares of one matrix, F32 on TASK_MATRIX_FD; `counts` has the rows of each of its planes. */
export interface MatrixEntry {
  readonly name: string;
  readonly at: number;
  readonly columns: number;
  readonly counts: readonly number[];
}

export interface QuantizeOrder extends TaskOrder {
  readonly kind: 'quantize';
  readonly type: QuantizeName;
  readonly threads: number;
  /** Absent: where the type needs one, it is collected over a text of our own. */
  readonly matrix?: readonly MatrixEntry[] | undefined;
}

/** The sums are written one after another, F32, in the order of the answer's entries. */
export interface CollectOrder extends TaskOrder {
  readonly kind: 'collect';
  /** Of the text, from its beginning. */
  readonly maxTokens: number;
}

/** `counts` has the rows of each plane: one, or one for each expert. */
export interface CollectedEntry {
  readonly name: string;
  readonly columns: number;
  readonly counts: readonly number[];
}

/** A tensor whose rows do not fit the blocks of its type, and what llama.cpp took instead. */
export interface Fallback {
  readonly tensor: string;
  readonly columns: number;
  readonly wanted: string;
  readonly used: string;
}
