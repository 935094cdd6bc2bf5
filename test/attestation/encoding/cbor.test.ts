// Canonical CBOR: RFC 8949 Appendix A examples we allow, every second spelling refused, round
// trips of arbitrary values.

import { Encoder } from 'cbor-x/encode';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { fromHex, toHex } from '../../../attestation/encoding/bytes.ts';
import { type Cbor, decodeCbor, encodeCbor } from '../../../attestation/encoding/cbor.ts';
import { accepted, codeOf } from '../../fixtures/refusal.ts';

describe('canonical cbor', () => {
  test.each<[Cbor, string]>([
    [0, '00'],
    [23, '17'],
    [24, '1818'],
    [255, '18ff'],
    [256, '190100'],
    [65536, '1a00010000'],
    [4294967295, '1affffffff'],
    [1000000000000, '1b000000e8d4a51000'],
    [Number.MAX_SAFE_INTEGER, '1b001fffffffffffff'],
    [false, 'f4'],
    [true, 'f5'],
    [null, 'f6'],
    ['', '60'],
    ['IETF', '6449455446'],
    ['ü', '62c3bc'],
    [Uint8Array.of(1, 2, 3, 4), '4401020304'],
    [[1, [2, 3], [4, 5]], '8301820203820405'],
    [new Map<string, Cbor>([['b', [2, 3]], ['a', 1]]), 'a26161016162820203'], // prettier-ignore
    [new Map<number | string, Cbor>([['a', 1], [24, 2], [3, 4]]), 'a30304181802616101'], // prettier-ignore
  ])('%j is %s', (value, hex) => {
    expect(toHex(encodeCbor(value))).toBe(hex);
    expect(toHex(encodeCbor(decodeCbor(fromHex(hex))))).toBe(hex);
  });

  test.each(['a0', '80', '60', '00', '8180'])(
    'refuses twenty thousand of %s, and no thousand of it',
    (item) => {
      expect(codeOf(() => decodeCbor(fromHex(`994e20${item.repeat(20_000)}`)))).toBe('malformed_cbor');
      expect(decodeCbor(fromHex(`9903e8${item.repeat(1000)}`))).toHaveLength(1000);
    },
  );

  test.each([
    ['1800', 'one byte where none is needed'],
    ['1817', 'one byte for 23'],
    ['1900ff', 'two bytes for 255'],
    ['1a0000ffff', 'four bytes for 65535'],
    ['1b00000000ffffffff', 'eight bytes for 2^32-1'],
    ['1b0020000000000000', '2^53'],
    ['20', 'a negative integer'],
    ['f97e00', 'a float'],
    ['f7', 'undefined'],
    ['c074323031332d30332d32315432303a30343a30305a', 'a tag'],
    ['5f42010243030405ff', 'an indefinite byte string'],
    ['9fff', 'an indefinite array'],
    ['bfff', 'an indefinite map'],
    ['a201000100', 'a duplicate key'],
    ['a202000100', 'keys out of order'],
    ['a1400100'.slice(0, 6), 'a byte-string key'],
    ['0000', 'bytes after the end'],
    ['', 'nothing'],
    ['61', 'a cut string'],
    ['61ff', 'text that is not utf-8'],
    ['9bffffffffffffffff', 'a lying array length'],
    ['9a7fffffff00', 'a lying array length within 53 bits'],
    ['5a7fffffff00', 'a lying string length'],
    ['ba7fffffff00', 'a lying map length'],
    ['818181818181818181818100', 'deep nesting'],
  ])('refuses %s: %s', (hex) => {
    expect(codeOf(() => decodeCbor(fromHex(hex)))).toBe('malformed_cbor');
  });

  test('refuses what is over its size before reading it', () => {
    expect(() => decodeCbor(new Uint8Array(100), 'x', 99)).toThrow(
      expect.objectContaining({ code: 'input_too_large' }),
    );
  });

  test.each([
    [-1],
    [1.5],
    [2 ** 53],
    ['\ud800'],
    [undefined as unknown as Cbor],
    [new Date() as unknown as Cbor],
    [Object.assign([] as Cbor[], { length: 2 })],
    [new Map([[-1, 0]])],
    [new Map([['\udfff', 0]])],
    [new Map([[null as unknown as string, 0]])],
    [[[[[[[[[[0]]]]]]]]]],
  ])('cannot encode %s', (value) => {
    expect(() => encodeCbor(value)).toThrow(TypeError);
  });

  const { value: arbitrary } = fc.letrec<{ value: Cbor }>((tie) => ({
    value: fc.oneof(
      { maxDepth: 4, withCrossShrink: true },
      fc.maxSafeNat(),
      fc.boolean(),
      fc.constant(null),
      fc.string({ unit: 'grapheme', maxLength: 300 }),
      fc.uint8Array({ maxLength: 300 }),
      fc.array(tie('value'), { maxLength: 30 }),
      fc
        .array(fc.tuple(fc.oneof(fc.nat(), fc.string({ maxLength: 30 })), tie('value')), { maxLength: 30 })
        .map((e) => new Map(e)),
    ),
  }));

  test('writes what cbor-x writes, byte for byte', () => {
    fc.assert(
      fc.property(arbitrary, (value) => {
        expect(toHex(encodeCbor(value))).toBe(toHex(oracle.encode(forOracle(value))));
      }),
      { numRuns: 500 },
    );
  });

  test.each([0, 1, 23, 24, 255, 256, 65_535, 65_536, 70_000])(
    'writes bytes, text and lists of %i as cbor-x does',
    (length) => {
      const values: Cbor[] = [
        new Uint8Array(length).fill(7),
        'x'.repeat(length),
        Array.from({ length }, (_, i) => i),
        new Map(Array.from({ length }, (_, i) => [i, null])),
      ];
      for (const value of values)
        expect(Buffer.compare(encodeCbor(value), oracle.encode(forOracle(value)))).toBe(0);
    },
  );

  test.each([8, 16, 24, 32, 40, 48, 52, 53])('writes integers around 2^%i as cbor-x does', (power) => {
    for (const value of [2 ** power - 2, 2 ** power - 1, 2 ** power, 2 ** power + 1].filter(
      Number.isSafeInteger,
    ))
      expect(toHex(encodeCbor(value))).toBe(toHex(oracle.encode(forOracle(value))));
  });

  test('decode(encode(x)) = x, also as a sub-view', () => {
    fc.assert(
      fc.property(arbitrary, fc.nat({ max: 7 }), (value, offset) => {
        const bytes = encodeCbor(value);
        const padded = new Uint8Array(bytes.length + offset + 3).fill(0xa5);
        padded.set(bytes, offset);
        const decoded = decodeCbor(padded.subarray(offset, offset + bytes.length));
        expect(toHex(encodeCbor(decoded))).toBe(toHex(bytes));
        expect(sorted(decoded)).toEqual(sorted(value));
      }),
    );
  });

  test('answers any bytes with a value or the typed error, and what it accepts has one spelling', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        const value = accepted(() => decodeCbor(bytes));
        expect(value === undefined || toHex(encodeCbor(value)) === toHex(bytes)).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });
});

const oracle = new Encoder({
  useRecords: false,
  mapsAsObjects: false,
  tagUint8Array: false,
  variableMapSize: true,
});

/**
 * As cbor-x writes it canonically: maps in the order of their encoded keys, integers over 32 bits as bigint.
 */
function forOracle(value: Cbor): unknown {
  if (typeof value === 'number') return value > 0xffff_ffff ? BigInt(value) : value;
  if (Array.isArray(value)) return value.map(forOracle);
  if (!(value instanceof Map)) return value;
  const entries = [...value].map(([key, item]) => ({
    key: forOracle(key as Cbor),
    item: forOracle(item as Cbor),
  }));
  const order = entries.map((entry) => ({ ...entry, hex: toHex(Uint8Array.from(oracle.encode(entry.key))) }));
  return new Map(order.toSorted((a, b) => (a.hex < b.hex ? -1 : 1)).map(({ key, item }) => [key, item]));
}

/** Maps compare without regard to insertion order. */
function sorted(value: Cbor): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (value instanceof Map)
    return [...value]
      .map(([k, v]) => [String(typeof k) + String(k), sorted(v as Cbor)] as const)
      .toSorted((a, b) => (a[0] < b[0] ? -1 : 1));
  return value;
}
