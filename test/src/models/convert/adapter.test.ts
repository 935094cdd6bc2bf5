// PEFT folders without Python: what would give other deltas is refused by its name, and the pairs come out
// as the arithmetic says (the official converter and PEFT are in adapter-oracle.test.ts).

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ApiError } from '../../../../src/base/errors.ts';
import { convertAdapter, type AdapterBase } from '../../../../src/models/convert/adapter.ts';
import type { FolderFile } from '../../../../src/models/convert/folder.ts';
import { readHeader, type GgufHeader } from '../../../../src/models/gguf/header.ts';
import { source } from '../../../fixtures/models/gguf-source.ts';
import { peftConfig, peftWeights } from '../../../fixtures/models/peft-folder.ts';
import { refusal } from '../../../fixtures/refusal.ts';

const BASE: AdapterBase = { architecture: 'llama', layers: 2, heads: 2, headsKv: 1 };

function fileOf(bytes: Uint8Array): FolderFile {
  return {
    size: bytes.length,
    read: (position, into) => {
      const part = bytes.subarray(position, position + into.length);
      into.set(part);
      return part.length;
    },
  };
}

function convert(files: Readonly<Record<string, Uint8Array>>, base = BASE): Buffer {
  const pieces: Uint8Array[] = [];
  const folder = new Map(Object.entries(files).map(([name, bytes]) => [name, fileOf(bytes)]));
  convertAdapter(folder, { write: (bytes) => void pieces.push(new Uint8Array(bytes)) }, { base });
  return Buffer.concat(pieces);
}

function folderOf(
  config: Record<string, unknown> = {},
  tensors?: Parameters<typeof peftWeights>[0],
): Record<string, Uint8Array> {
  return {
    'adapter_config.json': peftConfig(config),
    'adapter_model.safetensors': peftWeights(tensors ?? { 'layers.0.self_attn.q_proj': [8, 8] }),
  };
}

function valuesOf(file: Buffer, header: GgufHeader, name: string): readonly number[] {
  const { offset, bytes } = header.tensors.find((tensor) => tensor.name === name)!;
  const at = header.dataOffset + offset;
  return [...new Float32Array(new Uint8Array(file.subarray(at, at + bytes)).buffer)];
}

test('rows of B are those of the query matrix as llama.cpp has them: halves of each head side by side', async () => {
  const file = convert(folderOf({ r: 1, lora_alpha: 3 }, { 'layers.1.self_attn.q_proj': { a: [[1, 2, 3]], b: [[0], [1], [2], [3], [4], [5], [6], [7]] } })); // prettier-ignore
  const header = await readHeader(source(file));
  expect(header.tensors.map(({ name, shape }) => [name, ...shape.slice(0, 2)])).toEqual([
    ['blk.1.attn_q.weight.lora_a', 3, 1],
    ['blk.1.attn_q.weight.lora_b', 1, 8],
  ]);
  expect(valuesOf(file, header, 'blk.1.attn_q.weight.lora_a')).toEqual([1, 2, 3]);
  // Two heads of four rows each: (0 1 | 2 3) becomes 0 2 1 3.
  expect(valuesOf(file, header, 'blk.1.attn_q.weight.lora_b')).toEqual([0, 2, 1, 3, 4, 6, 5, 7]);
  expect(header.metadata.get('adapter.lora.alpha')).toEqual({ type: 'f32', value: 3 });
  const other = convert(folderOf({ r: 1 }, { 'layers.1.self_attn.q_proj': { a: [[1]], b: [[0], [1], [2], [3]] } }), { ...BASE, architecture: 'qwen2' }); // prettier-ignore
  expect(valuesOf(other, await readHeader(source(other)), 'blk.1.attn_q.weight.lora_b')).toEqual([
    0, 1, 2, 3,
  ]);
});

test('A of the embedding is by token', async () => {
  const file = convert(folderOf({}, { embed_tokens: { a: [[1, 2, 3], [4, 5, 6]], b: [[7, 8], [9, 10]] } })); // prettier-ignore
  const header = await readHeader(source(file));
  expect(header.tensors.map(({ name, shape }) => [name, ...shape.slice(0, 2)])).toEqual([
    ['token_embd.weight.lora_a', 2, 3],
    ['token_embd.weight.lora_b', 2, 2],
  ]);
  expect(valuesOf(file, header, 'token_embd.weight.lora_a')).toEqual([1, 4, 2, 5, 3, 6]);
});

test('names of a model that sees are those of its text model; its encoder is refused, and a matrix named twice', () => {
  const adapted = (...modules: readonly string[]): Buffer =>
    convert(folderOf({}, Object.fromEntries(modules.map((module) => [module, [8, 8] as const]))));
  const [plain, seeing] = ['layers.0.self_attn.q_proj', 'text_model.layers.0.self_attn.q_proj'];
  expect(adapted(seeing).equals(adapted(plain))).toBe(true);
  const encoder = 'vision_model.encoder.layers.0.self_attn.q_proj';
  expect(refusal(() => adapted(seeing, encoder)).message).toContain('llama has no such matrix');
  expect(refusal(() => adapted(plain, seeing)).message).toContain('has two lora_');
});

