// The converter against the official one without Python: the SHA-256 of what `convert_hf_to_gguf.py` of the
// pinned llama.cpp made of the same folders is in test/golden/convert-digests.json (scripts/convert-oracle
// says how it got there). Then what a folder may not be.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { ApiError } from '../../../../src/base/errors.ts';
import { convertFolder } from '../../../../src/models/convert/convert.ts';
import type { Output } from '../../../../src/models/convert/folder.ts';
import type { OutputType } from '../../../../src/models/convert/general.ts';
import { inspectGguf } from '../../../../src/models/gguf/read.ts';
import { HF_FOLDERS, inMemory, type Files, type HfFolder } from '../../../fixtures/models/hf-folder.ts';
import { safetensors } from '../../../fixtures/models/safetensors.ts';

const DIGESTS = JSON.parse(
  readFileSync(new URL('../../../golden/convert-digests.json', import.meta.url), 'utf8'),
) as Readonly<Record<string, string>>;

/** The folder's name is what the official converter makes a name of. */
const NAME = 'Tiny Model';

function gather(files: Files, type: OutputType, name?: string): Buffer {
  const parts: Buffer[] = [];
  convertFolder(inMemory(files), { write: (bytes) => void parts.push(Buffer.from(bytes)) }, { type, name });
  return Buffer.concat(parts);
}

const nowhere: Output = { write: () => undefined };

function refusal(files: Files, type: OutputType = 'auto'): ApiError {
  try {
    convertFolder(inMemory(files), nowhere, { type });
  } catch (error) {
    if (error instanceof ApiError) return error;
    throw error;
  }
  throw new Error('it was converted');
}

function changed(files: Files, name: string, content: string | Buffer | undefined): Files {
  const copy = new Map(files);
  if (content === undefined) copy.delete(name);
  else copy.set(name, Buffer.from(content));
  return copy;
}

/** With some fields of a JSON file replaced; undefined removes one. */
function withFields(files: Files, name: string, fields: Readonly<Record<string, unknown>>): Files {
  const old = JSON.parse(files.get(name)?.toString() ?? '{}') as Record<string, unknown>;
  return changed(files, name, JSON.stringify({ ...old, ...fields }));
}

describe.each(Object.keys(HF_FOLDERS) as HfFolder[])('%s', (folder) => {
  const files = HF_FOLDERS[folder]();

  test.each(['f32', 'f16', 'bf16'] as const)('as %s is the file of the official converter', (type) => {
    const digest = createHash('sha256')
      .update(gather(files, type, NAME))
      .digest('hex');
    expect(digest).toBe(DIGESTS[`${folder} ${type}`]);
  });

  test('is one that can be served, and has no name of its own', async () => {
    const bytes = gather(files, 'auto');
    const info = await inspectGguf({
      size: bytes.length,
      read: (position, length) => Promise.resolve(bytes.subarray(position, position + length)),
    });
    expect(info.name).toBeUndefined();
    expect(info.type).toBe(folder === 'bert' ? 'embedding' : 'chat');
    expect(info.quantization).toBe(
      { llama: 'BF16', mistral: 'F16', qwen2: 'BF16', qwen3: 'BF16', bert: 'F16' }[folder],
    );
  });
});

test('progress ends with all bytes, which are as many as were written', () => {
  const seen: (readonly [number, number])[] = [];
  let written = 0;
  const output = { write: (bytes: Uint8Array) => void (written += bytes.length) };
  const onProgress = (done: number, total: number): void => void seen.push([done, total]);
  const { bytes } = convertFolder(inMemory(HF_FOLDERS.mistral()), output, { type: 'f32', onProgress });
  expect(seen.at(-1)).toEqual([bytes, bytes]);
  expect(written).toBe(bytes);
  expect(seen.every(([done], i) => i === 0 || done > (seen[i - 1]?.[0] ?? 0))).toBe(true);
});

const mistral = HF_FOLDERS.mistral();
const bert = HF_FOLDERS.bert();
const [first, second] = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'];
const INDEX = 'model.safetensors.index.json';
const map = (JSON.parse(mistral.get(INDEX)?.toString() ?? '') as { weight_map: Record<string, string> })
  .weight_map;
function withMap(fields: Readonly<Record<string, unknown>>): Files {
  return withFields(mistral, INDEX, { weight_map: { ...map, ...fields } });
}
const onlyPickle = new Map([...mistral].filter(([name]) => !name.startsWith('model')));

type Refusal = readonly [title: string, files: Files, message: string];

