// Arguments in the notations of formats whose arguments are not one JSON object. Grammar and reader agree:
// text of the grammar is read as arguments that validate (ajv is the oracle), and arguments as the format
// writes them are taken by the grammar and read as they were.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createToolReader } from '../../../../src/api/chat/calls/reader.ts';
import { seededRandom } from '../../../../src/engine/child/decode/sampler.ts';
import { TAGGED_FAMILIES } from '../../../../src/engine/child/template/calls/tagged-families.ts';
import { wholeCalls } from '../../../../src/engine/child/template/calls/written.ts';
import type { ToolFormat } from '../../../../src/engine/seam/tool-format.ts';
import { toolCallGrammar } from '../../../../src/grammar/compile.ts';
import { readAnswer, splitText } from '../../../fixtures/engine/tool-formats.ts';
import { accepts, generate, parseGbnf, type Gbnf } from '../../../fixtures/grammar/gbnf.ts';
import { newAjv, tried } from '../../../fixtures/grammar/oracle.ts';
import { closed } from '../../../fixtures/grammar/schemas.ts';

const formats = TAGGED_FAMILIES.map(({ format }): [string, ToolFormat] => [format.kind, format]);

const scalar = fc.constantFrom<object>(
  { type: 'string' },
  { type: 'string', maxLength: 3 },
  { type: 'string', minLength: 2, maxLength: 400 },
  { type: 'string', pattern: '^[<a-c/]{1,4}$' },
  { type: 'string', format: 'date' },
  { enum: ['a', 'b</parameter>', 'null', '5', ''] },
  { enum: ['x', 5, null, true] },
  { type: 'integer' },
  { type: 'number', minimum: 10 },
  { type: 'boolean' },
  { type: ['string', 'null'] },
  { type: ['string', 'integer'] },
  { anyOf: [{ type: 'string' }, { type: 'number', minimum: 10 }] },
  { anyOf: [{ type: 'string', maxLength: 6 }, { type: 'null' }] },
  { anyOf: [{ const: 'auto' }, { type: 'integer', maximum: 9 }, { type: 'boolean' }] },
  {},
);
const nested = fc.oneof(
  { weight: 3, arbitrary: scalar },
  scalar.map((items) => ({ type: 'array', items, maxItems: 2 })),
  fc.tuple(scalar, scalar).map(([a, b]) => ({ ...closed({ a, b }), required: ['b'] })),
  scalar.map((inner) => ({ anyOf: [{ type: 'string' }, closed({ inner })] })),
  scalar.map((inner) => ({ type: 'array', items: closed({ inner }), minItems: 1, maxItems: 2 })),
  fc.constant({ type: 'object' }),
  fc.constant({ type: 'array' }),
);
/** Names that some notations cannot write such that they are read as they were. */
const UNUSUAL_NAMES = ['', ' a ', 'a:b', 'a=b', 'a,b', 'f(a)', '"a"', 'a>b', '<a>', '/a', 'a]', '<|"|>'];
const schemas = fc
  .dictionary(fc.constantFrom('city', 'n', 'some_key', 'x-y', 'a b', 'é', ...UNUSUAL_NAMES), nested, {
    maxKeys: 4,
  })
  .chain((properties) =>
    fc.subarray(Object.keys(properties)).map((required) => ({
      type: 'object',
      properties,
      required,
      additionalProperties: false,
    })),
  );

const RICH = {
  type: 'object',
  properties: {
    text: { type: 'string' },
    count: { type: 'integer' },
    flag: { type: 'boolean' },
    list: { type: 'array', items: { type: 'string' } },
    options: {
      type: 'object',
      properties: { deep: { type: 'string' }, none: { type: 'null' } },
      required: ['deep'],
      additionalProperties: false,
    },
  },
  required: ['text'],
  additionalProperties: false,
};
/** Text with the marks of formats, whole and begun, in it. */
const marked = fc
  .array(
    fc.oneof(
      fc.string({ unit: 'binary', maxLength: 5 }).filter((text) => !/[\0\u007f]/.test(text)),
      fc.constantFrom(
        '\n',
        '"',
        "'",
        '\\',
        '<',
        '</',
        '\n</par',
        '</parameter',
        '</arg_valu',
        ']<]mini',
        '<|"',
        '<|close|>',
      ),
      fc.constantFrom(
        '<tool_call>',
        '</parameter>',
        '</function>',
        '{"a": 1}',
        '5',
        ']]>',
        '😀',
        '&',
        ')]',
        '<|"|>',
      ),
    ),
    { maxLength: 6 },
  )
  .map((parts) => parts.join(''));
