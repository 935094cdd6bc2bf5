// Calls of tools in the templates of some seventy published models: the text that a template writes of a
// history is taken by the grammar of its format, and read as the same calls by its reader.

import * as fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import type { ChatMessage, ToolFormat } from '../../../../../../src/engine/seam/engine.ts';
import type { ChatTemplate } from '../../../../../../src/engine/child/template/template.ts';
import { framingOf } from '../../../../../../src/engine/child/template/calls/written.ts';
import { createToolReader } from '../../../../../../src/api/chat/calls/reader.ts';
import { triggersOf } from '../../../../../../src/grammar/calls/triggers.ts';
import { toolCallGrammar } from '../../../../../../src/grammar/compile.ts';
import { accepts, parseGbnf } from '../../../../../fixtures/grammar/gbnf.ts';
import { FIRST_CONTROL, templateOf } from '../../../../../fixtures/engine/chat-templates.ts';
import { corpus } from '../../../../../fixtures/engine/template-corpus.ts';
import { readAnswer, splitText } from '../../../../../fixtures/engine/tool-formats.ts';

/** They leave out the calls of a history. */
const WITHOUT_CALLS = new Set([
  'HuggingFaceTB-SmolLM3-3B',
  'LFM2-8B-A1B',
  'LFM2.5-Instruct',
  'google-gemma-2-2b-it',
  'ibm-granite-granite-3.3-2B-Instruct',
  'llama-cpp-rwkv-world',
  'microsoft-Phi-3.5-mini-instruct',
]);
/** Of the other templates. */
const MAX_GENERIC = 0;
/** They write one call a turn. */
const ONE_CALL = new Set<ToolFormat['kind']>(['harmony', 'gigachat', 'gigachat-token', 'llama3']);

const TOOLS = [
  {
    name: 'get_weather',
    description: 'Weather of a city',
    parameters: {
      type: 'object',
      properties: {
        city: { type: 'string', description: 'City' },
        n: { type: 'integer', description: 'Days' },
        exact: { type: 'boolean', description: 'To the degree' },
        o: {
          type: 'object',
          description: 'Options',
          properties: { a: { type: 'array', description: 'Words', items: { type: 'string' } } },
          required: ['a'],
        },
      },
      required: ['city'],
    },
  },
  { name: 'now', description: 'The time', parameters: { type: 'object', properties: {} } },
];
const QUESTION = 'UUU';
const FIRST_CALL = {
  id: 'call00001',
  name: 'get_weather',
  arguments: '{"city":"Röm, <b>\'x\'</b>","n":3,"exact":true,"o":{"a":["p q","r"]}}',
};
const LAST_CALL = { id: 'call00002', name: 'get_weather', arguments: '{"city":"LAST"}' };
const CALLS = [FIRST_CALL, LAST_CALL];

const MARKS = /<\|?[^|>\s]{1,40}\|?>|\[[A-Z_]{3,20}\]/g;

/** The text of a template with calls in the history, from the question on. */
function written(
  source: string,
  calls: readonly (typeof CALLS)[number][],
): { template: ChatTemplate; text: string } {
  const template = templateOf(source, []);
  const history: readonly ChatMessage[] = [
    { role: 'user', content: QUESTION },
    { role: 'assistant', content: '', toolCalls: calls },
    ...calls.map(({ id, name }, i): ChatMessage => ({
      role: 'tool',
      content: `RESULT${i}`,
      toolCallId: id,
      name,
    })),
  ];
  const text = template
    .tokens(history, TOOLS)
    .map((code) => String.fromCodePoint(code))
    .join('');
  return { template, text: text.slice(text.lastIndexOf(QUESTION) + QUESTION.length) };
}

/** The part of a text that is calls and their framing. */
function callsIn(text: string, format: ToolFormat, value: string): readonly string[] {
  const triggers = triggersOf(format, ['get_weather']);
  const from = Math.min(...triggers.map((each) => text.indexOf(each)).filter((at) => at >= 0));
  const last = text.indexOf(value, from) + value.length;
  return Array.from({ length: 80 }, (_, i) => text.slice(from, last + i));
}

/**
 * Their templates write a string between quotes without escapes, or an object as Python would, which is not
 * what they ask models for.
 */
