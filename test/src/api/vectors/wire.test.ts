// A vector on the wire has length 1, whole or cut, as numbers and as base64; one that has no
// direction is refused by name.

import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { embeddingAnswerText } from '../../../../src/api/vectors/wire.ts';
import { ApiError } from '../../../../src/base/errors.ts';

async function answer(
  vectors: readonly number[][],
  dimensions: number | undefined,
  base64 = false,
): Promise<number[][] | unknown[]> {
  try {
    const text = await embeddingAnswerText({
      vectors: vectors.map((vector) => Float32Array.from(vector)),
      tokens: 1,
      model: 'm',
      dimensions,
      base64,
    });
    const { data } = JSON.parse(text) as { data: { embedding: number[] | string }[] };
    return data.map(({ embedding }) => {
      if (typeof embedding !== 'string') return embedding;
      const bytes = new Uint8Array(Buffer.from(embedding, 'base64'));
      return [...new Float32Array(bytes.buffer)];
    });
  } catch (error) {
    if (error instanceof ApiError) return [error.code, error.param];
    throw error;
  }
}

test.each<[string, number[][], number | undefined, unknown[]]>([
  ['a cut to nothing', [[0, 0.6, 0.8]], 1, ['invalid_value', 'dimensions']],
  ['one of many cut to nothing', [[1, 0], [0, 1]], 1, ['invalid_value', 'dimensions']], // prettier-ignore
  ['negative zeros', [[-0, -0, 1]], 2, ['invalid_value', 'dimensions']],
  ['a vector of zeros', [[0, 0, 0]], undefined, ['invalid_input', 'input']],
  ['one of many', [[1, 0], [0, 0]], undefined, ['invalid_input', 'input[1]']], // prettier-ignore
  ['what is no number', [[NaN, 1]], undefined, ['invalid_input', 'input']],
])('refused: %s', async (_name, vectors, dimensions, refusal) => {
  for (const base64 of [false, true]) expect(await answer(vectors, dimensions, base64)).toEqual(refusal);
});

test('property: whatever is cut has length 1 or is refused', async () => {
  const sparse = fc.oneof(fc.constant(0), fc.float({ min: -1, max: 1, noNaN: true }));
  await fc.assert(
    fc.asyncProperty(
      fc.array(sparse, { minLength: 1, maxLength: 12 }),
      fc.integer({ min: 1, max: 11 }),
      fc.boolean(),
      async (vector, dimensions, base64) => {
        fc.pre(dimensions < vector.length);
        const [got] = await answer([vector], dimensions, base64);
        if (Array.isArray(got)) expect(Math.hypot(...(got as number[]))).toBeCloseTo(1, 5);
        else expect(vector.slice(0, dimensions).every((x) => Math.fround(x) ** 2 === 0)).toBe(true);
      },
    ),
  );
});
