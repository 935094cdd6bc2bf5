// Readers of the formats with JSON arguments: text that only looks like a call, and what frames the words.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { seededRandom } from '../../../../../src/engine/child/decode/sampler.ts';
import { toolCallGrammar } from '../../../../../src/grammar/compile.ts';
import { generate, parseGbnf } from '../../../../fixtures/grammar/gbnf.ts';
import {
  createToolReader,
  readAnswer,
  splitText,
  toolFormat,
  toolFormats,
  writeCalls,
} from '../../../../fixtures/engine/tool-formats.ts';

const formats = toolFormats.filter(({ syntax }) => syntax.kind === 'object' || syntax.kind === 'named');
const TOOLS = [
  {
    name: 'get_weather',
    parameters: {
      type: 'object',
      properties: { city: { type: 'string' }, days: { type: 'array', items: { type: 'integer' } } },
      required: ['city'],
    },
  },
  { name: 'now', parameters: { type: 'object', properties: {} } },
];
const NAMES = TOOLS.map((tool) => tool.name);

describe.each(formats.map((format) => [`${format.kind} ${format.open}`, format] as const))(
  '%s',
  (_, format) => {
    test('whatever its grammar writes, its reader reads', () => {
      const grammar = parseGbnf(toolCallGrammar(TOOLS, 'required', true, format).gbnf);
      fc.assert(
        fc.property(fc.nat(), fc.array(fc.nat(2000), { maxLength: 20 }), (seed, cuts) => {
          const text = generate(grammar, seededRandom(seed, 1), 80);
          const { content, calls } = readAnswer(createToolReader(format, NAMES), splitText(text, cuts));
          expect(content).toBe('');
          expect(calls.length).toBeGreaterThan(0);
          for (const call of calls) {
            expect(NAMES).toContain(call.name);
            const given = JSON.parse(call.arguments) as object;
            expect(call.name === 'now' ? Object.keys(given) : 'city' in given).toEqual(
              call.name === 'now' ? [] : true,
            );
          }
        }),
        { numRuns: 60 },
      );
    });

    test('a call of a tool that is not there is content, to its end', () => {
      const text = `So: ${writeCalls(format, [['rm', { path: ['/', 'get_weather'] }]])}`;
      for (const pieces of [[text], Array.from(text)]) {
        const { content, calls } = readAnswer(createToolReader(format, NAMES), pieces);
        expect(calls).toEqual([]);
        expect(content).toContain('"rm"'.slice(1, 3));
        expect(content).toContain('get_weather');
        // Marks that frame words are never shown.
        if (format.silent.length === 0) expect(content).toBe(text);
      }
    });
  },
);

describe('harmony', () => {
  const format = toolFormat('harmony');
  const read = (text: string) => {
    const reader = createToolReader(format, NAMES);
    return readAnswer(reader, Array.from(text));
  };

  test('words before a call, in their channel, are the content', () => {
    const text =
      '<|channel|>commentary<|message|>Let me look.<|end|><|start|>assistant<|channel|>commentary to=functions.now <|constrain|>json<|message|>{}';
    expect(read(text)).toEqual({
      content: 'Let me look.',
      reasoning: '',
      calls: [{ name: 'now', id: undefined, arguments: '{}' }],
    });
  });

  test('thoughts after the words are reasoning', () => {
    const text =
      'Let me look.<|end|><|start|>assistant<|channel|>analysis<|message|>Hm < 7.<|end|><|start|>assistant to=functions.now<|channel|>commentary json<|message|>{}';
    expect(read(text)).toMatchObject({
      content: 'Let me look.',
      reasoning: 'Hm < 7.',
      calls: [{ name: 'now' }],
    });
    const final =
      'A.<|end|><|start|>assistant<|channel|>analysis<|message|>B<|end|><|start|>assistant<|channel|>final<|message|>C';
    expect(read(final)).toEqual({ content: 'A.C', reasoning: 'B', calls: [] });
  });
});

test('ids are the models own, where they come before the arguments', () => {
  const idsOf = (kind: Parameters<typeof toolFormat>[0], text: string) =>
    readAnswer(createToolReader(toolFormat(kind), NAMES), [text]).calls.map(({ id }) => id);
  expect(idsOf('kimi-k2', '<|tool_call_begin|>functions.now:3<|tool_call_argument_begin|>{}')).toEqual([
    'functions.now:3',
  ]);
  expect(idsOf('mistral-call-id', '[TOOL_CALLS]now[CALL_ID]abcdefgh9[ARGS]{}')).toEqual(['abcdefgh9']);
  expect(idsOf('mistral', '[TOOL_CALLS][{"name": "now", "arguments": {}, "id": "abcdefgh9"}]')).toEqual([
    undefined,
  ]);
  expect(
    idsOf('cohere', '<|START_ACTION|>[\n    {"tool_call_id": "4", "tool_name": "now", "parameters": {}}\n]'),
  ).toEqual(['4']);
});
