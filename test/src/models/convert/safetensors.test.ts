// The reader of safetensors headers: what the format allows is read, everything else is refused by the tensor's name; whatever is done to
// a header, the answer is tensors that tile the file, or an ApiError.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ApiError } from '../../../../src/base/errors.ts';
import type { readSafetensorsHeader } from '../../../../src/models/convert/safetensors.ts';
import { readTensors } from '../../../../src/models/convert/safetensors.ts';
import { inMemory } from '../../../fixtures/models/hf-folder.ts';
import { fileOf, headerOf, safetensors, type TensorSpec } from '../../../fixtures/models/safetensors.ts';

const FILE = 'model.safetensors';
const NUM_RUNS = 3000 * Number(process.env['ASSAY_FUZZ'] ?? 1);
const TENSORS: readonly TensorSpec[] = [
  { name: 'b', dtype: 'F32', shape: [2, 3], data: Buffer.alloc(24) },
  { name: 'a', dtype: 'BF16', shape: [4], data: Buffer.alloc(8) },
  { name: 'c', dtype: 'I64', shape: [], data: Buffer.alloc(8) },
];
const DATA = Buffer.concat(TENSORS.map(({ data }) => data));
const HEADER = headerOf(TENSORS);

function read(bytes: Buffer): ReturnType<typeof readSafetensorsHeader> {
  return readTensors(inMemory(new Map([[FILE, bytes]])));
}

function refusal(bytes: Buffer): ApiError {
  try {
    read(bytes);
  } catch (error) {
    if (error instanceof ApiError) return error;
    throw error;
  }
  throw new Error('it was read');
}

test('tensors by name, wherever they lie', () => {
  const start = 8 + JSON.stringify({ __metadata__: { format: 'pt' }, ...HEADER }).length;
  expect(read(safetensors(TENSORS))).toEqual([
    { name: 'a', file: FILE, dtype: 'BF16', shape: [4], elements: 4, position: start + 24, bytes: 8 },
    { name: 'b', file: FILE, dtype: 'F32', shape: [2, 3], elements: 6, position: start, bytes: 24 },
    { name: 'c', file: FILE, dtype: 'I64', shape: [], elements: 1, position: start + 32, bytes: 8 },
  ]);
});

test('a header may be padded with spaces', () => {
  expect(read(fileOf(`${JSON.stringify(HEADER)}   `, DATA))).toHaveLength(3);
});

