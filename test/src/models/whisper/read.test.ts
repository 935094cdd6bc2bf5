// The reader of whisper models: takes what whisper.cpp takes, and refuses whatever would make it read
// outside of the file, abort, or allocate by a number of the file.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { ByteSource } from '../../../../src/models/gguf/bytes.ts';
import { inspectWhisper, isWhisperModel } from '../../../../src/models/whisper/read.ts';
import { expectedTensors, type WhisperSizes } from '../../../../src/models/whisper/tensors.ts';
import { ApiError } from '../../../../src/base/errors.ts';
import { headOf, melFilters, randomWhisper, SMALL_SIZES } from '../../../fixtures/audio/whisper-file.ts';

function sourceOf(bytes: Uint8Array): ByteSource {
  return {
    size: bytes.length,
    read: (position, length) => Promise.resolve(bytes.subarray(position, position + length)),
  };
}

const whole = randomWhisper();
const head = headOf(SMALL_SIZES, [Buffer.from(' ')]);
/** Where the head of `whole` ends. */
const TENSORS = whole.indexOf('encoder.positional_embedding') - 20;

test('a whole model, and its facts', async () => {
  expect(await isWhisperModel(sourceOf(whole))).toBe(true);
  expect(await inspectWhisper(sourceOf(whole))).toEqual({
    ...SMALL_SIZES,
    multilingual: false,
    quantization: 'F16',
    parameters: [...expectedTensors(SMALL_SIZES).values()].reduce(
      (sum, { shape }) => sum + shape.reduce((product, each) => product * each, 1),
      0,
    ),
  });
});

test('other files are none', async () => {
  for (const bytes of ['GGUF', '', 'lmg'])
    expect(await isWhisperModel(sourceOf(Buffer.from(bytes)))).toBe(false);
});

async function refusal(bytes: Uint8Array): Promise<string> {
  const error: unknown = await inspectWhisper(sourceOf(bytes)).then(
    () => 'it was taken',
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(ApiError);
  expect((error as ApiError).code).toBe('invalid_whisper_model');
  return (error as ApiError).message;
}

describe('sizes', () => {
  test.each<readonly [keyof WhisperSizes, number]>([
    ['vocab', 0x7fffffff],
    ['vocab', -1],
    ['audioContext', 1501],
    ['audioState', 0],
    ['audioState', 1 << 20],
    ['audioHeads', 7],
    ['audioHeads', 0],
    ['audioLayers', 0x10000],
    ['textContext', 0],
    ['textState', 128],
    ['textLayers', -3],
    ['mels', 100],
    ['fileType', 99],
  ])('%s of %d', async (name, value) => {
    const sizes = { ...SMALL_SIZES, [name]: value };
    const small = { ...sizes, mels: name === 'mels' ? 80 : sizes.mels };
    const bytes = headOf(small, [Buffer.from(' ')]);
    if (name === 'mels') bytes.writeInt32LE(value, 40);
    expect(await refusal(bytes)).toMatch(/expected|is \d|not the same|divide/);
  });
});

test.each([
  [
    'a word of four gigabytes',
    (bytes: Buffer) => bytes.writeUInt32LE(0xffffffff, head.length - 5),
    /word 0 has/,
  ],
  ['more words than tokens', (bytes: Buffer) => bytes.writeInt32LE(60_000, head.length - 9), /60000 words/],
  ['filters of another shape', (bytes: Buffer) => bytes.writeInt32LE(1 << 30, 52), /filters are/],
])('%s', async (_, damage, message) => {
  const bytes = Buffer.from(head);
  damage(bytes);
  expect(await refusal(bytes)).toMatch(message);
});

test.each([
  ['five dimensions', (bytes: Buffer) => bytes.writeInt32LE(5, TENSORS), /5 dimensions/],
  [
    'a name of two gigabytes',
    (bytes: Buffer) => bytes.writeInt32LE(0x7fffffff, TENSORS + 4),
    /name of a tensor/,
  ],
  ['another type', (bytes: Buffer) => bytes.writeInt32LE(1, TENSORS + 8), /has the type 1/],
  ['another shape', (bytes: Buffer) => bytes.writeInt32LE(63, TENSORS + 12), /has the shape/],
  [
    'another name',
    (bytes: Buffer) => bytes.write('decoder', TENSORS + 20),
    /no whisper model has|has the shape/,
  ],
])('a tensor with %s', async (_, damage, message) => {
  const bytes = Buffer.from(whole);
  damage(bytes);
  expect(await refusal(bytes)).toMatch(message);
});

test('no space among its words, which whisper.cpp takes for granted', async () => {
  expect(await refusal(headOf(SMALL_SIZES, [Buffer.from('a')]))).toMatch(/no space/);
});

test('missing tensors, a tensor twice, a file that ends inside one', async () => {
  expect(await refusal(whole.subarray(0, TENSORS))).toMatch(/tensors are missing/);
  expect(await refusal(whole.subarray(0, whole.length - 1))).toMatch(/ends inside/);
  expect(await refusal(Buffer.concat([whole, whole.subarray(TENSORS)]))).toMatch(/twice/);
});

test('property: a damaged head is refused or read, never another error', async () => {
  await fc.assert(
    fc.asyncProperty(fc.nat(60), fc.integer(), fc.nat(head.length), async (at, value, length) => {
      const bytes = Buffer.from(head.subarray(0, Math.max(64, length)));
      bytes.writeInt32LE(value | 0, at);
      await refusal(bytes);
    }),
  );
});

test('mel filters: triangles of area one, as librosa has them', () => {
  const filters = melFilters(80);
  // The values whisper's own file has at these places.
  expect(filters[1]).toBeCloseTo(0.024862, 5);
  expect(filters[2]).toBe(0);
  expect(filters[201 + 1]).toBeCloseTo(0.001991, 5);
  expect(filters[201 + 2]).toBeCloseTo(0.022872, 5);
});
