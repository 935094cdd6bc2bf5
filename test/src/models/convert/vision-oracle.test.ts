// Models that see against the official converter, on tiny random SmolVLM and Idefics3 folders: the text model
// and the projector are the same files, byte for byte. Needs `make convert-oracle`.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import type { OutputType } from '../../../../src/models/convert/general.ts';
import { haveOracle } from '../../../fixtures/models/convert-oracle.ts';
import { convertTo, digestOf } from '../../../fixtures/models/converted.ts';
import { visionFolderCase } from '../../../fixtures/models/vision-folder-oracle.ts';

const work = mkdtempSync(join(tmpdir(), 'assay-vision-oracle-'));
afterAll(() => rmSync(work, { recursive: true }));

/** Of F32 untied, BF16 tied in shards, F16 untied, F32 tied in shards; of four sizes. */
const CASES: readonly (readonly [name: string, types: readonly OutputType[]])[] = [
  ['smolvlm', ['f32', 'auto']],
  ['smolvlm-odd', ['auto', 'f16', 'f32']],
  ['idefics3', ['auto', 'bf16']],
  ['idefics3-tied', ['auto', 'f32']],
];

describe.skipIf(!haveOracle)('the official converter', () => {
  test.each(CASES)(
    '%s',
    async (name, types) => {
      const oracle = await visionFolderCase(name);
      for (const type of types)
        for (const part of ['text', 'projector'] as const) {
          const path = join(work, `${part}-${type}.gguf`);
          convertTo(path, oracle.folder, { type, part, name: 'Tiny Model' });
          const official = part === 'text' ? oracle.model(type) : oracle.projector(type);
          expect([part, type, digestOf(path)]).toEqual([part, type, digestOf(official)]);
        }
    },
    1_200_000,
  );
});
