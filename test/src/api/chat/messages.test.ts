// Histories as clients hand them back: fields beside the words in messages and parts promise no behaviour,
// and the words come to the model all the same.

import { describe, expect, test } from 'vitest';
import { messages, toChatMessages } from '../../../../src/api/chat/messages.ts';
import type { ChatMessage } from '../../../../src/engine/seam/engine.ts';
import { refusal } from '../../../fixtures/refusal.ts';

function read(...wire: unknown[]): readonly ChatMessage[] {
  return toChatMessages(messages.read(wire, 'messages'));
}

const EXTRAS: readonly object[] = [
  { reasoning: 'r' },
  { reasoning_content: 'r' },
  { reasoning_content: null, reasoning_details: [{ type: 'x' }], thinking: { signature: 's' } },
  { annotations: [], parsed: null, refusal: null, audio: null, function_call: null },
  { provider_specific_fields: { a: 1 }, cache_control: { type: 'ephemeral' }, id: 'msg_1', created_at: 5 },
  { images: null, prefix: true, partial: false, weight: 0, toString: 'x' },
];

describe('fields nobody knows', () => {
  test.each(EXTRAS)('%j change nothing in any role', (extra) => {
    // Only an assistant has thoughts.
    const thoughts = 'reasoning' in extra || 'reasoning_content' in extra;
    for (const role of ['system', 'developer', 'user', ...(thoughts ? [] : ['assistant']), 'tool']) {
      const plain = { role, content: 'x' };
      expect(read({ ...plain, ...extra })).toEqual(read(plain));
    }
  });

  test.each(EXTRAS)('%j change nothing in a part, a call or its function', (extra) => {
    const part = { type: 'text', text: 'x' };
    expect(read({ role: 'user', content: [{ ...part, ...extra }] })).toEqual(
      read({ role: 'user', content: [part] }),
    );
    const called = { name: 'f', arguments: '{}' };
    const call = { id: 'c', type: 'function', function: called };
    const plain = read({ role: 'assistant', tool_calls: [call] });
    expect(read({ role: 'assistant', tool_calls: [{ index: null, ...extra, ...call }] })).toEqual(plain);
    expect(read({ role: 'assistant', tool_calls: [{ ...call, function: { ...called, ...extra } }] })).toEqual(
      plain,
    );
  });
});

describe('values that say nothing', () => {
  test.each(['system', 'developer', 'user', 'assistant', 'tool', 'function'])(
    'content of %s: null, empty',
    (role) => {
      for (const content of [null, '', []]) expect(read({ role, content })).toMatchObject([{ content: '' }]);
    },
  );

  test('an empty name, no calls, a part without text', () => {
    expect(read({ role: 'user', name: '', content: [{ type: 'text', text: null }] })).toEqual([
      { role: 'user', content: '' },
    ]);
    for (const calls of [null, []])
      expect(read({ role: 'assistant', content: 'x', tool_calls: calls })).toEqual([
        { role: 'assistant', content: 'x' },
      ]);
  });

  test.each([undefined, null, '', {}])('a call whose arguments are %j has none', (given) => {
    const call = { id: null, type: null, function: { name: 'f', arguments: given } };
    expect(read({ role: 'assistant', content: null, tool_calls: [call] })).toEqual([
      { role: 'assistant', content: '', toolCalls: [{ id: 'call_0_0', name: 'f', arguments: '{}' }] },
    ]);
  });
});

describe('other names of the same', () => {
  test('parts of the Responses API are text', () => {
    expect(read({ role: 'user', content: [{ type: 'input_text', text: 'a' }] })).toEqual(
      read({ role: 'user', content: [{ type: 'text', text: 'a' }] }),
    );
    expect(
      read({ role: 'assistant', content: [{ type: 'output_text', text: 'a', annotations: [] }] }),
    ).toEqual([{ role: 'assistant', content: 'a' }]);
  });

  test('earlier reasoning as a part is left out', () => {
    const parts = [
      { type: 'thinking', thinking: 't', signature: 's' },
      { type: 'redacted_thinking', data: 'd' },
      { type: 'reasoning', text: 'r' },
      { type: 'text', text: 'a' },
    ];
    expect(read({ role: 'assistant', content: parts })).toEqual([{ role: 'assistant', content: 'a' }]);
  });

  test('arguments as an object, and the older function_call with its result', () => {
    expect(
      read(
        { role: 'assistant', content: null, function_call: { name: 'f', arguments: { x: 1 } } },
        { role: 'function', name: 'f', content: 'done' },
      ),
    ).toEqual([
      { role: 'assistant', content: '', toolCalls: [{ id: 'call_0_0', name: 'f', arguments: '{"x":1}' }] },
      { role: 'tool', content: 'done', name: 'f' },
    ]);
  });

  test('ids of calls may be long', () => {
    const id = 'c'.repeat(5000);
    expect(read({ role: 'tool', tool_call_id: id, content: 'x' })).toMatchObject([{ toolCallId: id }]);
  });
});

describe('still refused', () => {
  test.each<[object, string, string]>([
    [{ role: 'user' }, 'missing_required_parameter', 'messages[0].content'],
    [{ role: 'user', content: 5 }, 'invalid_type', 'messages[0].content'],
    [{ role: 'user', content: [{ type: 'video' }] }, 'invalid_value', 'messages[0].content[0].type'],
    [{ role: 'user', content: [{ type: 'thinking' }] }, 'invalid_value', 'messages[0].content[0].type'],
    [{ role: 'user', content: [{ type: 'input_audio' }] }, 'unsupported_parameter', 'messages[0].content[0]'],
    [{ role: 'assistant', audio: { id: 'a' } }, 'unsupported_parameter', 'messages[0].audio'],
    [
      { role: 'assistant', tool_calls: [{ function: { name: 'f', arguments: [1] } }] },
      'invalid_type',
      'messages[0].tool_calls[0].function.arguments',
    ],
  ])('%j', (wire, code, param) => {
    expect(refusal(() => read(wire))).toMatchObject({ code, param });
  });

  test('sound whose words are there is text', () => {
    expect(read({ role: 'assistant', content: 'x', audio: { id: 'a' } })).toEqual([
      { role: 'assistant', content: 'x' },
    ]);
  });
});