const REFUSED: readonly Refusal[] = [
  // descriptions
  ['no config.json', changed(mistral, 'config.json', undefined), 'config.json: the folder has no such file'],
  ['config.json is a list', changed(mistral, 'config.json', '[]'), 'config.json: it is not a JSON object'],
  ['config.json is cut', changed(mistral, 'config.json', '{"a":'), 'config.json: it is not JSON'],
  [
    'a key twice',
    changed(mistral, 'config.json', '{"a":1,"a":2}'),
    'config.json: an object in it has the same key twice',
  ],
  [
    'Latin-1',
    changed(mistral, 'config.json', Buffer.from('{"a":"\xe4"}', 'latin1')),
    'config.json: it is not JSON in UTF-8',
  ],
  ['deep', changed(mistral, 'config.json', '['.repeat(1000)), 'config.json: it has more values'],
  [
    'another architecture',
    withFields(mistral, 'config.json', { architectures: ['MambaForCausalLM'] }),
    'config.json: architectures: MambaForCausalLM is not converted',
  ],
  [
    'a hostile architecture',
    withFields(mistral, 'config.json', { architectures: ['__proto__'] }),
    'config.json: architectures: __proto__ is not converted',
  ],
  [
    'an activation that llama.cpp does not compute',
    withFields(mistral, 'config.json', { hidden_act: 'relu' }),
    'config.json: hidden_act is not silu',
  ],
  [
    'another model_type',
    withFields(mistral, 'config.json', { model_type: 'llama' }),
    'config.json: model_type is not mistral',
  ],
  [
    'quantised',
    withFields(mistral, 'config.json', { quantization_config: { quant_method: 'gptq' } }),
    'quantization_config: weights that are quantised already (gptq)',
  ],
  [
    'experts',
    withFields(mistral, 'config.json', { num_local_experts: 8 }),
    'config.json: num_local_experts is not supported',
  ],
  [
    'heads',
    withFields(mistral, 'config.json', { num_key_value_heads: 3 }),
    'config.json: num_key_value_heads is no divisor of 2',
  ],
  [
    'no heads',
    withFields(mistral, 'config.json', { num_attention_heads: 0 }),
    'config.json: num_attention_heads is not a whole number',
  ],
  [
    'a width',
    withFields(mistral, 'config.json', { hidden_size: 2 ** 40 }),
    'config.json: hidden_size is not a whole number',
  ],
  [
    'a text',
    withFields(mistral, 'config.json', { hidden_size: '16' }),
    'config.json: hidden_size is not a whole number',
  ],
  [
    'layers',
    withFields(mistral, 'config.json', { num_hidden_layers: 1e9 }),
    'config.json: num_hidden_layers is not a whole number',
  ],
  ['fewer layers', withFields(mistral, 'config.json', { num_hidden_layers: 1 }), 'model.layers.1.'],
  [
    'more layers',
    withFields(mistral, 'config.json', { num_hidden_layers: 3 }),
    'tensor layers.2.input_layernorm.weight is missing',
  ],
  [
    'rope',
    withFields(mistral, 'config.json', { rope_scaling: { rope_type: 'dynamic', factor: 2 } }),
    'config.json: rope_scaling has a type',
  ],
  [
    'theta',
    withFields(mistral, 'config.json', { rope_theta: 1e300 }),
    'config.json: rope_theta is not a number',
  ],
  [
    'an odd vocabulary',
    withFields(mistral, 'config.json', { vocab_size: 271 }),
    'config.json makes it [271, 16]',
  ],
  [
    'a head that is missing',
    withFields(mistral, 'config.json', { tie_word_embeddings: 1 }),
    'config.json: tie_word_embeddings is not true or false',
  ],
  [
    'pooling',
    changed(bert, '1_Pooling/config.json', '{"pooling_mode_max_tokens":true}'),
    '1_Pooling/config.json: pooling_mode is none of',
  ],
  [
    'pooling elsewhere',
    changed(bert, 'modules.json', '[{"type":"a.Pooling","path":"../x"}]'),
    'modules.json: the path of its pooling',
  ],
  [
    'a dense module',
    changed(bert, 'modules.json', '[{"type":"a.Dense","path":"2_Dense"}]'),
    'modules.json: [0].type is a module',
  ],
  // tokenizers
  [
    'no tokenizer',
    changed(mistral, 'tokenizer.model', undefined),
    'tokenizer.json: the folder has neither it nor tokenizer.model',
  ],
  [
    'a pickle as one',
    changed(mistral, 'tokenizer.model', Buffer.from('80049512', 'hex')),
    'tokenizer.model: ',
  ],
  [
    'a short one',
    changed(mistral, 'tokenizer.model', mistral.get('tokenizer.model')!.subarray(0, 100)),
    'tokenizer.model: it ends inside',
  ],
  [
    'an unknown pre-tokenizer',
    withFields(bert, 'tokenizer.json', { normalizer: null }),
    'tokenizer.json: llama.cpp knows no pre-tokenizer',
  ],
  [
    'a normalizer',
    withFields(bert, 'tokenizer.json', { normalizer: { type: 'Nmt' } }),
    'tokenizer.json: normalizer.type is a normalizer that is not known here',
  ],
  [
    'a bomb',
    withFields(bert, 'tokenizer.json', {
      x: Array.from({ length: 100 }, () => '['.repeat(3)),
      y: JSON.parse(`${'['.repeat(40)}${']'.repeat(40)}`) as unknown,
    }),
    'tokenizer.json: it has more values',
  ],
  [
    'an added token beyond',
    withFields(bert, 'tokenizer.json', { added_tokens: [{ id: 30_522, content: 'x' }] }),
    'tokenizer.json: added_tokens[0].id is not the next one',
  ],
  [
    'one id for two',
    withFields(bert, 'tokenizer.json', { added_tokens: [{ id: 1, content: '[PAD]' }] }),
    'tokenizer.json: added_tokens has two tokens for an id',
  ],
  // weights
  ['only a pickle', changed(onlyPickle, 'pytorch_model.bin', 'x'), 'pytorch_model.bin is a pickle'],
  ['no weights', onlyPickle, 'model.safetensors: the folder has no such file'],
  [
    'a shard that is missing',
    changed(mistral, second, undefined),
    `${INDEX}: weight_map names ${second}, which is missing`,
  ],
  [
    'a shard too many',
    changed(mistral, 'model-00003-of-00002.safetensors', mistral.get(first)),
    'model-00003-of-00002.safetensors: it is not in weight_map',
  ],
  ['shards without index', changed(mistral, INDEX, undefined), 'model.safetensors.index.json is missing'],
  ['no map', changed(mistral, INDEX, '{}'), `${INDEX}: weight_map is missing`],
  [
    'a shard elsewhere',
    withMap({ x: '../other/model.safetensors' }),
    `${INDEX}: weight_map names a file that is no plain name`,
  ],
  [
    'a tensor nobody has',
    withMap({ x: first }),
    `${INDEX}: weight_map names tensor "x", which is in no file`,
  ],
  [
    'a tensor of the other',
    withMap({ 'model.embed_tokens.weight': second }),
    'tensor model.embed_tokens.weight is in another file',
  ],
];

