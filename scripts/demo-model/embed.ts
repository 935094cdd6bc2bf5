// demo-embed: a small BERT with mean pooling. Word vectors are seeded by the word's letter triples, so
// that texts that share words, or forms of a word, come out closer; function words are damped through
// two dimensions that the last norm drops. Small random attention and FFN weights make every vector
// depend on the whole input.

import { SPECIAL, bertMetadata, layerNames, wordPieces } from './bert.ts';
import type { Piece } from './bert.ts';
import { writeGguf } from './gguf.ts';
import type { Tensor } from './gguf.ts';
import { pseudoRandom, squareRoot } from './numbers.ts';
import type { Random } from './numbers.ts';

const WIDTH = 128;
const LAYERS = 2;
const UNITS = 256;
const CONTEXT = 512;
/** Dimensions 0 and 1 hold ±DAMPING for words without content. */
const DAMPING = 60;
const MIXING = 0.25;

export function buildEmbeddingModel(): Buffer {
  const pieces = wordPieces();
  const random = pseudoRandom(0x656d6264);
  const tensors: Tensor[] = [
    { name: 'token_embd.weight', type: 'F32', shape: [WIDTH, pieces.length], values: wordVectors(pieces) },
    constant('token_types.weight', [WIDTH, 2], 0),
    noise(random, 'position_embd.weight', [WIDTH, CONTEXT], 0.1),
    ...layerNorm('token_embd_norm', 1),
  ];
  for (let layer = 0; layer < LAYERS; layer++) {
    const names = layerNames(layer);
    const dense = (name: string, columns: number, rows: number, gain: number): readonly Tensor[] => [
      noise(random, `${name}.weight`, [columns, rows], gain / squareRoot(columns)),
      constant(`${name}.bias`, [rows], 0),
    ];
    tensors.push(
      ...dense(names.q, WIDTH, WIDTH, 1.5),
      ...dense(names.k, WIDTH, WIDTH, 1.5),
      ...dense(names.v, WIDTH, WIDTH, 1),
      ...dense(names.o, WIDTH, WIDTH, MIXING),
      ...layerNorm(names.attentionNorm, 1),
      ...dense(names.up, WIDTH, UNITS, 1),
      ...dense(names.down, UNITS, WIDTH, MIXING),
      ...layerNorm(names.outputNorm, layer === LAYERS - 1 ? 0 : 1),
    );
  }
  const metadata = bertMetadata({
    name: 'Assay demo embed',
    description: 'Word vectors from letter triples; texts that share words are close',
    width: WIDTH,
    layers: LAYERS,
    units: UNITS,
    heads: 4,
    context: CONTEXT,
    pooling: 1,
    pieces,
  });
  return writeGguf(metadata, tensors);
}

function wordVectors(pieces: readonly Piece[]): Float32Array {
  const values = new Float32Array(WIDTH * pieces.length);
  pieces.forEach((piece, token) => {
    const vector = values.subarray(WIDTH * token, WIDTH * token + WIDTH);
    const padded = `^${piece.text.replace('\u2581', '')}$`;
    const triples = SPECIAL.some((special) => special === piece.text)
      ? []
      : Array.from({ length: padded.length - 2 }, (_, i) => padded.slice(i, i + 3));
    const root = squareRoot(triples.length + 1);
    for (const seed of [piece.text, ...triples]) {
      const random = pseudoRandom(hash(seed));
      for (let i = 2; i < WIDTH; i++) vector[i] = vector[i]! + random.normal() / root;
    }
    vector[0] = piece.content ? 0 : DAMPING;
    vector[1] = piece.content ? 0 : -DAMPING;
  });
  return values;
}

/** FNV-1a over UTF-16 code units. */
function hash(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193) >>> 0;
  return h;
}

function noise(
  random: Random,
  name: string,
  shape: readonly [columns: number, rows: number],
  deviation: number,
): Tensor {
  const values = new Float32Array(shape[0] * shape[1]);
  for (let i = 0; i < values.length; i++) values[i] = random.normal() * deviation;
  return { name, type: 'F32', shape, values };
}

function constant(name: string, shape: readonly number[], value: number): Tensor {
  return {
    name,
    type: 'F32',
    shape,
    values: new Float32Array(shape.reduce((product, size) => product * size, 1)).fill(value),
  };
}

/** Weights 1, except `damping` in dimensions 0 and 1. */
function layerNorm(name: string, damping: number): readonly Tensor[] {
  const weight = constant(`${name}.weight`, [WIDTH], 1);
  weight.values.fill(damping, 0, 2);
  return [weight, constant(`${name}.bias`, [WIDTH], 0)];
}
