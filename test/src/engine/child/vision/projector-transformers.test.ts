// The engine reads an image beside `transformers`, on a tiny random SmolVLM of the official
// converter: the vectors of the projector, and the logits after text, image and text, decoded as the
// scheduler decodes them.

import { beforeAll, describe, expect, test } from 'vitest';
import { LlamaContext } from '../../../../../src/engine/child/llama/context.ts';
import { loadLlama } from '../../../../../src/engine/child/llama/library.ts';
import { loadLlamaModel, openModelFile } from '../../../../../src/engine/child/llama/model.ts';
import { loadMtmd } from '../../../../../src/engine/child/vision/library.ts';
import { Projector } from '../../../../../src/engine/child/vision/projector.ts';
import { nativeLibrary } from '../../../../../src/engine/seam/native-library.ts';
import { png } from '../../../../fixtures/images.ts';
import { haveOracle, visionCase, type VisionCase } from '../../../../fixtures/models/convert-oracle.ts';
import { haveVision } from '../../../../fixtures/native/libraries.ts';

/** The largest difference, in units of the largest number expected. */
function difference(actual: Float32Array, expected: Float32Array): number {
  let largest = 0;
  let scale = 0;
  for (const [i, value] of expected.entries()) {
    largest = Math.max(largest, Math.abs(value - actual[i]!));
    scale = Math.max(scale, Math.abs(value));
  }
  return largest / scale;
}

function argmax(values: Float32Array): number {
  return values.reduce((best, value, i) => (value > values[best]! ? i : best), 0);
}

describe.skipIf(!haveVision || !haveOracle)('beside transformers', () => {
  let oracle: VisionCase;
  beforeAll(async () => {
    oracle = await visionCase();
  }, 600_000);

  test('vectors and logits are the same', async () => {
    const { llama } = loadLlama();
    const model = await loadLlamaModel(llama, openModelFile(oracle.model), () => undefined);
    const mtmd = loadMtmd(nativeLibrary('libmtmd')!);
    const projector = new Projector(mtmd, model, { path: oracle.projector, threads: 1 });
    const { tile, pixels } = oracle;
    const bytes = png(
      tile,
      tile,
      (column, row) => [0, 1, 2].map((i) => pixels[(row * tile + column) * 3 + i]!) as never,
    );
    const image = { at: 0, kind: 'png' as const, width: tile, height: tile, bytes, param: 'image' };

    const layout = projector.layout(image);
    const ids = layout.flatMap((piece) =>
      piece.kind === 'text' ? piece.tokens : Array.from({ length: piece.length }, () => oracle.image),
    );
    expect(ids).toEqual(oracle.layout);

    const ready = await projector.ready(image);
    const rows = [];
    for (const [i, piece] of layout.entries()) if (piece.kind === 'image') rows.push(await ready.encode(i));
    const vectors = Float32Array.from(rows.flatMap((each) => [...each]));
    expect(vectors.length).toBe(oracle.vectors.length);
    expect(difference(vectors, oracle.vectors)).toBeLessThan(2e-3);

    const context = new LlamaContext(llama, model, {
      sequences: 1,
      cells: 256,
      batchTokens: 64,
      threads: 1,
      threadpool: null,
      embeddings: 'none',
      exact: true,
      unified: true,
    });
    let position = 0;
    const read = (tokens: readonly number[], last: boolean): void => {
      context.clearBatch();
      for (const [i, token] of tokens.entries())
        context.add(token, position + i, 0, last && i === tokens.length - 1);
      expect(context.decodeSync()).toBe(0);
      position += tokens.length;
    };
    read(oracle.before, false);
    for (const [i, piece] of layout.entries()) {
      if (piece.kind === 'text') {
        read(piece.tokens, false);
        continue;
      }
      context.addRows(await ready.encode(i), position, 0, false);
      expect(context.decodeSync()).toBe(0);
      position += piece.length;
    }
    read(oracle.after, true);
    const logits = context.logits(oracle.after.length - 1);
    console.log(
      `beside transformers: vectors ${difference(vectors, oracle.vectors).toExponential(1)}, logits ${difference(logits, oracle.logits).toExponential(1)} of the largest`,
    );
    expect(difference(logits, oracle.logits)).toBeLessThan(2e-3);
    expect(argmax(logits)).toBe(argmax(oracle.logits));
    ready.free();
  });
});
