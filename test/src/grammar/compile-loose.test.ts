// Schemas that are not strict: they are never refused, each keyword is enforced where possible, and the rest
// is named.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { looseSchemaToGrammar, toolCallGrammar, type Loosening } from '../../../src/grammar/compile.ts';
import { seededRandom } from '../../../src/engine/child/decode/sampler.ts';
import { GENERIC_TOOL_FORMAT } from '../../../src/engine/seam/tool-format.ts';
import { ApiError } from '../../../src/base/errors.ts';
import { accepts, generate, parseGbnf } from '../../fixtures/grammar/gbnf.ts';
import { ANNOTATED, LOOSENED, OBJECT, SPELLINGS, type Row } from '../../fixtures/grammar/loose-rows.ts';
import { newAjv } from '../../fixtures/grammar/oracle.ts';
import { refusal } from '../../fixtures/refusal.ts';

/** As `pointer/keyword`. */
function names(loosened: readonly Loosening[]): string[] {
  return loosened
    .map(({ pointer, keyword }) => (keyword === null ? pointer : `${pointer}/${keyword}`))
    .sort();
}

/** One value of a property `a`, in an object that has it alone. */
function ofProperty(schema: unknown): {
  readonly matches: (text: string) => boolean;
  readonly loosened: readonly string[];
} {
  const root = { type: 'object', properties: { a: schema }, required: ['a'], additionalProperties: false };
  const { gbnf, loosened } = looseSchemaToGrammar(root);
  const grammar = parseGbnf(gbnf);
  return {
    matches: (text) => accepts(grammar, `{"a":${text}}`),
    loosened: names(loosened).map((each) => each.replace('/properties/a', '')),
  };
}

function argumentsOf(parameters: unknown, strict = false): (text: string) => boolean {
  const tool = { name: 't', parameters, strict };
  const grammar = parseGbnf(toolCallGrammar([tool], 'required', false, GENERIC_TOOL_FORMAT).gbnf);
  return (text) => accepts(grammar, `<tool_call>\n{"name":"t","arguments":${text}}\n</tool_call>`);
}

describe('a schema that is not strict', () => {
  test.each([...SPELLINGS, ...ANNOTATED, ...LOOSENED])(
    '$name',
    ({ schema, yes, no = [], loosened = [] }: Row) => {
      const { matches, loosened: found } = ofProperty(schema);
      expect(found).toEqual(loosened);
      expect(yes.filter((text) => !matches(text))).toEqual([]);
      expect(no.filter((text) => matches(text))).toEqual([]);
    },
  );

  test('a property that may not be there is not written, and nothing is lost', () => {
    for (const nothing of [
      false,
      { not: {} },
      { not: true },
      { allOf: [false] },
      { anyOf: [false, false] },
    ]) {
      const schema = { type: 'object', properties: { a: nothing, b: { type: 'integer' } } };
      const { gbnf, loosened } = looseSchemaToGrammar(schema);
      const grammar = parseGbnf(gbnf);
      expect([loosened, accepts(grammar, '{"b":1}'), accepts(grammar, '{"a":1}')]).toEqual([[], true, false]);
    }
  });

  test('a branch that admits nothing is no choice', () => {
    const { matches, loosened } = ofProperty({
      type: 'string',
      anyOf: [{ not: {} }, { type: 'integer' }, { minLength: 2 }],
    });
    expect([loosened, matches('"xx"'), matches('"x"'), matches('1')]).toEqual([[], true, false, false]);
  });

  test('what nests too deep is any value of its type, what is above it holds', () => {
    let schema: object = { type: 'object', properties: { end: { type: 'integer' } } };
    for (let i = 0; i < 60; i += 1) schema = { type: 'object', properties: { a: schema }, required: ['a'] };
    const { matches, loosened } = ofProperty(schema);
    const nested = (levels: number, end: string): string => '{"a":'.repeat(levels) + end + '}'.repeat(levels);
    expect(loosened).toHaveLength(1);
    expect([
      matches(nested(32, '{"q":1}')),
      matches(nested(32, '1')),
      matches(nested(20, '{"q":1}')),
    ]).toEqual([true, false, false]);
  });

  test('a JSON text too large or too deep to look at is any value', () => {
    let deep: unknown = 1;
    for (let i = 0; i < 5000; i += 1) deep = [deep];
    for (const schema of [{ const: deep }, { description: 'x'.repeat(3_000_000) }])
      expect(looseSchemaToGrammar(schema).loosened).toEqual([{ pointer: '', keyword: null }]);
  });

  test('alternatives that begin alike on every level are any values of their types', () => {
    const levels = Array.from({ length: 4 }, (_, l) => {
      const a = l < 3 ? { $ref: `#/$defs/l${l + 1}` } : { type: 'string' };
      const anyOf = Array.from({ length: 10 }, (_each, i) => ({
        type: 'object',
        properties: { a, z: { const: i } },
        required: ['a', 'z'],
      }));
      return [`l${l}`, { anyOf }];
    });
    const { gbnf, loosened } = looseSchemaToGrammar({
      type: 'object',
      properties: { b: { $ref: '#/$defs/l0' }, c: { type: 'integer' } },
      required: ['b', 'c'],
      $defs: Object.fromEntries(levels) as object,
    });
    const matches = (text: string): boolean => accepts(parseGbnf(gbnf), text);
    expect(names(loosened)).toEqual(['/properties/b/anyOf']);
    expect([matches('{"b":{"q":1},"c":1}'), matches('{"b":1,"c":1}'), matches('{"b":{},"c":"1"}')]).toEqual([
      true,
      false,
      false,
    ]);
  });
});

