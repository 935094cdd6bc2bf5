// demo-rerank: a three-layer BERT, computed and not trained, that scores how much of the query a document
// covers: −4 when no content word of the query is in the document, about +4 when all are. Each value is
// stored twice, + and −, so that LayerNorm's mean is zero; a constant dominates its variance.

// The layers:
//   layer 1: every token finds the first [SEP]; the FFN compares positions → DOC (document, not query).
//   layer 2: every token looks for its own word among document tokens (at [CLS] when there is none);
//            the FFN ands → ASKED (content word of the query) and FOUND (asked, and in the document).
//   layer 3: [CLS] averages FOUND over ASKED; the head makes a logit of it.

import { SPECIAL, bertMetadata, layerNames, wordPieces } from './bert.ts';
import type { Piece } from './bert.ts';
import { writeGguf } from './gguf.ts';
import type { Tensor } from './gguf.ts';
import { goldCode, squareRoot } from './numbers.ts';
import { matrix } from './llama.ts';

const WIDTH = 192;
const HALF = WIDTH / 2;
const CONTEXT = 512;
const UNITS = 32;
const BALLAST = 64;
/** Positions are stored as p/64, to stay small beside the ballast. */
const POSITION_STEP = 64;
const SHARPNESS = 20;
const CODE = 63;
// Dimensions of the + half; the − half is HALF further on.
const BIAS = 64;
const CLS = 65;
const SEP = 66;
const CONTENT = 67;
const POSITION = 68;
const SEP_POSITION = 69;
const DOC = 70;
const MATCH = 71;
const ASKED = 72;
const FOUND = 73;
const SCORE = 74;

export function buildRerankModel(): Buffer {
  const pieces = wordPieces();
  const tensors: Tensor[] = [
    { name: 'token_embd.weight', type: 'F32', shape: [WIDTH, pieces.length], values: embeddings(pieces) },
    { name: 'token_types.weight', type: 'F32', shape: [WIDTH, 2], values: new Float32Array(2 * WIDTH) },
    { name: 'position_embd.weight', type: 'F32', shape: [WIDTH, CONTEXT], values: positions() },
    ...layerNorm('token_embd_norm'),
    ...layer(0, {
      attend: ({ query, key, value, output }) => {
        query(0, BIAS, 8);
        // 4 nats per position earlier, and far above everything that is no separator.
        key(0, SEP, 4000);
        key(0, POSITION, -4 * POSITION_STEP);
        value(0, POSITION, POSITION_STEP);
        output(SEP_POSITION, 0, 1 / POSITION_STEP);
      },
      ramps: [
        {
          output: DOC,
          from: 0.25,
          inputs: [
            [POSITION, POSITION_STEP],
            [SEP_POSITION, -POSITION_STEP],
          ],
        },
      ],
    }),
    ...layer(1, {
      attend: ({ query, key, value, output }) => {
        for (let i = 0; i < CODE; i++) {
          query(i, i, 8);
          key(i, i, 1);
        }
        // Same word in the document 111, same word in the query or another in the document at most 63, [CLS]
        // 87.
        query(CODE, BIAS, 8);
        key(CODE, DOC, 48);
        key(CODE, CLS, 87);
        value(0, BIAS, 1);
        value(0, CLS, -1);
        output(MATCH, 0, 1);
      },
      ramps: [
        {
          output: ASKED,
          from: 0.25,
          inputs: [
            [CONTENT, 1],
            [DOC, -1],
          ],
        },
        {
          output: FOUND,
          from: 1.25,
          inputs: [
            [CONTENT, 1],
            [DOC, -1],
            [MATCH, 1],
          ],
        },
      ],
    }),
    ...layer(2, {
      attend: ({ query, key, value, output }) => {
        query(0, BIAS, 8);
        key(0, ASKED, 40);
        value(0, FOUND, 1);
        output(SCORE, 0, 1);
      },
      ramps: [],
    }),
    ...head(),
  ];
  const metadata = bertMetadata({
    name: 'Assay demo rerank',
    description: 'Scores how many content words of the query the document contains',
    width: WIDTH,
    layers: 3,
    units: UNITS,
    heads: 1,
    context: CONTEXT,
    pooling: 4,
    pieces,
  });
  return writeGguf(metadata, tensors);
}

function embeddings(pieces: readonly Piece[]): Float32Array {
  const values = new Float32Array(WIDTH * pieces.length);
  pieces.forEach((piece, token) => {
    const set = signedWriter(values, token);
    goldCode(token).forEach((bit, i) => set(i, bit));
    set(BIAS, BALLAST);
    if (piece.text === SPECIAL[2]) set(CLS, 1);
    if (piece.text === SPECIAL[3]) set(SEP, 1);
    if (piece.content) set(CONTENT, 1);
  });
  return values;
}

