// Tables of the GGUF format: tensor types with their block geometry (ggml.h, ggml-common.h), metadata value
// types, and the names of general.file_type (llama.h, enum llama_ftype).

export interface TensorType {
  /** ggml_type */
  readonly id: number;
  readonly name: string;
  /** Elements per block, and bytes per block. */
  readonly blockSize: number;
  readonly blockBytes: number;
  /** Whether llama.cpp multiplies with weights of this type on a CPU. */
  readonly weight: boolean;
}

function type(name: string, blockSize: number, blockBytes: number, weight = true): Omit<TensorType, 'id'> {
  return { name, blockSize, blockBytes, weight };
}

/** By ggml_type. Numbers that are missing were removed from the format. */
export const TENSOR_TYPES: ReadonlyMap<number, TensorType> = new Map(
  (
    [
      [0, type('F32', 1, 4)],
      [1, type('F16', 1, 2)],
      [2, type('Q4_0', 32, 18)],
      [3, type('Q4_1', 32, 20)],
      [6, type('Q5_0', 32, 22)],
      [7, type('Q5_1', 32, 24)],
      [8, type('Q8_0', 32, 34)],
      [9, type('Q8_1', 32, 36, false)],
      [10, type('Q2_K', 256, 84)],
      [11, type('Q3_K', 256, 110)],
      [12, type('Q4_K', 256, 144)],
      [13, type('Q5_K', 256, 176)],
      [14, type('Q6_K', 256, 210)],
      [15, type('Q8_K', 256, 292, false)],
      [16, type('IQ2_XXS', 256, 66)],
      [17, type('IQ2_XS', 256, 74)],
      [18, type('IQ3_XXS', 256, 98)],
      [19, type('IQ1_S', 256, 50)],
      [20, type('IQ4_NL', 32, 18)],
      [21, type('IQ3_S', 256, 110)],
      [22, type('IQ2_S', 256, 82)],
      [23, type('IQ4_XS', 256, 136)],
      [24, type('I8', 1, 1, false)],
      [25, type('I16', 1, 2, false)],
      [26, type('I32', 1, 4, false)],
      [27, type('I64', 1, 8, false)],
      [28, type('F64', 1, 8, false)],
      [29, type('IQ1_M', 256, 56)],
      [30, type('BF16', 1, 2)],
      [34, type('TQ1_0', 256, 54)],
      [35, type('TQ2_0', 256, 66)],
      [39, type('MXFP4', 32, 17)],
      [40, type('NVFP4', 64, 36)],
      [41, type('Q1_0', 128, 18)],
      [42, type('Q2_0', 64, 18)],
    ] as const
  ).map(([id, facts]) => [id, { id, ...facts }]),
);

/**
 * Metadata value types (enum gguf_metadata_value_type) with their size in bytes; strings and arrays have
 * none.
 */
export const VALUE_TYPES = {
  0: { name: 'u8', bytes: 1 },
  1: { name: 'i8', bytes: 1 },
  2: { name: 'u16', bytes: 2 },
  3: { name: 'i16', bytes: 2 },
  4: { name: 'u32', bytes: 4 },
  5: { name: 'i32', bytes: 4 },
  6: { name: 'f32', bytes: 4 },
  7: { name: 'bool', bytes: 1 },
  8: { name: 'string', bytes: undefined },
  9: { name: 'array', bytes: undefined },
  10: { name: 'u64', bytes: 8 },
  11: { name: 'i64', bytes: 8 },
  12: { name: 'f64', bytes: 8 },
} as const;

export type ValueTypeName = (typeof VALUE_TYPES)[keyof typeof VALUE_TYPES]['name'];

export function valueType(
  id: number,
): { readonly name: ValueTypeName; readonly bytes: number | undefined } | undefined {
  return id in VALUE_TYPES ? VALUE_TYPES[id as keyof typeof VALUE_TYPES] : undefined;
}

/** general.file_type → the common name. */
export const FILE_TYPES: ReadonlyMap<number, string> = new Map(
  Object.entries({
    0: 'F32',
    1: 'F16',
    2: 'Q4_0',
    3: 'Q4_1',
    7: 'Q8_0',
    8: 'Q5_0',
    9: 'Q5_1',
    10: 'Q2_K',
    11: 'Q3_K_S',
    12: 'Q3_K_M',
    13: 'Q3_K_L',
    14: 'Q4_K_S',
    15: 'Q4_K_M',
    16: 'Q5_K_S',
    17: 'Q5_K_M',
    18: 'Q6_K',
    19: 'IQ2_XXS',
    20: 'IQ2_XS',
    21: 'Q2_K_S',
    22: 'IQ3_XS',
    23: 'IQ3_XXS',
    24: 'IQ1_S',
    25: 'IQ4_NL',
    26: 'IQ3_S',
    27: 'IQ3_M',
    28: 'IQ2_S',
    29: 'IQ2_M',
    30: 'IQ4_XS',
    31: 'IQ1_M',
    32: 'BF16',
    36: 'TQ1_0',
    37: 'TQ2_0',
    38: 'MXFP4',
    39: 'NVFP4',
    40: 'Q1_0',
    41: 'Q2_0',
  }).map(([id, name]) => [Number(id), name]),
);

export const POOLING_TYPES = ['none', 'mean', 'cls', 'last', 'rank'] as const;