describe('the arguments of a tool', () => {
  test.each<[string, object]>([
    ['nothing said', {}],
    ['annotations alone', { $schema: 'x', title: 't', description: 'd', $defs: { a: { type: 'string' } } }],
    ['no properties', { type: 'object', properties: {} }],
    ['an object', { type: 'object' }],
    ['keywords of other types', { minLength: 3 }],
    ['a reference to no properties', { $ref: '#/$defs/a', $defs: { a: { type: 'object', properties: {} } } }],
    ['parts without properties', { allOf: [{ type: 'object' }, {}] }],
    ['an object or null', { type: ['object', 'null'], required: [] }],
  ])('none: %s', (_, schema) => {
    for (const strict of [false, true]) {
      const matches = argumentsOf(schema, strict);
      expect([matches('{}'), matches('{"x":1}'), matches('"x"'), matches('null')]).toEqual([
        true,
        false,
        false,
        false,
      ]);
    }
  });

  test.each<[string, object]>([
    ['without a type', { properties: OBJECT.properties, required: ['x'] }],
    ['or null', { ...OBJECT, type: ['object', 'null'] }],
    ['referred to', { $ref: '#/definitions/x', definitions: { x: OBJECT } }],
    ['one of two branches', { anyOf: [OBJECT, { ...OBJECT, required: ['x'] }] }],
    ['a part', { allOf: [OBJECT] }],
  ])('an object: %s', (_, schema) => {
    for (const strict of [false, true]) {
      const matches = argumentsOf(schema, strict);
      expect([matches('{"x":"1"}'), matches('{}'), matches('{"x":1}'), matches('null')]).toEqual([
        true,
        false,
        false,
        false,
      ]);
    }
  });

  test.each<[string, object]>([
    ['of no properties', { type: 'object', properties: [] }],
    ['referred to', { $ref: '#/$defs/a', $defs: { a: { properties: [], required: [] } } }],
    ['a part', { allOf: [{ properties: [] }] }],
    ['of no others', { properties: [], patternProperties: [], additionalProperties: false }],
  ])('none, as PHP writes an empty object: %s', (_, schema) => {
    const matches = argumentsOf(schema);
    expect([matches('{}'), matches('{"answer":"x"}'), matches('[]')]).toEqual([true, false, false]);
  });

  test('a property of any value, as PHP writes it, is one that is still declared', () => {
    const matches = argumentsOf({ type: 'object', properties: { x: [] }, required: ['x'] });
    expect([matches('{"x":1}'), matches('{"x":"y"}'), matches('{}'), matches('{"z":1}')]).toEqual([
      true,
      true,
      false,
      false,
    ]);
  });

  test.each<[string, object]>([
    ['additional ones', { additionalProperties: true }],
    ['a far reference', { $ref: 'https://example.org/x' }],
    ['a pattern of names', { patternProperties: { '^x': { type: 'integer' } } }],
    // oxlint-disable-next-line unicorn/no-thenable
    ['a condition', { if: { required: ['x'] }, then: {} }],
  ])('any object: %s', (_, schema) => {
    const matches = argumentsOf(schema);
    expect([matches('{}'), matches('{"x":1}'), matches('1')]).toEqual([true, true, false]);
  });

  test.each<[string, object]>([
    ['a string', { type: 'string' }],
    ['an array', { type: 'array', items: {} }],
    ['several types', { type: ['string', 'null'] }],
    ['a value', { const: 5 }],
    ['values', { enum: ['a', null, []] }],
    ['referred to', { $ref: '#/$defs/a', $defs: { a: { type: 'string' } } }],
    ['referred to twice', { $ref: '#/$defs/a', $defs: { a: { $ref: '#/$defs/b' }, b: { type: 'number' } } }],
    ['every branch', { anyOf: [{ type: 'string' }, { type: 'null' }] }],
    [
      'every branch of oneOf',
      { oneOf: [{ type: 'string' }, { $ref: '#/$defs/a' }], $defs: { a: { const: 1 } } },
    ],
    ['one part', { type: 'object', allOf: [{ type: 'string' }] }],
    ['beside properties', { type: 'boolean', properties: {} }],
  ])('refused as no object: %s', (_, schema) => {
    for (const strict of [false, true]) {
      const error = refusal(() => argumentsOf(schema, strict));
      expect([error.status, error.code, error.param]).toEqual([
        400,
        'invalid_schema',
        'tools[0].function.parameters',
      ]);
      expect(error.message).toMatch(/^tools\[0\]\.function\.parameters: /);
    }
  });

  test('branches of other types are no choice', () => {
    const matches = argumentsOf({ anyOf: [OBJECT, { type: 'string' }, { type: 'null' }] });
    expect([matches('{"x":"1"}'), matches('"x"'), matches('null')]).toEqual([true, false, false]);
  });
});

