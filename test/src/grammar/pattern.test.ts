// Patterns as grammars: the same language as the RegExp, one reading at a time; and what zod 4 and the
// OpenAI SDK's helpers write for their string formats, records and tuples compiles, and what is generated
// from it is what zod parses.

import * as fc from 'fast-check';
import { zodFunction, zodResponseFormat } from 'openai/helpers/zod';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { ApiError } from '../../../src/base/errors.ts';
import { schemaToGrammar, toolCallGrammar } from '../../../src/grammar/compile.ts';
import { seededRandom } from '../../../src/engine/child/decode/sampler.ts';
import { GENERIC_TOOL_FORMAT } from '../../../src/engine/seam/tool-format.ts';
import { accepts, generate, parseGbnf } from '../../fixtures/grammar/gbnf.ts';

function schemaOf(type: z.ZodType): unknown {
  return zodResponseFormat(z.object({ v: type }), 'x').json_schema.schema;
}

describe('what the helpers of the OpenAI SDK make of zod', () => {
  interface Tree {
    readonly value: number;
    readonly children: readonly Tree[];
  }
  const tree: z.ZodType<Tree> = z.object({
    value: z.number(),
    get children() {
      return z.array(tree);
    },
  });
  const types: Readonly<Record<string, z.ZodType>> = {
    email: z.email(),
    uuid: z.uuid(),
    uuidv4: z.uuidv4(),
    guid: z.guid(),
    datetime: z.iso.datetime(),
    'datetime with an offset': z.iso.datetime({ offset: true }),
    'local datetime': z.iso.datetime({ local: true }),
    date: z.iso.date(),
    time: z.iso.time(),
    duration: z.iso.duration(),
    'email of a length': z.email().min(8).max(40),
    'email of the usual length': z.email().max(254),
    hostname: z.hostname(),
    ipv6: z.string().regex(z.regexes.ipv6),
    'starts and ends': z.string().startsWith('ab').endsWith('ba').max(9),
    ipv4: z.ipv4(),
    cidrv4: z.cidrv4(),
    base64: z.base64(),
    base64url: z.base64url(),
    nanoid: z.nanoid(),
    cuid: z.cuid(),
    cuid2: z.cuid2(),
    ulid: z.ulid(),
    e164: z.e164(),
    lowercase: z.string().lowercase(),
    includes: z.string().includes('needle'),
    regex: z.string().regex(/^[a-z]{2,5}-\d+$/),
    record: z.record(z.string(), z.number()),
    'record of an enum': z.record(z.enum(['a', 'b']), z.boolean()),
    'partial record': z.partialRecord(z.enum(['a', 'b']), z.boolean()),
    tuple: z.tuple([z.string(), z.number()]),
    'tuple with a rest': z.tuple([z.boolean()], z.null()),
    union: z.discriminatedUnion('k', [
      z.object({ k: z.literal('a'), x: z.number() }),
      z.object({ k: z.literal('b'), y: z.boolean() }),
    ]),
    intersection: z.intersection(z.object({ a: z.boolean() }), z.object({ b: z.null() })),
    step: z.number().multipleOf(0.5).min(-10).max(10),
    'a far bound': z.number().max(1e25),
    nullable: z.iso.date().nullable(),
    recursive: tree,
  };

  test.each(Object.entries(types))('%s', (_, type) => {
    const grammar = parseGbnf(schemaToGrammar(schemaOf(type)));
    for (let seed = 0; seed < 30; seed += 1) {
      const { v } = JSON.parse(generate(grammar, seededRandom(seed, 0), 60)) as { v: unknown };
      expect([v, type.safeParse(v).error?.issues ?? []]).toEqual([v, []]);
    }
  });

  test('a tool', () => {
    const { function: tool } = zodFunction({
      name: 'invite',
      parameters: z.object({ who: z.email(), on: z.iso.date() }),
    });
    const { gbnf } = toolCallGrammar(
      [{ name: tool.name, parameters: tool.parameters ?? {} }],
      'required',
      false,
      GENERIC_TOOL_FORMAT,
    );
    const call = (who: string): string =>
      `<tool_call>\n{"name": "invite", "arguments": {"who": "${who}", "on": "2024-02-29"}}\n</tool_call>`;
    expect(accepts(parseGbnf(gbnf), call("o'neil+x@mail.example.org"))).toBe(true);
    expect(accepts(parseGbnf(gbnf), call('nobody'))).toBe(false);
  });
});

