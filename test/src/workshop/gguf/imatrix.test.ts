// Importance matrices as files: over our own text a file has the matrix that the quantiser collects
// itself, so the quantised bytes are the same but for rounding; over another text they differ. Runs dist/.

import { createHash } from 'node:crypto';
import { execFile } from 'node:child_process';
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { mkdtemp, open, readdir, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CALIBRATION_TEXT } from '../../../../src/engine/child/quantize/calibration.ts';
import { openMatrixCollector, openQuantizer } from '../../../../src/engine/quantize.ts';
import { llamaFolder } from '../../../../src/engine/seam/library-folder.ts';
import { QUANTIZE_TYPES, type QuantizeName } from '../../../../src/engine/seam/quantize.ts';
import { convertFolder } from '../../../../src/models/convert/convert.ts';
import { encodeGgufHeader } from '../../../../src/models/convert/gguf-header.ts';
import { readHeader } from '../../../../src/models/gguf/header.ts';
import { fileSource } from '../../../../src/models/gguf/read.ts';
import type { ImatrixFormat } from '../../../../src/workshop/gguf/common.ts';
import { readImatrix, writeImatrix, type WrittenImatrix } from '../../../../src/workshop/gguf/imatrix.ts';
import { describeGguf } from '../../../../src/workshop/gguf/inspect.ts';
import { expertsGguf, expertSums, USED, WIDTH } from '../../../fixtures/models/gguf-experts.ts';
import { source } from '../../../fixtures/models/gguf-source.ts';
import { tinyGguf } from '../../../fixtures/models/gguf-tiny.ts';
import { inMemory, mistral } from '../../../fixtures/models/hf-folder.ts';