describe('tools together', () => {
  const big = (n: number): object => ({
    type: 'object',
    properties: Object.fromEntries(
      Array.from({ length: 900 }, (_, i) => [`p${i}`, { type: 'integer', minimum: n * 1000 + i }]),
    ),
  });

  test('what exceeds the bounds of all is loosened in the largest; the small and the strict are held', () => {
    const tools = [
      ...Array.from({ length: 40 }, (_, i) => ({ name: `big${i}`, parameters: big(i), strict: false })),
      { name: 'small', parameters: OBJECT, strict: false },
      { name: 'exact', parameters: OBJECT, strict: true },
    ];
    const { gbnf, loosened } = toolCallGrammar(tools, 'required', false, GENERIC_TOOL_FORMAT);
    expect(loosened.size).toBeGreaterThan(0);
    expect([...loosened.keys()].every((name) => name.startsWith('big'))).toBe(true);
    const grammar = parseGbnf(gbnf);
    const call = (name: string, args: string): boolean =>
      accepts(grammar, `<tool_call>\n{"name":"${name}","arguments":${args}}\n</tool_call>`);
    for (const name of ['small', 'exact'])
      expect([call(name, '{"x":"1"}'), call(name, '{}')]).toEqual([true, false]);
    expect(call([...loosened.keys()][0] ?? '', '{"any":"thing"}')).toBe(true);
  });

  test('a strict tool is refused by its place; the same tool that is not strict is named', () => {
    const parameters = { ...OBJECT, properties: { x: { type: 'array', uniqueItems: true } } };
    const tool = { name: 'get_weather', parameters };
    const other = { name: 'other', parameters: {}, strict: false };
    for (const strict of [true, undefined]) {
      const error = refusal(() =>
        toolCallGrammar([other, { ...tool, strict }], 'auto', true, GENERIC_TOOL_FORMAT),
      );
      expect(error.message).toBe('tools[1].function.parameters: the keyword uniqueItems is not supported');
      expect(error.param).toBe('tools[1].function.parameters.properties.x.uniqueItems');
    }
    const { loosened } = toolCallGrammar(
      [other, { ...tool, strict: false }],
      'auto',
      true,
      GENERIC_TOOL_FORMAT,
    );
    expect([...loosened]).toEqual([['get_weather', [{ pointer: '/properties/x', keyword: 'uniqueItems' }]]]);
  });
});

