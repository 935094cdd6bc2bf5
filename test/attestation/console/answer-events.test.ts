// Streamed chat answers as the page reads them, cut anywhere and of any form.

import * as fc from 'fast-check';
import { expect, test, vi } from 'vitest';
import { type AnswerEvent, answerEvents, errorMessage } from '../../../attestation/console/answer-events.ts';

async function read(bytes: Uint8Array, pieceBytes: number): Promise<AnswerEvent[]> {
  async function* pieces(): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes);
  }
  const events: AnswerEvent[] = [];
  for await (const event of answerEvents(pieces())) events.push(event);
  return events;
}

function stream(...events: readonly unknown[]): Buffer {
  return Buffer.from(events.map((event) => `data: ${typeof event === 'string' ? event : JSON.stringify(event)}\r\n\r\n`).join('')); // prettier-ignore
}

function delta(words: object, finish: string | null = null): object {
  return { choices: [{ index: 0, delta: words, finish_reason: finish }] };
}

test.each([1, 2, 3, 7, 1000])('text, reasoning and finish in pieces of %i bytes', async (pieceBytes) => {
  const bytes = stream(delta({ role: 'assistant', content: '' }), delta({ reasoning_content: 'hm' }), delta({ content: 'Grüße 👋' }), delta({}, 'length'), '[DONE]'); // prettier-ignore
  expect(await read(bytes, pieceBytes)).toEqual([
    { kind: 'thought', text: 'hm' },
    { kind: 'text', text: 'Grüße 👋' },
    { kind: 'finish', reason: 'length' },
  ]);
});

test('an error event is an error; comments, other fields and other JSON are nothing', async () => {
  const bytes = Buffer.concat([
    Buffer.from(': beat\n\nevent: x\nid: 1\n'),
    stream({ error: { message: 'the engine ended' } }, { choices: [] }, { choices: 'x' }, 5, null, 'no json'),
  ]);
  expect(await read(bytes, 11)).toEqual([{ kind: 'error', message: 'the engine ended' }]);
});

test('an event that does not end is refused at its bound', async () => {
  await expect(read(Buffer.alloc(5 * 1024 * 1024, 'x'), 65_536)).rejects.toThrow('too long');
});

test('a long event costs as much as its bytes, however small its pieces are', async () => {
  const split = vi.spyOn(String.prototype, 'split');
  const bytes = stream(delta({ content: 'x'.repeat(1 << 20) }));
  const [event] = await read(bytes, 1024);
  const looked = split.mock.contexts.reduce<number>((sum, text) => sum + String(text).length, 0);
  split.mockRestore();
  expect(event).toMatchObject({ kind: 'text' });
  expect(looked).toBeLessThan(3 * bytes.length);
});

test('property: any bytes are read to their end', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uint8Array({ maxLength: 300 }),
      fc.integer({ min: 1, max: 50 }),
      async (bytes, size) => {
        await read(Buffer.concat([Buffer.from('data: '), bytes]), size);
      },
    ),
  );
});

test.each([
  ['{"error":{"message":"no","code":"x"}}', { message: 'no', code: 'x' }],
  ['{"error":{"message":"no"}}', { message: 'no', code: '' }],
  ['{"error":"no"}', undefined],
  ['<h1>', undefined],
])('the message of %s', (text, found) => {
  expect(errorMessage(text)).toEqual(found);
});
