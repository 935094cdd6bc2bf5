// Conversions of floats against an independent one (scripts/demo-model/numbers.ts) and the definition, over
// all halves, all BF16 values and singles at every edge.

import { expect, test } from 'vitest';
import { halfBits, halfValue } from '../../../../scripts/demo-model/numbers.ts';
import { conversion, halfOfSingle, singleOfHalf } from '../../../../src/models/convert/floats.ts';

const SINGLE = new DataView(new ArrayBuffer(4));

function valueOf(bits: number): number {
  SINGLE.setUint32(0, bits);
  return SINGLE.getFloat32(0);
}

function bitsOf(value: number): number {
  SINGLE.setFloat32(0, value);
  return SINGLE.getUint32(0);
}

const HALVES = Array.from({ length: 1 << 16 }, (_, half) => half);
const FINITE = HALVES.filter((half) => (half & 0x7c00) !== 0x7c00);

test('every half becomes its single and back', () => {
  for (const half of FINITE) {
    expect(valueOf(singleOfHalf(half))).toBe(halfValue(half));
    expect(halfOfSingle(singleOfHalf(half))).toBe(half);
  }
});

test('singles between two halves are rounded to the nearest, ties to even', () => {
  const positive = FINITE.filter((half) => half < 0x7bff);
  for (const half of positive) {
    const [low, high] = [halfValue(half), halfValue(half + 1)];
    const middle = bitsOf((low + high) / 2);
    expect(halfOfSingle(middle)).toBe(half % 2 === 0 ? half : half + 1);
    expect(halfOfSingle(middle - 1)).toBe(half);
    expect(halfOfSingle(middle + 1)).toBe(half + 1);
    expect(halfOfSingle(bitsOf(-valueOf(middle + 1)))).toBe(0x8000 | (half + 1));
  }
});

test('is the half of another implementation', () => {
  let state = 12_345;
  for (let i = 0; i < 200_000; i++) {
    state = Math.imul(state, 1_664_525) + 1_013_904_223;
    const value = valueOf(state >>> 0);
    if (Number.isFinite(value) && Math.abs(value) < 65_504) expect(halfOfSingle(state)).toBe(halfBits(value));
  }
});

function words(type: 'half' | 'single', values: readonly number[]): Uint8Array {
  const array = type === 'half' ? Uint16Array.from(values) : Uint32Array.from(values);
  return new Uint8Array(array.buffer);
}

test('BF16 is rounded to nearest, ties to even', () => {
  const singles = [
    0x3f80_0000, 0x3f80_8000, 0x3f81_8000, 0x3f80_8001, 0x3f80_7fff, 0x8000_0000, 0x0000_8001, 0x7f7f_0000,
  ];
  const out = new Uint8Array(2 * singles.length);
  expect(conversion('F32', 'BF16')(words('single', singles), out)).toBe(-1);
  expect([...new Uint16Array(out.buffer)]).toEqual([
    0x3f80, 0x3f80, 0x3f82, 0x3f81, 0x3f80, 0x8000, 1, 0x7f7f,
  ]);
});

test.each([
  ['F32', 'F32', 0x7f80_0000],
  ['F32', 'F16', bitsOf(65_520)],
  ['F32', 'BF16', 0x7f7f_ffff],
  ['F32', 'BF16', 0x7fc0_0000],
  ['F32', 'F16', 0xff80_0001],
  ['F16', 'F16', 0x7c00],
  ['F16', 'F32', 0xfe01],
  ['F16', 'BF16', 0x7e00],
  ['BF16', 'BF16', 0x7f80],
  ['BF16', 'F32', 0xffc1],
  ['BF16', 'F16', 0x4780],
] as const)('%s to %s says which value is not finite', (from, to, bad) => {
  const source = words(from === 'F32' ? 'single' : 'half', [0, 0, bad, 0]);
  expect(conversion(from, to)(source, new Uint8Array(16))).toBe(2);
  expect(conversion(from, to)(words(from === 'F32' ? 'single' : 'half', [0, 0, 0]), new Uint8Array(16))).toBe(
    -1,
  );
});

test.each([
  ['F32', 0x3e80_0000, 1.25],
  ['BF16', 0x3e80, 1.25],
  ['F16', 0x3400, 1.25],
  // A half of 2048 and more holds no odd number: PyTorch adds in the type of the tensor.
  ['F16', 0x6801, 2051],
  ['F16', 0x6802, 2053],
] as const)('1 added to %s %i', (from, bits, sum) => {
  const out = new Uint8Array(4);
  expect(conversion(from, 'F32', 1)(words(from === 'F32' ? 'single' : 'half', [bits]), out)).toBe(-1);
  const expected = from === 'F16' ? halfValue(halfBits(sum)) : sum;
  expect(new Float32Array(out.buffer)[0]).toBe(expected);
});
