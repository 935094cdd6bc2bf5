// JSON Schema → GBNF: what it accepts and refuses, shown with a GBNF reader of the tests' own.

import { describe, expect, test } from 'vitest';
import { schemaToGrammar } from '../../../src/grammar/compile.ts';
import { seededRandom } from '../../../src/engine/child/decode/sampler.ts';
import { generate, parseGbnf } from '../../fixtures/grammar/gbnf.ts';
import { matcher, newAjv } from '../../fixtures/grammar/oracle.ts';
import { refusal } from '../../fixtures/refusal.ts';
import { TABLE } from '../../fixtures/grammar/table.ts';

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
});