function positions(): Float32Array {
  const values = new Float32Array(WIDTH * CONTEXT);
  for (let p = 0; p < CONTEXT; p++) signedWriter(values, p)(POSITION, p / POSITION_STEP);
  return values;
}

function signedWriter(values: Float32Array, row: number) {
  return (dimension: number, value: number): void => {
    values[WIDTH * row + dimension] = value;
    values[WIDTH * row + HALF + dimension] = -value;
  };
}

type Set = (row: number, column: number, value: number) => void;

/** The four weights of an attention block. */
interface Attention {
  readonly query: Set;
  readonly key: Set;
  readonly value: Set;
  readonly output: Set;
}

/** A step from 0 to 1 as the weighted sum of inputs goes from `from` to `from` + ½. */
interface Ramp {
  readonly output: number;
  readonly from: number;
  readonly inputs: readonly (readonly [dimension: number, weight: number])[];
}

function layer(
  index: number,
  plan: { readonly attend: (weights: Attention) => void; readonly ramps: readonly Ramp[] },
): readonly Tensor[] {
  const names = layerNames(index);
  const [q, k, v, o] = [names.q, names.k, names.v, names.o].map((name) =>
    matrix(`${name}.weight`, 'F32', WIDTH, WIDTH),
  ) as [Built, Built, Built, Built];
  // q·k is divided by √WIDTH: undone here, so that plans count in nats (their query factor 8 stands for 1).
  const nats = squareRoot(WIDTH) / 8;
  const read =
    (into: Built, factor: number): Set =>
    (row, column, value) =>
      into.set(row, column, value * factor * (column === BIAS ? 1 / BALLAST : 1));
  const write: Set = (row, column, value) => {
    o.set(row, column, value);
    o.set(row + HALF, column, -value);
  };
  plan.attend({ query: read(q, nats), key: read(k, 1), value: read(v, 1), output: write });
  const up = matrix(`${names.up}.weight`, 'F32', WIDTH, UNITS);
  const down = matrix(`${names.down}.weight`, 'F32', UNITS, WIDTH);
  const upBias = new Float32Array(UNITS);
  plan.ramps.forEach((ramp, i) => {
    for (const [unit, start, sign] of [
      [2 * i, ramp.from, 1],
      [2 * i + 1, ramp.from + 0.5, -1],
    ] as const) {
      for (const [dimension, weight] of ramp.inputs) up.set(unit, dimension, SHARPNESS * weight);
      upBias[unit] = -SHARPNESS * start;
      down.set(ramp.output, unit, sign / (0.5 * SHARPNESS));
      down.set(ramp.output + HALF, unit, -sign / (0.5 * SHARPNESS));
    }
  });
  const bias = (name: string): Tensor => vector(`${name}.bias`, new Float32Array(WIDTH));
  return [
    ...[q, k, v, o].flatMap((built) => [built.tensor, bias(built.tensor.name.replace('.weight', ''))]),
    ...layerNorm(names.attentionNorm),
    up.tensor,
    vector(`${names.up}.bias`, upBias),
    down.tensor,
    bias(names.down),
    ...layerNorm(names.outputNorm),
  ];
}

type Built = ReturnType<typeof matrix>;

function vector(name: string, values: Float32Array): Tensor {
  return { name, type: 'F32', shape: [values.length], values };
}

/**
 * Undoes the deviation that the ballast and one code give, so that values keep their size through every norm.
 */
function layerNorm(name: string): readonly Tensor[] {
  const deviation = squareRoot((2 * (BALLAST * BALLAST + CODE + 1)) / WIDTH);
  return [
    vector(`${name}.weight`, new Float32Array(WIDTH).fill(deviation)),
    vector(`${name}.bias`, new Float32Array(WIDTH)),
  ];
}

/** logit = −4 + 8·(4·tanh(score/4)) or so: nearly linear in the covered fraction. */
function head(): readonly Tensor[] {
  const dense = matrix('cls.weight', 'F32', WIDTH, WIDTH);
  dense.set(0, SCORE, 0.25);
  const output = matrix('cls.output.weight', 'F32', WIDTH, 1);
  output.set(0, 0, 32);
  return [
    dense.tensor,
    vector('cls.bias', new Float32Array(WIDTH)),
    output.tensor,
    vector('cls.output.bias', new Float32Array([-4])),
  ];
}
