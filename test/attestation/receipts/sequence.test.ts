// The order of receipts as a client was given them (docs/receipts.md [R15]): two that claim one place are
// refused, in whichever order they arrive.

import { expect, test } from 'vitest';
import type { FinalReceipt } from '../../../attestation/receipts/body.ts';
import { ReceiptSequence } from '../../../attestation/receipts/sequence.ts';
import { FINAL, filled } from '../../../scripts/receipt-fixture.ts';

/** The receipt `seq` of a chain in which the receipt i has the digest i + 1. */
function receipt(seq: number, changes: Partial<FinalReceipt> = {}): FinalReceipt {
  return { ...FINAL, seq, prev: filled(seq), ...changes };
}

test('first, next, and apart where the one before it was not seen', () => {
  const sequence = new ReceiptSequence();
  const orders = [0, 1, 3, 2, 9].map((seq) => sequence.note(receipt(seq), filled(seq + 1)));
  expect(orders).toEqual(['first', 'next', 'apart', 'next', 'apart']);
  const later = new ReceiptSequence();
  expect(later.note(receipt(7), filled(8))).toBe('first');
});

test('[R15] two of one place are refused, in each order of arrival', () => {
  const refused: readonly (readonly [readonly FinalReceipt[], readonly number[]])[] = [
    // The same place.
    [
      [receipt(3), receipt(3)],
      [4, 9],
    ],
    // The later one names another before it.
    [
      [receipt(3), receipt(4, { prev: filled(9) })],
      [4, 5],
    ],
    // It was there first.
    [
      [receipt(4, { prev: filled(9) }), receipt(3)],
      [5, 4],
    ],
  ];
  for (const [[one, other], [first = 0, second = 0]] of refused) {
    const sequence = new ReceiptSequence();
    if (one === undefined || other === undefined) throw new Error('two receipts');
    sequence.note(one, filled(first));
    expect(() => sequence.note(other, filled(second))).toThrow(/same place/);
  }
});

test('another chain has places of its own', () => {
  const sequence = new ReceiptSequence();
  sequence.note(receipt(0), filled(1));
  expect(sequence.note(receipt(0, { chain: filled(8, 16) }), filled(2))).toBe('first');
});
