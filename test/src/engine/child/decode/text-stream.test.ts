// Stop strings and the wire format of calls: only the text a client reads is searched for stop strings, in
// every format, however the tokens fall, and whatever part of the wire format the stop string is.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { ToolEvent } from '../../../../../src/api/chat/calls/events.ts';
import { callMarks } from '../../../../../src/api/chat/tools.ts';
import { triggersOf } from '../../../../../src/grammar/calls/triggers.ts';
import { createTextStream } from '../../../../../src/engine/child/decode/text-stream.ts';
import type { CallMarks, ToolFormat } from '../../../../../src/engine/seam/engine.ts';
import { GENERIC_TOOL_FORMAT } from '../../../../../src/engine/seam/tool-format.ts';
import {
  createToolReader,
  splitText,
  toolFormats,
  writeCalls,
} from '../../../../fixtures/engine/tool-formats.ts';

const FORMATS = Object.fromEntries(toolFormats.map((format) => [format.kind, format]));
const NAMES = ['get_weather', 'rm'];
const USE = { tools: NAMES.map((name) => ({ name, parameters: {} })), parallel: true };

interface Seen {
  content: string;
  calls: { name: string; arguments: string }[];
  stopped: boolean;
  unfinished: boolean;
}

/** The text a client gets of an answer that comes in these pieces. */
function seen(
  pieces: readonly string[],
  format: ToolFormat,
  marks: CallMarks,
  o: { readonly stop?: string; readonly cut?: boolean } = {},
): Seen {
  const stream = createTextStream(o.stop === undefined ? [] : [o.stop], marks);
  const reader = createToolReader(format, NAMES);
  const result: Seen = { content: '', calls: [], stopped: false, unfinished: false };
  const take = (event: ToolEvent): void => {
    if (event.kind === 'content') result.content += event.text;
    else if (event.kind === 'call') result.calls.push({ name: event.name, arguments: '' });
    else result.calls.at(-1)!.arguments += event.text;
  };
  for (const piece of pieces) reader.push(stream.push(Buffer.from(piece))).forEach(take);
  reader.push(stream.flush(o.cut === true)).forEach(take);
  reader.end(o.cut === true && !stream.stopped).forEach(take);
  return { ...result, stopped: stream.stopped, unfinished: reader.unfinished };
}

const CALLS = [
  ['get_weather', { city: 'Berlin', unit: null }],
  ['rm', { path: ['a b', '<tool_call>', '{"name": "x"}'] }],
] as const;

/** Every part of a text of up to so many characters, and the whole. */
function parts(text: string): string[] {
  const found = new Set<string>([text]);
  for (let from = 0; from < text.length; from += 1)
    for (const length of [1, 2, 4, 13])
      if (from + length <= text.length) found.add(text.slice(from, from + length));
  return [...found];
}

describe.each(Object.entries(FORMATS))('%s', (_kind, format) => {
  const wire = writeCalls(format, CALLS);
  const calls = CALLS.map(([name, args]) => ({ name, arguments: JSON.stringify(args) }));
  const auto = callMarks({ ...USE, required: false }, false, format);
  const required = callMarks({ ...USE, required: true }, false, format);
  const formed = callMarks({ ...USE, required: false }, true, format);

  test.each([
    ['required', required, ''],
    ['a form or calls', formed, ''],
    ['auto', auto, ''],
    ['auto, blanks first', auto, '\n\n'],
    ['auto, words first', auto, 'So, 7 > 5.\n\n'],
  ])('%s: no part of the wire format stops a call', (_name, marks, before) => {
    const words = before.trim();
    for (const stop of parts(`${before.slice(-2)}${wire}`)) {
      const expected = words.includes(stop)
        ? { content: words.slice(0, words.indexOf(stop)), calls: [], stopped: true, unfinished: false }
        : { content: words, calls, stopped: false, unfinished: false };
      for (const pieces of [Array.from(before + wire), splitText(before + wire, [3, 7, 20, 21, 60])])
        expect(seen(pieces, format, marks, { stop }), JSON.stringify(stop)).toEqual(expected);
    }
  });

  test.each([
    ['required', required, ''],
    ['a form or calls', formed, ''],
    ['auto', auto, ''],
    ['auto, words first', auto, 'So, 7 + 5.'],
  ])('%s: cut anywhere, framing is no content', (_name, marks, before) => {
    for (let end = before.length; end < wire.length + before.length; end += 1) {
      const text = (before + wire).slice(0, end);
      for (const stop of [undefined, '<', '{"', '[TOOL', 'name']) {
        const got = seen(Array.from(text), format, marks, { cut: true, ...(stop !== undefined && { stop }) });
        // A blank of the framing that comes before its first mark may be one of the words.
        const words = { ...got, content: got.content.trimEnd() };
        expect(words, `${end} ${stop}`).toMatchObject({ content: before, stopped: false });
        // The arguments of the newest call have begun and not ended, or all calls are whole.
        const broken = got.calls.filter((call, i) => call.arguments !== calls[i]?.arguments);
        expect(broken.length).toBe(got.unfinished && broken.length === 1 ? 1 : 0);
      }
    }
  });

  test('what only begins like a call is content when the answer ends of itself', () => {
    const start = triggersOf(format, NAMES)[0]!.slice(0, -1);
    expect(seen([`a ${start}`], format, auto)).toMatchObject({ content: `a ${start}` });
    expect(seen([`a ${start}`], format, auto, { stop: start })).toMatchObject({
      content: 'a ',
      stopped: true,
    });
    expect(seen([`a ${start}`], format, auto, { cut: true })).toMatchObject({ content: 'a' });
    expect(seen([`a ${start}`, ' b'], format, auto, { cut: true })).toMatchObject({
      content: `a ${start} b`,
    });
  });

  test('content of a form is stopped, though it could have been a call', () => {
    const text = '{"name":"none","text":"one END two"}';
    for (const pieces of [[text], Array.from(text)]) {
      expect(seen(pieces, format, formed, { stop: 'END' })).toMatchObject({
        content: '{"name":"none","text":"one ',
        stopped: true,
      });
      expect(seen(pieces, format, formed, { stop: '{"name' })).toMatchObject({ content: '', stopped: true });
    }
  });
});

