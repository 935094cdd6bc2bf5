// Folders of models that see, without Python: the SHA-256 of what `convert_hf_to_gguf.py` of the pinned
// llama.cpp made of the same folders (scripts/convert-oracle/vision_folders.py --digests) is in
// test/golden/vision-digests.json. Then the settings of images: any values are taken or refused by name.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { array, assert, asyncProperty, constantFrom, dictionary, double, oneof, record } from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ApiError } from '../../../../src/base/errors.ts';
import { convertFolder } from '../../../../src/models/convert/convert.ts';
import type { OutputType } from '../../../../src/models/convert/general.ts';
import type { ConvertedPart } from '../../../../src/models/convert/plan-model.ts';
import { inspectProjector } from '../../../../src/models/gguf/projector.ts';
import { readHeader } from '../../../../src/models/gguf/header.ts';
import { inMemory, type Files } from '../../../fixtures/models/hf-folder.ts';
import { visionFolder } from '../../../fixtures/models/hf-vision.ts';

const DIGESTS = JSON.parse(
  readFileSync(new URL('../../../golden/vision-digests.json', import.meta.url), 'utf8'),
) as Readonly<Record<string, string>>;

const FOLDERS = {
  smolvlm: visionFolder(),
  idefics3: visionFolder({ family: 'Idefics3', dtype: 'BF16' }),
} as const;

function gather(files: Files, part: ConvertedPart, type: OutputType, name?: string): Buffer {
  const parts: Buffer[] = [];
  const output = { write: (bytes: Uint8Array) => void parts.push(Buffer.from(bytes)) };
  convertFolder(inMemory(files), output, { type, part, name });
  return Buffer.concat(parts);
}

describe.each(['smolvlm', 'idefics3'] as const)('%s', (folder) => {
  test.each([
    ['text', 'model', 'auto'],
    ['text', 'model', 'f32'],
    ['projector', 'mmproj', 'auto'],
    ['projector', 'mmproj', 'f32'],
  ] as const)('its %s is the %s of the official converter as %s', (part, kind, type) => {
    const bytes = gather(FOLDERS[folder], part, type, 'Tiny Model');
    expect(createHash('sha256').update(bytes).digest('hex')).toBe(DIGESTS[`${folder} ${kind} ${type}`]);
  });
});

test('property: whatever the settings of images and the encoder say, they are refused by name, or fit libmtmd', async () => {
  const any = oneof(
    constantFrom(0.5, 0, 1, -1, 1e9, 32, 64, 96, 8, 4, 2, 16, null, true, false, 'x', [], {}),
    double(),
    array(oneof(constantFrom(0.5, 0.25, 1e9, -1), double()), { minLength: 2, maxLength: 4 }),
    record({ longest_edge: oneof(constantFrom(32, 64, 128, 256, 1e9, -1), double()) }),
  );
  const images = ['image_mean', 'image_std', 'size', 'max_image_size', 'do_resize', 'image_processor'];
  const sizes = [
    'hidden_size',
    'image_size',
    'patch_size',
    'num_hidden_layers',
    'layer_norm_eps',
    'num_channels',
  ];
  const fields = (names: readonly string[]) => dictionary(constantFrom(...names), any, { maxKeys: 2 });
  const json = (name: string) => JSON.parse(FOLDERS.smolvlm.get(name)!.toString()) as Record<string, object>;
  let taken = 0;
  await assert(
    asyncProperty(fields(images), fields(images), fields(sizes), async (before, after, vision) => {
      const config = json('config.json');
      const files = new Map([
        ...FOLDERS.smolvlm,
        ['preprocessor_config.json', text({ ...json('preprocessor_config.json'), ...before })],
        ['processor_config.json', text(after)],
        ['config.json', text({ ...config, vision_config: { ...config['vision_config'], ...vision } })],
      ]);
      let bytes: Buffer;
      try {
        bytes = gather(files, 'projector', 'auto');
      } catch (error) {
        expect(error).toBeInstanceOf(ApiError);
        expect((error as ApiError).message).toMatch(
          /^(?:(?:pre)?processor_config|config)\.json: |safetensors: /,
        );
        return;
      }
      const read = (position: number, length: number) =>
        Promise.resolve(bytes.subarray(position, position + length));
      expect(inspectProjector(await readHeader({ size: bytes.length, read }))).toMatchObject({
        served: true,
      });
      taken += 1;
    }),
    { numRuns: 900 * Number(process.env['ASSAY_FUZZ'] ?? 1) },
  );
  expect(taken).toBeGreaterThan(20);
});

function text(value: object): Buffer {
  return Buffer.from(JSON.stringify(value));
}
