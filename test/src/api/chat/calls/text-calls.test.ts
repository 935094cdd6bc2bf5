// Calls whose arguments are not one JSON object, read as they come in.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Callable, ToolEvent } from '../../../../../src/api/chat/calls/events.ts';
import { createToolReader } from '../../../../../src/api/chat/calls/reader.ts';
import { wholeCalls } from '../../../../../src/engine/child/template/calls/written.ts';
import { TAGGED_FAMILIES } from '../../../../../src/engine/child/template/calls/tagged-families.ts';
import type { ToolFormat } from '../../../../../src/engine/seam/tool-format.ts';
import {
  readAnswer,
  splitText,
  toolFormat,
  type ReadAnswer,
} from '../../../../fixtures/engine/tool-formats.ts';

const formats = TAGGED_FAMILIES.map(({ format }): [string, ToolFormat] => [format.kind, format]);

const TOOLS: readonly Callable[] = [
  {
    name: 'weather',
    parameters: {
      type: 'object',
      properties: {
        city: { type: 'string' },
        days: { type: 'integer' },
        place: { $ref: '#/$defs/place' },
        note: { type: ['string', 'null'] },
      },
      $defs: { place: { type: 'object', properties: { at: { type: 'string' } } } },
    },
  },
  { name: 'now', parameters: { type: 'object', properties: {} } },
];

function read(format: ToolFormat, text: string, cut = false): ReadAnswer {
  return readAnswer(createToolReader(format, TOOLS), [text], cut);
}

function written(format: ToolFormat, ...calls: readonly (readonly [string, object])[]): string {
  return wholeCalls(
    format,
    calls.map(([name, given]) => ({ id: '', name, arguments: JSON.stringify(given) })),
  );
}

const ROME = { city: 'Rome\n"x" <b> 5', days: 3, place: { at: 'é😀' } };

describe.each(formats)('%s', (_, format) => {
  const two = written(format, ['weather', ROME], ['now', {}]);

  test('text before, two calls, nothing of the framing', () => {
    const { content, calls } = read(format, `Let me look.\n${two}\n`);
    expect(content).toBe('Let me look.');
    expect(calls.map((call) => [call.name, JSON.parse(call.arguments) as unknown])).toEqual([
      ['weather', ROME],
      ['now', {}],
    ]);
  });

  test('any pieces give the same', () => {
    const text = `Let me look.\n${two}`;
    const whole = read(format, text);
    fc.assert(
      fc.property(fc.array(fc.nat(text.length), { maxLength: 20 }), (cuts) => {
        expect(readAnswer(createToolReader(format, TOOLS), splitText(text, cuts))).toEqual(whole);
      }),
      { numRuns: 100 },
    );
  });

  test('a call cut at any place: a beginning of its arguments, and no framing in the content', () => {
    const call = written(format, ['weather', ROME]);
    const whole = read(format, call).calls[0]?.arguments ?? '';
    for (let length = 0; length <= call.length; length += 1) {
      const { content, calls } = read(format, call.slice(0, length), true);
      expect([length, content]).toEqual([length, '']);
      for (const each of calls) expect(whole.startsWith(each.arguments.replace(/\s+$/, ''))).toBe(true);
    }
  });

  test('a tool that is not there stays content', () => {
    const text = written(format, ['missiles', { city: 'Rome' }]);
    const { content, calls } = read(format, text);
    expect(calls).toEqual([]);
    // The mark that ends a turn is no text of an answer.
    const silent = format.silent.reduce((rest, each) => rest.replaceAll(each, ''), text);
    expect(content).toBe(silent.trim());
  });

  test('a beginning that is no call is content at the end of an answer', () => {
    const begun = (format.triggers[0] ?? '').split('\u0000')[0] ?? '';
    expect(read(format, `see ${begun}`).content.trimEnd()).toBe(`see ${begun}`.trimEnd());
  });

  test('a parameter that is not in the schema is read as what it looks like', () => {
    const text = written(format, ['weather', { extra: 'plain', more: { a: [1] }, number: 5 }]);
    const [call] = read(format, text).calls;
    expect(JSON.parse(call?.arguments ?? '')).toEqual({
      extra: 'plain',
      more: format.syntax.kind === 'elements' ? expect.anything() : { a: [1] },
      number: 5,
    });
  });
});

describe('a string streams', () => {
  test.each(formats)('%s', (_, format) => {
    const city = 'A long name of a place';
    const text = written(format, ['weather', { city }]);
    const at = text.indexOf('place');
    const reader = createToolReader(format, TOOLS);
    const events = reader.push(text.slice(0, at));
    const given = events.map((event) => (event.kind === 'arguments' ? event.text : '')).join('');
    expect(given).toBe('{"city":"A long name of a ');
    expect(reader.unfinished).toBe(true);
    const rest: ToolEvent[] = [...reader.push(text.slice(at)), ...reader.end()];
    expect(given + rest.map((event) => (event.kind === 'arguments' ? event.text : '')).join('')).toBe(
      JSON.stringify({ city }),
    );
    expect(reader.unfinished).toBe(false);
  });
});

function inLines(body: string): string {
  return `<tool_call>\n<function=weather>\n${body}</function>\n</tool_call>`;
}