describe('a pattern is one reading', () => {
  const grammarOf = (schema: object): ReturnType<typeof parseGbnf> =>
    parseGbnf(schemaToGrammar({ type: 'string', ...schema }));

  // Words over characters that JSON writes plainly, by a short escape, by a long one, and in more than one
  // byte.
  const letter = fc.constantFrom(...Array.from('ab1"\\\n\u0001é€/'));
  const quoted = (c: string): string => {
    if (c === '\n') return '\\n';
    return /[\\/]/.test(c) ? `\\${c}` : c;
  };
  const { pattern } = fc.letrec<{ pattern: string; sequence: string; item: string; atom: string }>((tie) => ({
    pattern: fc.array(tie('sequence'), { minLength: 1, maxLength: 3 }).map((each) => each.join('|')),
    sequence: fc.array(tie('item'), { maxLength: 3 }).map((each) => each.join('')),
    item: fc
      .tuple(
        tie('atom'),
        fc.constantFrom('', '', '', '*', '+', '?', '{2}', '{0,2}', '{1,2}', '{2,}', '*?', '{0}'),
      )
      .map((each) => each.join('')),
    atom: fc.oneof(
      { maxDepth: 2 },
      { weight: 5, arbitrary: letter.map(quoted) },
      {
        weight: 3,
        arbitrary: fc.constantFrom('.', '\\d', '\\W', '\\s', '[ab]', '[^a\\n]', '[\\x00-"1]', '[a-z€]'),
      },
      { weight: 2, arbitrary: fc.oneof(tie('pattern'), tie('pattern')).map((each) => `(${each})`) },
    ),
  }));
  const anchored = fc
    .tuple(fc.constantFrom('^', ''), pattern, fc.constantFrom('$', ''))
    .map((each) => each.join(''));

  test('random patterns: accepted is what the RegExp matches, of the lengths asked for', () => {
    let [matched, not, complex] = [0, 0, 0];
    fc.assert(
      fc.property(
        anchored,
        fc.array(fc.array(letter, { maxLength: 6 }), { maxLength: 12 }),
        fc.record({ minLength: fc.nat(2), maxLength: fc.integer({ min: 2, max: 5 }), bounded: fc.boolean() }),
        (source, words, { minLength, maxLength, bounded }) => {
          const expression = new RegExp(source, 'u');
          let grammar;
          try {
            grammar = grammarOf({ pattern: source, ...(bounded ? { minLength, maxLength } : {}) });
          } catch (error) {
            expect(error).toBeInstanceOf(ApiError);
            if (/too (complex|large)/.test(String(error))) {
              complex += 1;
              return;
            }
            // No word of this length matches: shown on all the words there are.
            for (const word of words)
              if (word.length >= minLength && word.length <= maxLength)
                expect(expression.test(word.join(''))).toBe(false);
            return;
          }
          const fits = (text: string): boolean => {
            const length = Array.from(text).length;
            return expression.test(text) && (!bounded || (length >= minLength && length <= maxLength));
          };
          for (const word of words) {
            const text = word.join('');
            expect([source, text, accepts(grammar, JSON.stringify(text))]).toEqual([
              source,
              text,
              fits(text),
            ]);
            if (fits(text)) matched += 1;
            else not += 1;
          }
          for (let seed = 0; seed < 3; seed += 1) {
            const text: unknown = JSON.parse(generate(grammar, seededRandom(seed, 0), 20));
            expect([source, text, typeof text === 'string' && fits(text)]).toEqual([source, text, true]);
          }
        },
      ),
      { numRuns: 1500 },
    );
    expect(Math.min(matched, not)).toBeGreaterThan(1000);
    expect(complex).toBeLessThan(150);
  });

  /** The most places open at once while the grammar's own texts and `more` are read. */
  const most = (schema: object, more: readonly string[] = []): number => {
    const grammar = grammarOf(schema);
    let found = 0;
    for (const text of [
      ...more.map((each) => JSON.stringify(each)),
      ...Array.from({ length: 6 }, (_, seed) => generate(grammar, seededRandom(seed, 0), 50)),
    ])
      accepts(grammar, text, (open) => (found = Math.max(found, open)));
    return found;
  };
  const letters = Array.from({ length: 600 }, (_, i) => String.fromCodePoint(0x4e00 + i));

  test.each<[string, string, readonly string[]]>([
    ['single characters as alternatives', `^(${letters.join('|')})+$`, [letters.join('')]],
    ['one optional character after another', `^${'a?'.repeat(900)}$`, ['a'.repeat(900)]],
    ['repetitions next to each other', '^a*b?a*b?a*b?a*b?a*$', ['a'.repeat(50)]],
    ['repetitions in repetitions', '^((a|b)*c?)*(a|ab)+$', ['ab'.repeat(30)]],
    [
      'words that begin alike',
      `^(${Array.from({ length: 200 }, (_, i) => `word${i}`).join('|')})$`,
      ['word199'],
    ],
    ['somewhere in any text', 'needle|need|ned', ['xxneedxx', 'nednedneedle']],
  ])('%s', (_, source, texts) => {
    expect(
      texts.every(
        (text) =>
          new RegExp(source).test(text) && accepts(grammarOf({ pattern: source }), JSON.stringify(text)),
      ),
    ).toBe(true);
    expect(most({ pattern: source }, texts)).toBeLessThan(14);
  });

  test('what no small automaton reads is refused, whatever its length', () => {
    for (const source of [
      '^(a|b)*a(a|b){12}$',
      '^(x{1,30}y?){1,30}$',
      `^(${letters
        .slice(0, 300)
        .map((each, i) => each + i)
        .join('|')})$`,
    ]) {
      expect(() => schemaToGrammar({ type: 'string', pattern: source })).toThrow('too complex');
    }
  });
});

