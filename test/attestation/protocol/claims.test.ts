// Claims ↔ bytes ↔ report_data, and the digests that stand for models: one definition for server and
// verifier.

import { createHash } from 'node:crypto';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { fromHex, toHex } from '../../../attestation/encoding/bytes.ts';
import { type Cbor, encodeCbor } from '../../../attestation/encoding/cbor.ts';
import {
  type Claims,
  decodeClaims,
  reportData,
  unbatchedReportData,
} from '../../../attestation/protocol/claims.ts';
import { encodeClaims } from '../../../attestation/protocol/issue.ts';
import {
  allModelsDigest,
  attestedModel,
  encodeModelManifest,
  modelContradiction,
} from '../../../attestation/protocol/model.ts';
import { accepted, codeOf } from '../../fixtures/refusal.ts';

function b32(fill: number): Uint8Array {
  return new Uint8Array(32).fill(fill);
}
const claims: Claims = {
  nonce: b32(1),
  tlsSpki: b32(2),
  exporter: b32(3),
  model: { kind: 'blob', id: 'demo', sha256: b32(4) },
  config: b32(5),
  receiptKey: b32(6),
  hpkeKey: b32(7),
  issuedAt: 1_771_632_000,
};

function map(change: (m: Map<number | string, Cbor>) => void): Uint8Array {
  const entries = new Map<number | string, Cbor>([
    [0, 'assay/claims/v1'],
    [1, b32(1)],
    [2, b32(2)],
    [3, b32(3)],
    [4, new Map<number, Cbor>([[0, 'blob'], [1, 'demo'], [2, b32(4)]])], // prettier-ignore
    [5, b32(5)],
    [6, b32(6)],
    [7, b32(7)],
    [8, 1_771_632_000],
  ]);
  change(entries);
  return encodeCbor(entries);
}

function code(bytes: Uint8Array): string {
  return codeOf(() => decodeClaims(bytes));
}

describe('claims', () => {
  test('have the bytes of the protocol', () => {
    expect(toHex(encodeClaims(claims))).toBe(toHex(map(() => {})));
    expect(decodeClaims(encodeClaims(claims))).toEqual(claims);
    const certificate: Claims = { ...claims, gpu: b32(9) };
    delete (certificate as { nonce?: unknown }).nonce;
    delete (certificate as { exporter?: unknown }).exporter;
    expect(decodeClaims(encodeClaims(certificate))).toEqual(certificate);
  });

  test.each<[string, string, (m: Map<number | string, Cbor>) => void]>([
    ['another label', 'claims_label', (m) => m.set(0, 'assay/claims/v2')],
    ['no label', 'claims_label', (m) => m.delete(0)],
    ['an unknown key', 'malformed_cbor', (m) => m.set(10, 1)],
    ['a text key', 'malformed_cbor', (m) => m.set('nonce', b32(1))],
    ['a short nonce', 'malformed_cbor', (m) => m.set(1, new Uint8Array(7))],
    ['a long nonce', 'malformed_cbor', (m) => m.set(1, new Uint8Array(65))],
    ['a text nonce', 'malformed_cbor', (m) => m.set(1, 'x'.repeat(32))],
    ['no tls_spki', 'malformed_cbor', (m) => m.delete(2)],
    ['a short tls_spki', 'malformed_cbor', (m) => m.set(2, new Uint8Array(31))],
    ['a short exporter', 'malformed_cbor', (m) => m.set(3, new Uint8Array(16))],
    ['no model', 'malformed_cbor', (m) => m.delete(4)],
    ['a model of an unknown kind', 'malformed_cbor', (m) => m.set(4, new Map<number, Cbor>([[0, 'x'], [1, 'demo'], [2, b32(4)]]))], // prettier-ignore
    ['a model with more keys', 'malformed_cbor', (m) => m.set(4, new Map<number, Cbor>([[0, 'blob'], [1, 'demo'], [2, b32(4)], [3, 1]]))], // prettier-ignore
    ['no config', 'malformed_cbor', (m) => m.delete(5)],
    ['no receipt_key', 'malformed_cbor', (m) => m.delete(6)],
    ['no hpke_key', 'malformed_cbor', (m) => m.delete(7)],
    ['no issued_at', 'malformed_cbor', (m) => m.delete(8)],
    ['issued_at as text', 'malformed_cbor', (m) => m.set(8, '2026')],
    ['gpu as text', 'malformed_cbor', (m) => m.set(9, 'x')],
  ])('refuses %s', (_, expected, change) => {
    expect(code(map(change))).toBe(expected);
  });

  test.each([8, 15, 64])('carry a nonce of %i bytes', (length) => {
    const given = { ...claims, nonce: new Uint8Array(length).fill(1) };
    expect(decodeClaims(encodeClaims(given))).toEqual(given);
  });

  test('refuses bytes that are not canonical, and what is no map', () => {
    const bytes = encodeClaims(claims);
    expect(code(Uint8Array.of(0xb8, 9, ...bytes.subarray(1)))).toBe('claims_not_canonical');
    expect(code(Uint8Array.of(...bytes, 0))).toBe('claims_not_canonical');
    expect(code(encodeCbor([1]))).toBe('malformed_cbor');
    expect(code(new Uint8Array(5000))).toBe('input_too_large');
  });

  test('any change of any byte gives other claims or a typed refusal', () => {
    const bytes = encodeClaims(claims);
    fc.assert(
      fc.property(fc.nat({ max: bytes.length - 1 }), fc.integer({ min: 1, max: 255 }), (at, flip) => {
        const changed = bytes.map((byte, i) => (i === at ? byte ^ flip : byte));
        const value = accepted(() => decodeClaims(changed));
        expect(value === undefined || toHex(encodeClaims(value)) === toHex(changed)).toBe(true);
      }),
    );
  });

  test('refuses to encode fields of the wrong size', () => {
    expect(() => encodeClaims({ ...claims, config: new Uint8Array(31) })).toThrow(RangeError);
    expect(() => encodeClaims({ ...claims, nonce: new Uint8Array(7) })).toThrow(RangeError);
  });
});