const run = promisify(execFile);
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
  format: ImatrixFormat = 'gguf',
): Promise<WrittenImatrix & { readonly path: string }> {
  const path = join(folder, `matrix-${(made += 1)}.gguf`);
  const words = join(folder, `text-${made}`);
  await writeFile(words, text);
  const [sourceFd, textFd] = [openSync(model, 'r'), openSync(words, 'r')];
  const textSha256 = createHash('sha256').update(text).digest('hex');
  try {
    const written = await writeImatrix(
      { sourceFd, textFd, textSha256, maxTokens, path, format, signal },
      collect,
    );
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

describe.skipIf(process.platform !== 'linux')('experts, and the older form', () => {
  const WORDS_OF = Array.from(
    { length: 300 },
    (_, i) => [' the', ' model', ' red', ' blue'][(i * i + i) % 4]!,
  );
  const before = { model: '' };
  beforeAll(async () => {
    before.model = model;
    model = join(folder, 'experts.gguf');
    await writeFile(model, expertsGguf());
  });
  afterAll(() => void (model = before.model));

  const floatsOf = async (path: string, name: string): Promise<Float32Array> => {
    const bytes = readFileSync(path);
    const header = await readHeader(source(bytes));
    const tensor = header.tensors.find((each) => each.name === name)!;
    const at = header.dataOffset + tensor.offset;
    return new Float32Array(Uint8Array.from(bytes.subarray(at, at + tensor.bytes)).buffer);
  };
  const furthest = (found: Float32Array, expected: Float64Array): number =>
    found.reduce((most, each, i) => Math.max(most, Math.abs(each - expected[i]!) / (1 + expected[i]!)), 0);

  test('of each expert over its tokens alone, as computed apart from llama.cpp', async () => {
    const { path, tokens } = await matrixOver(WORDS_OF.join(''));
    expect(tokens).toBe(301);
    const { counts, before: inputs, between } = expertSums(WORDS_OF);
    expect(counts.at(-1)).toBe(0);
    expect(counts.reduce((sum, each) => sum + each)).toBe(USED * tokens);
    for (const name of ['gate', 'up', 'down'].map((each) => `blk.0.ffn_${each}_exps.weight`)) {
      expect([...(await floatsOf(path, `${name}.counts`))], name).toEqual(counts);
      const expected = name.includes('down') ? between : inputs;
      expect(furthest(await floatsOf(path, `${name}.in_sum2`), expected), name).toBeLessThan(1e-4);
    }
    const entries = await readImatrix(source(readFileSync(path)));
    expect(entries.find(({ name }) => name === 'blk.0.ffn_up_exps.weight')).toMatchObject({
      columns: WIDTH,
      counts,
    });
  });

  test('the older form says the same, and llama.cpp alone makes the same bytes of it', async () => {
    const text = WORDS_OF.join('');
    const [gguf, dat] = [await matrixOver(text), await matrixOver(text, 1e6, 'dat')];
    expect({ ...dat, path: '', size: 0 }).toEqual({ ...gguf, path: '', size: 0 });
    const bytes = readFileSync(dat.path);
    expect(bytes.readInt32LE(0)).toBe(dat.tensors);
    expect(bytes.subarray(-(7 + 64)).toString()).toMatch(/^sha256:[0-9a-f]{64}$/);
    for (const type of ['IQ2_XXS', 'Q4_K_M'] as const) {
      const made = await quantised(type, dat.path);
      // The experts have the type, and no plane fell back to another.
      const { tensors } = await readHeader(source(made));
      const up = tensors.find(({ name }) => name === 'blk.0.ffn_up_exps.weight');
      expect(up?.type.name, type).toBe(type === 'Q4_K_M' ? 'Q4_K' : type);
      const native = join(folder, `native-${type}.gguf`);
      const oracle = fileURLToPath(new URL('../../../fixtures/engine/quantize-oracle.mjs', import.meta.url));
      const koffi = createRequire(import.meta.url).resolve('koffi');
      const ftype = `${QUANTIZE_TYPES[type].id}`;
      await run(process.execPath, [oracle, llamaFolder(), koffi, model, native, ftype, dat.path]);
      expect(made.equals(readFileSync(native)), type).toBe(true);
      // Both forms round once more than the other somewhere: a scale in some thousand may differ.
      const other = await quantised(type, gguf.path);
      const differing = made.filter((byte, i) => byte !== other[i]).length;
      expect(differing, type).toBeLessThan(made.length / 1000);
    }
    // Without a matrix the quantiser collects its own, for the experts as well.
    expect((await quantised('IQ2_XXS')).equals(await quantised('IQ2_XXS', dat.path))).toBe(false);
  }, 240_000);

  test.each<[string, (bytes: Buffer) => Buffer]>([
    ['cut short', (bytes) => bytes.subarray(0, -1)],
    ['cut in a matrix', (bytes) => bytes.subarray(0, 1000)],
    ['a byte more', (bytes) => Buffer.concat([bytes, Buffer.alloc(1)])],
    ['no matrices', (bytes) => patched(bytes, 0, 0)],
    ['more matrices than there are', (bytes) => patched(bytes, 0, 16_000)],
    ['a negative number of them', (bytes) => patched(bytes, 0, -1)],
    ['a long name', (bytes) => patched(bytes, 4, 1 << 20)],
    ['no name', (bytes) => patched(bytes, 4, 0)],
    ['empty', () => Buffer.alloc(0)],
  ])('of the older form, refused: %s', async (_name, change) => {
    const { path } = await matrixOver(' the model', 1e6, 'dat');
    const changed = change(readFileSync(path));
    await expect(readImatrix(source(changed))).rejects.toMatchObject({ code: 'invalid_gguf' });
  });

  test('without the end that older programs did not write; with values that are no sums', async () => {
    const { path, tensors } = await matrixOver(' the model', 1e6, 'dat');
    const bytes = readFileSync(path);
    const whole = await readImatrix(source(bytes));
    const short = bytes.subarray(0, -(8 + 7 + 64));
    expect(await readImatrix(source(short))).toEqual(whole);
    expect(whole).toHaveLength(tensors);
    const altered = join(folder, 'altered.dat');
    for (const value of [Number.NaN, -1, Infinity]) {
      bytes.writeFloatLE(value, whole[0]!.at);
      await writeFile(altered, bytes);
      await expect(quantised('IQ2_XXS', altered)).rejects.toMatchObject({ code: 'invalid_input' });
    }
  });
});

function patched(bytes: Buffer, at: number, value: number): Buffer {
  const changed = Buffer.from(bytes);
  changed.writeInt32LE(value, at);
  return changed;
}

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

  test('what newer programs write beside them is left alone', async () => {
    const more = ['blk.0.attn_q.weight.in_sum', [32, 2], 0] as const;
    expect(await readImatrix(source(imatrix([sums, counts, more])))).toHaveLength(1);
  });

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
