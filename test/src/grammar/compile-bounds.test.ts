// Compiling a schema does not hold up other requests: it is bounded, and its cost grows with its length.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { allExclusive } from '../../../src/grammar/exclusive.ts';
import { schemaToGrammar, toolCallGrammar } from '../../../src/grammar/compile.ts';
import { MAX_GRAMMAR_BYTES } from '../../../src/engine/child/llama/grammar.ts';
import { GENERIC_TOOL_FORMAT } from '../../../src/engine/seam/tool-format.ts';
import { newAjv, tried } from '../../fixtures/grammar/oracle.ts';
import { refusal } from '../../fixtures/refusal.ts';
import { closed, members, times } from '../../fixtures/grammar/schemas.ts';

describe('schemaToGrammar', () => {
  test('bounds: depth, width, characters', () => {
    let deep: unknown = { type: 'string' };
    for (let i = 0; i < 20_000; i += 1) deep = { type: 'array', items: deep };
    expect(refusal(() => schemaToGrammar(deep)).code).toBe('invalid_schema');
    const wide = {
      type: 'object',
      properties: Object.fromEntries(
        Array.from({ length: 6000 }, (_, i) => [`p${i}`, { type: 'string', maxLength: i }]),
      ),
    };
    expect(refusal(() => schemaToGrammar(wide)).code).toBe('invalid_schema');
    expect(refusal(() => schemaToGrammar({ enum: Array.from({ length: 5000 }, (_, i) => i) })).code).toBe(
      'invalid_schema',
    );
    expect(
      refusal(() =>
        schemaToGrammar({ enum: Array.from({ length: 1000 }, (_, i) => 'x'.repeat(1000) + String(i)) }),
      ).code,
    ).toBe('invalid_schema');
    const large = {
      type: 'object',
      properties: Object.fromEntries(
        Array.from({ length: 500 }, (_, i) => [
          `property ${i}`,
          { type: 'integer', minimum: -i, maximum: i * 7919 },
        ]),
      ),
    };
    expect(schemaToGrammar(large).length).toBeLessThan(MAX_GRAMMAR_BYTES);
  });
});

/** `value` behind proxies that count every look at it: reads of members, tests for them, lists of keys. */
function watched(value: unknown): { readonly value: unknown; looks(): number } {
  let looks = 0;
  const wrapped = new WeakMap<object, object>();
  const wrap = (each: unknown): unknown => {
    if (typeof each !== 'object' || each === null) return each;
    const known = wrapped.get(each);
    if (known !== undefined) return known;
    const proxy = new Proxy(each, {
      get: (target, key, receiver) => {
        looks += 1;
        return wrap(Reflect.get(target, key, receiver));
      },
      has: (target, key) => {
        looks += 1;
        return Reflect.has(target, key);
      },
      ownKeys: (target) => {
        const keys = Reflect.ownKeys(target);
        looks += keys.length;
        return keys;
      },
    });
    wrapped.set(each, proxy);
    return proxy;
  };
  return { value: wrap(value), looks: () => looks };
}

function valuesOf(value: unknown): number {
  return typeof value !== 'object' || value === null
    ? 1
    : Object.values(value).reduce((sum: number, each) => sum + valuesOf(each), 1);
}