describe('refused', () => {
  const entry = (fields: Readonly<Record<string, unknown>>): Buffer =>
    fileOf({ ...HEADER, b: { ...HEADER['b'], ...fields } }, DATA);

  test.each([
    ['nothing', Buffer.alloc(0), 'it has 0 bytes'],
    ['a few bytes', Buffer.alloc(7), 'it has 7 bytes'],
    ['a header of 2^63', fileOf(HEADER, DATA, 1n << 63n), 'its header is 9223372036854775808 bytes long'],
    ['a header beyond the limit', fileOf(HEADER, DATA, 100_000_001n), 'at most 100000000 are read'],
    ['a header beyond the file', fileOf(HEADER, DATA, 99_999_999n), 'the file has'],
    ['no object', fileOf('[]', DATA), 'its header does not begin with {'],
    ['an empty header', fileOf('', DATA), 'its header does not begin with {'],
    ['no JSON', fileOf('{"b":', DATA), 'its header: it is not JSON'],
    [
      'a name twice',
      fileOf(`{"a":1,${JSON.stringify(HEADER).slice(1)}`, DATA),
      'its header: an object in it has the same key twice',
    ],
    [
      'a dtype twice',
      fileOf(JSON.stringify(HEADER).replace('"dtype":"F32"', '"dtype":"F16","dtype":"F32"'), DATA),
      'the same key twice',
    ],
    [
      'an escaped key twice',
      fileOf(
        JSON.stringify(HEADER).replace('"dtype":"F32"', String.raw`"d\u0074ype":"F16","dtype":"F32"`),
        DATA,
      ),
      'the same key twice',
    ],
    ['a dtype', entry({ dtype: 'F128' }), 'tensor b: dtype is none of the format'],
    ['a dtype of Object', entry({ dtype: 'constructor' }), 'tensor b: dtype is none of the format'],
    ['a further field', entry({ more: 1 }), 'tensor b: expected dtype, shape and data_offsets'],
    ['a negative size', entry({ shape: [-2, -3] }), 'tensor b: shape has a size'],
    ['half a size', entry({ shape: [1.5, 4] }), 'tensor b: shape has a size'],
    ['a size of 2^63', entry({ shape: [2 ** 63] }), 'tensor b: shape has a size'],
    [
      'sizes of 2^53 together',
      entry({ shape: [2 ** 30, 2 ** 30] }),
      'tensor b: shape has more than 2^53 elements',
    ],
    ['too many dimensions', entry({ shape: [1, 1, 1, 2, 3] }), 'tensor b: shape is not a list of at most 4'],
    [
      'a shape that is larger',
      entry({ shape: [2, 4] }),
      'tensor b: data_offsets hold 24 bytes, shape and dtype need 32',
    ],
    ['backwards', entry({ data_offsets: [24, 0] }), 'tensor b: data_offsets end at 0, before'],
    ['beyond the file', entry({ data_offsets: [24, 48] }), 'tensor b: data_offsets end at 48, beyond'],
    ['three offsets', entry({ data_offsets: [0, 24, 48] }), 'tensor b: data_offsets is not a list of two'],
    [
      'overlapping',
      fileOf({ ...HEADER, a: { ...HEADER['a'], data_offsets: [20, 28] } }, DATA),
      'data_offsets overlap',
    ],
    ['the same range twice', fileOf({ ...HEADER, d: HEADER['b'] }, DATA), 'data_offsets overlap'],
    ['a hole', fileOf({ b: HEADER['b'], c: HEADER['c'] }, DATA), 'tensor c: data_offsets leave a hole'],
    [
      'bytes after',
      fileOf(HEADER, Buffer.concat([DATA, Buffer.alloc(1)])),
      '1 bytes after the last tensor belong to none',
    ],
    ['bytes before', fileOf({ c: HEADER['c'] }, DATA), 'tensor c: data_offsets leave a hole'],
    ['a cut file', safetensors(TENSORS).subarray(0, -1), 'tensor c: data_offsets end at 40, beyond the 39'],
    ['a name with a line break', fileOf({ 'a\nb': HEADER['b'] }, DATA), "a tensor's name is not"],
    ['a deep header', fileOf(`{"b":${'['.repeat(100)}${']'.repeat(100)}}`, DATA), 'nests deeper'],
  ])('%s', (_title, bytes, message) => {
    const error = refusal(bytes);
    expect(error.message).toContain(message);
    expect(error.code).toBe('invalid_safetensors');
  });
});

test('property: whatever a header says, its tensors tile the file or it is refused', () => {
  const number = fc.oneof(
    fc.integer({ min: -1, max: 48 }),
    fc.constantFrom(0, 8, 24, 32, 40, 2 ** 53, 2 ** 63, 0.5),
  );
  const entry = fc.record({
    dtype: fc.constantFrom('F32', 'BF16', 'F16', 'I64', 'U8', 'X', 7),
    shape: fc.array(number, { maxLength: 5 }),
    data_offsets: fc.array(number, { minLength: 1, maxLength: 3 }),
  });
  const value = fc.oneof({ weight: 4, arbitrary: entry }, { weight: 1, arbitrary: fc.jsonValue() });
  const headers = fc.record(
    {
      a: fc.oneof(value, fc.constant(HEADER['a'])),
      b: fc.oneof(value, fc.constant(HEADER['b'])),
      c: value,
      d: value,
    },
    { requiredKeys: [] },
  );
  let accepted = 0;
  fc.assert(
    fc.property(headers, (header) => {
      const bytes = fileOf(header, DATA);
      let tensors: ReturnType<typeof readSafetensorsHeader>;
      try {
        tensors = read(bytes);
      } catch (error) {
        expect(error).toBeInstanceOf(ApiError);
        return;
      }
      accepted += 1;
      expect(tensors.reduce((sum, each) => sum + each.bytes, 0)).toBe(DATA.length);
    }),
    { numRuns: NUM_RUNS, examples: [[HEADER as never]] },
  );
  expect(accepted).toBeGreaterThan(0);
});

test('property: bytes of a file changed anywhere never do more than refuse it', () => {
  const whole = safetensors(TENSORS);
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }),
      fc.nat(whole.length),
      (changes, length) => {
        const bytes = Buffer.from(whole);
        for (const [at, byte] of changes) bytes[at] = byte;
        for (const file of [bytes, bytes.subarray(0, length)]) {
          try {
            for (const { position, bytes: size } of read(file))
              expect(position + size).toBeLessThanOrEqual(file.length);
          } catch (error) {
            expect(error).toBeInstanceOf(ApiError);
          }
        }
      },
    ),
    { numRuns: NUM_RUNS },
  );
});