describe('properties', () => {
  const unit = fc.constantFrom('a', 'b', ' ', '\n', '<', 'tool', '_call', '{', '"name"', '[', 'é', '😀', '}');
  const name = fc.constantFrom(...NAMES);
  /** Where arguments are not JSON, names are words. */
  const plain = fc.oneof(fc.string(), fc.integer(), fc.boolean(), fc.array(fc.string(), { minLength: 1 }));
  const argsOf = ({ syntax }: ToolFormat): fc.Arbitrary<object> =>
    syntax.kind === 'object' || syntax.kind === 'named'
      ? fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 1 }), { maxKeys: 3 })
      : fc.dictionary(fc.stringMatching(/^[a-z_-]{1,5}$/), plain, { maxKeys: 3 });

  test('a stop string is met where the content has it, and nowhere else', () => {
    fc.assert(
      fc.property(
        fc
          .constantFrom(...Object.values(FORMATS))
          .chain((format) =>
            fc.tuple(fc.constant(format), fc.array(fc.tuple(name, argsOf(format)), { maxLength: 3 })),
          ),
        fc.string({ unit, maxLength: 12 }),
        fc.tuple(fc.nat(), fc.integer({ min: 1, max: 6 })),
        fc.array(fc.nat(500), { maxLength: 12 }),
        ([format, some], words, [from, length], cuts) => {
          const triggers = triggersOf(format, NAMES);
          fc.pre(!triggers.some((trigger) => words.includes(trigger)));
          const text = words + writeCalls(format, some);
          fc.pre(
            text !== '' && triggers.every((trigger) => [-1, words.length].includes(text.indexOf(trigger))),
          );
          const all = Array.from(text);
          const at = from % all.length;
          const stop = all.slice(at, at + length).join('');
          const marks = callMarks({ ...USE, required: false }, false, format);
          const free = seen([text], format, marks);
          expect(free.calls).toHaveLength(some.length);
          const met = free.content.indexOf(stop);
          const expected =
            met < 0
              ? free
              : { content: free.content.slice(0, met), calls: [], stopped: true, unfinished: false };
          expect(seen(splitText(text, cuts), format, marks, { stop })).toEqual(expected);
        },
      ),
      { numRuns: 800 },
    );
  });

  test('without calls to come, a stop string is met wherever it is', () => {
    fc.assert(
      fc.property(
        fc.string({ unit, maxLength: 20 }),
        fc.string({ unit, minLength: 1, maxLength: 3 }),
        (text, stop) => {
          const stream = createTextStream([stop]);
          const out = Array.from(text, (c) => stream.push(Buffer.from(c))).join('') + stream.flush();
          const at = text.indexOf(stop);
          expect([out, stream.stopped]).toEqual(at < 0 ? [text, false] : [text.slice(0, at), true]);
          expect(stream.stop).toBe(at < 0 ? undefined : stop);
        },
      ),
    );
  });

  test.each([
    [['b', 'c'], 'xcb', 'x', 'c'],
    [['bc', 'b'], 'xbc', 'x', 'b'],
    [['y'], 'x', 'x', undefined],
  ])('of %j the first that is met in %s is told', (stops, text, before, met) => {
    const stream = createTextStream(stops);
    const out = Array.from(text, (char) => stream.push(Buffer.from(char))).join('') + stream.flush();
    expect([out, stream.stop]).toEqual([before, met]);
  });

  test('little is held back, however many blanks come', () => {
    const marks = callMarks({ ...USE, required: false }, false, GENERIC_TOOL_FORMAT);
    const stream = createTextStream(['END'], marks);
    let out = stream.push(Buffer.from('a'));
    for (let i = 0; i < 2000; i += 1) out += stream.push(Buffer.from(' '));
    expect(out.length).toBeGreaterThan(1700);
    expect(stream.push(Buffer.from('END'))).toBe(' '.repeat(2001 - out.length));
    expect(stream.stopped).toBe(true);
  });
});
