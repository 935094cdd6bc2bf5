// How a conversation is given to a template so that it writes calls: found by having it write one, and used
// from then on.

import { describe, expect, test } from 'vitest';
import type { ChatMessage, ToolSpec } from '../../../../../../src/engine/seam/engine.ts';
import { createChatTemplate } from '../../../../../../src/engine/child/template/template.ts';
import { show, vocabulary } from '../../../../../fixtures/engine/chat-templates.ts';

const TOOLS: readonly ToolSpec[] = [
  { name: 'get', description: 'fetches it', parameters: { type: 'object' } },
];
const CALLS = [
  { id: 'call_0123456789abcdef01234567', name: 'get', arguments: '{"a":[1,null]}' },
  { id: 'b', name: 'get', arguments: '{"b":true}' },
];
const HISTORY: readonly ChatMessage[] = [
  { role: 'user', content: 'QQ' },
  { role: 'assistant', content: 'words', toolCalls: CALLS },
  { role: 'tool', content: 'R1', toolCallId: CALLS[0]?.id },
  { role: 'tool', content: 'R2', toolCallId: 'b' },
];

/** A template that writes tools, each call as CALL in one text LIST, and other turns by role. */
function templateOf(list: string, tools = '{{ tools | tojson }}'): string {
  return `{% if tools %}${tools}{% endif %}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.tool_calls %}${list}{% endif %}{% endfor %}<|assistant|>`;
}
function each(call: string): string {
  return `{% for c in m.tool_calls %}${call}{% endfor %}`;
}
const OBJECT = `{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}`;

const ROWS = [
  [
    'Granite 3.0',
    templateOf("<|tool_call|>{{ m.tool_calls | map(attribute='function') | list | tojson(indent=4) }}"),
    'granite',
    ['fetches it', '<|tool_call|>[', '"R1"'.slice(1, 3)],
  ],
  [
    'Granite 3.1',
    templateOf(`<tool_call>[${each(`${OBJECT}{% if not loop.last %}, {% endif %}`)}]`),
    'granite',
    ['fetches it', '<tool_call>[{"name": "get", "arguments": {"a": [1, null]}}, {"name"'],
  ],
  [
    'arguments as text',
    templateOf(
      each(
        `<tool_call>\n{"name": "{{ c.function.name }}", "arguments": {{ '' + c.function.arguments }}}\n</tool_call>`,
      ),
    ),
    'hermes',
    ['"arguments": {"a":[1,null]}'],
  ],
  [
    'ids of nine characters',
    templateOf(
      each(
        `{% if c.id | length != 9 %}{{ raise_exception('id') }}{% endif %}[TOOL_CALLS]{{ c.function.name }}[CALL_ID]{{ c.id }}[ARGS]{{ c.function.arguments | tojson }}`,
      ),
    ).replace('{{ m.content }}', '{{ m.content }}{% if m.role == "tool" %}[{{ m.tool_call_id }}]{% endif %}'),
    'mistral-call-id',
    ['[CALL_ID]000000001[ARGS]{"a": [1, null]}', 'R1[000000001]', 'R2[000000002]'],
  ],
  [
    'numbered ids',
    templateOf(
      each(
        `<|tool_call_begin|>{{ c.id }}<|tool_call_argument_begin|>{{ c.function.arguments | tojson }}<|tool_call_end|>`,
      ),
    ),
    'kimi-k2',
    ['<|tool_call_begin|>functions.get:0<', '<|tool_call_begin|>functions.get:1<'],
  ],
  [
    'one call a turn, the second dropped',
    templateOf(
      `{% set c = m.tool_calls[0] %}<|function_call|>{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}`,
    ),
    'gigachat-token',
    [
      'words<|function_call|>{"name": "get", "arguments": {"a"',
      'R1«',
      '<|function_call|>{"name": "get", "arguments": {"b"',
      'R2',
    ],
  ],
  [
    'one call a turn, two refused',
    templateOf(
      `{% if m.tool_calls | length > 1 %}{{ raise_exception('one') }}{% endif %}${each(`<|function_call|>${OBJECT}`)}`,
    ),
    'gigachat-token',
    ['words<|function_call|>', 'R1«', '{"b": true}}', 'R2'],
  ],
  [
    'words beside a call, dropped',
    templateOf(each(`<|function_call|>${OBJECT}`)).replace(
      '{{ m.content }}',
      '{% if not m.tool_calls %}{{ m.content }}{% endif %}',
    ),
    'gigachat-token',
    ['words', '<|function_call|>{"name": "get", "arguments": {"a"', 'R1'],
  ],
  [
    'a call beside empty words, dropped',
    templateOf(each(`<|function_call|>${OBJECT}`))
      .replace('{% if m.tool_calls %}', '{% if m.content is none %}')
      .replace('{{ m.content }}', '{{ m.content or "" }}'),
    'gigachat-token',
    ['words', '<|function_call|>{"name": "get", "arguments": {"a"', 'R1'],
  ],
  [
    'tools it does not tell',
    templateOf(
      `<｜tool▁calls▁begin｜>${each(`<｜tool▁call▁begin｜>{{ c.function.name }}<｜tool▁sep｜>{{ c.function.arguments | tojson }}<｜tool▁call▁end｜>`)}<｜tool▁calls▁end｜>`,
      '',
    ),
    'deepseek-v3',
    [
      'fetches it',
      '<｜tool▁call▁begin｜><function name><｜tool▁sep｜><arguments object><｜tool▁call▁end｜><｜tool▁calls▁end｜>',
      '<｜tool▁call▁begin｜>get<｜tool▁sep｜>{"a": [1, null]}',
    ],
  ],
  [
    'Phi-4-mini: tools in a field of the system message, calls as text',
    `{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% if message.tools is defined and message.tools %}<|tool|>{{ message.tools }}<|/tool|>{% endif %}{% endfor %}<|assistant|>`,
    'functools',
    [
      '<|tool|>[{"name":"get","description":"fetches it"',
      'words functools[{"name":"get","arguments":{"a":[1,null]}}, {',
    ],
  ],
  [
    'a field of a message that is no message for the tools',
    `{# message.tools <|/tool|> #}${templateOf('')}`,
    'generic',
    ['fetches it'],
  ],
  [
    'a call in words only',
    templateOf(each('{{ c.function.name }}({{ c.function.arguments | tojson }})')),
    'generic',
    [],
  ],
] as const;

describe('detection', () => {
  test.each(ROWS)('%s', (_name, source, kind, holds) => {
    const template = createChatTemplate(source, vocabulary);
    expect(template.toolFormat.kind).toBe(kind);
    const text = show(template.tokens(HISTORY, TOOLS));
    let at = 0;
    for (const part of holds) {
      const found = text.replaceAll('«<|user|>»', '<|user|>').indexOf(part.replace('«', ''), at);
      expect(found, `${part} in ${text}`).toBeGreaterThanOrEqual(0);
      at = found;
    }
  });

  test('the same history gives the same ids, so that its prefix can be reused', () => {
    const [, , , nine] = ROWS;
    const template = createChatTemplate(nine[1], vocabulary);
    const shorter = show(template.tokens(HISTORY.slice(0, 3), TOOLS)).replace(/<\|assistant\|>$/, '');
    expect(show(template.tokens(HISTORY, TOOLS)).startsWith(shorter)).toBe(true);
  });
});
