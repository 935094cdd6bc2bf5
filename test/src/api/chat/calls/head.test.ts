// Heads of calls in text that comes in pieces.

import { expect, test } from 'vitest';
import { matchHead, type HeadPart } from '../../../../../src/api/chat/calls/head.ts';

function text(of: string): HeadPart {
  return { kind: 'text', text: of };
}
const OBJECT: readonly HeadPart[] = [
  text('{ "name" : '),
  { kind: 'name', quoted: true },
  text(' , "arguments" : '),
];
const NAMED: readonly HeadPart[] = [
  text('[CALL]'),
  { kind: 'name', quoted: false },
  text('[ID]'),
  { kind: 'id', quoted: false },
  text('[😀]\n'),
];
const NAMES = ['get', 'get_weather'];

test.each([
  ['{"name":"get","arguments":{', 'get', ''],
  ['{ "name" :\n"get_weather" , "arguments": {', 'get_weather', ''],
  ['[CALL]get[ID]a1b[😀]{', 'get', 'a1b'],
  ['[CALL]get_weather[ID]7[😀] \n {', 'get_weather', '7'],
])('%s: a head, and every part of it may become one', (whole, name, id) => {
  const heads = [OBJECT, NAMED];
  expect(matchHead(heads, whole, NAMES)).toEqual({ kind: 'head', length: whole.length - 1, name, id });
  for (let end = 0; end < whole.length; end += 1)
    expect([end, matchHead(heads, whole.slice(0, end), NAMES).kind]).toEqual([end, 'more']);
});

test.each([
  ['{"nome"', 'none'],
  ['[CALL]get(', 'none'],
  ['[CALL]get[ID]a[😀]7', 'none'],
  ['{"name":"get","arguments":[', 'none'],
  ['{"name":"rm"', 'foreign'],
  ['{"name":7', 'foreign'],
  ['[CALL]rm[', 'foreign'],
  ['[CALL][', 'foreign'],
])('%s: %s', (given, kind) => {
  expect(matchHead([OBJECT, NAMED], given, NAMES).kind).toBe(kind);
});
