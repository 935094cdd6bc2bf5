// Lines of a batch's input: the same lines in whatever pieces the content comes, and no bytes make it fail.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { isRequest, linesOf, type RawLine, readLine } from '../../../../src/api/batches/lines.ts';
import { gathered } from '../../../fixtures/files/gathered.ts';

async function* pieces(bytes: Buffer, sizes: readonly number[]): AsyncGenerator<Buffer> {
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const size = sizes[i % sizes.length] ?? 1;
    yield bytes.subarray(at, at + size);
    at += size;
  }
}

function read(text: string, maxBytes = 100, sizes: readonly number[] = [7]): Promise<RawLine[]> {
  return gathered(linesOf(pieces(Buffer.from(text), sizes), maxBytes));
}

describe('lines', () => {
  test('are numbered as they stand; empty ones are left out', async () => {
    const lines = await read('a\n\r\n\nb\r\nc');
    expect(lines.map(({ line, bytes }) => [line, bytes?.toString()])).toEqual([
      [1, 'a'],
      [4, 'b'],
      [5, 'c'],
    ]);
  });

  test('of any text in any pieces are those of the text', async () => {
    const piece = fc.constantFrom('a', '\n', '\r\n', 'ü', '"', ' ');
    await fc.assert(
      fc.asyncProperty(
        fc.array(piece, { maxLength: 60 }),
        fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 }),
        async (parts, sizes) => {
          const text = parts.join('');
          const expected = text
            .split('\n')
            .map((line, i) => [i + 1, line.replace(/\r$/, '')])
            .filter(([, line]) => line !== '');
          const found = await read(text, 1000, sizes);
          expect(found.map(({ line, bytes }) => [line, bytes?.toString()])).toEqual(expected);
        },
      ),
    );
  });

  test('that are too long are told, and take no memory', async () => {
    const lines = await read(`${'x'.repeat(100)}\n${'y'.repeat(101)}\nz`);
    expect(lines.map(({ bytes }) => bytes?.length ?? null)).toEqual([100, null, 1]);
  });
});

test('any bytes are a request or a typed error of their line', () => {
  const line = fc.oneof(
    fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
    fc.jsonValue().map((value) => Buffer.from(JSON.stringify(value))),
    fc
      .record(
        {
          custom_id: fc.jsonValue(),
          method: fc.constantFrom('POST', 'GET', 1),
          url: fc.constantFrom('/v1/x', '/v1/y'),
          body: fc.jsonValue(),
        },
        { requiredKeys: [] },
      )
      .map((value) => Buffer.from(JSON.stringify(value))),
  );
  fc.assert(
    fc.property(line, (bytes) => {
      const found = readLine({ line: 3, bytes }, '/v1/x');
      if (!isRequest(found))
        expect(found).toMatchObject({ line: 3, code: expect.stringMatching(/^[a-z_]+$/) });
    }),
    { numRuns: 500 },
  );
});
