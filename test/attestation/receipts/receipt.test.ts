// Receipts: written, read strictly, and refused for every altered byte, by committed vectors
// (docs/receipts.md [R1], [R24]).

import { readFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { FinalReceipt } from '../../../attestation/receipts/body.ts';
import { MAX_RECEIPT_BYTES } from '../../../attestation/receipts/body.ts';
import { encodeReceipt, openReceipt } from '../../../attestation/receipts/receipt.ts';
import { CHECKPOINT, filled, FINAL, signReceipt } from '../../../scripts/receipt-fixture.ts';
import { RECEIPT_VECTORS, receiptVectors } from '../../../scripts/receipt-vectors.ts';
import { codeOf } from '../../fixtures/receipts/code.ts';

interface Vectors {
  readonly receipt_key: string;
  readonly receipts: readonly {
    readonly name: string;
    readonly receipt: string;
    readonly code: string | null;
  }[];
}
const committed = JSON.parse(readFileSync(RECEIPT_VECTORS, 'utf8')) as Vectors;

describe('[R1] [R24] test vectors', () => {
  test('are what scripts/receipt-vectors.ts makes', () => {
    expect(receiptVectors()).toEqual(committed);
  });

  test.each(committed.receipts)('$name: $code', async ({ receipt, code }) => {
    const bytes = new Uint8Array(Buffer.from(receipt, 'hex'));
    expect(await codeOf(() => openReceipt(bytes))).toBe(code);
    if (code === null)
      expect(Buffer.from((await openReceipt(bytes)).receiptKey).toString('hex')).toBe(committed.receipt_key);
  });
});

test('[R1] says what was signed', async () => {
  expect(await openReceipt(encodeReceipt(FINAL, signReceipt))).toEqual(FINAL);
  expect(await openReceipt(encodeReceipt(CHECKPOINT, signReceipt))).toEqual(CHECKPOINT);
});

test.each([
  ['final', FINAL],
  ['checkpoint', CHECKPOINT],
])('[R1] every flipped bit of a %s receipt is refused', async (_, receipt) => {
  const good = encodeReceipt(receipt, signReceipt);
  const accepted: number[] = [];
  for (let bit = 0; bit < good.length * 8; bit++) {
    const bytes = good.slice();
    bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    if ((await codeOf(() => openReceipt(bytes))) === null) accepted.push(bit);
  }
  expect(accepted).toEqual([]);
});

test('[R1] every shorter receipt is refused', async () => {
  const good = encodeReceipt(FINAL, signReceipt);
  for (let length = 0; length < good.length; length++)
    expect(await codeOf(() => openReceipt(good.subarray(0, length)))).toBe('receipt_malformed');
});

test('[R1] bytes that are no receipt give a typed refusal', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 5000 }), async (bytes) => {
      expect(await codeOf(() => openReceipt(bytes))).toBe('receipt_malformed');
    }),
    { numRuns: 300 },
  );
});

test('[R1] numbers come back as they were, each with one spelling', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.double({ noNaN: true, noDefaultInfinity: true }),
      fc.maxSafeNat(),
      async (temperature, seed) => {
        if (FINAL.sampling === null) throw new Error('the fixture has its sampling');
        const value = Object.is(temperature, -0) ? 0 : temperature;
        const receipt: FinalReceipt = { ...FINAL, sampling: { ...FINAL.sampling, temperature: value, seed } };
        expect(await openReceipt(encodeReceipt(receipt, signReceipt))).toEqual(receipt);
      },
    ),
    { numRuns: 200 },
  );
});

test.each([NaN, Infinity, -0])('[R1] %s is not signed', (temperature) => {
  if (FINAL.sampling === null) throw new Error('the fixture has its sampling');
  const receipt: FinalReceipt = { ...FINAL, sampling: { ...FINAL.sampling, temperature } };
  expect(() => encodeReceipt(receipt, signReceipt)).toThrow(TypeError);
});

test('[R8] 16 choices, the longest path, id and nonce fit in a receipt', () => {
  const choices = Array.from({ length: 16 }, (_, index) => ({
    index,
    finishReason: 'content_filter_',
    tokens: 2 ** 31,
    outputTokens: filled(1),
    outputText: filled(2),
  }));
  const receipt: FinalReceipt = {
    ...FINAL,
    seq: Number.MAX_SAFE_INTEGER,
    prev: filled(1),
    model: { ...FINAL.model, id: 'm'.repeat(200), adapters: [{ sha256: filled(1), scale: 0.1 }] },
    engine: { ...FINAL.engine, release: 'r'.repeat(64), cpuVariant: 'v'.repeat(64) },
    request: { ...FINAL.request, method: 'DELETE', path: 'p'.repeat(512) },
    outcome: { ...FINAL.outcome, choices, events: 2 ** 32, end: 'error', errorCode: 'e'.repeat(64) },
    lastCheckpoint: filled(3),
  };
  expect(encodeReceipt(receipt, signReceipt).length).toBeLessThanOrEqual(MAX_RECEIPT_BYTES);
});

test('[R1] what no reader takes is not signed', () => {
  expect(() => encodeReceipt({ ...FINAL, id: filled(1, 15) }, signReceipt)).toThrow('id is not 16 bytes');
  const model = { ...FINAL.model, id: 'm'.repeat(1024) };
  const long = {
    ...FINAL,
    model,
    engine: { ...FINAL.engine, release: 'r'.repeat(1024), cpuVariant: 'v'.repeat(1024) },
  };
  expect(() =>
    encodeReceipt(
      { ...long, request: { ...FINAL.request, path: 'p'.repeat(512), method: 'M'.repeat(1024) } },
      signReceipt,
    ),
  ).toThrow('at most 4096');
});