describe('whatever comes in', () => {
  const keyword = fc.constantFrom(
    ...'type enum const properties required items anyOf allOf oneOf $ref minimum exclusiveMinimum maxLength minLength pattern format additionalProperties patternProperties propertyNames minItems maxItems prefixItems not if nullable uniqueItems multipleOf contains $defs x'.split(
      ' ',
    ),
  );
  const { node } = fc.letrec((tie) => ({
    node: fc.oneof(
      { maxDepth: 5 },
      fc.jsonValue(),
      fc.dictionary(
        keyword,
        fc.oneof(
          tie('node'),
          fc.array(tie('node'), { maxLength: 3 }),
          fc.constantFrom<unknown>(
            'string',
            'integer',
            'object',
            '#',
            '#/properties/a',
            'date',
            '^a+$',
            true,
          ),
          fc.dictionary(fc.constantFrom('a', 'b'), tie('node')),
          fc.integer({ min: -3, max: 9 }),
          fc.string(),
        ),
        { maxKeys: 4 },
      ),
    ),
  }));

  test('an object is a tool, or says another type; its arguments are objects', () => {
    fc.assert(
      fc.property(
        node.filter((each) => typeof each === 'object' && each !== null && !Array.isArray(each)),
        (schema) => {
          const tool = { name: 't', parameters: schema, strict: false };
          let gbnf: string;
          try {
            ({ gbnf } = toolCallGrammar([tool], 'required', false, GENERIC_TOOL_FORMAT));
          } catch (error) {
            if (!(error instanceof ApiError) || !error.message.includes('says another type')) throw error;
            return;
          }
          const grammar = parseGbnf(gbnf);
          for (let seed = 0; seed < 3; seed += 1) {
            const call: unknown = JSON.parse(
              generate(grammar, seededRandom(seed, 0)).replaceAll(/^<tool_call>|<\/tool_call>$/g, ''),
            );
            expect(call).toEqual({ name: 't', arguments: expect.any(Object) as unknown });
            expect(Array.isArray((call as { arguments: unknown }).arguments)).toBe(false);
          }
        },
      ),
      { numRuns: 500 },
    );
  });

  test('any JSON value as the schema of an answer', () => {
    fc.assert(
      fc.property(node, (schema) => {
        expect(parseGbnf(looseSchemaToGrammar(schema).gbnf).has('root')).toBe(true);
      }),
      { numRuns: 500 },
    );
  });

  test('what can be enforced beside what cannot still holds', () => {
    const unenforceable = fc.record(
      {
        uniqueItems: fc.constant(true),
        minProperties: fc.constant(3),
        not: fc.constant({ const: 1 }),
        if: fc.constant({}),
        pattern: fc.constant('(?=a)'),
        multipleOf: fc.constant(0.333),
        contains: fc.constant({}),
        $dynamicRef: fc.constant('#a'),
        'x-order': fc.integer(),
      },
      { requiredKeys: [] },
    );
    interface Pair {
      readonly exact: object;
      readonly wild: object;
    }
    const both = (exact: fc.Arbitrary<object>): fc.Arbitrary<Pair> =>
      fc.tuple(exact, unenforceable).map(([each, more]) => ({ exact: each, wild: { ...more, ...each } }));
    const { pair } = fc.letrec<{ pair: Pair }>((tie) => ({
      pair: fc.oneof(
        { maxDepth: 3, withCrossShrink: true },
        both(fc.constantFrom<object>({ type: 'integer', minimum: 2 }, { type: 'string', maxLength: 3 })),
        both(fc.constantFrom<object>({ type: ['string', 'null'] }, { type: 'number', exclusiveMaximum: 5 })),
        fc.tuple(tie('pair'), unenforceable).map(([{ exact, wild }, more]) => {
          const array = { type: 'array', maxItems: 3, minItems: 1 };
          return { exact: { ...array, items: exact }, wild: { ...more, ...array, items: wild } };
        }),
        fc.tuple(tie('pair'), tie('pair'), unenforceable, fc.boolean()).map(([a, b, more, closed]) => {
          const object = { type: 'object', required: ['a'], additionalProperties: !closed };
          return {
            exact: { ...object, properties: { a: a.exact, b: b.exact } },
            wild: { ...more, ...object, properties: { a: a.wild, b: b.wild } },
          };
        }),
        fc.tuple(tie('pair'), tie('pair'), fc.constantFrom('anyOf', 'oneOf')).map(([a, b, key]) => ({
          exact: { anyOf: [a.exact, b.exact] },
          wild: { [key]: [a.wild, b.wild] },
        })),
      ),
    }));
    fc.assert(
      fc.property(pair, ({ exact, wild }) => {
        const validate = newAjv().compile(exact);
        const grammar = parseGbnf(looseSchemaToGrammar(wild).gbnf);
        for (let seed = 0; seed < 5; seed += 1) {
          const value: unknown = JSON.parse(generate(grammar, seededRandom(seed, 0)));
          expect([value, validate(value)]).toEqual([value, true]);
        }
      }),
      { numRuns: 300 },
    );
  });
});