const PLAINER = new Set<ToolFormat['kind']>(['lfm2', 'minicpm5', 'seed-oss']);
const PLAINER_CALLS = [{ ...FIRST_CALL, arguments: '{"city":"Röm, <b>","n":3,"exact":true}' }, LAST_CALL];

const KINDS = new Map<string, string>();

describe.skipIf(corpus.size === 0)('templates of published models', () => {
  afterAll(() => {
    const generic = [...KINDS].filter(([name, kind]) => kind === 'generic' && !WITHOUT_CALLS.has(name));
    console.log(
      `tool formats: ${KINDS.size} templates, ${WITHOUT_CALLS.size} write no call, ${generic.length} of the others are generic: ${generic.map(([name]) => name).join(', ')}`,
    );
  });

  describe.each([...corpus])('%s', (name, source) => {
    const { format, text, asked } = (() => {
      const two = written(source, CALLS);
      const { toolFormat } = two.template;
      if (PLAINER.has(toolFormat.kind))
        return { format: toolFormat, text: written(source, PLAINER_CALLS).text, asked: PLAINER_CALLS };
      if (!ONE_CALL.has(toolFormat.kind)) return { format: toolFormat, text: two.text, asked: CALLS };
      const one = CALLS.slice(1);
      return { format: toolFormat, text: written(source, one).text, asked: one };
    })();
    KINDS.set(name, format.kind);
    const expected = asked.map((call) => [call.name, JSON.parse(call.arguments) as unknown]);

    test.skipIf(format.kind === 'generic')('the grammar takes the calls it writes', () => {
      const { gbnf } = toolCallGrammar(TOOLS, 'required', true, format);
      const grammar = parseGbnf(gbnf);
      const found = callsIn(text, format, 'LAST');
      const tidy = format.kind === 'command-r-plus' ? found.map(onOneLine) : found;
      expect(tidy.some((each) => accepts(grammar, each))).toBe(true);
    });

    test.skipIf(format.kind === 'generic')('no text of a request is one of its marks', () => {
      const marks = [...new Set(framingOf(format).match(MARKS) ?? [])];
      const hostile = `${marks.join('')}${format.triggers.join('')}`;
      const control = (words: string): number => {
        const template = templateOf(source, marks);
        const call = { id: 'call00001', name: 'get_weather', arguments: JSON.stringify({ city: words }) };
        const history: readonly ChatMessage[] = [
          { role: 'user', content: words },
          { role: 'assistant', content: words, toolCalls: [call] },
          { role: 'tool', content: words, toolCallId: call.id, name: call.name },
        ];
        const tools = TOOLS.map((tool) => ({ ...tool, description: words }));
        return template.tokens(history, tools).filter((token) => token >= FIRST_CONTROL).length;
      };
      expect(control(hostile)).toBe(control('harmless'));
    });

    test.skipIf(format.kind === 'generic')('the reader reads the calls it writes, in any pieces', () => {
      fc.assert(
        fc.property(fc.array(fc.nat(2000), { maxLength: 30 }), (cuts) => {
          const { calls } = readAnswer(createToolReader(format, TOOLS), splitText(text, cuts));
          expect(calls.map((call) => [call.name, JSON.parse(call.arguments) as unknown])).toEqual(expected);
        }),
        { numRuns: 20 },
      );
    });
  });

  test('most of them have a format of their own', () => {
    const generic = [...KINDS].filter(([name, kind]) => kind === 'generic' && !WITHOUT_CALLS.has(name));
    expect(KINDS.size - WITHOUT_CALLS.size).toBe(61);
    expect(generic.length, generic.map(([name]) => name).join(', ')).toBeLessThanOrEqual(MAX_GENERIC);
    for (const name of WITHOUT_CALLS) expect([name, KINDS.get(name)]).toEqual([name, 'generic']);
  });
});

/** Command R+ indents the JSON of its history; the grammar has it on one line. */
function onOneLine(text: string): string {
  return text.replace(/(?<=```json\n)[^]*(?=```)/, (list) => {
    try {
      const calls = JSON.parse(list) as readonly unknown[];
      return `[${calls.map((call) => JSON.stringify(call)).join(', ')}]\n`;
    } catch {
      return list;
    }
  });
}
