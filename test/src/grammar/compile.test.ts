// JSON Schema → GBNF: what it accepts and refuses, shown with a GBNF reader of the tests' own; what is generated validates
// (ajv, the validator fastify brings, is the oracle); nothing unsupported passes; nothing grows without bound.

import { createRequire } from 'node:module';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { allExclusive } from '../../../src/grammar/exclusive.ts';
import { jsonObjectGrammar, schemaToGrammar, toolCallGrammar } from '../../../src/grammar/compile.ts';
import { MAX_GRAMMAR_BYTES } from '../../../src/engine/child/llama/grammar.ts';
import { seededRandom } from '../../../src/engine/child/decode/sampler.ts';
import { detectToolFormat, GENERIC_TOOL_FORMAT } from '../../../src/engine/seam/tool-format.ts';
import { ApiError } from '../../../src/base/errors.ts';
import { accepts, generate, parseGbnf } from '../../fixtures/grammar/gbnf.ts';

interface Validator {
  compile(schema: unknown): (value: unknown) => boolean;
}
const fromFastify = createRequire(createRequire(import.meta.url).resolve('fastify'));
// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a package of fastify's, not ours to have types of
const Ajv = (fromFastify('ajv/dist/2020') as { default: new (options: object) => Validator }).default;
function newAjv(): Validator {
  return new Ajv({ strict: false, validateFormats: false, allErrors: false });
}

function matcher(schema: unknown): (text: string) => boolean {
  const grammar = parseGbnf(schemaToGrammar(schema));
  return (text) => accepts(grammar, text);
}
function refusal(work: () => unknown): ApiError {
  try {
    work();
  } catch (error) {
    if (error instanceof ApiError) return error;
    throw error;
  }
  throw new Error('nothing was refused');
}

/** Null when it is refused with the typed error. */
function tried<T>(work: () => T): T | null {
  try {
    return work();
  } catch (error) {
    if (error instanceof ApiError) return null;
    throw error;
  }
}