describe('a choice of words is one reading', () => {
  const open = (schema: object, texts: readonly string[]): number => {
    const grammar = parseGbnf(schemaToGrammar(schema));
    let found = 0;
    for (const text of texts)
      expect([text, accepts(grammar, text, (readings) => (found = Math.max(found, readings)))]).toEqual([
        text,
        true,
      ]);
    return found;
  };

  test('the values of an enum, and optional names', () => {
    const values = Array.from({ length: 1000 }, (_, i) => `value ${i}`);
    expect(open({ enum: values }, ['"value 0"', '"value 10"', '"value 999"'])).toBeLessThan(13);
    expect(
      open({ anyOf: values.map((value) => ({ const: value })) }, ['"value 0"', '"value 999"']),
    ).toBeLessThan(13);
    const properties = Object.fromEntries(Array.from({ length: 500 }, (_, i) => [`p${i}`, { type: 'null' }]));
    const texts = ['{}', '{"p0":null}', '{"p7":null,"p77":null,"p499":null}'];
    expect(open({ type: 'object', properties, additionalProperties: false }, texts)).toBeLessThan(16);
  });

  test('too many that go on differently are refused', () => {
    const names = Array.from({ length: 300 }, (_, i) => `${String.fromCodePoint(0x4e00 + i)}${i}`);
    for (const schema of [
      { enum: names },
      { type: 'object', properties: Object.fromEntries(names.map((name) => [name, true])) },
    ])
      expect(() => schemaToGrammar(schema)).toThrow(/too many choices|too large/);
  });

  test('random objects: accepted is what has the properties in their order', () => {
    const name = fc.stringMatching(/^[ab"\\\n:é]{0,3}$/);
    const schemas = fc
      .uniqueArray(name, { maxLength: 6 })
      .chain((names) => fc.tuple(fc.constant(names), fc.subarray(names), fc.boolean()));
    fc.assert(
      fc.property(
        schemas,
        fc.array(fc.infiniteStream(fc.boolean()), { maxLength: 6 }),
        ([names, required, more], picks) => {
          const properties = Object.fromEntries(names.map((each) => [each, { type: 'null' }]));
          const grammar = parseGbnf(
            schemaToGrammar({
              type: 'object',
              properties,
              required,
              additionalProperties: more ? { type: 'boolean' } : false,
            }),
          );
          for (const pick of picks) {
            const chosen = Object.keys(properties).filter(() => pick.next().value);
            const text = JSON.stringify(Object.fromEntries(chosen.map((each) => [each, null])));
            expect([text, accepts(grammar, text)]).toEqual([
              text,
              required.every((each) => chosen.includes(each)),
            ]);
          }
          for (let seed = 0; seed < 3; seed += 1) {
            const value = JSON.parse(generate(grammar, seededRandom(seed, 0), 30)) as Record<string, unknown>;
            expect(required.every((each) => Object.hasOwn(value, each))).toBe(true);
            for (const [key, each] of Object.entries(value))
              expect(names.includes(key) ? each : typeof each).toBe(names.includes(key) ? null : 'boolean');
            if (!more) expect(Object.keys(value).every((key) => names.includes(key))).toBe(true);
          }
        },
      ),
      { numRuns: 500 },
    );
  });

  test('random enums: their values and no others', () => {
    const value = fc.oneof(
      fc.stringMatching(/^[ab"é]{0,3}$/),
      fc.integer({ min: -120, max: 120 }),
      fc.constantFrom(null, true, [], {}, [1], { a: 1 }, 1.5),
    );
    fc.assert(
      fc.property(
        fc.array(value, { minLength: 1, maxLength: 12 }),
        fc.array(value, { maxLength: 12 }),
        (values, probes) => {
          const grammar = parseGbnf(schemaToGrammar({ enum: values }));
          const texts = new Set(values.map((each) => JSON.stringify(each)));
          for (const text of [...texts, ...probes.map((each) => JSON.stringify(each))])
            expect([text, accepts(grammar, text)]).toEqual([text, texts.has(text)]);
        },
      ),
      { numRuns: 500 },
    );
  });
});
