// The common part of the two llama-architecture demo models: the metadata llama.cpp asks of arch `llama`, and
// a matrix under construction.

import type { Tensor, WrittenType, WrittenValue } from './gguf.ts';
import type { DemoVocabulary } from './vocabulary.ts';

export interface LlamaShape {
  readonly name: string;
  readonly description: string;
  readonly width: number;
  readonly layers: number;
  readonly units: number;
  readonly heads: number;
  readonly keyValueHeads?: number;
  readonly headWidth: number;
  readonly context: number;
  /** general.file_type: 1 mostly F16, 7 mostly Q8_0. */
  readonly fileType: number;
  readonly vocabulary: DemoVocabulary;
  readonly special: {
    readonly bos: string;
    readonly eos: string;
    readonly eot: string;
    readonly padding: string;
  };
  readonly chatTemplate?: string;
}

export function llamaMetadata(shape: LlamaShape): readonly (readonly [string, WrittenValue])[] {
  const id = (piece: string): WrittenValue => ({ u32: shape.vocabulary.id(piece) });
  return [
    ['general.architecture', { string: 'llama' }],
    ['general.type', { string: 'model' }],
    ['general.name', { string: shape.name }],
    ['general.description', { string: shape.description }],
    ['general.license', { string: 'apache-2.0' }],
    ['general.file_type', { u32: shape.fileType }],
    ['general.quantization_version', { u32: 2 }],
    ['llama.vocab_size', { u32: shape.vocabulary.tokens.length }],
    ['llama.context_length', { u32: shape.context }],
    ['llama.embedding_length', { u32: shape.width }],
    ['llama.block_count', { u32: shape.layers }],
    ['llama.feed_forward_length', { u32: shape.units }],
    ['llama.attention.head_count', { u32: shape.heads }],
    ['llama.attention.head_count_kv', { u32: shape.keyValueHeads ?? shape.heads }],
    ['llama.attention.key_length', { u32: shape.headWidth }],
    ['llama.attention.value_length', { u32: shape.headWidth }],
    ['llama.attention.layer_norm_rms_epsilon', { f32: 1e-5 }],
    ['llama.rope.dimension_count', { u32: shape.headWidth }],
    ['llama.rope.freq_base', { f32: 10000 }],
    ['tokenizer.ggml.model', { string: 'gpt2' }],
    ['tokenizer.ggml.pre', { string: 'llama-bpe' }],
    ['tokenizer.ggml.tokens', { strings: shape.vocabulary.tokens }],
    ['tokenizer.ggml.token_type', { i32s: shape.vocabulary.types }],
    ['tokenizer.ggml.merges', { strings: [] }],
    ['tokenizer.ggml.bos_token_id', id(shape.special.bos)],
    ['tokenizer.ggml.eos_token_id', id(shape.special.eos)],
    ['tokenizer.ggml.eot_token_id', id(shape.special.eot)],
    ['tokenizer.ggml.padding_token_id', id(shape.special.padding)],
    ['tokenizer.ggml.add_bos_token', { bool: true }],
    ...(shape.chatTemplate === undefined
      ? []
      : [['tokenizer.chat_template', { string: shape.chatTemplate }] as const]),
  ];
}

/**
 * A weight of `rows` outputs from `columns` inputs, zero until set: y[row] = Σ weight(row, column)·x[column].
 */
export function matrix(
  name: string,
  type: WrittenType,
  columns: number,
  rows: number,
): { readonly tensor: Tensor; set(row: number, column: number, value: number): void } {
  const values = new Float32Array(columns * rows);
  const set = (row: number, column: number, value: number): void => {
    if (row < 0 || row >= rows || column < 0 || column >= columns)
      throw new RangeError(`${name}: no place ${row}, ${column}`);
    values[columns * row + column] = value;
  };
  return { tensor: { name, type, shape: [columns, rows], values }, set };
}
