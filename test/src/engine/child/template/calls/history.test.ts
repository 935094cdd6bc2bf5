// Histories as families of templates take them.

import { expect, test } from 'vitest';
import {
  oneCallATurn,
  withFormIds,
  wordsBefore,
} from '../../../../../../src/engine/child/template/calls/history.ts';
import type { ChatMessage } from '../../../../../../src/engine/seam/engine.ts';
import { toolFormat } from '../../../../../fixtures/engine/tool-formats.ts';

function call(id: string, name = 'f') {
  return { id, name, arguments: '{}' };
}
function asked(...ids: readonly string[]): ChatMessage {
  return { role: 'assistant', content: 'c', reasoning: 'r', toolCalls: ids.map((id) => call(id)) };
}
function result(toolCallId: string): ChatMessage {
  return { role: 'tool', content: `of ${toolCallId}`, toolCallId };
}
function ids(messages: readonly ChatMessage[]): readonly (string | undefined)[] {
  return messages.flatMap(({ toolCalls, toolCallId }) =>
    toolCalls === undefined ? [toolCallId] : toolCalls.map(({ id }) => id),
  );
}

test.each([
  ['mistral-call-id', ['abcDEF123', 'call_1', 'call_1'], ['abcDEF123', '000000002', '000000002']],
  ['kimi-k2', ['functions.f:7', 'x', 'x'], ['functions.f:7', 'functions.f:1', 'functions.f:1']],
  ['kimi-k2', ['functions.g:7', 'x', 'x'], ['functions.f:0', 'functions.f:1', 'functions.f:1']],
  ['cohere', ['a', 'b', 'b'], ['0', '1', '1']],
  ['solar', ['a_1-b', 'functions.f:1', 'functions.f:1'], ['a_1-b', 'call_1', 'call_1']],
  ['hermes', ['any thing', 'b', 'b'], ['any thing', 'b', 'b']],
] as const)('%s: ids of its form stay, others are replaced', (kind, given, expected) => {
  const [first, second, answered] = given;
  const messages = [asked(first), asked(second), result(answered)];
  expect(ids(withFormIds(messages, toolFormat(kind).syntax))).toEqual(expected);
});

test('a result belongs to the newest call of its id', () => {
  const messages = [asked('0'), result('0'), asked('0'), result('0'), result('nothing')];
  const { syntax } = toolFormat('mistral-call-id');
  expect(ids(withFormIds(messages, syntax))).toEqual([
    '000000001',
    '000000001',
    '000000002',
    '000000002',
    'nothing',
  ]);
});

test('several calls become turns, each with its results, and nothing is lost', () => {
  const turns = oneCallATurn([
    asked('a', 'b'),
    result('b'),
    result('x'),
    result('a'),
    asked('c'),
    result('c'),
  ]);
  expect(ids(turns)).toEqual(['a', 'a', 'b', 'b', 'x', 'c', 'c']);
  expect(turns.map(({ content }) => content)).toEqual(['c', 'of a', '', 'of b', 'of x', 'c', 'of c']);
  expect(turns.map(({ reasoning }) => reasoning ?? '')).toEqual(['r', '', '', '', '', 'r', '']);
});

test('words apart from calls: in order, and only where there are both', () => {
  const turns = wordsBefore([asked('a', 'b'), result('a'), { ...asked('c'), content: '' }]);
  expect(
    turns.map(({ content, reasoning, toolCalls = [] }) => [content, reasoning, toolCalls.length]),
  ).toEqual([
    ['c', 'r', 0],
    ['', undefined, 2],
    ['of a', undefined, 0],
    ['', 'r', 1],
  ]);
});
