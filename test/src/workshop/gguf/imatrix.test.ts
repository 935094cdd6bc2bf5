// Importance matrices as files: over our own text a file has the matrix that the quantiser collects
// itself, so the quantised bytes are the same but for rounding; over another text they differ. Runs dist/.

import { createHash } from 'node:crypto';
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { mkdtemp, open, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CALIBRATION_TEXT } from '../../../../src/engine/child/quantize/calibration.ts';
import { openMatrixCollector, openQuantizer } from '../../../../src/engine/quantize.ts';
import type { QuantizeName } from '../../../../src/engine/seam/quantize.ts';
import { convertFolder } from '../../../../src/models/convert/convert.ts';
import { encodeGgufHeader } from '../../../../src/models/convert/gguf-header.ts';
import { fileSource } from '../../../../src/models/gguf/read.ts';
import { readImatrix, writeImatrix, type WrittenImatrix } from '../../../../src/workshop/gguf/imatrix.ts';
import { describeGguf } from '../../../../src/workshop/gguf/inspect.ts';
import { source } from '../../../fixtures/models/gguf-source.ts';
import { tinyGguf } from '../../../fixtures/models/gguf-tiny.ts';
import { inMemory, mistral } from '../../../fixtures/models/hf-folder.ts';

const launchEntry = fileURLToPath(
  new URL('../../../../dist/src/engine/child/quantize/launch.js', import.meta.url),
);
const collect = openMatrixCollector({ launchEntry });
const quantize = openQuantizer({ launchEntry });
const signal = new AbortController().signal;
const WORDS = 'A text about boats and rivers, read by a model of random weights. '.repeat(20);
let folder: string;
let model: string;
let made = 0;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assay-imatrix-'));
  model = join(folder, 'model.gguf');
  const fd = openSync(model, 'w');
  convertFolder(inMemory(mistral(4, 96)), { write: (bytes) => void writeSync(fd, bytes) }, { type: 'f32' });
  closeSync(fd);
});
afterAll(() => rm(folder, { recursive: true }));

async function matrixOver(
  text: string | Buffer,
  maxTokens = 1e6,
): Promise<WrittenImatrix & { readonly path: string }> {
  const path = join(folder, `matrix-${(made += 1)}.gguf`);
  const words = join(folder, `text-${made}`);
  await writeFile(words, text);
  const [sourceFd, textFd] = [openSync(model, 'r'), openSync(words, 'r')];
  const textSha256 = createHash('sha256').update(text).digest('hex');
  try {
    const written = await writeImatrix({ sourceFd, textFd, textSha256, maxTokens, path, signal }, collect);
    return { ...written, path };
  } finally {
    closeSync(sourceFd);
    closeSync(textFd);
  }
}

async function quantised(type: QuantizeName, matrix?: string): Promise<Buffer> {
  const path = join(folder, `quantised-${(made += 1)}.gguf`);
  const [sourceFd, outputFd] = [openSync(model, 'r'), openSync(path, 'wx')];
  const handle = matrix === undefined ? undefined : await open(matrix);
  try {
    const given =
      handle === undefined
        ? undefined
        : { fd: handle.fd, entries: await readImatrix(await fileSource(handle)) };
    await quantize({ type, sourceFd, outputFd, matrix: given });
    return readFileSync(path);
  } finally {
    closeSync(sourceFd);
    closeSync(outputFd);
    await handle?.close();
  }
}

