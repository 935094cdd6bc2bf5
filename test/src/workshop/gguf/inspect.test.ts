// Descriptions of GGUF files of every kind, and their bounds.

import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { ensureDemoModels } from '../../../../scripts/demo-model/main.ts';
import { describeGguf } from '../../../../src/workshop/gguf/inspect.ts';
import { randomPairs, adapterFile, TINY_TARGETS } from '../../../fixtures/models/gguf-adapter.ts';
import { source } from '../../../fixtures/models/gguf-source.ts';
import { splitGguf } from '../../../fixtures/models/gguf-split.ts';
import { tinyGguf } from '../../../fixtures/models/gguf-tiny.ts';

test('a model: metadata, tensors with places and types', async () => {
  const { 'demo-chat': chat } = await ensureDemoModels(['demo-chat']);
  const bytes = await readFile(chat.path);
  const found = await describeGguf(source(bytes), { tensors: 3 });
  expect(found).toMatchObject({
    version: 3,
    architecture: 'llama',
    type: 'model',
    file_size: bytes.length,
    split: null,
  });
  expect(found.tensors.length).toBe(3);
  expect(found.tensor_count).toBeGreaterThan(3);
  expect(found.metadata['tokenizer.ggml.tokens']).toMatchObject({ type: 'array', of: 'string' });
  expect(Object.values(found.types).reduce((sum, { tensors }) => sum + tensors, 0)).toBe(found.tensor_count);
  const next = await describeGguf(source(bytes), { tensors: 2, offset: 1 });
  expect(next.tensors).toEqual(found.tensors.slice(1));
  expect(found.tensors[0]!.offset).toBeGreaterThanOrEqual(found.data_offset);
});

test('an adapter, and a part of a split model', async () => {
  const adapter = adapterFile(randomPairs({ targets: TINY_TARGETS }), {});
  expect(await describeGguf(source(adapter), { tensors: 9 })).toMatchObject({
    type: 'adapter',
    tensor_count: 4,
    metadata: { 'adapter.type': 'lora' },
  });
  const [, part] = await splitGguf(tinyGguf(), 3);
  const described = await describeGguf(source(part!), { tensors: 0 });
  expect(described.split).toEqual({ no: 1, count: 3 });
  expect(described.architecture).toBeNull();
});

test('long texts are cut, and no key is special', async () => {
  const long = tinyGguf({
    metadata: { 'general.description': { string: 'x'.repeat(10_000) }, __proto__x: { string: 'y' } },
  });
  const { metadata } = await describeGguf(source(long), { tensors: 0 });
  expect(metadata['general.description']).toBe(`${'x'.repeat(4096)}…`);
});

test('a file that is none', async () => {
  await expect(describeGguf(source(Buffer.from('not a GGUF')), { tensors: 1 })).rejects.toMatchObject({
    code: 'invalid_gguf',
  });
});