/** [schema, accepted texts, refused texts] */
const TABLE: readonly (readonly [
  name: string,
  schema: unknown,
  yes: readonly string[],
  no: readonly string[],
])[] = [
  [
    'string',
    { type: 'string' },
    ['""', '"a"', '"\\n\\u00e9\\ud83d\\ude00"', '"é😀"'],
    ['a', '"', '"\n"', '"\\x"', '"\\ud83d"', '"a" '],
  ],
  [
    'string lengths count code points',
    { type: 'string', minLength: 2, maxLength: 3 },
    ['"ab"', '"😀é\\n"'],
    ['"a"', '"abcd"', '""'],
  ],
  [
    'long maxLength is exact',
    { type: 'string', maxLength: 2345 },
    [`"${'x'.repeat(2345)}"`, '""', `"${'x'.repeat(1999)}"`],
    [`"${'x'.repeat(2346)}"`],
  ],
  [
    'long minLength is exact',
    { type: 'string', minLength: 2100 },
    [`"${'x'.repeat(2100)}"`, `"${'x'.repeat(3000)}"`],
    [`"${'x'.repeat(2099)}"`],
  ],
  [
    'enum',
    { enum: ['a', 1, null, { k: [true] }] },
    ['"a"', '1', 'null', '{"k":[true]}'],
    ['"b"', '2', '"1"'],
  ],
  ['enum with a type', { type: 'string', enum: ['a', 1] }, ['"a"'], ['1']],
  ['const', { const: 'x"y' }, ['"x\\"y"'], ['"x"']],
  ['integer', { type: 'integer' }, ['0', '-12', '9007199254740991'], ['01', '1.0', '-', '1e5', '--1']],
  ['number', { type: 'number' }, ['0', '-1.5', '2e10', '1.25E-7'], ['.5', '1.', '1e999', 'NaN', '00']],
  [
    'integer bounds',
    { type: 'integer', minimum: -5, maximum: 12 },
    ['-5', '-1', '0', '7', '12'],
    ['-6', '13', '-0', '100', '1.5'],
  ],
  [
    'exclusive bounds',
    { type: 'integer', exclusiveMinimum: 0, exclusiveMaximum: 1000 },
    ['1', '999', '500'],
    ['0', '1000', '-1'],
  ],
  [
    'only a minimum',
    { type: 'integer', minimum: 18 },
    ['18', '19', '99', '100', '123456'],
    ['17', '9', '-20', '0'],
  ],
  ['only a maximum', { type: 'integer', maximum: -3 }, ['-3', '-10', '-99999'], ['-2', '0', '3']],
  [
    'decimal bounds',
    { type: 'number', minimum: 0.25, maximum: 1.5 },
    ['0.25', '0.3', '1', '1.5', '1.50', '1.499'],
    ['0.24', '0', '1.51', '2', '0.2', '-1', '1.500001'],
  ],
  [
    'exclusive decimal bounds',
    { type: 'number', exclusiveMinimum: 0, maximum: 1 },
    ['0.1', '0.0001', '1', '1.0'],
    ['0', '0.0', '1.1', '-0.5'],
  ],
  [
    'multipleOf',
    { type: 'integer', multipleOf: 7, minimum: 0, maximum: 30 },
    ['0', '7', '14', '21', '28'],
    ['1', '8', '35'],
  ],
  [
    'multipleOf a power of ten',
    { type: 'number', multipleOf: 0.01, minimum: 0 },
    ['1', '1.5', '1.25', '0.01'],
    ['1.255', '-1'],
  ],
  [
    'safe integers',
    { type: 'integer', minimum: -9007199254740991, maximum: 9007199254740991 },
    ['9007199254740991', '-9007199254740991'],
    ['9007199254740992', '-9007199254740992'],
  ],
  [
    'pattern',
    { type: 'string', pattern: '^[A-Z]{2}-\\d{3,4}$' },
    ['"AB-123"', '"AB-1234"'],
    ['"AB-12"', '"ab-123"', '"AB-12345"', '"xAB-123"'],
  ],
  ['pattern anywhere', { type: 'string', pattern: 'b+c?' }, ['"abc"', '"b"', '"xxbyy"'], ['"acd"', '""']],
  [
    'pattern alternatives with own anchors',
    { type: 'string', pattern: '^a|b$' },
    ['"axx"', '"xxb"'],
    ['"xa"', '"bx"'],
  ],
  [
    'pattern with what JSON escapes',
    { type: 'string', pattern: '^"\\\\\\n[\\t"]$' },
    ['"\\"\\\\\\n\\t"', '"\\"\\\\\\n\\""'],
    ['"\\"\\\\nx"', '"\\"\\\\\\n\\\\"'],
  ],
  [
    'pattern with a negated class',
    { type: 'string', pattern: '^[^a-y"]+$' },
    ['"z1"', '"\\n"', '"é"'],
    ['"a"', '"\\""', '""'],
  ],
  [
    'date',
    { type: 'string', format: 'date' },
    ['"2024-01-31"', '"1999-12-01"'],
    ['"2024-02-30"', '"2024-13-01"', '"2024-1-1"', '"2024-04-31"'],
  ],
  [
    'date-time',
    { type: 'string', format: 'date-time' },
    ['"2024-01-31T23:59:59Z"', '"2024-01-31T00:00:00.123+02:00"'],
    ['"2024-01-31"', '"2024-01-31T24:00:00Z"'],
  ],
  ['uuid', { type: 'string', format: 'uuid' }, ['"123e4567-e89b-12d3-a456-426614174000"'], ['"123e4567"']],
  [
    'ipv4',
    { type: 'string', format: 'ipv4' },
    ['"127.0.0.1"', '"255.255.255.255"'],
    ['"256.1.1.1"', '"1.1.1"', '"01.1.1.1"'],
  ],
  [
    'ipv6',
    { type: 'string', format: 'ipv6' },
    ['"::1"', '"2001:db8:0:0:0:0:0:1"', '"::"'],
    ['"1:2"', '":::"'],
  ],
  ['email', { type: 'string', format: 'email' }, ['"a.b@example.org"'], ['"a@b"', '"a b@c.de"']],
  [
    'duration',
    { type: 'string', format: 'duration' },
    ['"P1Y"', '"PT5M"', '"P3W"', '"P1DT2H"'],
    ['"P"', '"1Y"', '"PT"'],
  ],
  [
    'object',
    {
      type: 'object',
      properties: { a: { type: 'integer' }, b: { type: 'boolean' } },
      required: ['a', 'b'],
      additionalProperties: false,
    },
    ['{"a":1,"b":true}', '{ "a": 1, "b": false }'],
    ['{"a":1}', '{"b":true,"a":1}', '{"a":1,"b":true,"c":1}', '{}'],
  ],
  [
    'optional properties',
    {
      type: 'object',
      properties: { a: { const: 1 }, b: { const: 2 }, c: { const: 3 } },
      required: ['b'],
      additionalProperties: false,
    },
    ['{"b":2}', '{"a":1,"b":2}', '{"b":2,"c":3}', '{"a":1,"b":2,"c":3}'],
    ['{}', '{"a":1}', '{,"b":2}', '{"a":1,"c":3}', '{"b":2,}'],
  ],
  [
    'additional properties of a kind',
    {
      type: 'object',
      properties: { id: { type: 'integer' } },
      required: ['id'],
      additionalProperties: { type: 'boolean' },
    },
    ['{"id":1}', '{"id":1,"x":true}', '{"id":1,"i":true,"idx":false}'],
    ['{"id":1,"x":1}', '{"id":1,"id":true}', '{"x":true}'],
  ],
  [
    'a map',
    { type: 'object', additionalProperties: { type: 'integer' } },
    ['{}', '{"a":1,"b":2}'],
    ['{"a":"b"}'],
  ],
  [
    'required but undeclared',
    { type: 'object', properties: {}, required: ['z'] },
    ['{"z":1}', '{"z":[{}]}'],
    ['{}'],
  ],
  [
    'array',
    { type: 'array', items: { type: 'integer' }, minItems: 1, maxItems: 3 },
    ['[1]', '[1, 2,3]'],
    ['[]', '[1,2,3,4]', '["a"]', '[1,]'],
  ],
  ['empty array', { type: 'array', maxItems: 0 }, ['[]'], ['[1]']],
  [
    'tuple',
    { type: 'array', prefixItems: [{ type: 'integer' }, { type: 'string' }], items: false, minItems: 1 },
    ['[1]', '[1,"a"]'],
    ['[]', '["a"]', '[1,"a",2]'],
  ],
  [
    'tuple with a tail',
    { type: 'array', prefixItems: [{ type: 'integer' }], items: { type: 'boolean' }, minItems: 2 },
    ['[1,true]', '[1,true,false]'],
    ['[1]', '[true]'],
  ],
  ['anyOf', { anyOf: [{ type: 'integer' }, { type: 'null' }] }, ['3', 'null'], ['"x"']],
  [
    'anyOf with siblings',
    {
      type: 'object',
      properties: { a: { type: 'integer' }, b: { type: 'integer' } },
      additionalProperties: false,
      anyOf: [{ required: ['a'] }, { required: ['b'] }],
    },
    ['{"a":1}', '{"b":1}', '{"a":1,"b":2}'],
    ['{}'],
  ],
  ['type list', { type: ['string', 'null'], maxLength: 1 }, ['"a"', 'null'], ['"ab"', '1']],
  ['oneOf by type', { oneOf: [{ type: 'integer' }, { type: 'string' }] }, ['1', '"a"'], ['true']],
  [
    'oneOf by discriminator',
    {
      oneOf: [
        {
          type: 'object',
          properties: { k: { const: 'a' }, x: { type: 'integer' } },
          required: ['k', 'x'],
          additionalProperties: false,
        },
        { type: 'object', properties: { k: { const: 'b' } }, required: ['k'], additionalProperties: false },
      ],
    },
    ['{"k":"a","x":1}', '{"k":"b"}'],
    ['{"k":"a"}', '{"k":"b","x":1}'],
  ],
  [
    'allOf',
    {
      allOf: [
        { type: 'object', properties: { a: { type: 'integer', minimum: 0 } }, required: ['a'] },
        { properties: { a: { maximum: 9 }, b: { type: 'string' } }, required: ['b'] },
      ],
    },
    ['{"a":5,"b":""}'],
    ['{"a":10,"b":""}', '{"a":5}', '{"b":""}'],
  ],
  [
    '$ref',
    {
      $defs: { n: { type: 'integer' } },
      type: 'object',
      properties: { a: { $ref: '#/$defs/n', description: 'x' } },
      required: ['a'],
    },
    ['{"a":1}'],
    ['{"a":"1"}'],
  ],
  [
    'recursion',
    {
      $defs: {
        tree: {
          type: 'object',
          properties: { v: { type: 'integer' }, kids: { type: 'array', items: { $ref: '#/$defs/tree' } } },
          required: ['v', 'kids'],
          additionalProperties: false,
        },
      },
      $ref: '#/$defs/tree',
    },
    ['{"v":1,"kids":[]}', '{"v":1,"kids":[{"v":2,"kids":[{"v":3,"kids":[]}]}]}'],
    ['{"v":1}', '{"v":1,"kids":[{}]}'],
  ],
  [
    'recursion through #',
    {
      type: 'object',
      properties: { next: { anyOf: [{ $ref: '#' }, { type: 'null' }] } },
      required: ['next'],
      additionalProperties: false,
    },
    ['{"next":null}', '{"next":{"next":null}}'],
    ['{}', '{"next":1}'],
  ],
  [
    'a pattern is enforced, format beside it is an annotation',
    { type: 'string', format: 'email', pattern: '^a+@b$' },
    ['"aa@b"'],
    ['"x@example.org"', '"a@c"'],
  ],
  [
    'names of any kind',
    { type: 'object', propertyNames: { type: 'string' }, additionalProperties: { type: 'integer' } },
    ['{"a":1}'],
    ['{"a":"b"}'],
  ],
  [
    'names that are listed',
    {
      type: 'object',
      propertyNames: { enum: ['a', 'b'] },
      additionalProperties: { type: 'integer' },
      required: ['b'],
    },
    ['{"a":1,"b":2}', '{"b":2}'],
    ['{"a":1}', '{"b":1,"c":1}', '{"b":"x"}'],
  ],
  [
    'names that are listed, beside properties',
    {
      type: 'object',
      properties: { a: { type: 'null' }, z: {} },
      propertyNames: { enum: ['a', 'b'] },
      required: ['b'],
    },
    ['{"a":null,"b":[]}', '{"b":2}'],
    ['{"a":1,"b":1}', '{"b":1,"z":1}'],
  ],
  ['discriminator', { discriminator: { propertyName: 'k' }, type: 'integer' }, ['1'], ['"k"']],
  [
    'one part of allOf that is the schema itself',
    {
      type: 'object',
      properties: { next: { anyOf: [{ allOf: [{ $ref: '#' }], description: 'x' }, { type: 'null' }] } },
      required: ['next'],
      additionalProperties: false,
    },
    ['{"next":null}', '{"next":{"next":null}}'],
    ['{"next":{}}'],
  ],
  [
    'items of one part hold for the prefix of another',
    {
      allOf: [
        { type: 'array', prefixItems: [{ type: 'number' }, {}], minItems: 2 },
        { items: { maximum: 5, type: 'integer' } },
      ],
    },
    ['[1,2]', '[1,2,3]'],
    ['["nn",8454]', '[1,"a"]', '[6,1]', '[1]', '[1,2,6]'],
  ],
  [
    'a prefix is as long as the shortest part that is closed',
    {
      allOf: [
        { type: 'array', prefixItems: [{}], items: false },
        { prefixItems: [{ type: 'integer' }, { type: 'null' }] },
      ],
    },
    ['[]', '[1]'],
    ['["a"]', '[1,null]'],
  ],
  [
    'multipleOf a half',
    { type: 'number', multipleOf: 0.5, minimum: -1 },
    ['0', '-0.5', '1.5', '2', '7.0'],
    ['0.25', '-1.5', '1.4', '1.50'],
  ],
  ['multipleOf 2.5 of integers', { type: 'integer', multipleOf: 2.5 }, ['5', '10', '-15'], ['2.5', '7', '1']],
  [
    'bounds far out',
    { type: 'number', minimum: -1e30, maximum: 1e25 },
    ['1', '-123456.5', '999999999999999999999'],
    ['1e26', '"a"'],
  ],
  ['anything', {}, ['1', '"a"', '[{"a":null}]', 'true'], ['', '{a:1}', 'undefined']],
];

