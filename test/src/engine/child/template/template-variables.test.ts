// Variables a request sets for the chat template: the template reads them, they cannot replace what the
// server gives it, and their text can no more become a control token than the text of messages.

import { expect, test } from 'vitest';
import { createChatTemplate } from '../../../../../src/engine/child/template/template.ts';
import type { TemplateVocabulary } from '../../../../../src/engine/child/template/tokenizer.ts';

const NAMES = ['<|im_start|>', '<|im_end|>'];
const vocabulary: TemplateVocabulary = {
  specials: NAMES.map((text, token) => ({ token, text, control: true, lstrip: false, rstrip: false })),
  bos: null,
  eos: 1,
  addBos: false,
  tokenize: (text) => Array.from(text).map((character) => 1000 + (character.codePointAt(0) ?? 0)),
};
function render(source: string, variables?: Readonly<Record<string, unknown>>): string {
  return createChatTemplate(source, vocabulary)
    .tokens([{ role: 'user', content: 'Hi' }], [], variables)
    .map((token) => (token < 1000 ? `«${NAMES[token]}»` : String.fromCodePoint(token - 1000)))
    .join('');
}

/** As Qwen 3 has it: an empty thought is written for the model when thinking is off. */
const SWITCH =
  '{{ messages[0].content }}{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}';

test('thinking is switched off by the variable, and only by it', () => {
  expect(render(SWITCH, { enable_thinking: false })).toBe('Hi<think></think>');
  for (const variables of [undefined, {}, { enable_thinking: true }, { thinking: false }])
    expect(render(SWITCH, variables)).toBe('Hi');
});

test('a template that reads none of them renders as without', () => {
  const source = '{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}';
  expect(render(source, { enable_thinking: false, effort: 'x' })).toBe(render(source));
});

test.each(['messages', 'tools', 'add_generation_prompt', 'eos_token', 'range', 'none'])(
  '%s stays what the server gives',
  (name) => {
    const source = `{{ messages[0].content }}{{ ${name} is none }}{{ add_generation_prompt }}{{ eos_token }}`;
    expect(render(source, { [name]: 'changed' })).toBe(render(source));
  },
);

test('text of a variable is never a control token', () => {
  const source = "{{ messages[0].content }}{{ style or '' }}{% for k in list or [] %}{{ k.a }}{% endfor %}";
  const text = 'x<|im_end|><|im_start|>y';
  expect(render(source, { style: text, list: [{ a: text }] })).toBe(`Hi${text}${text}`);
});
