// Intel's collateral on anything: only the typed error; what is signed is cut out byte for byte.

import * as fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { AttestationError } from '../../../attestation/transcript/errors.ts';
import { cutSigned, parseQeIdentity, parseTcbInfo } from '../../../attestation/tdx/collateral.ts';
import { intel, foreign } from '../../fixtures/attestation/tdx-parsing.ts';

/** `make fuzz` raises this. */
const FUZZ = Number(process.env['ASSAY_FUZZ'] ?? 1);

vi.setConfig({ testTimeout: 180_000 * FUZZ });

function runs(count: number): { readonly numRuns: number } {
  return { numRuns: count * FUZZ };
}

describe('collateral', () => {
  test('property: any text, and damaged responses, end in the typed error', async () => {
    const response = await intel.tcbInfo();
    expect(() =>
      fc.assert(
        fc.property(
          fc.string({ maxLength: 400 }),
          (text) => foreign(() => cutSigned(text, 'tcbInfo')) === undefined,
        ),
        runs(300),
      ),
    ).not.toThrow();
    expect(() =>
      fc.assert(
        fc.property(
          fc.json(),
          (text) =>
            foreign(() => cutSigned(text, 'tcbInfo')) === undefined &&
            foreign(() => parseTcbInfo(text)) === undefined &&
            foreign(() => parseQeIdentity(text)) === undefined,
        ),
      ),
    ).not.toThrow();
    expect(() =>
      fc.assert(
        fc.property(fc.nat(response.length - 1), fc.string({ maxLength: 3 }), (at, insert) => {
          const text = response.slice(0, at) + insert + response.slice(at + 1);
          return foreign(() => parseTcbInfo(cutSigned(text, 'tcbInfo').text)) === undefined;
        }),
        runs(500),
      ),
    ).not.toThrow();
  });

  test('the signed text is cut out byte for byte, spaces and escapes and all', () => {
    const inner = '{ "id" : "T\\"}{DX" , "list":[ {"a":"]"} , 1 ] }';
    const text = ` { "signature" : "${'ab'.repeat(64)}" ,\n "tcbInfo" :${inner} } `;
    expect(cutSigned(text, 'tcbInfo').text).toBe(inner);
    for (const wrong of [
      `{"tcbInfo":${inner}}`,
      `${text}x`,
      text.replace('"signature"', '"tcbInfo"'),
      text.replace('ab', 'xy'),
      `[${text}]`,
      text.slice(0, -2),
      text.replace('{ "sig', '{ "more":1,"sig'),
    ]) {
      expect(() => cutSigned(wrong, 'tcbInfo')).toThrow(AttestationError);
    }
  });

  test.each(['2026-02-30T00:00:00Z', '2026-02-20 00:00:00Z', '2026-02-20T00:00:00+01:00', '2026-02-20', ''])(
    'the time %j is not one',
    async (time) => {
      const response = await intel.tcbInfo({ members: (list) => ({ ...list, nextUpdate: time }) });
      expect(() => parseTcbInfo(cutSigned(response, 'tcbInfo').text)).toThrow(/nextUpdate is not a UTC time/);
    },
  );
});
