// Bodies that must be whole are bounded, each and all of them together, and what was held is given back.

import { expect, test } from 'vitest';
import { CheckedAnswer } from '../../../attestation/client/checked-answer.ts';
import { HeldBytes } from '../../../attestation/client/held-bytes.ts';
import type { ExpectedAnswer } from '../../../attestation/receipts/check.ts';
import { ReceiptSequence } from '../../../attestation/receipts/sequence.ts';
import { codeOf } from '../../fixtures/receipts/code.ts';

test('one body, all of them, and a share that was given back', async () => {
  const held = new HeldBytes(100, 150);
  const [first, second] = [held.share(), held.share()];
  first.hold(60);
  first.hold(100);
  expect(held.bytes).toBe(100);
  expect(await codeOf(() => first.hold(101))).toBe('input_too_large');
  second.hold(50);
  expect(await codeOf(() => second.hold(51))).toBe('held_too_much');
  expect(held.bytes).toBe(150);
  first.release();
  second.hold(100);
  second.release();
  second.release();
  expect(held.bytes).toBe(0);
});

const EXPECTED: ExpectedAnswer = {
  receiptKey: new Uint8Array(32),
  channel: undefined,
  models: undefined,
  method: 'POST',
  path: '/',
  bodyDigest: new Uint8Array(32),
  nonce: new Uint8Array(32),
};

/** The code that ends an answer of these pieces. */
function ending(
  held: HeldBytes,
  type: string,
  pieces: readonly string[],
  keepContent: boolean,
): Promise<string | null> {
  const kept = { evidence: null, url: 'https://host.example/', requestBody: new Uint8Array(0) };
  const checked = new CheckedAnswer(
    { expected: EXPECTED, options: { keepContent }, sequence: new ReceiptSequence(), held, kept },
    {
      status: 200,
      header: (name) => ({ 'content-type': type, 'assay-receipt': ':AA==:;salt=:AA==:' })[name] ?? null,
      body: (async function* body() {
        for (const piece of pieces) yield await Promise.resolve(Buffer.from(piece));
      })(),
    },
  );
  return codeOf(async () => {
    for await (const bytes of checked.bytes()) expect(bytes.length).toBeLessThan(100);
  });
}

test.each([
  [
    'a whole answer',
    'application/json',
    ['x'.repeat(60), 'x'.repeat(60)],
    false,
    'input_too_large',
    'held_too_much',
  ],
  ['an event of a stream', 'text/event-stream', ['data: ', 'x'.repeat(60), 'x'.repeat(60)], false, 'input_too_large', 'held_too_much'], // prettier-ignore
  ['a stream that is kept', 'text/event-stream', [': one\n\n', `: ${'x'.repeat(95)}\n\n`], true, 'input_too_large', 'input_too_large'], // prettier-ignore
  ['a stream that is not kept', 'text/event-stream', [': one\n\n', `: ${'x'.repeat(90)}\n\n`], false, 'receipt_missing', 'receipt_missing'], // prettier-ignore
] as const)('%s, alone and beside another', async (...row) => {
  const [, type, pieces, keepContent, alone, beside] = row;
  const held = new HeldBytes(100, 150);
  expect(await ending(held, type, pieces, keepContent)).toBe(alone);
  expect(held.bytes).toBe(0);
  held.share().hold(100);
  expect(await ending(held, type, pieces, keepContent)).toBe(beside);
});
