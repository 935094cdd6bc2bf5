// Reading tool calls from an answer that comes in pieces.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { GENERIC_TOOL_FORMAT } from '../../../../../src/engine/seam/tool-format.ts';
import type { ToolEvent } from '../../../../../src/api/chat/calls/events.ts';
import { createToolReader, toolFormat } from '../../../../fixtures/engine/tool-formats.ts';

const mistral = toolFormat('mistral');
const llama3 = toolFormat('llama3');

interface Read {
  content: string;
  calls: { name: string; arguments: string }[];
}

const NAMES = ['a', 'b', 'ab', 'weather', 'f', 'f0', 'f1', 'f2', 'f3'];

function read(pieces: readonly string[], format = GENERIC_TOOL_FORMAT): Read {
  const reader = createToolReader(format, NAMES);
  const result: Read = { content: '', calls: [] };
  const take = (event: ToolEvent): void => {
    if (event.kind === 'content') result.content += event.text;
    else if (event.kind === 'call') result.calls.push({ name: event.name, arguments: '' });
    else (result.calls.at(-1) as { arguments: string }).arguments += event.text;
  };
  for (const piece of pieces) reader.push(piece).forEach(take);
  reader.end().forEach(take);
  return result;
}

function call(name: string, args: unknown): string {
  return `<tool_call>\n${JSON.stringify({ name, arguments: args })}\n</tool_call>`;
}

describe('formats', () => {
  test('one call', () => {
    expect(read([call('weather', { city: 'Paris' })])).toEqual({
      content: '',
      calls: [{ name: 'weather', arguments: '{"city":"Paris"}' }],
    });
  });

  test('words before, two calls', () => {
    expect(read([`Let me look.\n\n${call('a', { x: 1 })}\n${call('b', {})}`])).toEqual({
      content: 'Let me look.',
      calls: [
        { name: 'a', arguments: '{"x":1}' },
        { name: 'b', arguments: '{}' },
      ],
    });
  });

  test('mistral', () => {
    const text =
      '[TOOL_CALLS][{"name": "a", "arguments": {"x": [1, {"y": "}"}]}}, {"name": "b", "arguments": {}}]';
    expect(read([text], mistral).calls).toEqual([
      { name: 'a', arguments: '{"x": [1, {"y": "}"}]}' },
      { name: 'b', arguments: '{}' },
    ]);
  });

  test('llama 3', () => {
    expect(read(['{"name": "a", "parameters": {"x": 1}}'], llama3).calls).toEqual([
      { name: 'a', arguments: '{"x": 1}' },
    ]);
  });

  test.each([
    ['arguments first', '<tool_call>{"arguments": {"x": 1}, "name": "a"}</tool_call>', '{"x":1}'],
    [
      'arguments as a string',
      String.raw`<tool_call>{"name": "a", "arguments": "{\"x\":1}"}</tool_call>`,
      '{"x":1}',
    ],
    ['no arguments', '<tool_call>{"name": "a"}</tool_call>', '{}'],
    ['a field between', '<tool_call>{"name": "a", "id": 7, "arguments": {"x":1}}</tool_call>', '{"x":1}'],
  ])('%s', (_what, text, args) => {
    expect(read([text])).toEqual({ content: '', calls: [{ name: 'a', arguments: args }] });
    expect(read(Array.from(text))).toEqual({ content: '', calls: [{ name: 'a', arguments: args }] });
  });

  test('an escaped name', () => {
    expect(read([String.raw`<tool_call>{"name": "a\u0062", "arguments": {}}</tool_call>`]).calls).toEqual([
      { name: 'ab', arguments: '{}' },
    ]);
  });

  test.each([
    'a < b and <tool_cal is no call',
    'blanks before \n <tool_call> are kept',
    '<tool_call>not json</tool_call>',
    '<tool_call>{"broken": tru}</tool_call>',
    '<tool_call>{"name": "never finished"',
    '<tool_call>',
  ])('no call: %s', (text) => {
    expect(read([text])).toEqual({ content: text, calls: [] });
    expect(read(Array.from(text))).toEqual({ content: text, calls: [] });
  });

  test('a call that broke off keeps what there is of it', () => {
    expect(read(['<tool_call>\n{"name": "a", "arguments": {"x": "unfin'])).toEqual({
      content: '',
      calls: [{ name: 'a', arguments: '{"x": "unfin' }],
    });
  });

  test('arguments come out while they are written', () => {
    const reader = createToolReader(GENERIC_TOOL_FORMAT, NAMES);
    reader.push('<tool_call>\n{"name": "a", "arguments": ');
    expect(reader.push('{"x": ')).toEqual([
      { kind: 'call', name: 'a' },
      { kind: 'arguments', text: '{"x": ' },
    ]);
    expect(reader.push('"y')).toEqual([{ kind: 'arguments', text: '"y' }]);
  });
});

