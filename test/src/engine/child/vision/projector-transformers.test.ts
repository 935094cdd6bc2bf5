// The engine reads images beside `transformers`, on tiny random models of the official converter, one of each
// kind of projector that is served: the vectors of the projector, and the logits after text, image and text,
// and after another image, decoded as the scheduler decodes them.

import { open } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { positionsOf } from '../../../../../src/engine/child/decode/media-span.ts';
import { LlamaContext } from '../../../../../src/engine/child/llama/context.ts';
import { loadLlama } from '../../../../../src/engine/child/llama/library.ts';
import { loadLlamaModel, openModelFile } from '../../../../../src/engine/child/llama/model.ts';
import { loadMtmd } from '../../../../../src/engine/child/vision/library.ts';
import { Projector, type ImagePiece } from '../../../../../src/engine/child/vision/projector.ts';
import { nativeLibrary } from '../../../../../src/base/native-library.ts';
import { SERVED_KINDS } from '../../../../../src/models/gguf/projector.ts';
import { checkProjector } from '../../../../../src/models/gguf/read.ts';
import { png } from '../../../../fixtures/images.ts';
import { haveOracle, visionCase, type VisionCase } from '../../../../fixtures/models/convert-oracle.ts';
import { haveVision } from '../../../../fixtures/native/libraries.ts';

/** The largest difference, in units of the largest number expected. */
function difference(actual: Float32Array, expected: Float32Array): number {
  expect(actual.length).toBe(expected.length);
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

function fileOf({ width, height, pixels }: VisionCase['images'][number]) {
  const bytes = png(
    width,
    height,
    (column, row) => [0, 1, 2].map((i) => pixels[(row * width + column) * 3 + i]!) as never,
  );
  return { at: 0, kind: 'png' as const, width, height, bytes, param: 'image' };
}

/** An image with its vectors, piece by piece. */
type Read = readonly (ImagePiece & { readonly rows?: Float32Array })[];

describe.skipIf(!haveVision || !haveOracle)('beside transformers', () => {
  test.each(SERVED_KINDS)(
    'vectors and logits of %s are the same',
    async (kind) => {
      const oracle = await visionCase(kind);
      const file = await open(oracle.projector);
      const facts = await checkProjector(file);
      await file.close();
      expect(facts).toMatchObject({ kind, served: true });
      const { llama } = loadLlama();
      const model = await loadLlamaModel(llama, openModelFile(oracle.model), () => undefined);
      expect(facts.width).toBe(model.inputSize);
      const mtmd = loadMtmd(nativeLibrary('libmtmd')!);
      const projector = new Projector(mtmd, model, { path: oracle.projector, threads: 1, grid: facts.grid });

      const images: Read[] = [];
      const apart: number[] = [];
      for (const expected of oracle.images) {
        const image = fileOf(expected);
        const layout = projector.layout(image);
        const ids = layout.flatMap((piece) =>
          piece.kind === 'text' ? piece.tokens : Array.from({ length: piece.length }, () => oracle.image),
        );
        expect(ids).toEqual(expected.layout);
        const ready = await projector.ready(image);
        const read = [];
        for (const [i, piece] of layout.entries())
          read.push(piece.kind === 'image' ? { ...piece, rows: await ready.encode(i) } : piece);
        const vectors = Float32Array.from(read.flatMap((each) => [...('rows' in each ? each.rows : [])]));
        apart.push(difference(vectors, expected.vectors));
        images.push(read);
        ready.free();
      }

      const context = new LlamaContext(llama, model, {
        sequences: 1,
        cells: 256,
        batchTokens: 64,
        threads: 1,
        threadpool: null,
        embeddings: 'none',
        exact: true,
        unified: true,
        vectors: true,
        wholeRun: projector.wholeRun,
      });
      let position = 0;
      /** As if the kind had neither rows and columns nor attention in both directions. */
      let plain = false;
      const readTokens = (tokens: readonly number[]): Float32Array => {
        context.clearBatch();
        for (const [i, token] of tokens.entries())
          context.add(token, position + i, 0, i === tokens.length - 1);
        expect(context.decodeSync()).toBe(0);
        position += tokens.length;
        return context.logits(tokens.length - 1).slice();
      };
      const readImage = (pieces: Read): void => {
        for (const piece of pieces) {
          if (piece.kind === 'text') {
            readTokens(piece.tokens);
            continue;
          }
          const { length, rows = new Float32Array() } = piece;
          const columns = plain && piece.columns !== undefined ? length : piece.columns;
          context.addRows(rows, {
            sequence: 0,
            position,
            last: false,
            columns,
            whole: !plain && piece.whole,
          });
          expect(context.decodeSync()).toBe(0);
          position += positionsOf({ length, columns });
        }
      };
      const readAll = (): Float32Array[] => {
        context.removeTail(0, 0);
        position = 0;
        readTokens(oracle.texts[0]!);
        return images.map((image, i) => {
          readImage(image);
          return readTokens(oracle.texts[i + 1]!);
        });
      };
      const logits = readAll();
      const off = logits.map((each, i) => difference(each, oracle.logits[i]!));
      console.log(
        `${kind} beside transformers: vectors ${Math.max(...apart).toExponential(1)}, logits ${off.map((each) => each.toExponential(1)).join(' and ')} of the largest`,
      );
      expect(logits.map(argmax)).toEqual(oracle.logits.map(argmax));
      for (const each of [...apart, ...off]) expect(each).toBeLessThan(2e-3);
      // The tolerance is too small for a kind that is read as if it were any other.
      plain = true;
      if (kind !== 'idefics3')
        for (const [i, each] of readAll().entries())
          expect(difference(each, oracle.logits[i]!)).toBeGreaterThan(10 * off[i]!);
    },
    600_000,
  );
});
