// A hash of gathered pieces is that of the whole text, wherever it is asked for in between.

import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { commitment } from '@assay/attestation/receipt';
import { Commitments } from '../../../src/receipts/commitments.ts';
import { TextHash } from '../../../src/receipts/text-hash.ts';
import { sha256 } from '../../fixtures/receipts/issued.ts';

test('property: of pieces of any size, text and bytes, asked for in between', () => {
  const piece = fc.oneof(
    fc.string({ unit: 'grapheme', maxLength: 40 }),
    fc.string({ unit: 'grapheme' }).map((text) => text.repeat(1000)),
    fc.uint8Array({ maxLength: 100 }),
  );
  fc.assert(
    fc.property(fc.array(fc.tuple(piece, fc.boolean()), { maxLength: 30 }), (pieces) => {
      const hash = new TextHash();
      const all: Buffer[] = [];
      for (const [each, asked] of pieces) {
        hash.update(each);
        all.push(Buffer.from(each as string));
        if (asked) expect(hash.soFar()).toEqual(sha256(Buffer.concat(all)));
      }
      expect(hash.digest()).toEqual(sha256(Buffer.concat(all)));
    }),
  );
});

test('commitments are those of the format, at the first asking and later', () => {
  const salt = new Uint8Array(32).fill(9);
  const commitments = new Commitments(salt);
  for (const text of ['a', 'b'])
    for (const choice of [0, 1, 11])
      for (const field of ['outputText', 'outputTokens'] as const)
        expect(commitments.of(field, sha256(text), choice)).toEqual(
          commitment(salt, field, sha256(text), choice),
        );
});
