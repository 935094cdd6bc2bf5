// Alternatives that begin alike, of which llama.cpp keeps a stack each.

import { describe, expect, test } from 'vitest';
import { schemaToGrammar, toolCallGrammar } from '../../../src/grammar/compile.ts';
import { seededRandom } from '../../../src/engine/child/decode/sampler.ts';
import { GENERIC_TOOL_FORMAT } from '../../../src/engine/seam/tool-format.ts';
import { accepts, generate, parseGbnf } from '../../fixtures/grammar/gbnf.ts';
import { refusal } from '../../fixtures/refusal.ts';
import { closed, members, times } from '../../fixtures/grammar/schemas.ts';

describe('a schema of a request holds nothing up', () => {
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
});
