// Constraints on real models: schemas, tool calls and JSON mode hold at every temperature; bad grammars are
// refused.

import { describe, expect, test } from 'vitest';
import { jsonObjectGrammar, schemaToGrammar, toolCallGrammar } from '../../../src/grammar/compile.ts';
import { GREEDY, run } from '../../fixtures/engine/demo-engine.ts';
import { apiRefusal as refusal } from '../../fixtures/refusal.ts';
import { SAMPLED, useEngines } from '../../fixtures/engine/opened-engines.ts';

const fixture = useEngines();

describe('constraints', () => {
  test.each([0, 1])(
    'bans that leave no token for a schema are a refusal, never half an answer: temperature %d',
    async (temperature) => {
      const gbnf = schemaToGrammar({ const: 'abc' });
      const prompt = { kind: 'chat', messages: [{ role: 'user', content: 'Say it.' }] } as const;
      const { vocabSize } = fixture.chat.info;
      const pieces = await fixture.chat.pieces(Array.from({ length: vocabSize }, (_, token) => token));
      const texts = pieces.map((piece) => Buffer.from(piece).toString());
      const ban = (holds: (text: string) => boolean) =>
        new Map(texts.flatMap((text, token): [number, number][] => (holds(text) ? [[token, -100]] : [])));
      const asked = (logitBias: Map<number, number>) =>
        run(fixture.chat, {
          prompt,
          grammar: { gbnf },
          maxTokens: 40,
          sampling: { ...GREEDY, temperature, logitBias },
        });

      // At its very beginning, and after some of it was written.
      for (const holds of [(text: string) => text.includes('"'), (text: string) => text.includes('b')]) {
        const error = await refusal(asked(ban(holds)));
        expect([error.status, error.code, error.param]).toEqual([400, 'invalid_value', 'logit_bias']);
      }
      // A grammar that is complete ends, even if the token that would say so is banned.
      const ends = fixture.chat.info.eosToken === null ? [] : [[fixture.chat.info.eosToken, -100] as const];
      const whole = await asked(new Map([...ban((text) => text.includes('|')), ...ends]));
      expect([whole.text, whole.finish]).toEqual(['"abc"', 'stop']);
      // The engine goes on for everybody else.
      expect((await run(fixture.chat, { prompt, maxTokens: 3 })).events.at(-1)).toMatchObject({
        kind: 'finish',
      });
    },
  );

  const schema = {
    type: 'object',
    properties: {
      a: { type: 'integer', minimum: 3, maximum: 42 },
      b: { enum: ['x', 'y'] },
      c: { type: 'string', pattern: '^[A-C]{3,5}$' },
    },
    required: ['a', 'b', 'c'],
    additionalProperties: false,
  };

  test.each([0, 1])('a schema holds at temperature %i', async (temperature) => {
    for (let seed = 0; seed < 5; seed += 1) {
      const { text, finish } = await run(fixture.context, {
        maxTokens: 200,
        sampling: { ...GREEDY, temperature, seed },
        grammar: { gbnf: schemaToGrammar(schema) },
      });
      expect(finish).toBe('stop');
      expect(text).toMatch(/^\{ ?"a": ?([3-9]|[123]\d|4[0-2]), ?"b": ?"[xy]", ?"c": ?"[A-C]{3,5}" ?\}$/);
      expect(Object.keys(JSON.parse(text))).toEqual(['a', 'b', 'c']);
    }
  });

  test('every kind of grammar we write is one that llama.cpp reads', async () => {
    const schemas = [
      { type: 'string', maxLength: 5000 },
      { type: 'string', minLength: 3000 },
      { type: 'array', items: { type: 'integer' }, minItems: 150, maxItems: 900 },
      { type: 'string', format: 'date-time' },
      { type: 'string', format: 'ipv6' },
      { type: 'number', minimum: -1.5, maximum: 1e15 },
      { type: 'integer', multipleOf: 60, minimum: -5 },
      { type: 'object', properties: { 'odd "key"\n\\é😀': {} }, additionalProperties: { type: 'null' } },
      {
        $defs: { t: { type: 'object', properties: { k: { type: 'array', items: { $ref: '#/$defs/t' } } } } },
        $ref: '#/$defs/t',
      },
      {},
    ];
    for (const each of schemas) {
      const { events } = await run(fixture.context, {
        maxTokens: 3,
        grammar: { gbnf: schemaToGrammar(each) },
      });
      expect(events.at(-1)?.kind).toBe('finish');
    }
  });

  test.each([
    [
      'wide',
      {
        type: 'object',
        properties: Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`p${i}`, { type: 'null' }])),
      },
    ],
    ['long tuple', { type: 'array', prefixItems: Array.from({ length: 1500 }, () => ({ type: 'boolean' })) }],
    ['many branches', { anyOf: Array.from({ length: 1000 }, (_, i) => ({ const: `value ${i}` })) }],
    [
      'deep',
      Array.from({ length: 30 }).reduce<object>((inner) => ({ type: 'array', items: inner, minItems: 1 }), {
        type: 'integer',
      }),
    ],
    ['long strings', { type: 'string', minLength: 50_000, maxLength: 100_000 }],
    [
      'many of many',
      {
        type: 'array',
        minItems: 9000,
        items: {
          type: 'array',
          minItems: 9000,
          items: { type: 'string', pattern: '^([a-z]{1,20}-){1,20}$' },
        },
      },
    ],
  ])('the largest schemas we let pass neither crash nor stall the child: %s', async (_, large) => {
    const { events } = await run(fixture.context, {
      maxTokens: 12,
      sampling: { ...SAMPLED, seed: 5 },
      grammar: { gbnf: schemaToGrammar(large) },
    });
    expect(events.at(-1)?.kind).toBe('finish');
  });

  test('JSON mode writes an object', async () => {
    const { text } = await run(fixture.context, {
      maxTokens: 400,
      sampling: { ...SAMPLED, seed: 2, logitBias: new Map() },
      grammar: { gbnf: jsonObjectGrammar() },
    });
    expect(text[0]).toBe('{');
  });

  test('a lazy grammar begins at its trigger, and not before', async () => {
    const tools = [
      {
        name: 'get_weather',
        parameters: {
          type: 'object',
          properties: { unit: { enum: ['c', 'f'] } },
          required: ['unit'],
          additionalProperties: false,
        },
      },
    ];
    const grammar = toolCallGrammar(tools, 'auto', false, fixture.context.info.toolFormat);
    const [opening] = await fixture.context.tokenize({ text: '<', addSpecial: false });
    const free = await run(fixture.context, { maxTokens: 20 });
    expect((await run(fixture.context, { maxTokens: 20, grammar })).text).toBe(free.text);
    // The model is pushed to write "<"; all that follows is the grammar's doing.
    const forced = await run(fixture.context, {
      maxTokens: 120,
      sampling: { ...GREEDY, logitBias: new Map([[opening ?? 0, 60]]) },
      grammar: { gbnf: grammar.gbnf, triggers: ['<'] },
    });
    const from = forced.text.indexOf('<');
    expect(forced.text.slice(from)).toMatch(
      /^<tool_call>\n\{"name": ?"get_weather", ?"arguments": ?\{ ?"unit": ?"[cf]" ?\}\}\n<\/tool_call>$/,
    );
    expect(forced.finish).toBe('stop');
  });

  test('a grammar llama.cpp cannot read is a 400, a deep one too, and the child lives', async () => {
    expect((await refusal(run(fixture.context, { grammar: { gbnf: 'root ::= missing' } }))).code).toBe(
      'invalid_grammar',
    );
    expect(
      (
        await refusal(
          run(fixture.context, {
            grammar: { gbnf: `root ::= ${'('.repeat(20_000)}"a"${')'.repeat(20_000)}` },
          }),
        )
      ).code,
    ).toBe('invalid_grammar');
    expect((await refusal(run(fixture.context, { grammar: { gbnf: 'root ::= root "a"' } }))).code).toBe(
      'invalid_grammar',
    );
    expect((await run(fixture.context, { maxTokens: 2 })).finish).toBe('length');
  });
});
