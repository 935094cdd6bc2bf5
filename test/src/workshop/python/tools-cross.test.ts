// Cross conversions, really done on small models: each tool runs its result beside the original, and the
// figure is asserted here. Hostile files are refused and their code does not run. Needs `make
// convert-oracle`.

import { createHash } from 'node:crypto';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { convertFolder } from '../../../../src/models/convert/convert.ts';
import type { CrossPathId } from '../../../../src/workshop/python/cross-paths.ts';
import { tinyGguf } from '../../../fixtures/models/gguf-tiny.ts';
import { HF_FOLDERS, inMemory, type Files } from '../../../fixtures/models/hf-folder.ts';
import { HAVE_PYTHON, MINUTES, useTools, type Said } from '../../../fixtures/workshop/python-tools.ts';

/** Of outputs around 0.1 to 1, in F32 on both sides. */
const CLOSE = 1e-5;
/** Weights are read back and compared by bits. */
const EQUAL = { checked: true, max_difference: 0 };
/** SHA-256 of what the pinned llama.cpp's converter makes of each fixture folder and type. */
const OFFICIAL = JSON.parse(
  readFileSync(new URL('../../../golden/convert-digests.json', import.meta.url), 'utf8'),
) as Readonly<Record<string, string>>;

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function builtIn(files: Files, name?: string): Buffer {
  const pieces: Buffer[] = [];
  const output = { write: (bytes: Uint8Array) => void pieces.push(Buffer.from(bytes)) };
  convertFolder(inMemory(files), output, { type: 'f16', name });
  return Buffer.concat(pieces);
}