describe('what is cut off after a call is no content', () => {
  const first = { llama3: '{"name": "a", "parameters": {"x": 1}}', tagged: call('a', { x: 1 }) };
  test.each([
    ['the mark between', llama3, first.llama3, ';'],
    ['its brace', llama3, first.llama3, '; {'],
    ['its key', llama3, first.llama3, '; {"na'],
    ['its name', llama3, first.llama3, '; {"name": "b'],
    ['a whole name', llama3, first.llama3, '; {"name": "b", "para'],
    ['up to its arguments', llama3, first.llama3, '; {"name": "b", "parameters": '],
    ['another order', llama3, first.llama3, '; {"parameters": {"x": 1}, "na'],
    ['tags', GENERIC_TOOL_FORMAT, first.tagged, '\n<tool_c'],
    ['in tags', GENERIC_TOOL_FORMAT, first.tagged, '\n<tool_call>\n{"name": "b'],
  ])('%s', (_what, format, whole, rest) => {
    const expected = read([whole], format);
    expect(expected).toMatchObject({ content: '', calls: [{ name: 'a' }] });
    expect(read([whole + rest], format)).toEqual(expected);
    expect(read(Array.from(whole + rest), format)).toEqual(expected);
  });

  test('wherever two calls are cut, only the words before them are content', () => {
    const value = fc.record({ x: fc.string(), y: fc.jsonValue({ maxDepth: 1 }) });
    fc.assert(
      fc.property(
        fc.record({ a: value, b: value, tagged: fc.boolean() }),
        fc.nat(),
        fc.array(fc.nat(500), { maxLength: 6 }),
        ({ a, b, tagged }, at, cuts) => {
          const one = JSON.stringify({ name: 'a', parameters: a });
          const [head, tail] = tagged
            ? [`Words. ${call('a', a)}`, `\n${call('b', b)}`]
            : [`Words. ${one}`, `; ${JSON.stringify({ name: 'b', parameters: b })}`];
          const text = head + tail.slice(0, at % (tail.length + 1));
          const { content, calls } = read(split(text, cuts), tagged ? GENERIC_TOOL_FORMAT : llama3);
          expect([content, calls[0]]).toEqual(['Words.', { name: 'a', arguments: JSON.stringify(a) }]);
        },
      ),
      { numRuns: 500 },
    );
  });
});

