// Files that are no adapter, one of another base, or hostile: each a typed 400 that names the field, before
// llama.cpp reads a byte of it; the server and the base's process live.

import { createHash } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { base, useLoraServer } from '../fixtures/e2e/lora-server.ts';
import { adapterFile, tinyAdapter } from '../fixtures/models/gguf-adapter.ts';
import { peftConfig, peftWeights } from '../fixtures/models/peft-folder.ts';

describe('refused adapters', () => {
  const fixture = useLoraServer();
  const { load, textOf } = fixture;

  beforeAll(async () => {
    for (const name of ['red', 'blue']) expect((await load(`${name}.gguf`)).status).toBe(200);
  });

  test.each<readonly [what: string, files: Readonly<Record<string, Buffer>>, code: string, message: RegExp]>([
    [
      'a pickle',
      { 'adapter_config.json': peftConfig({}), 'adapter_model.bin': Buffer.alloc(8) },
      'unsupported_model_format',
      /adapter_model\.bin is a pickle/,
    ],
    [
      'DoRA',
      {
        'adapter_config.json': peftConfig({ use_dora: true }),
        'adapter_model.safetensors': peftWeights({ 'layers.0.mlp.up_proj': [32, 64] }),
      },
      'unsupported_model_format',
      /use_dora/,
    ],
    ['nothing', {}, 'invalid_model_config', /adapter_config\.json: the folder has no such file/],
    [
      'another width',
      {
        'adapter_config.json': peftConfig({}),
        'adapter_model.safetensors': peftWeights({ 'layers.0.mlp.up_proj': [64, 64] }),
      },
      'adapter_mismatch',
      /blk\.0\.ffn_up\.weight\.lora_a is \[64, 2, 1, 1\]/,
    ],
    [
      'random bytes',
      {
        'adapter_config.json': peftConfig({}),
        'adapter_model.safetensors': Buffer.from(base.subarray(0, 999)),
      },
      'invalid_safetensors',
      /header is/,
    ],
  ])('a folder with %s is a typed 400 that names the field', async (what, files, code, message) => {
    // prettier-ignore
    const folderName = `peft-${what.replaceAll(' ', '-')}`;
    await mkdir(join(fixture.models, folderName));
    for (const [name, bytes] of Object.entries(files))
      await writeFile(join(fixture.models, folderName, name), bytes);
    expect(await load(folderName)).toMatchObject({
      status: 400,
      body: { error: { code, param: 'lora_path', message: expect.stringMatching(message) as string } },
    });
  });

  const Q = 'blk.0.attn_q.weight';
  test.each<readonly [what: string, make: () => Buffer | undefined, code: string]>([
    ['no file', () => undefined, 'file_not_found'],
    ['random bytes', () => Buffer.from(createHash('sha512').update('x').digest()), 'invalid_gguf'],
    ['a model', () => base, 'invalid_gguf'],
    [
      'alpha as an integer',
      () => tinyAdapter({ metadata: { 'adapter.lora.alpha': { u32: 8 } } }),
      'invalid_gguf',
    ],
    [
      'alpha infinite',
      () => tinyAdapter({ metadata: { 'adapter.lora.alpha': { f32: Infinity } } }),
      'invalid_gguf',
    ],
    [
      'general.type as an integer',
      () => tinyAdapter({ metadata: { 'general.type': { u32: 1 } } }),
      'invalid_gguf',
    ],
    ['half a pair', () => tinyAdapter({ tensors: { [`${Q}.lora_b`]: undefined } }), 'invalid_gguf'],
    ['no pair', () => adapterFile([]), 'invalid_gguf'],
    [
      'another architecture',
      () => tinyAdapter({ metadata: { 'general.architecture': { string: 'qwen2' } } }),
      'adapter_mismatch',
    ],
    [
      'another width',
      () => tinyAdapter({ tensors: { [`${Q}.lora_a`]: { shape: [64, 4] } } }),
      'adapter_mismatch',
    ],
    [
      'a third dimension',
      () => tinyAdapter({ tensors: { [`${Q}.lora_a`]: { shape: [32, 4, 3] } } }),
      'adapter_mismatch',
    ],
  ])('hostile: %s is a typed 400 that names the field, and the server lives', async (what, make, code) => {
    const file = `hostile-${what.replaceAll(' ', '-')}.gguf`;
    const bytes = make();
    if (bytes !== undefined) await writeFile(join(fixture.models, file), bytes);
    expect(await load(file)).toMatchObject({ status: 400, body: { error: { code, param: 'lora_path' } } });
    expect(await textOf('red')).toBe(await textOf('folded-red'));
  });

  test.each<readonly [what: string, body: object, refusal: readonly [number, string, string]]>([
    ['a base that is none', { model: 'nothing' }, [404, 'model_not_found', 'model']],
    ['an adapter as base', { model: 'blue' }, [400, 'wrong_model_type', 'model']],
    ['an embedding model as base', { model: 'demo-embed' }, [400, 'wrong_model_type', 'model']],
    ['no base among several', { model: undefined }, [400, 'missing_required_parameter', 'model']],
    ['a demo model, which it does not fit', { model: 'demo-chat' }, [400, 'adapter_mismatch', 'lora_path']],
    ['a path outside of the roots', { lora_path: '/etc/passwd' }, [400, 'path_not_allowed', 'lora_path']],
    ['a scale that is none', { scale: -1 }, [400, 'decimal_below_min_value', 'scale']],
    ['a reserved name', { lora_name: 'load' }, [400, 'invalid_value', 'lora_name']],
    ['the name of a model', { lora_name: 'base' }, [409, 'model_already_exists', 'lora_name']],
    [
      'the name of a configured model',
      { lora_name: 'demo-chat' },
      [409, 'model_already_exists', 'lora_name'],
    ],
    ['a field it does not have', { lora_int_id: 1 }, [400, 'unknown_parameter', 'lora_int_id']],
  ])('refused: %s', async (_what, body, [status, code, param]) => {
    const answer = await load('red.gguf', { lora_name: 'new', ...body });
    expect(answer, JSON.stringify(answer)).toMatchObject({ status, body: { error: { code, param } } });
  });
});
