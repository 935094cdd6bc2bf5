// Models with arbitrary weights and the shapes of real ones, for scripts/bench-engine: Q8_0 with a
// constant scale and pseudo-random bytes, written straight to disk.
// `medium` is a llama of 254 M parameters, `long` a narrow one with a long context, `embed` a BERT of 22 M.

import { once } from 'node:events';
import { createWriteStream, existsSync } from 'node:fs';
import { mkdir, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { finished } from 'node:stream/promises';
import { writeGguf, type WrittenValue } from './demo-model/gguf.ts';
import { llamaMetadata } from './demo-model/llama.ts';
import { buildVocabulary } from './demo-model/vocabulary.ts';

interface Shape {
  readonly name: string;
  readonly shape: readonly number[];
  readonly type: 'Q8_0' | 'F32';
}

const F32 = 0;
const Q8_0 = 8;

interface LlamaShape {
  readonly name: string;
  readonly width: number;
  readonly units: number;
  readonly layers: number;
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly words: number;
  readonly context: number;
}

/** 1024 wide, 16 layers, 32 000 tokens. */
export function writeMediumModel(path: string): Promise<void> {
  return writeLlama(path, {
    name: 'bench medium',
    width: 1024,
    units: 2816,
    layers: 16,
    heads: 16,
    keyValueHeads: 8,
    words: 31_600,
    context: 8192,
  });
}

/** 256 wide, 4 layers, 8000 tokens, and a context of 16 384. */
export function writeLongModel(path: string): Promise<void> {
  return writeLlama(path, {
    name: 'bench long',
    width: 256,
    units: 704,
    layers: 4,
    heads: 4,
    keyValueHeads: 2,
    words: 7600,
    context: 16_384,
  });
}

/** Words are made up so that any prompt of them is one token each. */
async function writeLlama(path: string, shape: LlamaShape): Promise<void> {
  const { width, units, layers, heads, context } = shape;
  const keyWidth = shape.keyValueHeads * 64;
  const words = Array.from({ length: shape.words }, (_, i) => ` w${i.toString(36)}`);
  const vocabulary = buildVocabulary(['<s>', '</s>', '<|end|>', '<|pad|>'], [], words);
  const size = vocabulary.tokens.length;
  const metadata = llamaMetadata({
    name: shape.name,
    description: 'random weights',
    width,
    layers,
    units,
    heads,
    keyValueHeads: shape.keyValueHeads,
    headWidth: 64,
    context,
    fileType: 7,
    vocabulary,
    special: { bos: '<s>', eos: '</s>', eot: '<|end|>', padding: '<|pad|>' },
  });
  const layer = (i: number): Shape[] => [
    { name: `blk.${i}.attn_norm.weight`, shape: [width], type: 'F32' },
    { name: `blk.${i}.attn_q.weight`, shape: [width, width], type: 'Q8_0' },
    { name: `blk.${i}.attn_k.weight`, shape: [width, keyWidth], type: 'Q8_0' },
    { name: `blk.${i}.attn_v.weight`, shape: [width, keyWidth], type: 'Q8_0' },
    { name: `blk.${i}.attn_output.weight`, shape: [width, width], type: 'Q8_0' },
    { name: `blk.${i}.ffn_norm.weight`, shape: [width], type: 'F32' },
    { name: `blk.${i}.ffn_gate.weight`, shape: [width, units], type: 'Q8_0' },
    { name: `blk.${i}.ffn_up.weight`, shape: [width, units], type: 'Q8_0' },
    { name: `blk.${i}.ffn_down.weight`, shape: [units, width], type: 'Q8_0' },
  ];
  await write(path, metadata, [
    { name: 'token_embd.weight', shape: [width, size], type: 'Q8_0' },
    ...Array.from({ length: layers }, (_, i) => layer(i)).flat(),
    { name: 'output_norm.weight', shape: [width], type: 'F32' },
    { name: 'output.weight', shape: [width, size], type: 'Q8_0' },
  ]);
}

/** The shape of a small sentence embedder: 384 wide, 12 layers, mean pooling. */
export async function writeEmbeddingModel(path: string): Promise<void> {
  const width = 384;
  const tokens = [
    '[PAD]',
    '[UNK]',
    '[CLS]',
    '[SEP]',
    '[MASK]',
    ...Array.from(
      { length: 26 * 26 },
      (_, i) => `\u2581${String.fromCharCode(97 + Math.floor(i / 26))}${String.fromCharCode(97 + (i % 26))}`,
    ),
  ];
  const metadata: [string, WrittenValue][] = [
    ['general.architecture', { string: 'bert' }],
    ['general.name', { string: 'bench embed' }],
    ['bert.context_length', { u32: 512 }],
    ['bert.embedding_length', { u32: width }],
    ['bert.feed_forward_length', { u32: 1536 }],
    ['bert.block_count', { u32: 12 }],
    ['bert.attention.head_count', { u32: 12 }],
    ['bert.attention.layer_norm_epsilon', { f32: 1e-12 }],
    ['bert.attention.causal', { bool: false }],
    ['bert.pooling_type', { u32: 1 }],
    ['tokenizer.ggml.model', { string: 'bert' }],
    ['tokenizer.ggml.token_type_count', { u32: 2 }],
    ['tokenizer.ggml.tokens', { strings: tokens }],
    ['tokenizer.ggml.token_type', { i32s: tokens.map((_, i) => (i < 5 ? 3 : 1)) }],
    ['tokenizer.ggml.unknown_token_id', { u32: 1 }],
    ['tokenizer.ggml.cls_token_id', { u32: 2 }],
    ['tokenizer.ggml.bos_token_id', { u32: 2 }],
    ['tokenizer.ggml.seperator_token_id', { u32: 3 }],
    ['tokenizer.ggml.padding_token_id', { u32: 0 }],
    ['tokenizer.ggml.mask_token_id', { u32: 4 }],
  ];
  const norm = (name: string): Shape[] => [
    { name: `${name}.weight`, shape: [width], type: 'F32' },
    { name: `${name}.bias`, shape: [width], type: 'F32' },
  ];
  await write(path, metadata, [
    { name: 'token_embd.weight', shape: [width, tokens.length], type: 'Q8_0' },
    { name: 'token_types.weight', shape: [width, 2], type: 'F32' },
    { name: 'position_embd.weight', shape: [width, 512], type: 'F32' },
    ...norm('token_embd_norm'),
    ...Array.from({ length: 12 }, (_, i) => [
      ...['attn_q', 'attn_k', 'attn_v', 'attn_output'].flatMap((each) =>
        linear(`blk.${i}.${each}`, width, width),
      ),
      ...norm(`blk.${i}.attn_output_norm`),
      ...linear(`blk.${i}.ffn_up`, width, 1536),
      ...linear(`blk.${i}.ffn_down`, 1536, width),
      ...norm(`blk.${i}.layer_output_norm`),
    ]).flat(),
  ]);
}

function linear(name: string, columns: number, rows: number): Shape[] {
  return [
    { name: `${name}.weight`, shape: [columns, rows], type: 'Q8_0' },
    { name: `${name}.bias`, shape: [rows], type: 'F32' },
  ];
}

function padded(length: number): number {
  return Math.ceil(length / 32) * 32;
}

/**
 * Header by the demo models' writer (of a file without tensors), then the tensor table and
 * payloads piece by piece.
 */
async function write(
  path: string,
  metadata: readonly (readonly [string, WrittenValue])[],
  tensors: readonly Shape[],
): Promise<void> {
  if (existsSync(path)) return;
  await mkdir(dirname(path), { recursive: true });
  const bytesOf = ({ shape, type }: Shape): number =>
    shape.reduce((a, b) => a * b, 1) * (type === 'F32' ? 4 : 34 / 32);
  const table: Buffer[] = [];
  let offset = 0;
  for (const tensor of tensors) {
    const name = Buffer.from(tensor.name);
    const entry = Buffer.alloc(8 + name.length + 4 + 8 * tensor.shape.length + 12);
    let at = entry.writeBigUInt64LE(BigInt(name.length), 0);
    at += name.copy(entry, at);
    at = entry.writeUInt32LE(tensor.shape.length, at);
    for (const size of tensor.shape) at = entry.writeBigUInt64LE(BigInt(size), at);
    at = entry.writeUInt32LE(tensor.type === 'F32' ? F32 : Q8_0, at);
    entry.writeBigUInt64LE(BigInt(offset), at);
    table.push(entry);
    offset += padded(bytesOf(tensor));
  }
  const header = Buffer.concat([unpadded(metadata), ...table]);
  header.writeBigUInt64LE(BigInt(tensors.length), 8);
  const out = createWriteStream(`${path}.part`);
  out.write(Buffer.concat([header, Buffer.alloc(padded(header.length) - header.length)]));
  let seed = 1;
  const block = Buffer.alloc(34 * 4096);
  for (let i = 0; i < 4096; i += 1) {
    block.writeUInt16LE(0x1400, 34 * i); // about 0.001
    for (let j = 0; j < 32; j += 1) {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      block.writeInt8((seed >>> 25) - 64, 34 * i + 2 + j);
    }
  }
  for (const tensor of tensors) {
    const bytes = bytesOf(tensor);
    const payload = Buffer.alloc(padded(bytes));
    if (tensor.type === 'F32')
      for (let i = 0; i < bytes; i += 4)
        payload.writeFloatLE(tensor.name.includes('norm') && tensor.name.endsWith('weight') ? 1 : 0, i);
    else
      for (let at = 0; at < bytes; at += block.length)
        block.copy(payload, at, 0, Math.min(block.length, bytes - at));
    if (!out.write(payload)) await once(out, 'drain');
  }
  out.end();
  await finished(out);
  await rename(`${path}.part`, path);
}

/** The header without its padding: a filler value is grown until the padding is empty. */
function unpadded(metadata: readonly (readonly [string, WrittenValue])[]): Buffer {
  const filled = (length: number): Buffer =>
    writeGguf([...metadata, ['general.filler', { string: 'x'.repeat(length) }]], []);
  for (let length = 0; ; length += 1)
    if (filled(length + 1).length > filled(length).length) return filled(length);
}
