// Fields of objects: those the request gives, and only those.

import { describe, expect, test } from 'vitest';
import * as fc from 'fast-check';
import { integer, nullable, object, openObject, optional, text } from '../../../src/base/shape.ts';
import { ApiError } from '../../../src/base/errors.ts';

const NAMES = ['a', 'b', 'c', 'd'] as const;
const shape = object({
  a: optional(integer({ min: 0, max: 9 })),
  b: optional(nullable(integer({ min: 0, max: 9 }))),
  c: optional(text({ max: 4 })),
  d: optional(object({ e: integer({ min: 0, max: 9 }) })),
});

describe('an object shape', () => {
  test('property: gives back the fields that were given, and reads undefined for the others', () => {
    const value = fc.record(
      {
        a: fc.integer({ min: 0, max: 9 }),
        b: fc.integer({ min: 0, max: 9 }),
        c: fc.string({ maxLength: 4 }),
        d: fc.record({ e: fc.integer({ min: 0, max: 9 }) }),
      },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(value, (given) => {
        const read = shape.read(JSON.parse(JSON.stringify(given)), '');
        expect(Object.keys(read).toSorted()).toEqual(Object.keys(given).toSorted());
        expect(read).toEqual(given);
        for (const name of NAMES) expect(read[name]).toEqual(given[name]);
      }),
    );
  });

  test('null stands for absent in an optional field', () => {
    expect(shape.read({ a: null, c: null, d: null }, '')).toStrictEqual({});
  });

  test.each([
    [{}, 'x.d', 'missing_required_parameter'],
    [{ d: { e: 10 } }, 'x.d.e', 'integer_above_max_value'],
    [{ d: {} }, 'x.d.e', 'missing_required_parameter'],
    [{ d: 1 }, 'x.d', 'invalid_type'],
    [{ f: 1 }, 'x.f', 'unknown_parameter'],
    // A member that every object inherits is no field of it.
    [{ d: Object.create({ e: 1 }) as object, toString: 1 }, 'x.toString', 'unknown_parameter'],
  ])('%j is refused at %s', (value, param, code) => {
    const strict = object({ d: object({ e: integer({ min: 0, max: 9 }) }) });
    let refusal: unknown;
    try {
      strict.read(value, 'x');
    } catch (error) {
      refusal = error;
    }
    expect(refusal).toBeInstanceOf(ApiError);
    expect(refusal).toMatchObject({ param, code });
  });

  test.each(['constructor', 'toString', '__proto__', 'hasOwnProperty'])(
    'no field may be named %s: an absent one would be read from the prototype',
    (name) => {
      const fields = Object.fromEntries([[name, optional(text({ max: 1 }))]]);
      expect(() => object(fields)).toThrow(TypeError);
      expect(() => openObject(fields)).toThrow(TypeError);
    },
  );
});
