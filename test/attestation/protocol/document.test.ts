// The document on the wire: exactly protocol.md §4 in JSON, the same in CBOR, and no near miss.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { toHex } from '../../../attestation/encoding/bytes.ts';
import { encodeCbor, type Cbor, type CborMap, decodeCbor } from '../../../attestation/encoding/cbor.ts';
import {
  type AttestationDocument,
  decodeDocumentCbor,
  formatTimestamp,
  MAX_DOCUMENT_BYTES,
  parseDocument,
} from '../../../attestation/protocol/document.ts';
import { documentToJson, encodeDocument, encodeDocumentCbor } from '../../../attestation/protocol/issue.ts';
import { parseNonce } from '../../../attestation/protocol/claims.ts';
import type { Json } from '../../../attestation/encoding/json.ts';
import { accepted, codeOf, codeOfAsync } from '../../fixtures/refusal.ts';
import { verify } from '../../../attestation/appraise/appraise.ts';
import { POLICY } from '../../fixtures/attestation/appraisal.ts';
import { CHANNEL, snpDocument } from '../../fixtures/attestation/documents.ts';

function bytes(length: number, fill: number): Uint8Array {
  return new Uint8Array(length).fill(fill);
}

const snp: AttestationDocument = {
  version: '1',
  teeType: 'sev-snp',
  report: bytes(1184, 1),
  reportData: bytes(64, 2),
  measurement: bytes(48, 3),
  timestamp: '2026-02-21T00:00:00Z',
  nonce: '00'.repeat(16),
  claims: bytes(100, 4),
  inclusion: { index: 2, size: 3, path: [bytes(32, 5)] },
  models: [
    {
      id: 'a',
      sha256: bytes(32, 6),
      kind: 'blob',
      blobs: [{ role: 'weights', sha256: bytes(32, 6), size: 7 }],
    },
    { id: 'b/c:d', sha256: bytes(32, 7), kind: 'manifest', blobs: [{ role: 'weights', sha256: bytes(32, 8), size: 1 }, { role: 'projector', sha256: bytes(32, 9), size: 2 }] }, // prettier-ignore
  ],
  endorsements: { vek: bytes(10, 10), chain: [bytes(11, 11), bytes(12, 12)], crl: bytes(13, 13) },
};

const tdx: AttestationDocument = {
  ...snp,
  teeType: 'tdx',
  rtmr: [bytes(48, 1), bytes(48, 2), bytes(48, 3), bytes(48, 4)],
  eventLog: bytes(20, 5),
  endorsements: {
    pckChain: 'pem0',
    pckCrl: bytes(5, 1),
    pckCrlIssuerChain: 'pem1',
    rootCaCrl: bytes(6, 2),
    tcbInfo: '{"tcbInfo":{}}',
    tcbInfoIssuerChain: 'pem2',
    qeIdentity: '{"enclaveIdentity":{}}',
    qeIdentityIssuerChain: 'pem3',
  },
};

const simulated: AttestationDocument = {
  ...snp,
  teeType: 'simulated',
  endorsements: snp.endorsements ?? { vek: bytes(1, 1), chain: [] },
};

const SIMULATED_TDX = { ...tdx, teeType: 'simulated', endorsements: tdx.endorsements } as AttestationDocument;

const { nonce: _nonce, endorsements: _endorsements, ...bare } = snp;

function change(changes: Record<string, unknown>, from: AttestationDocument = snp): string {
  return codeOf(() =>
    parseDocument(JSON.parse(JSON.stringify({ ...documentToJson(from), ...changes })) as Json),
  );
}

