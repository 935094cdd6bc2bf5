// The vectors that libmtmd computes from a projector of our converter, beside those of `transformers` from
// the same folder: tiny random SmolVLM and Idefics3, also one whose patches do not fill a tile. Needs `make
// convert-oracle` and `make native`.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { loadLlama } from '../../../../src/engine/child/llama/library.ts';
import { loadLlamaModel, openModelFile } from '../../../../src/engine/child/llama/model.ts';
import { loadMtmd } from '../../../../src/engine/child/vision/library.ts';
import { Projector } from '../../../../src/engine/child/vision/projector.ts';
import { nativeLibrary } from '../../../../src/base/native-library.ts';
import { checkProjector } from '../../../../src/models/gguf/read.ts';
import { openRegular } from '../../../../src/models/measure.ts';
import { png } from '../../../fixtures/images.ts';
import { haveOracle } from '../../../fixtures/models/convert-oracle.ts';
import { convertTo } from '../../../fixtures/models/converted.ts';
import { visionFolderCase } from '../../../fixtures/models/vision-folder-oracle.ts';
import { haveVision } from '../../../fixtures/native/libraries.ts';

const work = mkdtempSync(join(tmpdir(), 'assay-vision-transformers-'));
afterAll(() => rmSync(work, { recursive: true }));

/** The largest difference, in units of the largest number expected. */
function difference(actual: Float32Array, expected: Float32Array): number {
  let [largest, scale] = [0, 0];
  for (const [i, value] of expected.entries()) {
    largest = Math.max(largest, Math.abs(value - actual[i]!));
    scale = Math.max(scale, Math.abs(value));
  }
  return largest / scale;
}

/** Measured: 3.4e-4 at most as F32, and 4.1e-4 as F16; BF16 multiplies numbers of eight bits, 2.1e-3. */
const CASES = [
  ['smolvlm', 'f32', 2e-3],
  ['smolvlm', 'auto', 2e-3],
  ['smolvlm-odd', 'f32', 2e-3],
  ['smolvlm-odd', 'auto', 1e-2],
  ['idefics3', 'f32', 2e-3],
  ['idefics3', 'auto', 2e-3],
] as const;

describe.skipIf(!haveVision || !haveOracle)('beside transformers', () => {
  test.each(CASES)(
    'the vectors of %s as %s are the same',
    async (name, type, within) => {
      const oracle = await visionFolderCase(name);
      const [text, path] = [join(work, 'text.gguf'), join(work, 'mmproj.gguf')];
      convertTo(text, oracle.folder, { type, part: 'text' });
      convertTo(path, oracle.folder, { type, part: 'projector' });
      const file = await openRegular(path);
      expect(await checkProjector(file)).toMatchObject({ kind: 'idefics3', served: true });
      await file.close();
      const { llama } = loadLlama();
      const model = await loadLlamaModel(llama, openModelFile(text), () => undefined);
      const options = { path, threads: 1, grid: false };
      const projector = new Projector(loadMtmd(nativeLibrary('libmtmd')!), model, options);
      const { tile, pixels } = oracle;
      const colour = (column: number, row: number) =>
        [0, 1, 2].map((i) => pixels[(row * tile + column) * 3 + i]!) as never;
      const bytes = png(tile, tile, colour);
      const image = { at: 0, kind: 'png' as const, width: tile, height: tile, bytes, param: 'image' };
      const ready = await projector.ready(image);
      const rows: number[] = [];
      for (const [i, piece] of projector.layout(image).entries())
        if (piece.kind === 'image') rows.push(...(await ready.encode(i)));
      ready.free();
      expect(rows).toHaveLength(oracle.vectors.length);
      const off = difference(Float32Array.from(rows), oracle.vectors);
      console.log(`beside transformers: ${name} ${type}, vectors ${off.toExponential(1)} of the largest`);
      expect(off).toBeLessThan(within);
    },
    1_200_000,
  );
});
