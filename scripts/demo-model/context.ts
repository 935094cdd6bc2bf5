// demo-context: a small llama with seeded random weights. Its text is meaningless, but every greedy token
// depends on every token before it, so that a mistake in KV-cache reuse or batching changes the output. It
// never ends by itself: control tokens and bytes that are not printable ASCII have a strongly negative logit
// through a constant dimension.

import { writeGguf } from './gguf.ts';
import type { Tensor } from './gguf.ts';
import { CONTROL } from './language.ts';
import { llamaMetadata } from './llama.ts';
import { pseudoRandom, squareRoot } from './numbers.ts';
import type { Random } from './numbers.ts';
import { CHAT_TEMPLATE, COMMON_WORDS, TOPICS } from './text.ts';
import { buildVocabulary, preTokens } from './vocabulary.ts';

const WIDTH = 128;
const LAYERS = 3;
const UNITS = 256;
const HEADS = 4;
const KEY_VALUE_HEADS = 2;
const HEAD = 32;
/** The constant dimension: set by every embedding, written by no layer. */
const CONSTANT = WIDTH - 1;

export function buildContextModel(): Buffer {
  const words = TOPICS.filter((topic) => topic.needsTools !== true).flatMap((topic) =>
    preTokens(topic.answer),
  );
  const vocabulary = buildVocabulary(CONTROL, [], [...words, ...COMMON_WORDS.map((word) => ` ${word}`)]);
  const random = pseudoRandom(0x41737361);
  const size = vocabulary.tokens.length;
  const embedding = randomTensor(random, 'token_embd.weight', [WIDTH, size], 1);
  const output = randomTensor(random, 'output.weight', [WIDTH, size], 4 / squareRoot(WIDTH));
  for (let token = 0; token < size; token++) {
    embedding.values[WIDTH * token + CONSTANT] = 4;
    if (printable(vocabulary.tokens[token]!, token)) output.values[WIDTH * token + CONSTANT] = 0;
    else
      output.values
        .fill(0, WIDTH * token, WIDTH * token + WIDTH)
        .fill(-40, WIDTH * token + CONSTANT, WIDTH * token + WIDTH);
  }
  const tensors: Tensor[] = [embedding];
  for (let layer = 0; layer < LAYERS; layer++) {
    const weight = (name: string, columns: number, rows: number, gain: number): Tensor =>
      randomTensor(random, `blk.${layer}.${name}.weight`, [columns, rows], gain / squareRoot(columns));
    tensors.push(
      ones(`blk.${layer}.attn_norm.weight`),
      weight('attn_q', WIDTH, HEADS * HEAD, 2.2),
      weight('attn_k', WIDTH, KEY_VALUE_HEADS * HEAD, 2.2),
      weight('attn_v', WIDTH, KEY_VALUE_HEADS * HEAD, 2),
      withoutConstant(weight('attn_output', HEADS * HEAD, WIDTH, 2)),
      ones(`blk.${layer}.ffn_norm.weight`),
      weight('ffn_gate', WIDTH, UNITS, 1),
      weight('ffn_up', WIDTH, UNITS, 1),
      withoutConstant(weight('ffn_down', UNITS, WIDTH, 2)),
    );
  }
  tensors.push(ones('output_norm.weight'), output);
  const metadata = llamaMetadata({
    name: 'Assay demo context',
    description: 'Seeded random weights: the output depends on the whole context and never ends',
    width: WIDTH,
    layers: LAYERS,
    units: UNITS,
    heads: HEADS,
    keyValueHeads: KEY_VALUE_HEADS,
    headWidth: HEAD,
    context: 2048,
    fileType: 0,
    vocabulary,
    special: { bos: '<s>', eos: '</s>', eot: '<|end|>', padding: '<|pad|>' },
    chatTemplate: CHAT_TEMPLATE,
  });
  return writeGguf(metadata, tensors);
}

/** Words, and single bytes of printable ASCII. (Bytes follow the control tokens, in order.) */
function printable(token: string, id: number): boolean {
  if (id < CONTROL.length) return false;
  const byte = id - CONTROL.length;
  return byte > 255 || (byte >= 32 && byte < 127) || token.length > 1;
}

function randomTensor(
  random: Random,
  name: string,
  shape: readonly [columns: number, rows: number],
  deviation: number,
): Tensor {
  const values = new Float32Array(shape[0] * shape[1]);
  for (let i = 0; i < values.length; i++) values[i] = random.normal() * deviation;
  return { name, type: 'F32', shape, values };
}

/** No output into the constant dimension (its row of the matrix is zero). */
function withoutConstant(tensor: Tensor): Tensor {
  const columns = tensor.shape[0]!;
  tensor.values.fill(0, columns * CONSTANT, columns * CONSTANT + columns);
  return tensor;
}

function ones(name: string): Tensor {
  return { name, type: 'F32', shape: [WIDTH], values: new Float32Array(WIDTH).fill(1) };
}
