// Chat templates: rendered as their authors meant, on text that tries to break out, on histories they refuse,
// and when the template itself is hostile.

import { describe, expect, test } from 'vitest';
import { createChatTemplate } from '../../../../../src/engine/child/template/template.ts';
import { vocabulary, show, render, user, QWEN, MISTRAL } from '../../../../fixtures/engine/chat-templates.ts';
import { refusal } from '../../../../fixtures/refusal.ts';

describe('templates', () => {
  test('ChatML in the usual form', () => {
    expect(render(QWEN, [{ role: 'system', content: 'Be brief.' }, user('Hi')])).toBe(
      '«<s>»«<|im_start|>»system\nBe brief.«<|im_end|>»\n«<|im_start|>»user\nHi«<|im_end|>»\n«<|im_start|>»assistant\n',
    );
  });

  test('bos is written once', () => {
    expect(render(MISTRAL, [user('a')])).toBe('«<s>»«[INST]» a «[/INST]»');
  });

  test('tools and calls go through the template of the model', () => {
    const text = render(
      QWEN,
      [
        user('w'),
        {
          role: 'assistant',
          content: '',
          toolCalls: [{ id: '1', name: 'get', arguments: '{"city":"Paris","n":1}' }],
        },
        { role: 'tool', content: '21', toolCallId: '1' },
      ],
      [{ name: 'get', parameters: { type: 'object', properties: { city: { type: 'string' } } } }],
    );
    expect(text).toContain('"name": "get"');
    expect(text).toContain(
      '<tool_call>\n{"name": "get", "arguments": {"city": "Paris", "n": 1}}\n</tool_call>',
    );
  });

  test('without a template: ChatML where the vocabulary has it, else plain turns that stop at the next', () => {
    expect(render(null, [user('Hi')])).toBe(
      '«<s>»«<|im_start|>»user\nHi«<|im_end|>»\n«<|im_start|>»assistant\n',
    );
    const bare = createChatTemplate(null, { ...vocabulary, specials: [] });
    expect(show(bare.tokens([{ role: 'system', content: 'S' }, user('Hi')], []))).toContain(
      'S\n\nUser: Hi\nAssistant:',
    );
    expect(bare.stops).toEqual(['\nUser:']);
  });

  test('a template that knows no tools gets them in the system message, calls and results as text', () => {
    const text = render(
      MISTRAL.replaceAll(/\{% if \(message.*?endif %\}/g, ''),
      [
        user('w'),
        { role: 'assistant', content: '', toolCalls: [{ id: '1', name: 'get', arguments: '{"a":1}' }] },
        { role: 'tool', content: '21', toolCallId: '1' },
      ],
      [{ name: 'get', description: 'gets', parameters: {} }],
    );
    expect(text).toContain('"description":"gets"');
    expect(text).toContain('<tool_call>\n{"name":"get","arguments":{"a":1}}\n</tool_call>');
    expect(text).toContain('<tool_response>\n21\n</tool_response>');
  });

  test.each([
    ['two user turns', [user('a'), user('b')]],
    [
      'a system message in the middle',
      [user('a'), { role: 'system', content: 's' }, { role: 'assistant', content: 'b' }],
    ],
    ['assistant first', [{ role: 'assistant', content: 'a' }, user('b')]],
    ['a tool result without a call', [{ role: 'tool', content: 't', toolCallId: 'x' }]],
    [
      'a call without a result, arguments that are no JSON',
      [
        user('a'),
        { role: 'assistant', content: '', toolCalls: [{ id: '1', name: 'f', arguments: '{broken' }] },
        user('b'),
      ],
    ],
    ['only a system message', [{ role: 'system', content: 's' }]],
  ] as const)('a history the template refuses is answered: %s', (_, messages) => {
    for (const source of [MISTRAL, QWEN, null]) expect(render(source, messages).length).toBeGreaterThan(5);
    for (const { content } of messages) expect(render(MISTRAL, messages)).toContain(content);
  });

  test('a history no attempt renders is a 400 that quotes nothing', () => {
    const source = `{% if 'secret' in messages[0].content %}{{ raise_exception(messages[0].content) }}{% endif %}`;
    const error = refusal(() => render(source, [user('secret words')]));
    expect([error.status, error.code, error.param]).toEqual([400, 'invalid_messages', 'messages']);
    expect(`${error.message}${String(error.cause)}`).not.toContain('secret');
  });

  test.each([
    ['a method that does not exist', '{{ messages[0].content.shout() }}'],
    ['a refusal of everything', `{{ raise_exception('never') }}`],
  ])('a template that renders no question is not used: %s', (_, source) => {
    const messages = [user('Hi'), { role: 'assistant', content: 'b' } as const, user('again')];
    expect(render(source, messages)).toBe(render(null, messages));
    const bare = createChatTemplate(source, { ...vocabulary, specials: [] });
    expect([bare.toolFormat.kind, bare.stops]).toEqual(['generic', ['\nUser:']]);
  });

  test('a system message in the middle is not lost where the template knows only the first', () => {
    const source = `{% for m in messages %}{% if m.role != 'system' or loop.first %}[INST]{{ m.role }} {{ m.content }}{% endif %}{% endfor %}`;
    const text = render(source, [
      { role: 'system', content: 's1' },
      user('a'),
      { role: 'system', content: 's2' },
      user('b'),
    ]);
    expect(text).toBe('«<s>»«[INST]»system s1«[INST]»user a«[INST]»user s2«[INST]»user b');
  });

  test('a template that takes one question only gets the conversation as one', () => {
    const source = `{% if messages | length > 1 %}{{ raise_exception('one') }}{% endif %}{{ messages[0].content }}<|im_end|>`;
    const text = render(source, [
      { role: 'system', content: 's' },
      user('a'),
      { role: 'assistant', content: 'b' },
      user('c'),
    ]);
    expect(text).toBe('«<s>»User: s\n\na\n\nAssistant: b\n\nUser: c«<|im_end|>»');
  });

  test.each([
    [
      'none, as the transformers library passes',
      '{% if tools is not none or documents is not none %}{{ raise_exception("") }}{% endif %}',
    ],
    ['undefined', '{% if tools is defined %}{% for t in tools %}{% endfor %}{% endif %}'],
    [
      'lists',
      '{% for t in tools %}{{ t }}{% endfor %}{% for d in documents %}{{ d }}{% endfor %}{{ tools | selectattr("type") | list }}',
    ],
    ['text, and a date', '{% set x = "tools: " + functions + datetime %}'],
  ])('without tools, what a template needs to be there is there: %s', (_, before) => {
    expect(render(`${before}{% for m in messages %}{{ m.content }}{% endfor %}`, [user('Hi')])).toMatch(
      /Hi$/,
    );
  });

  test.each([
    [
      'integer keys',
      `{% set m = {1: 'one', 2: 'two'} %}{{ m[2] }}{% for k, v in m | dictsort %}{{ k }}{% endfor %}`,
      'two12',
    ],
    [
      'string of a mapping, a list, none',
      `{{ {'a': [1]} | string }}{{ [1] | string }}{{ none | string }}`,
      "{'a': [1]}[1]None",
    ],
    ['format', `{{ 'a{}b{}c'.format(1, 'x') }}`, 'a1bxc'],
    ['a filter over a block', `{% filter upper %}a{{ 'b' }}{% endfilter %}`, 'AB'],
  ])('what the interpreter lacks, or is done around it: %s', (_, source, written) => {
    expect(render(source, [user('Hi')])).toBe(`«<s>»${written}`);
  });

  const xml = QWEN.replaceAll(
    `'\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": '`,
    `'\\n<tool_call>\\n<function=' + call.function.name + '>'`,
  ).replaceAll(`'}\\n</tool_call>'`, `'</function>\\n</tool_call>'`);
  const familyTools = [{ name: 'get', description: 'gets', parameters: {} }];
  const mistralOf = (call: string): string =>
    `{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}{% endif %}{% for m in messages %}{{ m.content }}{% if m.tool_calls %}[TOOL_CALLS]${call}{% endif %}{% endfor %}`;
  test.each([
    ['Hermes', QWEN, 'hermes'],
    ['XML in the tags of Hermes', xml, 'generic'],
    [
      'Mistral',
      mistralOf(
        '[{"name": "{{ m.tool_calls[0].function.name }}", "arguments": {{ m.tool_calls[0].function.arguments | tojson }}}]',
      ),
      'mistral',
    ],
    [
      'Mistral of 2025',
      mistralOf('{{ m.tool_calls[0].function.name }}[ARGS]{{ m.tool_calls[0].function.arguments | tojson }}'),
      'mistral-args',
    ],
    ['calls left out', QWEN.replace('{%- if message.tool_calls %}', '{%- if false %}'), 'generic'],
    ['tools left out', QWEN.replace('{{ tool | tojson }}', ''), 'hermes'],
  ])('the format of calls is the one the template writes: %s', (_, source, kind) => {
    const template = createChatTemplate(source, vocabulary);
    expect(template.toolFormat.kind).toBe(kind);
    const text = show(
      template.tokens(
        [
          user('w'),
          { role: 'assistant', content: '', toolCalls: [{ id: '1', name: 'get', arguments: '{"a":1}' }] },
          { role: 'tool', content: '21', toolCallId: '1' },
        ],
        familyTools,
      ),
    );
    expect(text).toContain('gets');
    expect(text).toContain('21');
    if (kind === 'generic')
      expect(text).toContain('<tool_call>\n{"name":"get","arguments":{"a":1}}\n</tool_call>');
  });

  test("an assistant's thinking is still found by the template", () => {
    expect(
      render(QWEN, [user('a'), { role: 'assistant', content: '<think>hm</think> answer' }, user('b')]),
    ).toContain('assistant\nanswer«<|im_end|>»');
  });
});
