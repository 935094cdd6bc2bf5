// A model that is quantised already is refused by its header, before an importance matrix is collected of it.

import { expect, test } from 'vitest';
import { readHeader } from '../../../../src/models/gguf/header.ts';
import { assertNotQuantised } from '../../../../src/workshop/gguf/quantised.ts';
import { source } from '../../../fixtures/models/gguf-source.ts';
import { tinyGguf } from '../../../fixtures/models/gguf-tiny.ts';

const Q8 = { 'blk.0.ffn_up.weight': { type: 'Q8_0' } } as const;

test('types that need a matrix, of a tensor that every type quantises', async () => {
  const [plain, already] = [tinyGguf(), tinyGguf({ tensors: Q8 })];
  const header = await readHeader(source(already));
  for (const type of ['IQ1_S', 'IQ2_XXS', 'IQ2_XS', 'IQ3_XXS'] as const) {
    expect(() => assertNotQuantised(header, type)).toThrow(
      expect.objectContaining({
        code: 'unsupported_model_format',
        message: 'a tensor of the model is Q8_0 already: quantise the model in F32, F16 or BF16',
      }) as Error,
    );
    const floats = await readHeader(source(plain));
    expect(() => assertNotQuantised(floats, type)).not.toThrow();
  }
  // llama.cpp says it of the others at their first tensor.
  expect(() => assertNotQuantised(header, 'Q4_K_M')).not.toThrow();
});

test('left to llama.cpp: a file of that very type, and embeddings alone in another', async () => {
  const same = tinyGguf({ tensors: Q8, metadata: { 'general.file_type': { u32: 19 } } });
  const embedding = tinyGguf({ tensors: { 'token_embd.weight': { type: 'Q8_0' } } });
  for (const bytes of [same, embedding]) {
    const header = await readHeader(source(bytes));
    expect(() => assertNotQuantised(header, 'IQ2_XXS')).not.toThrow();
  }
});