describe('attestation document', () => {
  test('has the JSON of the protocol, in its order', () => {
    expect(documentToJson(tdx)).toEqual({
      version: '1',
      tee_type: 'tdx',
      report: Buffer.alloc(1184, 1).toString('base64'),
      report_data: '02'.repeat(64),
      measurement: '03'.repeat(48),
      timestamp: '2026-02-21T00:00:00Z',
      nonce: '00'.repeat(16),
      claims: Buffer.alloc(100, 4).toString('base64url'),
      inclusion: { index: 2, size: 3, path: ['05'.repeat(32)] },
      models: [
        {
          id: 'a',
          sha256: '06'.repeat(32),
          kind: 'blob',
          blobs: [{ role: 'weights', sha256: '06'.repeat(32), size: 7 }],
        },
        { id: 'b/c:d', sha256: '07'.repeat(32), kind: 'manifest', blobs: [{ role: 'weights', sha256: '08'.repeat(32), size: 1 }, { role: 'projector', sha256: '09'.repeat(32), size: 2 }] }, // prettier-ignore
      ],
      rtmr: ['01'.repeat(48), '02'.repeat(48), '03'.repeat(48), '04'.repeat(48)],
      event_log: Buffer.alloc(20, 5).toString('base64'),
      endorsements: {
        pck_chain: 'pem0',
        pck_crl: 'AQEBAQE=',
        pck_crl_issuer_chain: 'pem1',
        root_ca_crl: 'AgICAgIC',
        tcb_info: '{"tcbInfo":{}}',
        tcb_info_issuer_chain: 'pem2',
        qe_identity: '{"enclaveIdentity":{}}',
        qe_identity_issuer_chain: 'pem3',
      },
    });
    expect(Object.keys(documentToJson(snp))).toEqual(['version', 'tee_type', 'report', 'report_data', 'measurement', 'timestamp', 'nonce', 'claims', 'inclusion', 'models', 'endorsements']); // prettier-ignore
  });

  test.each<[string, AttestationDocument]>([
    ['sev-snp', snp],
    ['tdx', tdx],
    ['simulated snp', simulated],
    ['simulated tdx', SIMULATED_TDX],
    ['without nonce and endorsements', { ...bare, teeType: 'sev-snp' }],
  ])('%s goes through JSON and CBOR unchanged', (_, document) => {
    expect(parseDocument(encodeDocument(document))).toEqual(document);
    expect(decodeDocumentCbor(encodeDocumentCbor(document))).toEqual(document);
  });

  test.each<[string, Record<string, unknown>, string?, AttestationDocument?]>([
    ['an unknown key', { extra: 1 }],
    ['another version', { version: '2' }],
    ['a version that is a number', { version: 1 }],
    ['an unknown tee', { tee_type: 'sgx' }],
    ['a missing report', { report: undefined }],
    ['a report in base64url', { report: '-_-_' }, 'malformed_base64'],
    ['a report without its padding', { report: 'AQ' }, 'malformed_base64'],
    ['a report with bits after its end', { report: 'AR==' }, 'malformed_base64'],
    ['a report over its size', { report: 'A'.repeat(100_000) }],
    ['report_data of 63 bytes', { report_data: '00'.repeat(63) }],
    ['report_data that is no hex', { report_data: 'zz'.repeat(64) }, 'malformed_hex'],
    ['a measurement of 32 bytes', { measurement: '00'.repeat(32) }],
    ['a time with another zone', { timestamp: '2026-02-21T00:00:00+00:00' }],
    ['a time with milliseconds', { timestamp: '2026-02-21T00:00:00.000Z' }],
    ['a day that does not exist', { timestamp: '2026-02-30T00:00:00Z' }],
    ['a nonce that is a number', { nonce: 5 }],
    ['claims in base64', { claims: 'AQ==' }, 'malformed_base64'],
    ['claims over their size', { claims: 'A'.repeat(8000) }],
    ['inclusion without a size', { inclusion: { index: 0, path: [] } }],
    ['a negative index', { inclusion: { index: -1, size: 1, path: [] } }],
    ['a tree of nothing', { inclusion: { index: 0, size: 0, path: [] } }],
    ['a path of short hashes', { inclusion: { index: 0, size: 2, path: ['00'] } }],
    [
      'a path that is too long',
      { inclusion: { index: 0, size: 2, path: Array.from({ length: 33 }, () => '00'.repeat(32)) } },
    ],
    ['a model without an id', { models: [{ ...(documentToJson(snp)['models'] as object[])[0], id: '' }] }],
    ['a model called *', { models: [{ ...(documentToJson(snp)['models'] as object[])[0], id: '*' }] }],
    ['a model of kind all', { models: [{ ...(documentToJson(snp)['models'] as object[])[0], kind: 'all' }] }],
    ['a model without blobs', { models: [{ ...(documentToJson(snp)['models'] as object[])[0], blobs: [] }] }],
    [
      'too many models',
      { models: Array.from({ length: 257 }, () => (documentToJson(snp)['models'] as object[])[0]) },
    ],
    ['rtmr in an snp document', { rtmr: Array.from({ length: 4 }, () => '00'.repeat(48)) }],
    ['an event log in an snp document', { event_log: 'AA==' }],
    ['three rtmr', { rtmr: Array.from({ length: 3 }, () => '00'.repeat(48)) }, 'malformed_document', tdx],
    ['endorsements of the other vendor', { endorsements: documentToJson(tdx)['endorsements'] }],
    [
      'endorsements of the other vendor, tdx',
      { endorsements: documentToJson(snp)['endorsements'] },
      'malformed_document',
      tdx,
    ],
    ['a chain of nothing', { endorsements: { vek: 'AA==', chain: [] } }],
    [
      'a simulated document without endorsements',
      { endorsements: undefined },
      'malformed_document',
      simulated,
    ],
    [
      'a simulated document with no known endorsements',
      { endorsements: { x: 1 } },
      'malformed_document',
      simulated,
    ],
  ])('refuses %s', (_, changes, code = 'malformed_document', from = snp) => {
    expect(change(changes, from)).toBe(code);
  });

  test('refuses duplicate keys and texts over the limit', () => {
    const text = encodeDocument(snp);
    expect(codeOf(() => parseDocument(text.replace('{"version":"1"', '{"version":"1","version":"1"')))).toBe(
      'malformed_json',
    );
    expect(codeOf(() => parseDocument(`${text}${' '.repeat(MAX_DOCUMENT_BYTES)}`))).toBe('input_too_large');
  });

  test('refuses CBOR with integer keys, text for bytes, or no map', () => {
    expect(codeOf(() => decodeDocumentCbor(encodeCbor(new Map([[1, 1]]))))).toBe('malformed_document');
    expect(codeOf(() => decodeDocumentCbor(encodeCbor([1])))).toBe('malformed_document');
    const text = new Map(Object.entries(documentToJson({ ...bare, teeType: 'sev-snp', models: [], inclusion: { index: 0, size: 1, path: [] } })).filter(([key]) => key !== 'inclusion' && key !== 'models')); // prettier-ignore
    const inclusion = new Map<string, string | number | never[]>([['index', 0], ['size', 1], ['path', []]]); // prettier-ignore
    expect(codeOf(() => decodeDocumentCbor(encodeCbor(new Map<string, never>([...text, ['models', []], ['inclusion', inclusion]] as [string, never][]))))).toBe('malformed_document'); // prettier-ignore
  });

  test('answers any JSON value with a document or the typed error', () => {
    const value = fc.dictionary(fc.constantFrom(...Object.keys(documentToJson(tdx))), fc.jsonValue());
    fc.assert(
      fc.property(value, (changes) => {
        const document = accepted(() => parseDocument({ ...documentToJson(tdx), ...changes } as Json));
        expect(
          document === undefined ||
            encodeDocument(parseDocument(encodeDocument(document))) === encodeDocument(document),
        ).toBe(true);
      }),
      { numRuns: 500 },
    );
  });

  test('answers any bytes with a document or the typed error', () => {
    const good = encodeDocumentCbor(snp);
    fc.assert(
      fc.property(fc.nat({ max: good.length - 1 }), fc.integer({ min: 1, max: 255 }), (at, flip) => {
        const changed = good.map((byte, i) => (i === at ? byte ^ flip : byte));
        const document = accepted(() => decodeDocumentCbor(changed));
        expect(document === undefined || toHex(encodeDocumentCbor(document)) === toHex(changed)).toBe(true);
      }),
    );
  });
});