test('rslora is in alpha', async () => {
  const header = await readHeader(source(convert(folderOf({ r: 4, lora_alpha: 8, use_rslora: true }, { 'layers.0.mlp.up_proj': [8, 8, 4] })))); // prettier-ignore
  expect(header.metadata.get('adapter.lora.alpha')).toEqual({ type: 'f32', value: 16 });
});

describe('refused by its name', () => {
  test.each<readonly [config: Record<string, unknown>, message: string, code: string]>([
    [{ peft_type: 'IA3' }, 'peft_type is not LORA', 'invalid_model_config'],
    [{ use_dora: true }, 'use_dora is set', 'unsupported_model_format'],
    [{ modules_to_save: ['lm_head'] }, 'modules_to_save is set', 'unsupported_model_format'],
    [{ bias: 'lora_only' }, 'bias is not none', 'unsupported_model_format'],
    [{ lora_bias: true }, 'lora_bias is set', 'unsupported_model_format'],
    [{ fan_in_fan_out: true }, 'fan_in_fan_out is set', 'unsupported_model_format'],
    [{ alpha_pattern: { q_proj: 4 } }, 'alpha_pattern is set', 'unsupported_model_format'],
    [{ target_parameters: ['x'] }, 'target_parameters is set', 'unsupported_model_format'],
    [{ alora_invocation_tokens: [1] }, 'alora_invocation_tokens is set', 'unsupported_model_format'],
    [{ init_lora_weights: 'pissa_niter_4' }, 'init_lora_weights', 'unsupported_model_format'],
    [{ new_kind_of_lora: { on: true } }, 'new_kind_of_lora is not known', 'unsupported_model_format'],
    [
      { rank_pattern: { q_proj: 4 }, use_rslora: true },
      'rank_pattern with use_rslora',
      'unsupported_model_format',
    ],
    [{ r: 3 }, 'has rank 2, r of adapter_config.json is 3', 'invalid_safetensors'],
    [{ r: 0 }, 'r is not a whole number from 1', 'invalid_model_config'],
    [{ lora_alpha: 0 }, 'lora_alpha is 0', 'invalid_model_config'],
    [{ lora_alpha: '8' }, 'lora_alpha is not a number', 'invalid_model_config'],
  ])('%j', (config, message, code) => {
    const error = refusal(() => convert(folderOf(config)));
    expect([error.code, error.status]).toEqual([code, 400]);
    expect(error.message).toContain(message);
  });

  test('a pickle is named and never opened', () => {
    const error = refusal(() => convert({ 'adapter_config.json': peftConfig({}), 'adapter_model.bin': new Uint8Array(8) })); // prettier-ignore
    expect([error.code, error.message]).toEqual([
      'unsupported_model_format',
      'adapter_model.bin is a pickle and is never opened; adapter_model.safetensors is missing',
    ]);
  });

  test.each<readonly [what: string, tensors: Parameters<typeof peftWeights>[0], message: string]>([
    ['a matrix the base does not have', { 'layers.0.self_attn.r_proj': [8, 8] }, 'llama has no such matrix'],
    ['a layer the base does not have', { 'layers.2.self_attn.q_proj': [8, 8] }, 'llama has no such matrix'],
    ['a norm', { 'layers.0.input_layernorm': [8, 1] }, 'llama has no such matrix'],
    [
      'rows that the heads do not share',
      { 'layers.0.self_attn.q_proj': [8, 6] },
      'which 2 heads of the base do not share',
    ],
    ['half a pair', { 'layers.0.self_attn.q_proj': { a: [[1], [2]] } }, 'has no lora_B'],
    ['no pair', {}, 'no pair'],
    [
      'a value that is not finite',
      { 'layers.0.mlp.up_proj': { a: [[1], [Infinity]], b: [[1, 1]] } },
      'not finite',
    ],
  ])('%s', (_what, tensors, message) => {
    expect(refusal(() => convert(folderOf({}, tensors))).message).toContain(message);
  });

  test('a base of another architecture', () => {
    expect(refusal(() => convert(folderOf(), { ...BASE, architecture: 'mamba' })).message).toContain(
      'PEFT folders are converted for bases of llama',
    );
  });
});

test('damaged weights and configurations give the typed error or an adapter', () => {
  const whole = folderOf();
  const names = Object.keys(whole);
  fc.assert(
    fc.property(fc.constantFrom(...names), fc.array(fc.tuple(fc.nat(400), fc.nat(255)), { minLength: 1, maxLength: 4 }), (name, changes) => {
      const damaged = new Uint8Array(whole[name]!);
      for (const [at, byte] of changes) damaged[at % damaged.length] = byte;
      try {
        convert({ ...whole, [name]: damaged });
      } catch (error) {
        if (!(error instanceof ApiError) || error.status !== 400) throw error;
      }
    }),
    { numRuns: 2000 },
  );
}); // prettier-ignore
