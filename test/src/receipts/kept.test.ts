// Receipts that can be asked for: bounded in bytes and time, a share for each caller (docs/receipts.md
// [R16]).

import { expect, test } from 'vitest';
import { KeptReceipts } from '../../../src/receipts/kept.ts';

const RECEIPT = { receipt: new Uint8Array(1300), salt: new Uint8Array(32) };

test('[R16] 10^5 answers of one caller stay within 16 MiB, and another caller keeps its own', () => {
  const kept = new KeptReceipts({ now: () => 0 });
  kept.add('first of b', 'b', RECEIPT);
  for (let i = 0; i < 100_000; i++) {
    kept.add(`a${i}`, 'a', RECEIPT);
    if (i % 1000 === 0) expect(kept.bytes).toBeLessThanOrEqual(16 * 1024 * 1024);
  }
  expect(kept.get('first of b', 'b')).toMatchObject(RECEIPT);
  expect(kept.get('a99999', 'a')).toMatchObject(RECEIPT);
  expect(kept.get('a0', 'a')).toBeUndefined();
});

test('[R16] 10^5 callers of one answer each stay within the bound', () => {
  const kept = new KeptReceipts({ now: () => 0 });
  for (let i = 0; i < 100_000; i++) kept.add(`id ${i}`, `caller ${i}`, RECEIPT);
  expect(kept.bytes).toBeLessThanOrEqual(16 * 1024 * 1024);
  expect(kept.get('id 99999', 'caller 99999')).toBeDefined();
});

test('[R16] a receipt is gone after ten minutes, and is given to its caller alone', () => {
  let now = 1000;
  const kept = new KeptReceipts({ now: () => now });
  kept.add('id', 'a', RECEIPT);
  expect(kept.get('id', 'b')).toBeUndefined();
  expect(kept.get('id', undefined)).toBeDefined();
  now += 599_999;
  expect(kept.get('id', 'a')).toBeDefined();
  now += 1;
  expect(kept.get('id', 'a')).toBeUndefined();
  expect(kept.bytes).toBe(0);
});

test('the oldest of the caller with the most goes first, whatever was removed before', () => {
  const kept = new KeptReceipts({ now: () => 0, maxBytes: 4 * (1300 + 512) });
  for (const [id, owner] of [
    ['1', 'a'],
    ['2', 'b'],
    ['3', 'b'],
    ['4', 'c'],
    ['5', 'c'],
    ['6', 'c'],
  ] as const)
    kept.add(id, owner, RECEIPT);
  const there = ['1', '2', '3', '4', '5', '6'].filter((id) => kept.get(id, undefined) !== undefined);
  expect(there).toEqual(['1', '3', '5', '6']);
});