describe('an object that names no tool is content', () => {
  test.each([
    ['data', '{"name": "Ada", "age": 36}'],
    ['its arguments look like a call', '{"name":"Ada","parameters":{"a b":  [ 1, "  x" ] }}'],
    ['a call within it', '{"name": "Ada", "parameters": {"name": "a", "parameters": {}}}'],
    ['the name last', '{"age": 36,\n  "name":\t"Ada" }'],
    ['escapes', String.raw`{"name": "\u0041da \" }", "x": "}{"}`],
    ['words after it', '{"name": "Ada"} is her name'],
    ['two', '{"name": "Ada"}\n\n{"name": "Bob", "parameters": {}}'],
    ['broken off', '{"name": "Ada", "parameters": {"x": "unfin'],
    ['broken off in blanks', '{"name": "Ada",   '],
  ])('%s', (_what, text) => {
    for (const pieces of [[text], Array.from(text), text.split(/(?= )/)])
      expect(read(pieces, llama3)).toEqual({ content: text, calls: [] });
  });

  test('it comes out while it is written', () => {
    const reader = createToolReader(llama3, NAMES);
    expect(reader.push('{"name": "Ada"')).toEqual([{ kind: 'content', text: '{"name": "Ada"' }]);
    expect(reader.push(', ')).toEqual([{ kind: 'content', text: ', ' }]);
  });

  test('in tags, with the tags', () => {
    const text = call('rm', { path: '/' });
    expect(read([text])).toEqual({ content: text, calls: [] });
    expect(read(Array.from(text))).toEqual({ content: text, calls: [] });
  });

  test('beside a call', () => {
    const text = '{"name": "a", "parameters": {}}; {"name": "Ada", "parameters": {}}';
    const expected = {
      content: '; {"name": "Ada", "parameters": {}}',
      calls: [{ name: 'a', arguments: '{}' }],
    };
    expect(read([text], llama3)).toEqual(expected);
    expect(read(Array.from(text), llama3)).toEqual(expected);
  });

  test('any JSON object whose name is no tool is given whole', () => {
    const record = fc.record({
      name: fc.string().filter((name) => !NAMES.includes(name)),
      parameters: fc.jsonValue(),
      x: fc.jsonValue(),
    });
    fc.assert(
      fc.property(
        record,
        fc.array(fc.nat(500), { maxLength: 8 }),
        fc.constantFrom(undefined, 1),
        (value, cuts, indent) => {
          const text = JSON.stringify(value, null, indent);
          expect(read(split(text, cuts), llama3)).toEqual({ content: text, calls: [] });
        },
      ),
    );
  });
});

function split(text: string, cuts: readonly number[]): string[] {
  const at = [...new Set(cuts.map((cut) => cut % (text.length + 1)))].sort((a, b) => a - b);
  return [0, ...at].map((from, i) => text.slice(from, at[i] ?? text.length));
}

describe('properties', () => {
  const jsonText = fc.json({ maxDepth: 3 });
  const args = fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 2 }));

  test('however the text is cut, the same is read', () => {
    const parts = fc.array(
      fc.oneof(
        fc.string(),
        jsonText,
        args.map((each) => call('f', each)),
        fc.constant('<tool_call>'),
        fc.constant('</tool_call>'),
        fc.constant('{"name"'),
      ),
      { maxLength: 6 },
    );
    fc.assert(
      fc.property(
        parts,
        fc.array(fc.nat(2000), { maxLength: 12 }),
        fc.constantFrom(GENERIC_TOOL_FORMAT, mistral, llama3),
        (some, cuts, format) => {
          const text = some.join('');
          expect(read(split(text, cuts), format)).toEqual(read([text], format));
        },
      ),
      { numRuns: 1500 },
    );
  });

  test('arguments that were written are the arguments read', () => {
    fc.assert(
      fc.property(
        fc.array(args, { minLength: 1, maxLength: 4 }),
        fc.array(fc.nat(2000), { maxLength: 12 }),
        (all, cuts) => {
          const text = all.map((each, i) => call(`f${i}`, each)).join('\n');
          expect(read(split(text, cuts)).calls.map((each) => JSON.parse(each.arguments) as unknown)).toEqual(
            all.map((each) => JSON.parse(JSON.stringify(each)) as unknown),
          );
        },
      ),
      { numRuns: 500 },
    );
  });

  test('text without a trigger passes whole', () => {
    fc.assert(
      fc.property(
        fc.string().filter((text) => !text.includes('<tool_call>')),
        fc.array(fc.nat(100), { maxLength: 8 }),
        (text, cuts) => {
          expect(read(split(text, cuts))).toEqual({ content: text.trimStart(), calls: [] });
        },
      ),
    );
  });
});
