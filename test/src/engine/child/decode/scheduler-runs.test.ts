// Runs of vectors whose positions are not those of tokens (rows and columns), and runs that one decode has to
// have whole: on a context that checks every position, alone and beside others, shared, taken away and read
// again.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { positionAt, positionsOf, wholeRuns } from '../../../../../src/engine/child/decode/media-span.ts';
import { expected, start } from '../../../../fixtures/engine/fake-context.ts';

interface Image {
  readonly id: number;
  readonly length: number;
  readonly columns?: number | undefined;
  readonly whole?: boolean | undefined;
}

/** A prompt of tokens and images; a vector of image i is the number i. */
function prompt(...parts: readonly (number | Image)[]) {
  const tokens: number[] = [];
  const counted: number[] = [];
  const media = [];
  let encoded = 0;
  for (const part of parts) {
    if (typeof part === 'number') {
      tokens.push(part);
      counted.push(part);
      continue;
    }
    const { id, length, columns, whole } = part;
    const encode = async (): Promise<Float32Array> => {
      encoded += 1;
      return new Float32Array(length).fill(id);
    };
    media.push({ start: tokens.length, length, columns, whole, encode });
    tokens.push(...Array<number>(length).fill(-id));
    counted.push(...Array<number>(length).fill(id));
  }
  return { prompt: tokens, media, counted, encoded: () => encoded };
}

const WIDE: Image = { id: 5, length: 6, columns: 3 };
const TALL: Image = { id: 6, length: 8, columns: 2 };
const WHOLE: Image = { id: 7, length: 9, whole: true };

describe('positions', () => {
  test('go on after the longer side of an image', () => {
    const { media } = prompt(1, 2, WIDE, 3, TALL, 4, WHOLE, 5);
    const at = (place: number): number => positionAt(media, place);
    // 2 tokens; 3 × 2 vectors at 2; a token; 2 × 4 vectors at 6; a token; nine vectors; a token.
    expect([0, 1, 2, 7, 8, 9, 16, 17, 18, 27].map(at)).toEqual([0, 1, 2, 2, 5, 6, 6, 10, 11, 20]);
    expect([WIDE, TALL, WHOLE].map(positionsOf)).toEqual([3, 4, 9]);
    expect([1, 2, 3, 7, 8].map((place) => wholeRuns(media, place))).toEqual([1, 2, 2, 2, 8]);
  });

  test('are those of the vectors and of the text that is written', async () => {
    const { ask, context } = start({ maxChunk: 4 });
    const given = prompt(1, 2, WIDE, 3);
    expect(await ask({ id: 1, ...given, maxTokens: 3 })).toEqual([expected(given.counted, 3)]);
    expect(context.steps.map((step) => step.map(({ position }) => position))).toEqual([
      [0, 1],
      [2, 2, 2, 2],
      [2, 2],
      [5],
      [6],
      [7],
    ]);
    const places = context.steps.flatMap((step) => step.flatMap(({ at }) => (at === undefined ? [] : [at])));
    expect(places).toEqual([[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]]); // prettier-ignore
  });

  test('of a context are never more than its tokens: the limits stay', async () => {
    const { ask } = start({ contextLength: 12 });
    const given = prompt(1, 2, WIDE, 3);
    expect(await ask({ id: 1, ...given, maxTokens: 50 })).toEqual([expected(given.counted, 3)]);
  });
});

