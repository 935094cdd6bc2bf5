// JSON Schema → GBNF: generated text validates (ajv is the oracle), no unsupported keyword passes, arithmetic
// is right.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { schemaToGrammar } from '../../../src/grammar/compile.ts';
import { seededRandom } from '../../../src/engine/child/decode/sampler.ts';
import { generate, parseGbnf } from '../../fixtures/grammar/gbnf.ts';
import { matcher, newAjv, tried } from '../../fixtures/grammar/oracle.ts';

describe('schemaToGrammar', () => {
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
        fc.record({ a: value, b: value, integer: fc.boolean(), low: fc.boolean(), high: fc.boolean() }),
        fc.array(value, { minLength: 5, maxLength: 20 }),
        ({ a, b, integer, low, high }, probes) => {
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
        fc.record({
          step: fc.integer({ min: 1, max: 1000 }),
          decimals: fc.nat(3),
          integer: fc.boolean(),
          low: fc.integer({ min: -3000, max: 0 }),
          high: fc.integer({ min: 0, max: 3000 }),
        }),
        fc.array(fc.oneof(fc.integer({ min: -4000, max: 4000 }), fc.integer({ min: -4, max: 4 })), {
          maxLength: 30,
        }),
        ({ step, decimals, integer, low, high }, probes) => {
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
