// Files of a few kilobytes that would become a quarter of a gigabyte: each is refused by what it says of
// itself, before a library makes anything of it, in little memory and with no output. Every one is a valid
// model, so without the bound it is read. Needs `make convert-oracle`.

import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { CrossPathId } from '../../../../src/workshop/python/cross-paths.ts';
import { HAVE_PYTHON, MINUTES, useTools, type Said } from '../../../fixtures/workshop/python-tools.ts';

const MORE = /far more than the file is large/;

describe.skipIf(!HAVE_PYTHON)('archives that unpack to far more than they are', () => {
  const { work, run } = useTools({ make: 'bombs' });

  function convert(path: CrossPathId, model: string, more: object = {}): Promise<Said> {
    return run('cross', { parameters: { path, ...more }, inputs: { model: join(work, model) } });
  }

  test.each<[string, CrossPathId, string, object]>([
    ['a zip of torch.save', 'pytorch_to_safetensors', 'bomb.bin', {}],
    ['where pickles may run', 'pytorch_to_safetensors', 'bomb.bin', { pickles: 'jail' }],
    ['a tensor whose strides are zero', 'pytorch_to_safetensors', 'strides.bin', {}],
    ['a sparse tensor', 'pytorch_to_safetensors', 'sparse.bin', {}],
    ['an exported program', 'pytorch_to_onnx', 'bomb.pt2', {}],
    ['an exported program for LiteRT', 'pytorch_to_tflite_litert', 'bomb.pt2', {}],
    ['a Keras archive', 'keras_to_onnx', 'bomb.keras', {}],
    ['a layer of Keras that has no weights', 'keras_to_onnx', 'units.keras', {}],
  ])(
    '%s',
    async (_what, path, model, more) => {
      expect(statSync(join(work, model)).size).toBeLessThan(4_000_000);
      const { refused, result, output } = await convert(path, model, more);
      expect(result).toBeUndefined();
      expect(refused).toMatchObject({ code: 'unsupported_model_format' });
      expect(refused?.message).toMatch(MORE);
      expect(readdirSync(output)).toEqual([]);
    },
    10 * MINUTES,
  );

  test(
    'a data set whose rows are one text, again and again',
    async () => {
      const { refused } = await run('finetune', {
        parameters: {},
        inputs: { model: work, dataset: join(work, 'bomb.parquet') },
      });
      expect(refused).toMatchObject({ code: 'invalid_value', param: 'dataset_source' });
      expect(refused?.message).toMatch(/too large/);
    },
    10 * MINUTES,
  );
});