describe('report_data', () => {
  test('is root then model, 64 bytes', () => {
    const bytes = encodeClaims(claims);
    const leaf = createHash('sha256').update(Uint8Array.of(0)).update(bytes).digest('hex');
    expect(toHex(unbatchedReportData(bytes, b32(4)))).toBe(leaf + toHex(b32(4)));
    expect(() => reportData(new Uint8Array(31), b32(4))).toThrow(RangeError);
  });
});

describe('model digests', () => {
  const weights = { role: 'weights', sha256: b32(4), size: 10 };
  const projector = { role: 'projector', sha256: b32(5), size: 11 };

  test('one blob of weights stands for itself', () => {
    expect(attestedModel('demo', [weights])).toEqual({
      id: 'demo',
      kind: 'blob',
      sha256: b32(4),
      blobs: [weights],
    });
  });

  test('several blobs, or one that is no weights, are a manifest', () => {
    const model = attestedModel('demo', [weights, projector]);
    const expected = `a2006e61737361792f6d6f64656c2f76310182a3006777656967687473015820${'04'.repeat(32)}020aa3006970726f6a6563746f72015820${'05'.repeat(32)}020b`;
    expect(toHex(encodeModelManifest([weights, projector]))).toBe(expected);
    expect(toHex(model.sha256)).toBe(createHash('sha256').update(fromHex(expected)).digest('hex'));
    expect(model.kind).toBe('manifest');
    expect(attestedModel('demo', [projector]).kind).toBe('manifest');
    expect(toHex(attestedModel('demo', [projector, weights]).sha256)).not.toBe(toHex(model.sha256));
    expect(() => attestedModel('demo', [])).toThrow(RangeError);
  });

  test('all models do not depend on the order they are listed in, but on id, kind and digest', () => {
    const a = attestedModel('a', [weights]);
    const b = attestedModel('b', [projector, weights]);
    expect(toHex(allModelsDigest([a, b]))).toBe(toHex(allModelsDigest([b, a])));
    expect(toHex(allModelsDigest([a, b]))).not.toBe(toHex(allModelsDigest([a])));
    expect(toHex(allModelsDigest([{ ...a, id: 'c' }, b]))).not.toBe(toHex(allModelsDigest([a, b])));
    expect(toHex(allModelsDigest([{ ...a, kind: 'manifest' }, b]))).not.toBe(toHex(allModelsDigest([a, b])));
    expect(allModelsDigest([])).toHaveLength(32);
  });

  test('a listed digest that does not follow from the blobs is a contradiction', () => {
    const model = attestedModel('demo', [weights, projector]);
    expect(modelContradiction(model)).toBeUndefined();
    expect(modelContradiction({ ...model, sha256: b32(9) })).toContain('its blobs give');
    expect(modelContradiction({ ...model, kind: 'blob' })).toContain('kind blob');
    expect(modelContradiction({ ...model, blobs: [] })).toContain('no blobs');
  });
});
