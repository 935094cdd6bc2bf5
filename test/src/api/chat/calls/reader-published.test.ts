// llama.cpp's own expectations (tests/test-chat.cpp): what a model writes after the prompt of its template, and the
// thoughts, words and calls in it. The answer goes through what splits thoughts off and through the reader of the
// template's format, in any pieces; and the grammar of the format takes the calls.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createToolReader } from '../../../../../src/api/chat/calls/reader.ts';
import { ReasoningReader } from '../../../../../src/engine/child/decode/reasoning.ts';
import { createChatTemplate, type ChatTemplate } from '../../../../../src/engine/child/template/template.ts';
import { triggersOf } from '../../../../../src/engine/seam/tool-format.ts';
import { toolCallGrammar } from '../../../../../src/grammar/compile.ts';
import { corpus } from '../../../../fixtures/engine/template-corpus.ts';
import published from '../../../../fixtures/engine/tool-call-cases.json' with { type: 'json' };
import { readAnswer, splitText } from '../../../../fixtures/engine/tool-formats.ts';
import { accepts, parseGbnf } from '../../../../fixtures/grammar/gbnf.ts';

type Case = (typeof published.cases)[number];
const parameters = new Map<string, unknown>(Object.entries(published.tools));

const templates = new Map<string, ChatTemplate>();
function templateOf(name: string): ChatTemplate {
  const known = templates.get(name);
  if (known !== undefined) return known;
  const template = createChatTemplate(corpus.get(name) ?? null, {
    specials: [],
    bos: null,
    eos: null,
    addBos: false,
    tokenize: (text) => Array.from(text, (c) => c.codePointAt(0) ?? 0),
  });
  templates.set(name, template);
  return template;
}

function toolsOf({ tools }: Case): { name: string; parameters: unknown }[] {
  return tools.map((name) => ({ name, parameters: parameters.get(name) }));
}

/** Thoughts and the rest of an answer whose tokens are its characters. */
function split(each: Case, template: ChatTemplate): { thoughts: string; said: string } {
  const { reasoning, toolFormat } = template;
  if (reasoning === null) return { thoughts: '', said: each.output };
  const tools = toolsOf(each);
  const thinking = each.thinking ?? true;
  const { phase } = template.prompt([{ role: 'user', content: 'Q' }], tools, {
    enable_thinking: thinking,
    thinking,
  });
  const calls = toolFormat.inReasoning ? triggersOf(toolFormat, each.tools) : [];
  // Some cases of Kimi K3 begin after a block that they leave out.
  const within = toolFormat.kind === 'kimi-k3' && !each.output.includes(reasoning.end) ? 'before' : phase;
  const reader = new ReasoningReader(reasoning, within, calls);
  const parts = Array.from(each.output, (c) => {
    const bytes = Buffer.from(c);
    return reader.read(bytes, bytes);
  });
  parts.push(reader.end(each.partial));
  return {
    thoughts: parts.map((part) => part.reasoning).join(''),
    said: Buffer.concat(parts.map((part) => part.content)).toString(),
  };
}

describe.skipIf(corpus.size === 0)('what models write', () => {
  const cases = published.cases.map((each, i): [string, Case] => [`${each.template} ${i}`, each]);

  test.each(cases)('%s', (_, each) => {
    const template = templateOf(each.template);
    const { said, thoughts } = split(each, template);
    expect(thoughts.trim()).toBe(each.reasoning.trim());
    fc.assert(
      fc.property(fc.array(fc.nat(Math.max(1, said.length)), { maxLength: 12 }), (cuts) => {
        const reader = createToolReader(template.toolFormat, toolsOf(each));
        const { content, calls } = readAnswer(reader, splitText(said, cuts), each.partial);
        expect(content.trim()).toBe(each.content.trim());
        const read = calls.map((call) => [call.name, each.partial ? call.arguments : json(call.arguments)]);
        expect(read).toEqual(
          each.calls.map((call) => [call.name, each.partial ? '{"arg1":' : json(call.arguments)]),
        );
      }),
      { numRuns: 15 },
    );
  });

  const whole = cases.filter(
    ([, { calls, partial, output }]) =>
      // A string with the mark of elements in it is read, and not offered.
      calls.length > 0 && partial !== true && !output.includes('<label>]<]minimax[>[<text>'),
  );
  test.each(whole)(
    'the grammar takes %s',
    (_, each) => {
      const template = templateOf(each.template);
      const { toolFormat } = template;
      const { said } = split(each, template);
      const triggers = triggersOf(toolFormat, each.tools);
      const starts = triggers.map((trigger) => said.indexOf(trigger)).filter((at) => at >= 0);
      const grammar = parseGbnf(toolCallGrammar(toolsOf(each), 'auto', true, toolFormat).gbnf);
      const text = said.slice(Math.min(...starts));
      // What follows the calls is no part of them.
      const taken = Array.from({ length: 60 }, (_each, i) => text.slice(0, text.length - i));
      expect(taken.some((begun) => accepts(grammar, begun))).toBe(true);
    },
  );
});

function json(text: string): unknown {
  return JSON.parse(text);
}