describe.skipIf(process.platform !== 'linux')('importance matrices', () => {
  test("over the quantiser's own text: the bytes it makes by itself, but for rounding", async () => {
    const { path, tensors, tokens, chunks } = await matrixOver(CALIBRATION_TEXT.trim());
    expect(chunks).toBe(Math.ceil(tokens / 128));
    const described = await describeGguf(source(readFileSync(path)), { tensors: 100 });
    expect(described.type).toBe('imatrix');
    expect(described.metadata).toMatchObject({
      'imatrix.chunk_count': chunks,
      'imatrix.chunk_size': 128,
      'imatrix.datasets': { type: 'array', of: 'string', count: 1 },
    });
    expect(described.tensor_count).toBe(2 * tensors);
    const own = await quantised('IQ2_XXS');
    const differing = (bytes: Buffer): number => bytes.filter((byte, i) => byte !== own[i]).length;
    // The file has sums of 32 bits, the quantiser's own are of 64: one byte in 72 544 was seen to differ.
    expect(differing(await quantised('IQ2_XXS', path))).toBeLessThan(own.length / 2000);
    const other = await matrixOver(WORDS);
    expect(differing(await quantised('IQ2_XXS', other.path))).toBeGreaterThan(own.length / 100);
  });

  test('another text: another matrix, and other bytes; the same text: the same file', async () => {
    const [first, again, other] = [
      await matrixOver(WORDS),
      await matrixOver(WORDS),
      await matrixOver(WORDS, 40),
    ];
    expect(other.tokens).toBe(40);
    expect(readFileSync(first.path).equals(readFileSync(again.path))).toBe(true);
    expect(readFileSync(first.path).equals(readFileSync(other.path))).toBe(false);
    expect((await quantised('IQ3_XXS', first.path)).equals(await quantised('IQ3_XXS'))).toBe(false);
    // A type that needs none is weighed as well.
    expect((await quantised('Q4_K_M', first.path)).equals(await quantised('Q4_K_M'))).toBe(false);
  });

  test('the text is in no file', async () => {
    const { path } = await matrixOver(WORDS);
    expect(readFileSync(path).includes('rivers')).toBe(false);
    expect((await readdir(folder)).filter((name) => name.startsWith('.tmp-'))).toEqual([]);
  });

  test('bytes that are no text are refused; a character cut off where reading ends is not', async () => {
    for (const bytes of [Buffer.from('a word \xff', 'latin1'), Buffer.from('a word é').subarray(0, -1)])
      await expect(matrixOver(bytes)).rejects.toMatchObject({ code: 'invalid_input' });
    const long = Buffer.alloc(16 * 1024 * 1024 + 1, `${WORDS} `);
    long.write('é', long.length - 2);
    expect((await matrixOver(long, 20)).tokens).toBe(20);
  });

  test('a text of no tokens, and a model that is none', async () => {
    await expect(matrixOver('')).resolves.toMatchObject({ tokens: 1 });
    const broken = join(folder, 'broken.gguf');
    await writeFile(broken, 'no model');
    const before = model;
    model = broken;
    await expect(matrixOver(WORDS)).rejects.toMatchObject({ code: 'unsupported_model_format' });
    model = before;
    expect((await readdir(folder)).filter((name) => name.startsWith('.tmp-'))).toEqual([]);
  });
});

describe('reading', () => {
  const imatrix = (tensors: readonly (readonly [string, readonly number[], number])[]): Buffer => {
    const listed = tensors.map(([name, shape, typeId]) => ({
      name,
      shape,
      typeId,
      bytes: (typeId === 0 ? 4 : 2) * shape.reduce((product, size) => product * size, 1),
    }));
    const head = encodeGgufHeader([['general.type', { string: 'imatrix' }]], listed);
    const data = listed.map(({ bytes }) => Buffer.alloc(Math.ceil(bytes / 32) * 32));
    return Buffer.concat([head, ...data]);
  };
  const sums = ['blk.0.attn_q.weight.in_sum2', [32, 2], 0] as const;
  const counts = ['blk.0.attn_q.weight.counts', [1, 2], 0] as const;

  test('matrices of experts have a count for each plane', async () => {
    expect(await readImatrix(source(imatrix([sums, counts])))).toMatchObject([
      { name: 'blk.0.attn_q.weight', columns: 32, counts: [0, 0] },
    ]);
  });

  test.each([
    ['no counts', [sums]],
    ['counts of halves', [sums, [counts[0], [1, 2], 1]]],
    ['too few counts', [sums, [counts[0], [1, 1], 0]]],
    ['sums of halves', [[sums[0], [32, 2], 1], counts]],
    ['no matrix', [['other', [32], 0]]],
  ] as const)('refused: %s', async (_, tensors) => {
    await expect(readImatrix(source(imatrix(tensors)))).rejects.toMatchObject({ code: 'invalid_gguf' });
  });

  test('a model is none', async () => {
    await expect(readImatrix(source(tinyGguf()))).rejects.toMatchObject({ code: 'invalid_gguf' });
  });
});
