// A last message of the assistant is continued: the prompt ends with its words, behind the start of an
// answer.

import { describe, expect, test } from 'vitest';
import type { ChatMessage } from '../../../../../src/engine/seam/engine.ts';
import { createChatTemplate } from '../../../../../src/engine/child/template/template.ts';
import { MISTRAL, QWEN, show, user, vocabulary } from '../../../../fixtures/engine/chat-templates.ts';
import { corpus } from '../../../../fixtures/engine/template-corpus.ts';

function said(content: string): ChatMessage {
  return { role: 'assistant', content };
}

function prompt(source: string, content: string, prefill?: boolean): string {
  const template = createChatTemplate(source, vocabulary);
  return show(template.prompt([user('Hi'), said(content)], [], {}, { prefill }).tokens);
}

test.each([
  [QWEN, 'Once', '«<s>»«<|im_start|>»user\nHi«<|im_end|>»\n«<|im_start|>»assistant\nOnce'],
  [MISTRAL, 'Once', '«<s>»«[INST]» Hi «[/INST]»Once'],
])('%s: %s', (source, content, expected) => {
  expect(prompt(source, content)).toBe(expected);
});

test('its text is text: no control token, no mark of reasoning', () => {
  const template = createChatTemplate(QWEN, vocabulary);
  const { tokens } = template.prompt([user('Hi'), said('<|im_end|></think>[INST]')], []);
  expect(show(tokens).endsWith('<|im_end|></think>[INST]')).toBe(true);
});

test.each([
  ['no words', [user('Hi'), said('')]],
  ['calls', [user('Hi'), { ...said('x'), toolCalls: [{ id: 'c', name: 'f', arguments: '{}' }] }]],
  ['no question before it', [said('x')]],
  ['a question after it', [user('Hi'), said('x'), user('So?')]],
])('%s: the answer begins afresh', (_, messages) => {
  const template = createChatTemplate(QWEN, vocabulary);
  expect(show(template.tokens(messages, [])).endsWith('«<|im_start|>»assistant\n')).toBe(true);
});

test('not where it is not wanted', () => {
  expect(prompt(QWEN, 'Once', false).endsWith('«<|im_end|>»\n«<|im_start|>»assistant\n')).toBe(true);
});

/** Between the prompt of the question alone and the words, where a model may think first. */
const OPENINGS: Readonly<Record<string, string>> = {
  'openai-gpt-oss-120b': '<|channel|>final<|message|>',
  'muse-glimmer': ' to=user<|message|>',
  'upstage-Solar-Open-100B': '<|content|>',
  'Kimi-K3': '<|close|>think<|sep|><|open|>response<|sep|>',
  'Qwen3.5-4B': '\n</think>\n\n',
  'GLM-4.7-Flash': '\n</think>\n\n',
  'Qwen-Qwen3-0.6B': '',
  'ibm-granite-granite-3.3-2B-Instruct': '',
  'Qwen-Qwen2.5-7B-Instruct': '',
  'meta-llama-Llama-3.1-8B-Instruct': '',
};

describe.skipIf(corpus.size === 0)('published models', () => {
  test.each(Object.entries(OPENINGS))('%s: %j', (name, opening) => {
    const template = createChatTemplate(corpus.get(name) ?? '', vocabulary);
    const asked = show(template.tokens([user('Hi')], []));
    const continued = template.prompt([user('Hi'), said('Once upon')], []);
    expect([show(continued.tokens).slice(asked.length), continued.phase]).toEqual([
      `${opening}Once upon`,
      'answer',
    ]);
  });

  test('every template: the prompt ends with the words', () => {
    for (const [name, source] of corpus) {
      const template = createChatTemplate(source, vocabulary);
      const asked = show(template.tokens([user('Hi')], []));
      const { tokens, phase } = template.prompt([user('Hi'), said('Once upon')], []);
      const text = show(tokens);
      expect([name, text.startsWith(asked.trimEnd()), text.endsWith('Once upon'), phase]).toEqual([
        name,
        true,
        true,
        'answer',
      ]);
    }
  });

  test('a prompt that ends where a recipient is named goes on to the words, or is open to tools', () => {
    const source = corpus.get('meetkai-functionary-medium-v3.2') ?? '';
    const template = createChatTemplate(source, vocabulary);
    const turn = '<|start_header_id|>assistant<|end_header_id|>\n\n';
    const tools = [{ name: 'now', parameters: { type: 'object', properties: {} } }];
    const endOf = (messages: readonly ChatMessage[], offered: typeof tools): string => {
      const text = show(template.tokens(messages, offered));
      return text.slice(text.lastIndexOf(turn));
    };
    expect(endOf([user('Hi')], [])).toBe(`${turn}>>>all\n`);
    expect(endOf([user('Hi')], tools)).toBe(turn);
    for (const offered of [[], tools])
      expect(endOf([user('Hi'), said('Once')], offered)).toBe(`${turn}>>>all\nOnce`);
  });
});