describe('refused, by the name of file and field', () => {
  test.each(REFUSED)('%s', (_title, files, message) => {
    const { status, message: told } = refusal(files);
    expect(told).toContain(message);
    expect(status).toBe(400);
  });

  test.each([
    ['infinity', Buffer.from('007c', 'hex')],
    ['NaN', Buffer.from('017e', 'hex')],
  ])('%s in a norm', (_title, bits) => {
    const shard = Buffer.from(mistral.get(second)!);
    bits.copy(shard, shard.length - 2);
    expect(refusal(changed(mistral, second, shard)).message).toMatch(
      /^model-00002-of-00002\.safetensors: tensor \S+: a value is not finite/,
    );
  });

  test('a value that F16 does not hold', () => {
    const data = Buffer.from(Float32Array.from({ length: 16 }, () => 70_000).buffer);
    const alone = HF_FOLDERS.bert();
    const bytes = Buffer.from(alone.get('model.safetensors')!);
    const json = bytes.subarray(8, 8 + Number(bytes.readBigUInt64LE(0))).toString();
    const header = JSON.parse(json) as Record<string, { data_offsets: [number, number] }>;
    const at = bytes.length - Number(Object.values(header).at(-1)?.data_offsets[1]);
    data.copy(bytes, at + header['encoder.layer.0.output.dense.weight']!.data_offsets[0]);
    const files = changed(alone, 'model.safetensors', bytes);
    expect(refusal(files, 'f16').message).toContain('a value is not finite, or not as F16');
    expect(() => gather(files, 'bf16')).not.toThrow();
  });

  test('weights of another dtype', () => {
    const alien = safetensors([
      { name: 'model.norm.weight', dtype: 'F8_E4M3', shape: [16], data: Buffer.alloc(16) },
    ]);
    const files = changed(onlyPickle, 'model.safetensors', alien);
    expect(refusal(files).message).toContain(
      'tensor model.norm.weight: dtype F8_E4M3 is none of F32, F16, BF16',
    );
  });

  test('a file that became shorter', () => {
    const folder = new Map(inMemory(mistral));
    const file = folder.get(second)!;
    folder.set(second, {
      ...file,
      read: (position, into) => (position > 4096 ? 0 : file.read(position, into)),
    });
    expect(() => convertFolder(folder, nowhere, { type: 'auto' })).toThrow(`${second}: it ends before byte`);
  });
});
