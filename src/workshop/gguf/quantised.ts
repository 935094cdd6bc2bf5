// Whether llama.cpp would refuse to quantise a model because it is quantised already, told by its header: of
// the types that need an importance matrix it would say so only after the matrix was collected.

import { ApiError } from '../../base/errors.ts';
import { QUANTIZE_TYPES, type QuantizeName } from '../../engine/seam/quantize.ts';
import type { GgufHeader } from '../../models/gguf/header.ts';

/** Weights that every type quantises, and that no model is published with in a type of their own. */
const ALWAYS = /^blk\.\d+\.(?:attn_(?:q|k|v|qkv|output)|ffn_(?:gate|up|down))\.weight$/;
const FLOATS: ReadonlySet<string> = new Set(['F32', 'F16', 'BF16']);

/** 400 unsupported_model_format. A file of that very type is left to llama.cpp, which copies it. */
export function assertNotQuantised(
  { metadata, tensors }: Pick<GgufHeader, 'metadata' | 'tensors'>,
  type: QuantizeName,
): void {
  const { id, needsMatrix } = QUANTIZE_TYPES[type];
  const fileType = metadata.get('general.file_type');
  if (!needsMatrix || (fileType?.type === 'u32' && fileType.value === id)) return;
  const already = tensors.find((each) => ALWAYS.test(each.name) && !FLOATS.has(each.type.name));
  if (already !== undefined) throw quantisedAlready(already.type.name);
}

function quantisedAlready(type: string): ApiError {
  return new ApiError(
    'unsupported_model_format',
    `a tensor of the model is ${type} already: quantise the model in F32, F16 or BF16`,
  );
}
