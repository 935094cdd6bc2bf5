// Quotes on anything: only the typed error, no read past the end, round trips.

import * as fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { toHex } from '../../../attestation/encoding/bytes.ts';
import { AttestationError } from '../../../attestation/transcript/errors.ts';
import { parseTdxQuote, quoteClaims } from '../../../attestation/tdx/quote.ts';
import { intel, quote, quote5, foreign } from '../../fixtures/attestation/tdx-parsing.ts';

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

function bytesOf(size: number): fc.Arbitrary<Uint8Array> {
  return fc.uint8Array({ minLength: size, maxLength: size });
}

describe('quotes', () => {
  test('property: random and damaged bytes end in a quote or the typed error', () => {
    expect(() =>
      fc.assert(
        fc.property(
          fc.uint8Array({ maxLength: 8192 }),
          (bytes) => foreign(() => quoteClaims(parseTdxQuote(bytes))) === undefined,
        ),
      ),
    ).not.toThrow();
    expect(() =>
      fc.assert(
        fc.property(
          damaged(() => quote),
          (bytes) => foreign(() => quoteClaims(parseTdxQuote(bytes))) === undefined,
        ),
        runs(500),
      ),
    ).not.toThrow();
    expect(() =>
      fc.assert(
        fc.property(
          damaged(() => quote5),
          (bytes) => foreign(() => quoteClaims(parseTdxQuote(bytes))) === undefined,
        ),
        runs(500),
      ),
    ).not.toThrow();
  });

  test('every truncation is refused', () => {
    for (const whole of [quote, quote5]) {
      for (let length = 0; length < whole.length; length++)
        expect(() => parseTdxQuote(whole.subarray(0, length))).toThrow(AttestationError);
    }
  });

  test('property: a quote written with any field values reads back as them', async () => {
    await expect(
      fc.assert(
        fc.asyncProperty(
          fc.record({
            mrTd: bytesOf(48),
            rtmr3: bytesOf(48),
            reportData: bytesOf(64),
            xfam: bytesOf(8),
            mrServiceTd: bytesOf(48),
            qeAuthData: fc.uint8Array({ maxLength: 80 }),
          }),
          fc.constantFrom({ version: 4 }, { version: 5 }, { version: 5, bodyType: 2 }),
          async (fields, shape) => {
            const parsed = parseTdxQuote(await intel.signQuote({ ...fields, ...shape }));
            const { body, version } = parsed;
            expect(version).toBe(shape.version);
            expect([body.mrTd, body.rtmr3, body.reportData, body.xfam].map(toHex)).toEqual(
              [fields.mrTd, fields.rtmr3, fields.reportData, fields.xfam].map(toHex),
            );
            expect(body.mrServiceTd === undefined ? undefined : toHex(body.mrServiceTd)).toBe(
              parsed.bodyType === 3 ? toHex(fields.mrServiceTd) : undefined,
            );
            expect(toHex(parsed.qeAuthData)).toBe(toHex(fields.qeAuthData));
          },
        ),
        runs(30),
      ),
    ).resolves.toBeUndefined();
  });

  test('parsing reads nothing outside its view', () => {
    const buffer = new Uint8Array(quote.length + 64).fill(0xff);
    buffer.set(quote, 32);
    expect(quoteClaims(parseTdxQuote(buffer.subarray(32, 32 + quote.length)))).toEqual(
      quoteClaims(parseTdxQuote(quote)),
    );
    expect(() => parseTdxQuote(buffer.subarray(32, 32 + quote.length - 1))).toThrow(AttestationError);
  });
});