describe('prefixes', () => {
  test('are shared with their images, and end before another one', async () => {
    const { ask, events } = start();
    const asked = [
      prompt(1, WIDE, 2, TALL, 3),
      prompt(1, WIDE, 2, TALL, 4, 4),
      prompt(1, WIDE, 2, { ...TALL, id: 9 }, 3),
    ];
    for (const [i, given] of asked.entries())
      expect(await ask({ id: i, ...given, maxTokens: 2 })).toEqual([expected(given.counted, 2)]);
    const started = events.flatMap(([, event]) => (event.kind === 'start' ? [event.cachedTokens] : []));
    expect(started).toEqual([0, 16, 8]);
    expect(asked.map(({ encoded }) => encoded())).toEqual([2, 0, 1]);
  });

  test('never end within an image, also where it is the end of a prompt', async () => {
    const { ask, events } = start();
    for (const id of [1, 2]) {
      const given = prompt(1, 2, TALL);
      expect(await ask({ id, ...given, maxTokens: 2 })).toEqual([expected(given.counted, 2)]);
    }
    const started = events.flatMap(([, event]) => (event.kind === 'start' ? [event.cachedTokens] : []));
    expect(started).toEqual([0, 2]);
  });

  test('with images are shared by the choices of one request', async () => {
    const { ask } = start();
    const given = prompt(1, WIDE, 2, TALL);
    const answer = expected(given.counted, 4);
    expect(await ask({ id: 1, ...given, n: 3, maxTokens: 4 })).toEqual([answer, answer, answer]);
    expect(given.encoded()).toBe(2);
  });
});

describe('a whole run', () => {
  test('is one decode, alone, however little a step may read', async () => {
    const { ask, context } = start({ maxChunk: 2 });
    const given = prompt(1, WHOLE, 2, WHOLE, 3);
    const [answer, other] = await Promise.all([
      ask({ id: 1, ...given, maxTokens: 4 }),
      ask({ id: 2, scope: 'b', prompt: [3], maxTokens: 30 }),
    ]);
    expect(answer).toEqual([expected(given.counted, 4)]);
    expect(other).toEqual([expected([3], 30)]);
    expect(context.wholes.map((step) => step.map(({ token }) => token))).toEqual([
      Array<number>(9).fill(7),
      Array<number>(9).fill(7),
    ]);
  });
});

test('what an aborted decode left of an image is read again from its first vector', async () => {
  const { ask, context, scheduler } = start({ maxChunk: 3, asyncAboveMs: 0 });
  const decode = context.decode;
  let codes = 0;
  context.decode = async () => {
    codes += 1;
    // The third has the second part of the image.
    return codes === 3 ? 2 : decode();
  };
  const given = prompt(1, TALL, 2);
  expect(await ask({ id: 1, ...given, maxTokens: 2 })).toEqual([expected(given.counted, 2)]);
  expect(context.steps.map((step) => step.length)).toEqual([1, 3, 3, 3, 2, 1, 1]);
  expect(given.encoded()).toBe(1);
  expect(scheduler.holds(1)).toBe(false);
});

test('property: answers beside others, in a memory that is too small for all, are those given alone', async () => {
  const image = fc.oneof(
    fc
      .record({ columns: fc.integer({ min: 1, max: 4 }), rows: fc.integer({ min: 1, max: 4 }) })
      .map(({ columns, rows }): Image => ({ id: 16 + columns * 8 + rows, length: columns * rows, columns })),
    fc.constantFrom<Image>(WHOLE, { id: 3, length: 5 }),
  );
  const parts = fc.array(fc.oneof(fc.integer({ min: 1, max: 3 }), image), { minLength: 1, maxLength: 6 });
  const asked = fc.record({ parts, scope: fc.constantFrom('a', 'b'), n: fc.integer({ min: 1, max: 2 }) });
  await fc.assert(
    fc.asyncProperty(
      fc.array(asked, { minLength: 1, maxLength: 6 }),
      fc.integer({ min: 110, max: 220 }),
      fc.integer({ min: 1, max: 20 }),
      async (requests, cells, maxChunk) => {
        const { ask } = start({ maxChunk, slots: 3 }, cells);
        await Promise.all(
          requests.map(async ({ parts: given, scope, n }, id) => {
            const made = prompt(...given);
            const answer = expected(made.counted, 5);
            expect(await ask({ id, ...made, scope, n })).toEqual(Array.from({ length: n }, () => answer));
          }),
        );
      },
    ),
    { numRuns: 200 * Number(process.env['ASSAY_FUZZ'] ?? 1) },
  );
});
