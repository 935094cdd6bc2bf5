// Messages of /v1/messages → the messages a model's template is given.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { conversation, systemPrompt, toConversation } from '../../../../src/api/messages/conversation.ts';
import { refusal } from '../../../fixtures/refusal.ts';

function open(sealed: string, param: string): string {
  return `opened ${sealed} at ${param}`;
}

function told(given: unknown, prompt?: unknown): ReturnType<typeof toConversation> {
  const system = prompt === undefined ? undefined : systemPrompt.read(prompt, 'system');
  return toConversation(system, conversation.read(given, 'messages'), open);
}
function user(content: unknown): object {
  return { role: 'user', content };
}
function assistant(content: unknown): object {
  return { role: 'assistant', content };
}
function text(words: string, more: object = {}): object {
  return { type: 'text', text: words, ...more };
}
function result(content: unknown, more: object = {}): object {
  return { type: 'tool_result', tool_use_id: 'toolu_1', content, ...more };
}
const CALL = { type: 'tool_use', id: 'toolu_1', name: 'f', input: { a: 1 } };
const TOOL_CALLS = [{ id: 'toolu_1', name: 'f', arguments: '{"a":1}' }];

test.each<[string, unknown[], object[]]>([
  ['a string', [user('Hi')], [{ role: 'user', content: 'Hi' }]],
  [
    'blocks, with marks and fields of newer versions',
    [user([text('a', { cache_control: { type: 'ephemeral' } }), text('b', { newer: 1 })])],
    [{ role: 'user', content: 'a\nb' }],
  ],
  [
    'neighbours of one role are one turn',
    [user('a'), user('b'), assistant('c'), assistant([text('d')]), user('e')],
    [
      { role: 'user', content: 'a\nb' },
      { role: 'assistant', content: 'c\nd' },
      { role: 'user', content: 'e' },
    ],
  ],
  [
    'a tool round: the result is a message of its own, before what the user says',
    [user('Hi'), assistant([text('Let me see.'), CALL]), user([result('21'), text('And?')])],
    [
      { role: 'user', content: 'Hi' },
      { role: 'assistant', content: 'Let me see.', toolCalls: TOOL_CALLS },
      { role: 'tool', content: '21', toolCallId: 'toolu_1' },
      { role: 'user', content: 'And?' },
    ],
  ],
  [
    'results: blocks, errors, nothing',
    [user([result([text('a'), text('b')]), result('gone', { is_error: true }), result(undefined)])],
    ['a\nb', 'Error:\ngone', ''].map((content) => ({ role: 'tool', content, toolCallId: 'toolu_1' })),
  ],
  [
    'thinking in the plain, whoever signed it',
    [user('Hi'), assistant([{ type: 'thinking', thinking: 'Hm', signature: 'foreign' }, text('Yes')])],
    [
      { role: 'user', content: 'Hi' },
      { role: 'assistant', content: 'Yes', reasoning: 'Hm' },
    ],
  ],
  [
    'thinking that is sealed',
    [
      assistant([{ type: 'thinking', thinking: '', signature: 's' }, text('a')]),
      assistant([{ type: 'redacted_thinking', data: 'd' }, CALL]),
    ],
    [
      { role: 'assistant', content: 'a', reasoning: 'opened s at messages[0].content[0].signature' },
      {
        role: 'assistant',
        content: '',
        reasoning: 'opened d at messages[1].content[0].data',
        toolCalls: TOOL_CALLS,
      },
    ],
  ],
  ['thinking of nothing', [assistant([{ type: 'thinking', thinking: '', signature: '' }])], []],
  [
    'calls without an id or an input',
    [assistant([{ type: 'tool_use', name: 'f' }])],
    [
      {
        role: 'assistant',
        content: '',
        toolCalls: [{ id: 'call_messages[0].content_0', name: 'f', arguments: '{}' }],
      },
    ],
  ],
  [
    'system messages: where they stand, and until the user speaks again',
    [
      { role: 'system', content: 'a', clear_at: 'next_user_message' },
      user('b'),
      { role: 'system', content: [text('c')], clear_at: 'next_user_message' },
      { role: 'system' },
    ],
    [
      { role: 'user', content: 'b' },
      { role: 'system', content: 'c' },
    ],
  ],
])('%s', (_, given, expected) => {
  const bare = told(given).messages.map((message) => JSON.parse(JSON.stringify(message)) as object);
  expect(bare).toEqual(expected);
});