const richArguments = fc.record(
  {
    text: marked,
    count: fc.integer(),
    flag: fc.boolean(),
    list: fc.array(marked, { minLength: 1, maxLength: 3 }),
    options: fc.record({ deep: marked, none: fc.constant(null) }, { requiredKeys: ['deep'] }),
  },
  { requiredKeys: ['text'] },
);

function grammarOf(format: ToolFormat, parameters: unknown): Gbnf {
  return parseGbnf(toolCallGrammar([{ name: 'f', parameters }], 'required', false, format).gbnf);
}

function read(format: ToolFormat, parameters: unknown, pieces: readonly string[]): unknown[] {
  const { calls } = readAnswer(createToolReader(format, [{ name: 'f', parameters }]), pieces);
  return calls.map((call) => JSON.parse(call.arguments) as unknown);
}

describe.each(formats)('%s', (_, format) => {
  test('text of the grammar is read as arguments that validate', () => {
    fc.assert(
      fc.property(schemas, fc.nat(1000), (schema, seed) => {
        const grammar = tried(() => grammarOf(format, schema));
        if (grammar === null) return;
        const validate = newAjv().compile(schema);
        for (let i = 0; i < 4; i += 1) {
          const text = generate(grammar, seededRandom(seed, i), 120);
          const values = read(format, schema, [text]);
          expect([text, values.length, values, validate(values[0])]).toEqual([text, 1, values, true]);
        }
      }),
      { numRuns: 30 },
    );
  });

  test('arguments as it writes them are taken, and read as they were in any pieces', () => {
    const grammar = grammarOf(format, RICH);
    fc.assert(
      fc.property(richArguments, fc.array(fc.nat(500), { maxLength: 12 }), (given, cuts) => {
        const text = wholeCalls(format, [{ id: '', name: 'f', arguments: JSON.stringify(given) }]);
        fc.pre(!unwritable(format, given));
        expect([text, accepts(grammar, text)]).toEqual([text, true]);
        expect(read(format, RICH, splitText(text, cuts))).toEqual([given]);
      }),
      { numRuns: 150 },
    );
  });

  test.each(UNUSUAL_NAMES)('a required name that it cannot write is refused: %j', (name) => {
    const parameters = { ...closed({ city: { type: 'string' }, [name]: { type: 'integer' } }) };
    const text = wholeCalls(format, [
      { id: '', name: 'f', arguments: JSON.stringify({ city: 'Rome', [name]: 5 }) },
    ]);
    const isRead = (): boolean =>
      JSON.stringify(tried(() => read(format, parameters, [text]))) ===
      JSON.stringify([{ city: 'Rome', [name]: 5 }]);
    const grammar = tried(() => grammarOf(format, parameters));
    expect([text, grammar === null || (accepts(grammar, text) && isRead())]).toEqual([text, true]);
    if (grammar !== null) return;
    const loose = { name: 'f', parameters, strict: false };
    const given = generate(
      parseGbnf(toolCallGrammar([loose], 'required', false, format).gbnf),
      seededRandom(1, 1),
      120,
    );
    expect(read(format, parameters, [given])).toEqual([{ city: expect.any(String) as string }]);
  });

  test('no argument twice, and none that is required left out', () => {
    const grammar = grammarOf(format, RICH);
    const text = (given: object): string =>
      wholeCalls(format, [{ id: '', name: 'f', arguments: JSON.stringify(given) }]);
    const whole = { text: 'a', count: 1, flag: true, list: ['b'], options: { deep: 'c' } };
    expect(accepts(grammar, text(whole))).toBe(true);
    expect(accepts(grammar, text({ count: 1, text: 'a' }))).toBe(true);
    expect(accepts(grammar, text({ count: 1, flag: true }))).toBe(false);
    expect(accepts(grammar, text({ text: 'a', town: 'b' }))).toBe(false);
    const one = text({ text: 'a' });
    const twice = text({ text: 'a', TEXT: 'b' }).replaceAll('TEXT', 'text');
    expect(accepts(grammar, one)).toBe(true);
    expect(accepts(grammar, twice)).toBe(false);
  });
});