describe('parameters in lines', () => {
  const format = toolFormat('qwen3-coder');
  test.each([
    ['numbers as strings', '<parameter=city>\n05\n</parameter>\n', { city: '05' }],
    ['an empty string', '<parameter=city>\n\n</parameter>\n', { city: '' }],
    ['line breaks at both ends', '<parameter=city>\n\nRome\n\n</parameter>\n', { city: '\nRome\n' }],
    [
      'the end mark without its line',
      '<parameter=city>\na</parameter>b\n</parameter>\n',
      { city: 'a</parameter>b' },
    ],
    ['JSON in a string', '<parameter=city>\n{"a": 1}\n</parameter>\n', { city: '{"a": 1}' }],
    [
      'the end mark in JSON',
      '<parameter=place>\n{"at": "</parameter>"}\n</parameter>\n',
      { place: { at: '</parameter>' } },
    ],
    [
      "Python's writing",
      "<parameter=place>\n{'at': 'it\\'s', 'b': [True, None], }\n</parameter>\n",
      { place: { at: "it's", b: [true, null] } },
    ],
    ['null where a string may stand', '<parameter=note>\nnull\n</parameter>\n', { note: null }],
    ['a string where null may stand', '<parameter=note>\nnullable\n</parameter>\n', { note: 'nullable' }],
    ['no number where one is due', '<parameter=days>\nthree\n</parameter>\n', { days: 'three' }],
    [
      'text between parameters',
      '<parameter=days>\n3\n</parameter>\nhm\n<parameter=city>\nx\n</parameter>\n',
      { days: 3, city: 'x' },
    ],
    ['no line breaks around a number', '<parameter=days>3\n</parameter>\n', { days: 3 }],
  ])('%s', (_, body, expected) => {
    const [call] = read(format, inLines(body)).calls;
    expect(JSON.parse(call?.arguments ?? '')).toEqual(expected);
  });

  test('the first tag may be missing', () => {
    const { calls, content } = read(
      format,
      `Well.\n${inLines('<parameter=days>\n3\n</parameter>\n').slice(12)}`,
    );
    expect([content, calls.map((call) => call.arguments)]).toEqual(['Well.', ['{"days":3}']]);
  });
});

describe('literals', () => {
  const gemma = toolFormat('gemma4');
  const lfm2 = toolFormat('lfm2');
  test.each([
    ['{city:<|"|>a "b", {c}<|"|>,place:{at:<|"|><|<|"|>}}', { city: 'a "b", {c}', place: { at: '<|' } }],
    [
      '{days:-7,note:null,x:1.5e10,list:[true,<|"|>a<|"|>],empty:{}}',
      { days: -7, note: null, x: 1.5e10, list: [true, 'a'], empty: {} },
    ],
    ['{<|"|>a key<|"|>:1,other key:2}', { 'a key': 1, 'other key': 2 }],
    ['{}', {}],
  ])('%s', (body, expected) => {
    const [call] = read(gemma, `<|tool_call>call:weather${body}<tool_call|>`).calls;
    expect(JSON.parse(call?.arguments ?? '')).toEqual(expected);
  });

  test.each([
    [
      `city='Rome', days=3, place={"at": [1, true, None]}`,
      { city: 'Rome', days: 3, place: { at: [1, true, null] } },
    ],
    [`city="it's", note='say "x"\\n'`, { city: "it's", note: 'say "x"\n' }],
    [`city="\\u00e9\\x41\\'", pair=(1, 2), last=[1,]`, { city: "éA'", pair: [1, 2], last: [1] }],
    ['', {}],
  ])('%s', (body, expected) => {
    const [call] = read(lfm2, `<|tool_call_start|>[weather(${body})]<|tool_call_end|>`).calls;
    expect(JSON.parse(call?.arguments ?? '')).toEqual(expected);
  });

  test('a list of calls without marks of its own begins with the name of a tool', () => {
    const python = toolFormat('python');
    expect(read(python, 'A [link](x) and [1, 2]').content).toBe('A [link](x) and [1, 2]');
    const { calls, content } = read(python, '[weather(city="Rome"), now()]');
    expect([content, calls.map((call) => call.arguments)]).toEqual(['', ['{"city":"Rome"}', '{}']]);
  });
});

test('MiniCPM5: a string between the marks of character data', () => {
  const text = '<function name="weather"><param name="city"><![CDATA[a</param> ]]> b]]></param></function>';
  expect(read(toolFormat('minicpm5'), text).calls[0]?.arguments).toBe(
    JSON.stringify({ city: 'a</param> ]]> b' }),
  );
});

describe('channels of Gemma in an answer that may call', () => {
  const gemma = toolFormat('gemma4');
  const call = '<|tool_call>call:weather{city:<|"|>Rome<|"|>}<tool_call|>';
  const called = [{ name: 'weather', arguments: '{"city":"Rome"}' }];

  test.each<[text: string, reasoning: string, content: string, calls: readonly object[]]>([
    ['Yes<|channel>thought\nHm.<channel|>', '\nHm.', 'Yes', []],
    ['Yes<|channel>thought\n<channel|>', '\n', 'Yes', []],
    ['Yes<|channel><|channel>thought<channel|> no<channel|>', '', 'Yes no', []],
    [`Yes<|channel>thought\nHm.<channel|>${call}`, '\nHm.', 'Yes', called],
    [`Yes<|channel>thought\nHm.${call}`, '\nHm.', 'Yes', called],
    ['Yes<|channel>', '', 'Yes', []],
  ])('%j', (text, reasoning, content, calls) => {
    for (const pieces of [[text], [...text]]) {
      const told = readAnswer(createToolReader(gemma, TOOLS), pieces);
      expect(told).toMatchObject({ reasoning, content, calls });
    }
  });
});
