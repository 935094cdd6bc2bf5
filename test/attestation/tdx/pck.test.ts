// The SGX extensions of a PCK certificate on anything: only the typed error, round trips in any order.

import * as fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { encodeMembers, sgxMembers } from '../../../attestation/simulated/intel-pck.ts';
import { parsePckExtensions, pckClaims } from '../../../attestation/tdx/pck.ts';
import { foreign } from '../../fixtures/attestation/tdx-parsing.ts';

/** `make fuzz` raises this. */
const FUZZ = Number(process.env['ASSAY_FUZZ'] ?? 1);

vi.setConfig({ testTimeout: 180_000 * FUZZ });

function runs(count: number): { readonly numRuns: number } {
  return { numRuns: count * FUZZ };
}

/** `base` with some bytes overwritten and its end cut or extended. */
function damaged(base: () => Uint8Array): fc.Arbitrary<Uint8Array> {
  return fc
    .record({
      edits: fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 8 }),
      length: fc.oneof(fc.constant(1), fc.double({ min: 0, max: 1.2, noNaN: true })),
    })
    .map(({ edits, length }) => {
      const bytes = new Uint8Array(Math.floor(base().length * length));
      bytes.set(base().subarray(0, bytes.length));
      for (const [at, value] of edits) if (bytes.length > 0) bytes[at % bytes.length] = value;
      return bytes;
    });
}

describe('SGX extensions', () => {
  const values = {
    ppid: new Uint8Array(16).fill(7),
    components: Array.from({ length: 16 }, (_, i) => i * 17),
    pceSvn: 300,
    pceId: new Uint8Array(2),
    fmspc: Uint8Array.of(1, 2, 3, 4, 5, 6),
    sgxType: 1,
    platformInstanceId: new Uint8Array(16),
  };

  test('property: what is written reads back, in any order of members', () => {
    expect(() =>
      fc.assert(
        fc.property(
          fc.shuffledSubarray(
            sgxMembers(values).map((_, i) => i),
            { minLength: 7 },
          ),
          (order) => {
            const members = sgxMembers(values);
            const encoded = encodeMembers(order.flatMap((i) => members[i] ?? []));
            expect(parsePckExtensions(encoded)).toMatchObject({
              components: values.components,
              pceSvn: 300,
              sgxType: 1,
              configuration: { dynamicPlatform: true, cachedKeys: false },
            });
            expect(pckClaims(parsePckExtensions(encoded))).toMatchObject({ fmspc: '010203040506' });
          },
        ),
      ),
    ).not.toThrow();
  });

  test('property: damage ends in the typed error', () => {
    const encoded = encodeMembers(sgxMembers(values));
    expect(() =>
      fc.assert(
        fc.property(
          damaged(() => encoded),
          (bytes) => foreign(() => parsePckExtensions(bytes)) === undefined,
        ),
        runs(1000),
      ),
    ).not.toThrow();
    expect(() =>
      fc.assert(
        fc.property(
          fc.uint8Array({ maxLength: 600 }),
          (bytes) => foreign(() => parsePckExtensions(bytes)) === undefined,
        ),
      ),
    ).not.toThrow();
  });
});