/** A text that the notation cannot write: with the end of strings in it. */
function unwritable({ syntax }: ToolFormat, given: unknown): boolean {
  const text = JSON.stringify(given);
  if (syntax.kind === 'tagged')
    return text.includes(JSON.stringify(syntax.parameterEnd.trimEnd()).slice(1, -1));
  if (syntax.kind === 'elements') return text.includes(syntax.mark);
  return (
    syntax.kind === 'literal' &&
    syntax.form.kind === 'bare' &&
    text.includes(JSON.stringify(syntax.form.quote).slice(1, -1))
  );
}

describe('text that two types lay claim to', () => {
  const qwen = TAGGED_FAMILIES.find(({ format }) => format.kind === 'qwen3-coder')?.format;
  const rows: readonly [unknown, readonly [text: string, value: unknown][], readonly string[]][] = [
    [
      { type: 'string' },
      [
        ['5', '5'],
        ['null', 'null'],
        ['{"a":1}', '{"a":1}'],
        ['', ''],
        [' x\n', ' x\n'],
      ],
      [],
    ],
    [
      { type: ['string', 'null'] },
      [
        ['null', null],
        ['5', '5'],
        ['nullable', 'nullable'],
      ],
      [],
    ],
    [
      { anyOf: [{ type: 'string' }, { type: 'number', minimum: 10 }] },
      [
        ['12', 12],
        ['five', 'five'],
        ['true', 'true'],
      ],
      ['5', ' 5'],
    ],
    [
      { anyOf: [{ type: 'string' }, { type: 'number' }] },
      [
        ['5', 5],
        ['5 a', '5 a'],
      ],
      [],
    ],
    [{ type: ['string', 'integer'] }, [['5', 5]], ['5.5']],
    [
      { enum: ['5', 6, 'a'] },
      [
        ['6', 6],
        ['a', 'a'],
      ],
      ['5', 'b'],
    ],
    [{ type: 'integer' }, [['5', 5]], ['five', '"5"']],
    [
      { type: 'boolean' },
      [
        ['true', true],
        ['True', true],
      ],
      ['TRUE'],
    ],
    [
      {},
      [
        ['5', 5],
        ['{"a":1}', { a: 1 }],
        ['{a}', '{a}'],
        ['x', 'x'],
      ],
      [],
    ],
    [
      { anyOf: [{ type: 'string' }, { type: 'object', properties: { a: { type: 'integer' } } }] },
      [
        ['{"a":1}', { a: 1 }],
        ['a', 'a'],
      ],
      ['{"a":"x"}', '{x'],
    ],
  ];

  test.each(rows)('%j', (schema, taken, refused) => {
    if (qwen === undefined) throw new Error('no format');
    const parameters = closed({ v: schema });
    const grammar = grammarOf(qwen, parameters);
    const text = (value: string): string =>
      `<tool_call>\n<function=f>\n<parameter=v>\n${value}\n</parameter>\n</function>\n</tool_call>`;
    for (const [written, v] of taken) {
      expect([written, accepts(grammar, text(written))]).toEqual([written, true]);
      expect(read(qwen, parameters, [text(written)])).toEqual([{ v }]);
    }
    for (const written of refused)
      expect([written, accepts(grammar, text(written))]).toEqual([written, false]);
  });
});

test('no end of a string may overlap with itself: the first one ends it', () => {
  for (const [kind, { syntax }] of formats) {
    const ends =
      syntax.kind === 'tagged'
        ? [syntax.parameterEnd.trimEnd()]
        : [syntax.kind === 'elements' ? `${syntax.mark}</x>` : '<|"|>'];
    for (const end of ends)
      for (let length = 1; length < end.length; length += 1)
        expect([kind, end.endsWith(end.slice(0, length))]).toEqual([kind, false]);
  }
});