describe('a schema of a request holds nothing up', () => {
  // Each grows with n in the way that costs most.
  const families: readonly (readonly [string, (n: number) => unknown])[] = [
    [
      'oneOf told apart by a property',
      (n) => ({ oneOf: times(n, (i) => closed({ kind: { const: `k${i}` }, v: { type: 'string' } })) }),
    ],
    ['oneOf of constants', (n) => ({ oneOf: times(n, (i) => ({ const: i })) })],
    ['oneOf of references', (n) => ({ $defs: members(n, (i) => [`d${i}`, closed({ k: { const: i } })]), oneOf: times(n, (i) => ({ $ref: `#/$defs/d${i}` })) })], // prettier-ignore
    ['oneOf told apart by two properties', (n) => ({ oneOf: times(n, (i) => closed({ a: { const: i % 8 }, b: { const: Math.floor(i / 8) } })) })], // prettier-ignore
    ['enum', (n) => ({ enum: times(n, (i) => `v${i}`) })],
    ['enum beside const', (n) => ({ const: 'v0', enum: times(n, (i) => `v${i}`) })],
    [
      'allOf of two enums',
      (n) => ({ allOf: [{ enum: times(n, (i) => i) }, { enum: times(n, (i) => n - i) }] }),
    ],
    [
      'allOf that adds properties',
      (n) => ({ allOf: times(n, (i) => ({ properties: { [`p${i}`]: { type: 'null' } } })) }),
    ],
    [
      'allOf on one property',
      (n) => ({ allOf: times(n, (i) => ({ properties: { p: { maxLength: i + 1 } } })) }),
    ],
    ['allOf that requires', (n) => ({ allOf: times(n, (i) => ({ required: [`r${i}`] })) })],
    [
      'lists of types',
      (n) => ({ allOf: [{ type: times(n, () => 'string') }, { type: times(n, () => 'null') }] }),
    ],
    [
      'required',
      (n) => ({
        type: 'object',
        required: times(n, (i) => `r${i}`),
        properties: members(n, (i) => [`r${n - i}`, {}]),
      }),
    ],
    [
      'names beside additionalProperties',
      (n) => ({ properties: members(n, (i) => [`p${i}`, {}]), additionalProperties: { type: 'null' } }),
    ],
    [
      'anyOf with siblings',
      (n) => ({ title: 'x', anyOf: times(n, () => ({ required: ['a'] })), properties: { a: {} } }),
    ],
  ];

  test.each(families.map((each) => [...each] as [string, (n: number) => unknown]))(
    '%s: four times as long, four times the looks',
    (_, make) => {
      const cost = (n: number): number => {
        const schema = watched(make(n));
        tried(() => schemaToGrammar(schema.value));
        return schema.looks();
      };
      expect(cost(800)).toBeLessThan(5 * cost(200));
      // Past every bound: not looked at more often than there are values.
      const huge = make(30_000);
      const schema = watched(huge);
      expect(refusal(() => schemaToGrammar(schema.value)).code).toBe('invalid_schema');
      expect(schema.looks()).toBeLessThan(8 * valuesOf(huge));
    },
  );

  test('whether branches exclude each other: a few steps for each, and what comparing each pair says', () => {
    let steps = 0;
    const spend = (more: number): void => void (steps += more);
    const cost = (n: number): number => {
      steps = 0;
      expect(
        allExclusive(
          times(n, (i) => ({ ...closed({ kind: { const: i } }) })),
          spend,
        ),
      ).toBe(true);
      return steps;
    };
    expect(cost(4000)).toBeLessThan(5 * cost(1000));
    expect(cost(4000)).toBeLessThan(4000 * 40);

    // Oracle: every pair by its own.
    const constants = fc.oneof(fc.record({ const: fc.constantFrom(1, 'a', null) }), fc.record({ enum: fc.subarray([1, 'a', null, 2, 'b'], { minLength: 1 }) })); // prettier-ignore
    const object = fc
      .dictionary(
        fc.constantFrom('p', 'q', 'r'),
        fc.oneof({ weight: 4, arbitrary: constants }, fc.constant({ type: 'string' })),
      )
      .chain((properties) =>
        fc.subarray(Object.keys(properties)).map((required) => ({ type: 'object', properties, required })),
      );
    const other = fc.oneof(constants, fc.record({ type: fc.constantFrom('string', 'integer', 'number', 'null', 'array') }), fc.constant({ type: ['string', 'null'] }), fc.constant({})); // prettier-ignore
    const branch = fc.oneof({ weight: 3, arbitrary: object }, other) as fc.Arbitrary<Record<string, unknown>>;
    fc.assert(
      fc.property(fc.array(branch, { minLength: 2, maxLength: 6 }), (branches) => {
        const pairs = branches.flatMap((a, i) =>
          branches.slice(0, i).map((b) => allExclusive([a, b], spend)),
        );
        expect(allExclusive(branches, spend)).toBe(pairs.every(Boolean));
      }),
      { numRuns: 3000 },
    );
    fc.assert(
      fc.property(branch, branch, (a, b) => {
        fc.pre(allExclusive([a, b], spend));
        const [one, two] = [newAjv().compile(a), newAjv().compile(b)];
        const values = [1, 2, 1.5, 'a', 'b', 'c', null, [], {}];
        const inner = [undefined, 1, 'a', null, 2, 'b'];
        for (const p of inner)
          for (const q of inner) for (const r of inner) values.push(JSON.parse(JSON.stringify({ p, q, r })));
        expect(values.filter((value) => one(value) && two(value))).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });

  test('what many branches would each do again is counted', () => {
    const again = (schema: object): unknown => ({
      ...schema,
      anyOf: times(3000, (i) => ({ title: `${i}` })),
    });
    for (const schema of [
      again({ enum: ['"'.repeat(90_000)] }),
      again({ enum: times(1000, (i) => i) }),
      {
        type: 'string',
        properties: members(20_000, (i) => [`p${i}`, true]),
        anyOf: times(3000, (i) => ({ properties: { p: { maxLength: i } } })),
      },
    ]) {
      const seen = watched(schema);
      expect(refusal(() => schemaToGrammar(seen.value)).message).toBe('the schema is too large');
      expect(seen.looks()).toBeLessThan(4_000_000);
    }
    // The same pattern or range again is not made again.
    expect(schemaToGrammar({ type: 'string', pattern: `^(${times(400, (i) => `x${i}`).join('|')})$`, anyOf: times(900, (i) => ({ title: `${i}` })) }).length).toBeLessThan(30_000); // prettier-ignore
  });

  test('values nested without end are refused, not a stack that ran over', () => {
    let deep: unknown = 1;
    for (let i = 0; i < 50_000; i += 1) deep = [deep];
    for (const schema of [
      { const: deep },
      { enum: [deep] },
      { default: deep },
      { allOf: [{ const: deep }, { const: 1 }] },
    ])
      expect(refusal(() => schemaToGrammar(schema)).message).toContain('nests deeper');
    expect(
      refusal(() => schemaToGrammar({ properties: { ['x'.repeat(50_000)]: {} }, additionalProperties: {} }))
        .code,
    ).toBe('invalid_schema');
    expect(
      refusal(() =>
        toolCallGrammar([{ name: 'x', parameters: { const: deep } }], 'auto', true, GENERIC_TOOL_FORMAT),
      ).param,
    ).toBe('tools[0].function.parameters');
  });

  test('tools share one allowance', () => {
    const tools = times(100, (t) => ({
      name: `t${t}`,
      parameters: {
        type: 'object',
        properties: members(200, (i) => [`p${i}`, { type: 'integer', minimum: t * 1000 + i }]),
      },
    }));
    expect(toolCallGrammar(tools.slice(0, 3), 'auto', true, GENERIC_TOOL_FORMAT).gbnf.length).toBeLessThan(
      MAX_GRAMMAR_BYTES,
    );
    expect(refusal(() => toolCallGrammar(tools, 'auto', true, GENERIC_TOOL_FORMAT)).message).toBe(
      'the schema is too large',
    );
  });

  test('repetitions stay small once llama.cpp has written them out', () => {
    const lengths = (n: number): unknown =>
      closed(members(n, (i) => [`a${i}`, { type: 'string', minLength: i % 50, maxLength: 51 + i * 3 }]));
    const writtenOut = (text: string): number =>
      [...text.matchAll(/\{(\d+)(?:,(\d*))?\}/g)].reduce(
        (sum, [, min, max]) => sum + Math.max(Number(min), Number(max ?? 0)),
        0,
      );
    expect(writtenOut(schemaToGrammar(lengths(300)))).toBeLessThan(400_000);
    expect(refusal(() => schemaToGrammar(lengths(2500))).message).toBe('the schema is too large');
  });

  test('the same value twice in an enum is one alternative', () => {
    expect(schemaToGrammar({ enum: times(1000, () => 'a'.repeat(300)) }).length).toBeLessThan(2000);
  });
});
