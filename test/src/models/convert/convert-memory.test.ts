// A model is read and written in pieces of a few MiB, however large it is.

import { expect, test } from 'vitest';
import { convertFolder } from '../../../../src/models/convert/convert.ts';
import { HF_FOLDERS, inMemory } from '../../../fixtures/models/hf-folder.ts';

test('no more of a model is in memory than a few pieces of it', () => {
  const files = HF_FOLDERS.mistral();
  const rows = 1 << 16;
  const wide = 1024;
  const bytes = rows * wide * 2;
  // 128 MiB of embedding that lie nowhere: what is read of them is zero.
  const config = {
    ...(JSON.parse(files.get('config.json')?.toString() ?? '') as object),
    vocab_size: rows,
    hidden_size: wide,
    num_hidden_layers: 1,
    num_attention_heads: 1,
    head_dim: 2,
    intermediate_size: 1,
    num_key_value_heads: 1,
    tie_word_embeddings: true,
  };
  const layer = 'model.layers.0.';
  const shapes: Record<string, readonly number[]> = {
    'model.embed_tokens.weight': [rows, wide],
    'model.norm.weight': [wide],
    [`${layer}input_layernorm.weight`]: [wide],
    [`${layer}post_attention_layernorm.weight`]: [wide],
    [`${layer}self_attn.q_proj.weight`]: [2, wide],
    [`${layer}self_attn.k_proj.weight`]: [2, wide],
    [`${layer}self_attn.v_proj.weight`]: [2, wide],
    [`${layer}self_attn.o_proj.weight`]: [wide, 2],
    [`${layer}mlp.gate_proj.weight`]: [1, wide],
    [`${layer}mlp.up_proj.weight`]: [1, wide],
    [`${layer}mlp.down_proj.weight`]: [wide, 1],
  };
  let at = 0;
  const header: Record<string, unknown> = {};
  for (const [name, shape] of Object.entries(shapes)) {
    const size = shape.reduce((product, each) => product * each, 2);
    header[name] = { dtype: 'BF16', shape, data_offsets: [at, at + size] };
    at += size;
  }
  const text = Buffer.from(JSON.stringify(header));
  const head = Buffer.concat([Buffer.alloc(8), text]);
  head.writeBigUInt64LE(BigInt(text.length));
  const described = new Map(files).set('config.json', Buffer.from(JSON.stringify(config)));
  const folder = new Map(inMemory(described));
  for (const name of folder.keys()) if (name.startsWith('model')) folder.delete(name);
  let largest = 0;
  folder.set('model.safetensors', {
    size: head.length + at,
    read: (position, into) => {
      largest = Math.max(largest, into.length);
      into.fill(0);
      if (position < head.length) head.copy(into, 0, position);
      return into.length;
    },
  });
  let longest = 0;
  let peak = 0;
  const { arrayBuffers } = process.memoryUsage();
  const { bytes: total } = convertFolder(
    folder,
    {
      write: (piece) => {
        longest = Math.max(longest, piece.length);
        peak = Math.max(peak, process.memoryUsage().arrayBuffers - arrayBuffers);
      },
    },
    { type: 'f32' },
  );
  expect(total).toBeGreaterThan(2 * bytes);
  expect(largest).toBeLessThanOrEqual(4 * 1024 * 1024);
  expect(longest).toBeLessThanOrEqual(8 * 1024 * 1024);
  expect(peak).toBeLessThan(64 * 1024 * 1024);
});
