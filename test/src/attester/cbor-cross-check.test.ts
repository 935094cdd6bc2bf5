// Two writers of canonical CBOR write the bytes the server signs; where they differ the server does not
// attest.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Cbor, encodeCbor } from '@assay/attestation';
import { confirmCbor } from '../../../src/attester/cbor-cross-check.ts';

describe('the second writer', () => {
  test.each([
    ['1800', 'a head longer than it need be'],
    ['1b00000000ffffffff', 'eight bytes for 2^32-1'],
    ['a202000100', 'keys out of order'],
    ['a2616200616100', 'text keys out of order'],
    ['5801ff', 'a length in two bytes'],
    ['9fff', 'a list without its length'],
    ['0000', 'bytes after the end'],
    ['61', 'a cut string'],
  ])('refuses %s: %s', (hex) => {
    expect(() => confirmCbor(Buffer.from(hex, 'hex'), 'claims')).toThrow();
  });

  test('says what was to be attested, and nothing of its content', () => {
    expect(() => confirmCbor(Buffer.from('a202000100', 'hex'), 'claims')).toThrow(
      /^the two writers of canonical CBOR disagree on the claims: nothing is attested$/,
    );
  });

  const leaf = fc.oneof(
    fc.maxSafeNat(),
    fc.boolean(),
    fc.constant(null),
    fc.string({ unit: 'grapheme', maxLength: 100 }),
    fc.uint8Array({ maxLength: 300 }),
  );
  const map = fc
    .array(fc.tuple(fc.oneof(fc.maxSafeNat(), fc.string({ maxLength: 30 })), leaf), { maxLength: 40 })
    .map((entries): Cbor => new Map<number | string, Cbor>(entries));

  test('confirms what our own writer writes, and returns it', () => {
    fc.assert(
      fc.property(fc.oneof(leaf, map, fc.array(map, { maxLength: 5 })), (value) => {
        const bytes = encodeCbor(value);
        expect(confirmCbor(bytes, 'claims')).toBe(bytes);
      }),
      { numRuns: 500 },
    );
  });
});
