// Grammars of calls of tools, and of any JSON object.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { jsonObjectGrammar, toolCallGrammar } from '../../../src/grammar/compile.ts';
import { seededRandom } from '../../../src/engine/child/decode/sampler.ts';
import { GENERIC_TOOL_FORMAT } from '../../../src/engine/seam/tool-format.ts';
import { toolFormat } from '../../fixtures/engine/tool-formats.ts';
import { accepts, generate, parseGbnf } from '../../fixtures/grammar/gbnf.ts';
import { refusal } from '../../fixtures/refusal.ts';

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
    const mistral = toolFormat('mistral');
    expect(
      accepts(
        parseGbnf(toolCallGrammar(tools, 'required', true, mistral).gbnf),
        '[TOOL_CALLS][{"name": "now", "arguments": {}}, {"name": "now", "arguments": {}}]',
      ),
    ).toBe(true);
    const llama = toolFormat('llama3');
    expect(
      accepts(
        parseGbnf(toolCallGrammar(tools, 'required', false, llama).gbnf),
        '{"name": "get_weather", "parameters": {"city": "x"}}',
      ),
    ).toBe(true);
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
