// The common part of the two BERT demo models: a lower-case WordPiece vocabulary and the metadata llama.cpp
// asks of arch `bert`. In GGUF a word's first piece carries U+2581 and the others are bare. Unknown words
// fall apart into letters.

import type { WrittenValue } from './gguf.ts';
import { COMMON_WORDS, FALLBACK, TOPICS } from './text.ts';

export const SPECIAL = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'] as const;
const ENDINGS = ['s', 'es', 'ed', 'd', 'ing', 'er', 'ly', 'ion', 'ions', 'ment', 'al', 'able', 'ity', 'ness'];
const MORE_WORDS =
  'animal apple ball bank banana beach bear bird boat book bread bridge car cat child city coffee computer cook country cow dance day doctor dog door dream earth eat engine europe farm father fish flower food football forest friend game garden girl gold grass green heart history home horse house king kitchen lake language law light lion love man market math milk money moon mother mountain mouse movie music name night north ocean orange paint panda paper park party pet piano plant play poem queen rain read red river road rocket school science sea ship silver sing sleep snow song space sport star stone story street student sugar summer sun swim table tea teacher team train travel tree walk war water wind winter woman wood word work world year'.split(
    ' ',
  );

export interface Piece {
  readonly text: string;
  /** A word that carries meaning: not special, not punctuation, not one of COMMON_WORDS. */
  readonly content: boolean;
}

export function wordPieces(): readonly Piece[] {
  const answers = [FALLBACK, ...TOPICS].map((topic) => topic.answer.toLowerCase()).join(' ');
  const keywords = TOPICS.flatMap((topic) => topic.keywords);
  const words = new Set(
    [...COMMON_WORDS, ...(answers.match(/[a-z]+/g) ?? []), ...keywords, ...MORE_WORDS].filter(
      (word) => word.length > 1,
    ),
  );
  const common = new Set(COMMON_WORDS);
  const characters = Array.from({ length: 94 }, (_, i) => String.fromCharCode(33 + i)).filter(
    (character) => !/[A-Z]/.test(character),
  );
  return [
    ...SPECIAL.map((text) => ({ text, content: false })),
    ...characters.map((character) => ({
      text: `\u2581${character}`,
      content: alphanumeric(character) && !common.has(character),
    })),
    ...characters.filter(alphanumeric).map((text) => ({ text, content: true })),
    ...ENDINGS.filter((ending) => ending.length > 1).map((text) => ({ text, content: false })),
    ...[...words].map((word) => ({ text: `\u2581${word}`, content: !common.has(word) })),
  ];
}

export interface BertShape {
  readonly name: string;
  readonly description: string;
  readonly width: number;
  readonly layers: number;
  readonly units: number;
  readonly heads: number;
  readonly context: number;
  /** bert.pooling_type: 1 mean, 4 rank. */
  readonly pooling: 1 | 4;
  readonly pieces: readonly Piece[];
}

export function bertMetadata(shape: BertShape): readonly (readonly [string, WrittenValue])[] {
  return [
    ['general.architecture', { string: 'bert' }],
    ['general.type', { string: 'model' }],
    ['general.name', { string: shape.name }],
    ['general.description', { string: shape.description }],
    ['general.license', { string: 'apache-2.0' }],
    ['general.file_type', { u32: 0 }],
    ['bert.context_length', { u32: shape.context }],
    ['bert.embedding_length', { u32: shape.width }],
    ['bert.block_count', { u32: shape.layers }],
    ['bert.feed_forward_length', { u32: shape.units }],
    ['bert.attention.head_count', { u32: shape.heads }],
    ['bert.attention.layer_norm_epsilon', { f32: 1e-12 }],
    ['bert.attention.causal', { bool: false }],
    ['bert.pooling_type', { u32: shape.pooling }],
    ['tokenizer.ggml.model', { string: 'bert' }],
    ['tokenizer.ggml.token_type_count', { u32: 2 }],
    ['tokenizer.ggml.tokens', { strings: shape.pieces.map((piece) => piece.text) }],
    ['tokenizer.ggml.token_type', { i32s: shape.pieces.map((_, i) => (i < SPECIAL.length ? 3 : 1)) }],
    ['tokenizer.ggml.bos_token_id', id('[CLS]')],
    ['tokenizer.ggml.eos_token_id', id('[SEP]')],
    ['tokenizer.ggml.unknown_token_id', id('[UNK]')],
    ['tokenizer.ggml.seperator_token_id', id('[SEP]')],
    ['tokenizer.ggml.padding_token_id', id('[PAD]')],
    ['tokenizer.ggml.cls_token_id', id('[CLS]')],
    ['tokenizer.ggml.mask_token_id', id('[MASK]')],
  ];
}

/** Tensor names of one BERT layer in GGUF. */
export function layerNames(
  layer: number,
): Readonly<Record<'q' | 'k' | 'v' | 'o' | 'attentionNorm' | 'up' | 'down' | 'outputNorm', string>> {
  return {
    q: `blk.${layer}.attn_q`,
    k: `blk.${layer}.attn_k`,
    v: `blk.${layer}.attn_v`,
    o: `blk.${layer}.attn_output`,
    attentionNorm: `blk.${layer}.attn_output_norm`,
    up: `blk.${layer}.ffn_up`,
    down: `blk.${layer}.ffn_down`,
    outputNorm: `blk.${layer}.layer_output_norm`,
  };
}

function alphanumeric(character: string): boolean {
  return /[a-z0-9]/.test(character);
}

function id(special: (typeof SPECIAL)[number]): WrittenValue {
  return { u32: SPECIAL.indexOf(special) };
}
