// Lines a confined program says, and what of its standard error an owner may see.

import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  harmless,
  LogTail,
  protocolReader,
  type Said,
  stderrReader,
} from '../../../../src/workshop/jobs/lines.ts';

function said(text: string, size = 3): readonly Said[] {
  const all: Said[] = [];
  const read = protocolReader((each) => all.push(each));
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += size) read(bytes.subarray(at, at + size));
  return all;
}

test('the forms there are', () => {
  expect(
    said(
      `{"progress":0.25,"stage":"loading"}\n{"progress":1}\n\n{"log":"a\\u001b[2Jb"}\n{"refused":{"code":"invalid_gguf","message":"m","param":"input_path"}}\n{"result":{"loss":1.5}}\n`,
    ),
  ).toEqual([
    { kind: 'progress', progress: 0.25, stage: 'loading' },
    { kind: 'progress', progress: 1, stage: undefined },
    { kind: 'log', text: 'a [2Jb' },
    { kind: 'refused', code: 'invalid_gguf', message: 'm', param: 'input_path' },
    { kind: 'result', result: { loss: 1.5 } },
  ]);
});

test.each([
  'hello',
  '[]',
  '{}',
  '{"progress":2}',
  '{"progress":-1}',
  '{"progress":"1"}',
  '{"progress":0.5,"stage":"Über die Daten"}',
  '{"result":1}',
  '{"refused":{"code":"internal_error","message":"m"}}',
  '{"refused":{"code":"invalid_value"}}',
])('%s is refused', (line) => {
  expect(() => said(`${line}\n`)).toThrow();
});

test('a line without an end is refused before it is long', () => {
  const read = protocolReader(() => undefined);
  const piece = Buffer.alloc(60 * 1024, 0x20);
  read(piece);
  expect(() => read(piece)).toThrow('too long');
});

test.each<[string, string | undefined]>([
  ['  File "/job/data/train.py", line 12, in <module>', 'at train.py:12 in <module>'],
  ['ValueError: could not convert "canary" to float', 'ValueError'],
  ['torch.cuda.OutOfMemoryError: tried', 'torch.cuda.OutOfMemoryError'],
  ['FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory', 'its heap is full'],
  ['    x = "canary"', undefined],
  ['Traceback (most recent call last):', undefined],
  ['canary', undefined],
  ['canary ValueError', undefined],
])('of %j is kept: %s', (line, kept) => {
  expect(harmless(line)).toBe(kept);
});

test('no text of a line that is no frame and no exception is kept', () => {
  fc.assert(
    fc.property(fc.array(fc.string({ maxLength: 80 }), { maxLength: 10 }), (lines) => {
      const kept: string[] = [];
      const read = stderrReader((line) => kept.push(line));
      for (const line of lines) read(Buffer.from(`canary ${line.replaceAll('\n', ' ')}\n`));
      expect(kept).toEqual([]);
    }),
  );
});

test('the tail is bounded in lines and characters', () => {
  const tail = new LogTail();
  for (let i = 0; i < 1000; i++) tail.add(`${i} ${'x'.repeat(1000)}`);
  expect(tail.lines).toHaveLength(200);
  expect(tail.lines.at(-1)).toHaveLength(300);
  expect(tail.lines[0]).toMatch(/^800 /);
});
