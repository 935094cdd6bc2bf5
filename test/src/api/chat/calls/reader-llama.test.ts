// Answers with calls as llama.cpp's own tests have them, in the formats of published templates: our readers
// find the same calls in them, in whatever pieces they come.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createToolReader } from '../../../../../src/api/chat/calls/reader.ts';
import { ReasoningReader } from '../../../../../src/engine/child/decode/reasoning.ts';
import { createChatTemplate } from '../../../../../src/engine/child/template/template.ts';
import { triggersOf } from '../../../../../src/grammar/calls/triggers.ts';
import { vocabulary } from '../../../../fixtures/engine/chat-templates.ts';
import { readLlamaCases, type LlamaCase } from '../../../../fixtures/engine/llama-cases.ts';
import { corpus, corpusTests } from '../../../../fixtures/engine/template-corpus.ts';
import { readAnswer, splitText, type ReadAnswer } from '../../../../fixtures/engine/tool-formats.ts';

const { cases, left } = readLlamaCases(corpusTests);
const calling = cases.filter((each) => each.calls.length > 0 && each.tools.length > 0);
const templates = new Map(
  [...new Set(calling.map((each) => each.template))].map((name) => [
    name,
    createChatTemplate(corpus.get(name) ?? '', vocabulary),
  ]),
);

function loaded(name: string) {
  const template = templates.get(name);
  if (template === undefined) throw new Error(`no template ${name}`);
  return template;
}

/**
 * The answer as a client gets it: its thoughts are split off as the engine does it, then its calls are read.
 */
function answered(
  { template: name, tools, thinking, partial }: LlamaCase,
  written: readonly string[],
): ReadAnswer {
  const template = loaded(name);
  const { toolFormat, reasoning } = template;
  const variables = { enable_thinking: thinking, thinking };
  const { phase } = template.prompt([{ role: 'user', content: 'Hey there!' }], tools, variables);
  // llama.cpp leaves the mark of a recipient in the prompt; with us the model writes it.
  const pieces = [toolFormat.addressed?.mark ?? '', ...written];
  const reader = createToolReader(toolFormat, tools);
  if (reasoning === null || phase === 'answer') return readAnswer(reader, pieces, partial);
  const names = tools.map((tool) => tool.name);
  const triggers = toolFormat.inReasoning ? triggersOf(toolFormat, names) : [];
  // As the engine child has it where a request has tools.
  const thoughts = new ReasoningReader({ ...reasoning, ending: undefined }, phase, triggers);
  const decoder = new TextDecoder();
  const words = pieces.map((piece) => {
    const bytes = Buffer.from(piece);
    return decoder.decode(thoughts.read(bytes, bytes).content, { stream: true });
  });
  return readAnswer(reader, [...words, decoder.decode(thoughts.end(partial).content)], partial);
}

function parsed(text: string): unknown {
  return JSON.parse(text === '' ? '{}' : text);
}

function squeezed(text: string): string {
  return text.replaceAll(/\s/g, '');
}

describe.skipIf(corpusTests === '')("llama.cpp's cases", () => {
  const native = calling.filter(({ template }) => loaded(template).toolFormat.kind !== 'generic');

  test('are read from its source', () => {
    console.log(
      `llama.cpp's cases: ${cases.length} read, ${left} left out; ${calling.length} have calls, ${native.length} of them in a format of their own`,
    );
    expect(calling.length).toBeGreaterThan(150);
    expect(left).toBeLessThan(30);
  });

  test.each(native.map((each) => [`${each.template}:${each.line}`, each] as const))('%s', (_, wanted) => {
    fc.assert(
      fc.property(fc.array(fc.nat(2000), { maxLength: 30 }), (cuts) => {
        const { content, calls } = answered(wanted, splitText(wanted.answer, cuts));
        if (wanted.splits) expect(content.trim()).toBe(wanted.content.trim());
        // A call without arguments yet is none.
        const expected = wanted.calls.filter((call) => !wanted.partial || call.arguments !== '');
        expect(calls.map((call) => call.name)).toEqual(expected.map((call) => call.name));
        for (const [i, call] of calls.entries()) {
          const { arguments: given, id } = expected[i] ?? { arguments: '', id: '' };
          if (wanted.partial) expect(squeezed(call.arguments)).toBe(squeezed(given));
          else expect(parsed(call.arguments)).toEqual(parsed(given));
          if (id !== '' && call.id !== undefined) expect(call.id).toBe(id);
        }
      }),
      { numRuns: 15 },
    );
  });
});