describe('nonce', () => {
  test.each([
    ['00'.repeat(16), 16],
    ['Ab'.repeat(64), 64],
    ['A'.repeat(22), 16],
    ['_-_-'.repeat(8), 24],
    // 32 characters that are both: hex it is.
    ['a'.repeat(32), 16],
    ['deadbeef01234567', 8],
    ['a'.repeat(20), 10],
    ['a'.repeat(24), 18],
    ['A'.repeat(11), 8],
    // Hex digits, but too few bytes as hex, or half a byte too many: base64url.
    ['a'.repeat(13) + 'A', 10],
    ['a'.repeat(30) + 'A', 23],
  ])('%s is %i bytes', (text, length) => {
    expect(parseNonce(text)).toHaveLength(length);
  });

  test.each([
    [''],
    ['00'.repeat(4)],
    ['00'.repeat(65)],
    ['A'.repeat(10)],
    ['é'.repeat(32)],
    ['0x' + '00'.repeat(16)],
    ['A'.repeat(87)],
    ['a'.repeat(33)],
  ])('refuses %j', (text) => {
    expect(['malformed_length', 'malformed_base64', 'malformed_hex']).toContain(
      codeOf(() => parseNonce(text)),
    );
  });

  test('timestamps are whole seconds in UTC', () => {
    expect(formatTimestamp(1_771_632_000)).toBe('2026-02-21T00:00:00Z');
  });
});

describe('documents', () => {
  test.each(['id', 'role'] as const)(
    'a model %s that is no unicode text gets the typed refusal',
    async (field) => {
      const document = JSON.parse(encodeDocument(await snpDocument())) as {
        models: { id: string; blobs: { role: string }[] }[];
      };
      const [model] = document.models;
      if (field === 'id') model!.id = 'demo\ud800';
      else model!.blobs[0]!.role = 'weights\udc00';
      const text = JSON.stringify(document);
      expect(await codeOfAsync(async () => verify(parseDocument(text), { ...CHANNEL, policy: POLICY }))).toBe(
        'malformed_document',
      );
    },
  );
});

describe('certificate evidence', () => {
  test.each<[string, Cbor, string]>([
    ['bytes', new Uint8Array(3), 'accepted'],
    ['text where bytes belong', 'AAAA', 'malformed_document'],
    ['a number where bytes belong', 7, 'malformed_document'],
    ['more bytes than a report has', new Uint8Array(70_000), 'malformed_document'],
  ])('%s', async (_, report, code) => {
    const map = new Map(decodeCbor(encodeDocumentCbor(await snpDocument())) as CborMap);
    const changed = encodeCbor(map.set('report', report));
    expect(codeOf(() => decodeDocumentCbor(changed))).toBe(code);
  });
});