test.each<[unknown, string[]]>([
  ['Be brief.', ['Be brief.']],
  [[text('a'), text('b')], ['a\nb']],
  ['', []],
  [[], []],
])('the system prompt %j', (prompt, expected) => {
  const [...given] = told([user('Hi')], prompt).messages;
  expect(given.filter(({ role }) => role === 'system').map(({ content }) => content)).toEqual(expected);
});

test('tools that the conversation adds, finds and removes', () => {
  const change = (type: string, name: string): object => ({ type, tool: { type: 'tool_reference', name } });
  const { offered, messages: given } = told([
    { role: 'system', content: [change('tool_addition', 'a'), change('tool_removal', 'b')] },
    user([result([{ type: 'tool_reference', tool_name: 'c' }])]),
    { role: 'system', content: [change('tool_removal', 'a')] },
  ]);
  expect([...offered]).toEqual([
    ['a', false],
    ['b', false],
    ['c', true],
  ]);
  expect(given).toEqual([{ role: 'tool', content: 'The tool c can be called now.', toolCallId: 'toolu_1' }]);
});

const PNG = { type: 'base64', media_type: 'image/png', data: 'AAAA' };
describe('refused', () => {
  test.each<[string, unknown, string, string]>([
    ['a document', [{ type: 'document', source: PNG }], 'messages[0].content[0]', 'unsupported_parameter'],
    ['a search result', [{ type: 'search_result' }], 'messages[0].content[0]', 'unsupported_parameter'],
    ['a document of a tool', [result([{ type: 'document' }])], 'messages[0].content[0].content[0]', 'unsupported_parameter'],
    ['a stored image', [{ type: 'image', source: { type: 'file', file_id: 'f' } }], 'messages[0].content[0].source', 'unsupported_parameter'],
    ['a block that is none', [{ type: 'x' }], 'messages[0].content[0].type', 'invalid_value'],
    ['a text without text', [{ type: 'text' }], 'messages[0].content[0].text', 'missing_required_parameter'],
    ['a number', 5, 'messages[0].content', 'invalid_type'],
    ['nothing', undefined, 'messages[0].content', 'missing_required_parameter'],
  ])('%s', (_, content, param, code) => {
    expect(refusal(() => told([user(content)]))).toMatchObject({ code, param });
  }); // prettier-ignore

  test.each([
    ['a tool that Anthropic ran', [{ type: 'server_tool_use', id: 'x', name: 'web_search', input: {} }]],
    ['its result', [{ type: 'web_search_tool_result', content: [] }]],
  ])('%s', (_, content) => {
    expect(refusal(() => told([assistant(content)]))).toMatchObject({ code: 'unsupported_parameter' });
  });
});

test('property: the words of every text block are told, in their order', () => {
  const block = fc.string({ minLength: 1, maxLength: 5 });
  const turn = fc.tuple(fc.constantFrom('user', 'assistant', 'system'), fc.array(block, { maxLength: 3 }));
  fc.assert(
    fc.property(fc.array(turn, { minLength: 1, maxLength: 6 }), (turns) => {
      const given = turns.map(([role, words]) => ({ role, content: words.map((each) => text(each)) }));
      const all = told(given).messages.map(({ content }) => content);
      expect(all.join('\n')).toBe(turns.flatMap(([, words]) => words).join('\n'));
    }),
  );
});