describe('schemaToGrammar', () => {
  test.each(TABLE.map((row) => [...row] as [string, unknown, readonly string[], readonly string[]]))(
    '%s',
    (_, schema, yes, no) => {
      const matches = matcher(schema);
      expect(yes.filter((text) => !matches(text))).toEqual([]);
      expect(no.filter((text) => matches(text))).toEqual([]);
    },
  );

  test('what the table says to accept validates, what is generated validates', () => {
    for (const [name, schema, yes] of TABLE) {
      const validate = newAjv().compile(schema);
      for (const text of yes) expect(validate(JSON.parse(text)), `${name}: ${text}`).toBe(true);
      const grammar = parseGbnf(schemaToGrammar(schema));
      for (let seed = 0; seed < 20; seed += 1) {
        const text = generate(grammar, seededRandom(seed, 0));
        expect(validate(JSON.parse(text)), `${name}: ${text}`).toBe(true);
      }
    }
  });

  test('tuples as draft 7 has them', () => {
    const closed = matcher({
      type: 'array',
      items: [{ type: 'integer' }, { type: 'string' }],
      additionalItems: false,
      minItems: 1,
    });
    expect(['[1]', '[1,"a"]', '[]', '["a"]', '[1,"a",2]'].map(closed)).toEqual([
      true,
      true,
      false,
      false,
      false,
    ]);
    const open = matcher({ items: [{ type: 'integer' }], additionalItems: { type: 'null' } });
    expect(['[]', '[1,null,null]', '[1,1]', '[null]'].map(open)).toEqual([true, true, false, false]);
    const nothing = matcher({ type: 'array', items: [], additionalItems: { type: 'null' } });
    expect(['[]', '[null]', '[1]'].map(nothing)).toEqual([true, true, false]);
    const conjoined = matcher({
      allOf: [
        { type: 'array', items: [{ type: 'number' }], minItems: 1 },
        { items: { maximum: 5, type: 'number' } },
      ],
    });
    expect(['[5]', '[6]', '["a"]', '[1,2]', '[1,"a"]'].map(conjoined)).toEqual([
      true,
      false,
      false,
      true,
      false,
    ]);
    expect(refusal(() => schemaToGrammar({ prefixItems: [{}], items: [{}] }, { param: 's' })).param).toBe(
      's.items',
    );
  });

  test('parts of allOf about elements: what is generated validates against every one', () => {
    const element = fc.constantFrom<unknown>(
      true,
      { type: 'integer' },
      { type: 'number', maximum: 5 },
      { type: ['string', 'number'] },
      { minimum: 2 },
    );
    const part = fc.record(
      {
        prefixItems: fc.array(element, { minLength: 1, maxLength: 3 }),
        items: fc.oneof(element, fc.constant(false)),
        minItems: fc.nat(3),
        maxItems: fc.integer({ min: 2, max: 4 }),
      },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(fc.array(part, { minLength: 1, maxLength: 3 }), (allOf) => {
        const schema = { type: 'array', allOf };
        const text = tried(() => schemaToGrammar(schema));
        if (text === null) return;
        const validate = newAjv().compile(schema);
        for (let seed = 0; seed < 10; seed += 1) {
          const value: unknown = JSON.parse(generate(parseGbnf(text), seededRandom(seed, 0)));
          expect([value, validate(value)]).toEqual([value, true]);
        }
      }),
      { numRuns: 300 },
    );
  });

  test.each([
    ['not', { not: { type: 'string' } }, 'not'],
    ['if', { if: {}, else: {} }, 'if'],
    ['patternProperties', { type: 'object', patternProperties: { a: {} } }, 'patternProperties'],
    ['propertyNames', { type: 'object', propertyNames: { pattern: '^a' } }, 'propertyNames'],
    ['minProperties', { type: 'object', minProperties: 1 }, 'minProperties'],
    ['uniqueItems', { type: 'array', uniqueItems: true }, 'uniqueItems'],
    ['contains', { type: 'array', contains: {} }, 'contains'],
    ['dependentRequired', { type: 'object', dependentRequired: {} }, 'dependentRequired'],
    ['unevaluatedProperties', { type: 'object', unevaluatedProperties: false }, 'unevaluatedProperties'],
    ['contentEncoding', { type: 'string', contentEncoding: 'base64' }, 'contentEncoding'],
    ['an unknown format', { type: 'string', format: 'iri' }, 'format'],
    ['a misspelt keyword', { type: 'string', maxlength: 5 }, 'maxlength'],
    ['deep inside', { type: 'object', properties: { a: { items: { not: {} } } } }, 'properties.a.items.not'],
    ['look-ahead', { type: 'string', pattern: '(?=a)' }, 'pattern'],
    ['back-reference', { type: 'string', pattern: '(a)\\1' }, 'pattern'],
    ['word boundary', { type: 'string', pattern: '\\ba' }, 'pattern'],
    ['unicode property', { type: 'string', pattern: '\\p{L}' }, 'pattern'],
    ['counts that can be cut in many ways', { type: 'string', pattern: '^(x{1,30}y?){1,30}$' }, 'pattern'],
    ['a pattern of many states', { type: 'string', pattern: '^.*a.{20}$' }, 'pattern'],
    [
      'a pattern whose characters all go on differently',
      {
        type: 'string',
        pattern: `^(${Array.from({ length: 200 }, (_, i) => String.fromCodePoint(0x4e00 + i) + 'b'.repeat(i % 9) + i).join('|')})$`,
      },
      'pattern',
    ],
    [
      'several patterns that exclude each other',
      { allOf: [{ pattern: '^a' }, { pattern: '^b' }] },
      'pattern',
    ],
    ['exponential counts', { type: 'string', pattern: '((((a{99}){99}){99}){99})' }, 'pattern'],
    ['type', { type: 'text' }, 'type'],
    ['oneOf that overlaps', { oneOf: [{ type: 'integer' }, { type: 'number' }] }, 'oneOf'],
    ['a far $ref', { $ref: 'https://example.org/schema' }, '$ref'],
    ['a $ref to nothing', { $ref: '#/$defs/x' }, '$ref'],
    [
      'a $ref circle',
      { $defs: { a: { $ref: '#/$defs/b' }, b: { anyOf: [{ $ref: '#/$defs/a' }] } }, $ref: '#/$defs/a' },
      '$ref',
    ],
    ['itself', { $ref: '#' }, '$ref'],
    ['false', { type: 'object', properties: { a: false } }, 'properties.a'],
    ['an empty range', { type: 'integer', minimum: 5, maximum: 4 }, 'minimum'],
    ['an odd step', { type: 'number', multipleOf: 1.00001 }, 'multipleOf'],
    ['lengths out of order', { type: 'string', minLength: 5, maxLength: 4 }, 'maxLength'],
    ['a huge length', { type: 'string', maxLength: 1e9 }, 'maxLength'],
  ])('refuses %s and names it', (_, schema, where) => {
    const error = refusal(() => schemaToGrammar(schema, { param: 'schema' }));
    expect([error.status, error.code]).toEqual([400, 'invalid_schema']);
    expect(error.param).toMatch(new RegExp(`${where.replace(/[$.]/g, '\\$&')}$`));
  });

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

  test('whatever comes in: a grammar that parses, or the typed refusal', () => {
    const keyword = fc.constantFrom(
      'type',
      'enum',
      'const',
      'properties',
      'required',
      'items',
      'anyOf',
      'allOf',
      'oneOf',
      '$ref',
      'minimum',
      'maxLength',
      'pattern',
      'format',
      'additionalProperties',
      'minItems',
      'prefixItems',
      'x',
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
            fc.constantFrom('string', 'integer', 'object', '#', '#/properties/a', 'date', '^a+$'),
            fc.integer(),
            fc.string(),
          ),
          { maxKeys: 4 },
        ),
      ),
    }));
    fc.assert(
      fc.property(node, (schema) => {
        const text = tried(() => schemaToGrammar(schema));
        expect(text === null || parseGbnf(text).has('root')).toBe(true);
      }),
      { numRuns: 500 },
    );
  });

  test('bounds on numbers agree with arithmetic', () => {
    const value = fc.oneof(
      fc.integer({ min: -2000, max: 2000 }),
      fc.integer({ min: -2_000_000, max: 2_000_000 }).map((n) => n / 1000),
    );
    fc.assert(
      fc.property(
        value,
        value,
        fc.boolean(),
        fc.boolean(),
        fc.boolean(),
        fc.array(value, { minLength: 5, maxLength: 20 }),
        (a, b, integer, low, high, probes) => {
          const [min, max] = [Math.min(a, b), Math.max(a, b)];
          const schema = {
            type: integer ? 'integer' : 'number',
            ...(low ? { exclusiveMinimum: min } : { minimum: min }),
            ...(high ? { exclusiveMaximum: max } : { maximum: max }),
          };
          const inside = (n: number): boolean => (low ? n > min : n >= min) && (high ? n < max : n <= max);
          const matches = tried(() => matcher(schema));
          if (matches === null) {
            // Refused as empty: then no integer fits, the only numbers that could be missed.
            for (let n = Math.ceil(min); n <= max; n += 1) if (inside(n)) throw new Error(`${n} fits`);
            return;
          }
          for (const probe of [...probes, min, max, 0, Math.trunc(min), Math.trunc(max)]) {
            const fits = inside(probe) && (!integer || Number.isInteger(probe));
            // "-0" is never written, and JSON text of a probe has no exponent at these sizes.
            expect([probe, matches(String(probe === 0 ? 0 : probe))]).toEqual([probe, fits]);
          }
        },
      ),
      { numRuns: 150 },
    );
  });

  test('steps agree with arithmetic on whole numbers', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 1000 }),
        fc.nat(3),
        fc.boolean(),
        fc.integer({ min: -3000, max: 0 }),
        fc.integer({ min: 0, max: 3000 }),
        fc.array(fc.oneof(fc.integer({ min: -4000, max: 4000 }), fc.integer({ min: -4, max: 4 })), {
          maxLength: 30,
        }),
        (step, decimals, integer, low, high, probes) => {
          const scale = 10 ** decimals;
          const schema = {
            type: integer ? 'integer' : 'number',
            multipleOf: step / scale,
            minimum: low / scale,
            maximum: high / scale,
          };
          const matches = matcher(schema);
          for (const n of [...probes, ...probes.map((each) => each * step), 0]) {
            const fits = n % step === 0 && n >= low && n <= high && (!integer || n % scale === 0);
            expect([schema, n / scale, matches(String(n === 0 ? 0 : n / scale))]).toEqual([
              schema,
              n / scale,
              fits,
            ]);
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  test('patterns agree with the regular expressions of JavaScript', () => {
    const patterns = [
      '^a{2,4}b*$',
      'x(yz|w)+',
      '^[\\w.-]+@\\w+\\.(com|org)$',
      '^\\S+ \\D$',
      '^(?:ab?c){0,2}$',
      '\\d\\d',
      '^[^\\s,;]*$',
      '^\\u0041[\\x42-D]$',
      '^.{3}$',
      '^$',
      '^\\/\\*$',
      '^{a}$',
    ];
    fc.assert(
      fc.property(
        fc.constantFrom(...patterns),
        fc.string({ unit: fc.constantFrom(...Array.from('abcxyzwABCD0129@. ,;_-\n"\\/*{}')), maxLength: 9 }),
        (pattern, text) => {
          expect(matcher({ type: 'string', pattern })(JSON.stringify(text))).toBe(
            new RegExp(pattern, 'u'.slice(1)).test(text),
          );
        },
      ),
      { numRuns: 2000 },
    );
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
function times<T>(n: number, make: (i: number) => T): T[] {
  return Array.from({ length: n }, (_, i) => make(i));
}
function members<T>(n: number, make: (i: number) => readonly [string, T]): Record<string, T> {
  return Object.fromEntries(times(n, make));
}
function closed(properties: object): object {
  return {
    type: 'object',
    properties,
    required: Object.keys(properties),
    additionalProperties: false,
  };
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

  describe('alternatives that begin alike, of which llama.cpp keeps a stack each', () => {
    type Make = (branches: number, levels: number) => object;
    /** Levels of objects in objects; `branch` is one of the alternatives of a level. */
    const nested =
      (branch: (i: number, inner: object) => object): Make =>
      (branches, levels) => ({
        $defs: members(levels, (l) => [
          `l${l}`,
          {
            anyOf: times(branches, (i) =>
              branch(i, l + 1 < levels ? { $ref: `#/$defs/l${l + 1}` } : { type: 'string' }),
            ),
          },
        ]),
        $ref: '#/$defs/l0',
      });
    const late = nested((i, inner) => closed({ a: inner, z: { const: i } }));
    const early = nested((i, inner) => closed({ z: { const: i }, a: inner }));
    const named = nested((i, inner) => closed({ [`a${i}`]: inner }));
    const optional = nested((i, inner) => ({
      properties: { a: inner, [`z${i}`]: {} },
      additionalProperties: false,
      type: 'object',
    }));
    const recursive = (first: object): object => ({
      anyOf: [
        closed({ ...first, l: { $ref: '#' }, r: { $ref: '#' }, t: { const: 1 } }),
        closed({ l: { $ref: '#' }, t: { const: 2 } }),
        { type: 'null' },
      ],
    });
    const arrays = (levels: number, maxItems: number): object =>
      times(levels, () => 0).reduce<object>((items) => ({ type: 'array', items, maxItems }), {
        type: 'null',
      });
    const most = (schema: unknown): number => {
      const grammar = parseGbnf(schemaToGrammar(schema));
      let found = 0;
      for (let seed = 0; seed < 8; seed += 1)
        accepts(grammar, generate(grammar, seededRandom(seed, 0)), (open) => (found = Math.max(found, open)));
      return found;
    };

    test.each<[string, unknown]>([
      ['on every level, told apart at the end', late(10, 4)],
      ['with optional properties', optional(4, 7)],
      ['in themselves, without end', recursive({})],
      [
        'lists of values in many branches',
        { anyOf: times(3, (i) => closed({ a: { enum: times(1000, (j) => `${i}-${j}`) }, z: { const: i } })) },
      ],
      ['arrays in arrays that can be cut in several ways', arrays(9, 150)],
    ])('too many are refused: %s', (_, schema) => {
      expect(refusal(() => schemaToGrammar(schema)).message).toContain('begin alike');
      const tool = { name: 'x', parameters: { type: 'object', properties: { a: schema }, required: ['a'] } };
      if (!JSON.stringify(schema).includes('$ref'))
        expect(refusal(() => toolCallGrammar([tool], 'auto', true, GENERIC_TOOL_FORMAT)).param).toBe(
          'tools[0].function.parameters',
        );
    });

    test.each<[string, unknown]>([
      ['some', late(10, 3)],
      ['some optional', optional(4, 3)],
      ['many, told apart at the beginning', early(10, 8)],
      ['many, told apart by name', named(10, 8)],
      [
        'a tree of tagged nodes',
        {
          anyOf: [
            closed({ op: { enum: ['+', '-'] }, l: { $ref: '#' }, r: { $ref: '#' } }),
            closed({ op: { const: '!' }, l: { $ref: '#' } }),
            { type: 'number' },
          ],
        },
      ],
      ['a list', closed({ v: {}, next: { anyOf: [{ $ref: '#' }, { type: 'null' }] } })],
      ['an enum of its greatest length', closed({ a: { enum: times(1000, (i) => `v${i}`) } })],
      ['arrays in arrays', arrays(20, 100)],
      ['a host’s name', { type: 'string', pattern: '^([a-z0-9]{1,63}\\.)+[a-z]{2,63}$' }],
      [
        'every format',
        closed(members(3, (i) => [`f${i}`, { type: 'string', format: ['email', 'ipv6', 'duration'][i] }])),
      ],
      [
        'a thousand optional properties',
        {
          type: 'object',
          properties: members(1000, (i) => [`p${i}`, { type: 'null' }]),
          additionalProperties: false,
        },
      ],
    ])('what is kept open stays small: %s', (_, schema) => {
      expect(most(schema)).toBeLessThan(2 * 2500);
    });
  });

  test('the same value twice in an enum is one alternative', () => {
    expect(schemaToGrammar({ enum: times(1000, () => 'a'.repeat(300)) }).length).toBeLessThan(2000);
  });
});

describe('other grammars', () => {
  test('any JSON object', () => {
    const grammar = parseGbnf(jsonObjectGrammar());
    for (const text of ['{}', '{"a":[1,{"b":null}]}']) expect(accepts(grammar, text)).toBe(true);
    for (const text of ['[]', '1', '{"a"}', '{a:1}', '']) expect(accepts(grammar, text)).toBe(false);
    fc.assert(
      fc.property(
        fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 3 }), { maxKeys: 4 }),
        (value) =>
          accepts(grammar, JSON.stringify(value).replaceAll('-0', '0')) ||
          /e[+-]?\d{3}|\d{17}/.test(JSON.stringify(value)),
      ),
    );
    for (let seed = 0; seed < 50; seed += 1)
      expect(() => JSON.parse(generate(grammar, seededRandom(seed, 1)))).not.toThrow();
  });

  const tools = [
    {
      name: 'get_weather',
      parameters: {
        type: 'object',
        properties: { city: { type: 'string' } },
        required: ['city'],
        additionalProperties: false,
      },
    },
    { name: 'now', parameters: { type: 'object', properties: {} } },
  ];

  test('tool calls: required, single and parallel', () => {
    const single = parseGbnf(toolCallGrammar(tools, 'required', false, GENERIC_TOOL_FORMAT).gbnf);
    const parallel = parseGbnf(toolCallGrammar(tools, 'required', true, GENERIC_TOOL_FORMAT).gbnf);
    const call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>';
    const now = '<tool_call>\n{"name":"now","arguments":{}}\n</tool_call>';
    expect(accepts(single, call)).toBe(true);
    expect(accepts(single, `${call}\n${now}`)).toBe(false);
    expect(accepts(parallel, `${call}\n${now}`)).toBe(true);
    expect(accepts(parallel, call.replace('city', 'town'))).toBe(false);
    expect(accepts(parallel, call.replace('get_weather', 'rm'))).toBe(false);
    expect(accepts(parallel, 'Hello')).toBe(false);
    expect(toolCallGrammar(tools, 'required', true, GENERIC_TOOL_FORMAT).triggers).toBeUndefined();
    expect(toolCallGrammar(tools, 'auto', true, GENERIC_TOOL_FORMAT).triggers).toEqual(['<tool_call>']);
  });

  test("tool calls in the models' own formats", () => {
    const mistral = detectToolFormat('{% if tools %}[AVAILABLE_TOOLS]{% endif %}[TOOL_CALLS]');
    expect(
      accepts(
        parseGbnf(toolCallGrammar(tools, 'required', true, mistral).gbnf),
        '[TOOL_CALLS][{"name": "now", "arguments": {}}, {"name": "now", "arguments": {}}]',
      ),
    ).toBe(true);
    const llama = detectToolFormat('{% if tools %}"parameters"{% endif %}<|eot_id|>');
    expect(
      accepts(
        parseGbnf(toolCallGrammar(tools, 'required', false, llama).gbnf),
        '{"name": "get_weather", "parameters": {"city": "x"}}',
      ),
    ).toBe(true);
    expect(detectToolFormat('{% for m in messages %}').kind).toBe('generic');
    expect(detectToolFormat('{{ tools }} <tool_call>').kind).toBe('hermes');
  });

  test('a tool whose schema is not supported is named', () => {
    const error = refusal(() =>
      toolCallGrammar(
        [...tools, { name: 'x', parameters: { type: 'object', properties: { a: { not: {} } } } }],
        'auto',
        true,
        GENERIC_TOOL_FORMAT,
      ),
    );
    expect(error.param).toBe('tools[2].function.parameters.properties.a.not');
  });
});