describe.skipIf(!HAVE_PYTHON)('cross conversions', () => {
  const { work, run } = useTools({ models: true });
  beforeAll(() => writeFileSync(join(work, 'tiny.gguf'), tinyGguf()));

  function convert(path: CrossPathId, model: string, more: object = {}): Promise<Said> {
    const builtin = path === 'pytorch_to_gguf';
    return run('cross', { parameters: { path, ...more }, inputs: { model: join(work, model) }, builtin });
  }

  test.each<[CrossPathId, string, readonly string[], object]>([
    ['pytorch_to_onnx', 'net.pt2', ['model.onnx'], {}],
    ['pytorch_to_onnx', 'dynamic.pt2', ['model.onnx'], {}],
    ['pytorch_to_onnx', 'two.pt2', ['two.onnx'], { output_name: 'two' }],
    ['pytorch_to_tflite_litert', 'two.pt2', ['model.tflite'], {}],
    ['pytorch_to_onnx', 'llama', ['model.onnx'], { sequence_length: 8 }],
    ['gguf_to_onnx', 'tiny.gguf', ['model.onnx'], {}],
    ['onnx_to_openvino', 'net.onnx', ['net.v1.bin', 'net.v1.xml'], { output_name: 'net.v1' }],
    ['onnx_to_pytorch', 'net.onnx', ['model.pt2'], {}],
    ['onnx_to_tflite', 'net.onnx', ['model.tflite'], {}],
    ['keras_to_onnx', 'net.keras', ['model.onnx'], {}],
    ['pytorch_to_tflite_litert', 'net.pt2', ['small.tflite'], { output_name: 'small' }],
    [
      'pytorch_to_tflite_litert',
      'mobile.safetensors',
      ['model.tflite'],
      { architecture: 'mobilenet_v3_small', input_shape: [1, 3, 32, 32] },
    ],
  ])(
    '%s of %s computes what the original computes',
    async (path, model, files, more) => {
      const { result, refused, progress, output } = await convert(path, model, more);
      expect(refused).toBeUndefined();
      // Every output was compared, not the first alone.
      expect(result).toMatchObject({ path, checked: true, outputs: model === 'two.pt2' ? 2 : 1 });
      expect(files).toContain(result?.['output']);
      console.log(`${path} of ${model}: differs by ${String(result?.['max_difference'])}`);
      expect(Number(result?.['max_difference'])).toBeLessThan(CLOSE);
      expect(readdirSync(output).toSorted()).toEqual(files);
      expect(progress.toSorted((a, b) => a - b)).toEqual(progress);
    },
    10 * MINUTES,
  );

  test(
    'a state dict goes to safetensors and back; tensors that share memory are both there',
    async () => {
      const there = await convert('pytorch_to_safetensors', 'net.bin');
      expect(there.result).toMatchObject({ output: 'model.safetensors', tensors: 11, ...EQUAL });
      const back = await run('cross', {
        parameters: { path: 'safetensors_to_pytorch' },
        inputs: { model: join(there.output, 'model.safetensors') },
      });
      expect(back.result).toMatchObject({ output: 'pytorch_model.bin', tensors: 11, ...EQUAL });
    },
    10 * MINUTES,
  );

  test(
    'a folder with pickled weights becomes the GGUF file of the official converter',
    async () => {
      const [whole, pickled] = [join(work, 'whole'), join(work, 'pickled')];
      mkdirSync(whole);
      mkdirSync(pickled);
      for (const [name, bytes] of HF_FOLDERS.mistral()) {
        writeFileSync(join(whole, name), bytes);
        if (!name.includes('safetensors')) writeFileSync(join(pickled, name), bytes);
      }
      const weights = await convert('safetensors_to_pytorch', 'whole');
      expect(weights.result).toMatchObject({ tensors: 21, ...EQUAL });
      for (const name of readdirSync(weights.output))
        copyFileSync(join(weights.output, name), join(pickled, name));
      // Safetensors need no rewriting, and give the same.
      for (const from of ['pickled', 'whole']) {
        const made = await convert('pytorch_to_gguf', from, { output_name: 'small.gguf' });
        expect(made.refused, from).toBeUndefined();
        expect(made.result).toMatchObject({ output: 'gguf/small.gguf' });
        expect(readdirSync(made.output)).toEqual(['gguf']);
        const same = sha256(readFileSync(join(made.output, 'gguf/small.gguf')));
        expect(same, from).toBe(sha256(builtIn(HF_FOLDERS.mistral())));
      }
      // Which differs from the official converter's in the name alone.
      expect(sha256(builtIn(HF_FOLDERS.mistral(), 'Tiny Model'))).toBe(OFFICIAL['mistral f16']);
    },
    10 * MINUTES,
  );

  test.each<[string, CrossPathId, string, object, string, RegExp]>([
    [
      'a pickle that writes a file',
      'pytorch_to_safetensors',
      'evil.bin',
      {},
      'unsupported_model_format',
      /refused, never run/,
    ],
    [
      'a whole pickled module',
      'pytorch_to_safetensors',
      'module.bin',
      {},
      'unsupported_model_format',
      /refused, never run/,
    ],
    [
      'a program with a pickle in it',
      'pytorch_to_onnx',
      'evil-example.pt2',
      {},
      'unsupported_model_format',
      /no exported program/,
    ],
    [
      'a program with code for a size',
      'pytorch_to_onnx',
      'evil-size.pt2',
      {},
      'unsupported_model_format',
      /no arithmetic|no exported program/,
    ],
    ['a Keras model with code', 'keras_to_onnx', 'lambda.keras', {}, 'unsupported_model_format', /safe mode/],
    [
      'a file that names no architecture',
      'pytorch_to_tflite_litert',
      'net.onnx',
      {},
      'missing_required_parameter',
      /architecture/,
    ],
    ['another kind of file', 'onnx_to_openvino', 'net.pt2', {}, 'unsupported_model_format', /no ONNX model/],
    [
      'no state dict',
      'pytorch_to_safetensors',
      'net.onnx',
      {},
      'unsupported_model_format',
      /no file of torch\.save/,
    ],
    [
      'an architecture that is none',
      'pytorch_to_tflite_litert',
      'mobile.safetensors',
      { architecture: 'os' },
      'invalid_value',
      /no model of torchvision/,
    ],
    [
      'weights of another',
      'pytorch_to_tflite_litert',
      'mobile.safetensors',
      { architecture: 'resnet18' },
      'invalid_safetensors',
      /not those of/,
    ],
    [
      'weights outside of the file, in a branch',
      'onnx_to_openvino',
      'branch.onnx',
      {},
      'unsupported_model_format',
      /in other files/,
    ],
    [
      'a model that no made-up numbers fit',
      'onnx_to_pytorch',
      'beyond.onnx',
      {},
      'unsupported_model_format',
      /does not run on made-up numbers/,
    ],
    [
      'a zip with a path above',
      'pytorch_to_safetensors',
      'slip.bin',
      {},
      'unsupported_model_format',
      /torch\.save/,
    ],
    [
      'the old tar of torch',
      'pytorch_to_safetensors',
      'tar.bin',
      {},
      'unsupported_model_format',
      /torch\.save/,
    ],
    [
      'a parameter that means nothing',
      'onnx_to_openvino',
      'net.onnx',
      { input_shape: [1, 3, 16, 16] },
      'unsupported_parameter',
      /input_shape/,
    ],
    [
      'a shape of what has its own',
      'pytorch_to_onnx',
      'net.pt2',
      { sequence_length: 8 },
      'unsupported_parameter',
      /sequence_length/,
    ],
    [
      'one name for the files of a folder',
      'safetensors_to_pytorch',
      'llama',
      { output_name: 'x' },
      'unsupported_parameter',
      /output_name/,
    ],
    ['a path without a backend', 'onnx_to_rknn', 'net.onnx', {}, 'unsupported_parameter', /no backend/],
  ])(
    '%s is refused',
    async (...[, path, model, more, code, message]) => {
      const { refused, result } = await convert(path, model, more);
      expect(result).toBeUndefined();
      expect(refused).toMatchObject({ code });
      expect(refused?.message).toMatch(message);
      expect(existsSync(join(work, 'pwned'))).toBe(false);
    },
    10 * MINUTES,
  );

  test(
    'a Keras archive with a path above and a link leaves nothing beside it',
    async () => {
      const { refused, result } = await convert('keras_to_onnx', 'slip.keras');
      expect(refused !== undefined || result?.['checked'] === true).toBe(true);
      expect(existsSync(join(work, 'pwned'))).toBe(false);
      expect(existsSync(join(work, '../pwned'))).toBe(false);
    },
    10 * MINUTES,
  );

  test.each<[string, object]>([
    ['layers', { num_hidden_layers: 1_000_000 }],
    ['tokens', { vocab_size: 1_000_000_000 }],
    ['heads', { num_attention_heads: 1_000_000_000 }],
  ])(
    'a configuration of more %s than the weights can have is refused before anything is made of it',
    async (_what, changed) => {
      const folder = join(work, 'huge');
      cpSync(join(work, 'llama'), folder, { recursive: true });
      const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')) as object;
      writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...config, ...changed }));
      const { refused } = await convert('pytorch_to_onnx', 'huge');
      expect(refused).toMatchObject({ code: 'invalid_model_config' });
      expect(refused?.message).toContain(Object.keys(changed)[0]);
    },
    10 * MINUTES,
  );

  test.each(['config.json', 'tokenizer_config.json'])(
    'code of a model is never run: %s',
    async (name) => {
      const folder = join(work, `remote-${name}`);
      cpSync(join(work, 'llama'), folder, { recursive: true });
      const path = join(folder, name);
      const before = existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as object) : {};
      writeFileSync(path, JSON.stringify({ ...before, auto_map: { AutoTokenizer: ['evil.Evil', null] } }));
      writeFileSync(join(folder, 'evil.py'), `open(${JSON.stringify(join(work, 'pwned'))}, 'w')`);
      const { refused } = await convert('pytorch_to_onnx', `remote-${name}`);
      expect(refused).toMatchObject({ code: 'invalid_model_config' });
      expect(refused?.message).toContain(name);
      expect(existsSync(join(work, 'pwned'))).toBe(false);
    },
    10 * MINUTES,
  );
});
