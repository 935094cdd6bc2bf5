// The member `platform`: what is written is read again, and what a TEE has no use for is refused.

import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { toBase64, toBase64Url } from '../../../attestation/encoding/bytes.ts';
import { encodeCbor } from '../../../attestation/encoding/cbor.ts';
import { decodePlatform, encodePlatform, readPlatform } from '../../../attestation/vtpm/platform.ts';
import { accepted, codeOf } from '../../fixtures/refusal.ts';

function bytes(size: number): Uint8Array {
  return new Uint8Array(size).fill(0xfb);
}

const AZURE = {
  hclReport: bytes(2600),
  quote: bytes(145),
  signature: bytes(256),
  pcrs: [bytes(32), bytes(32)],
};
const JSON_FORM = {
  hcl_report: toBase64(AZURE.hclReport),
  quote: toBase64Url(AZURE.quote),
  signature: toBase64(AZURE.signature),
  pcrs: AZURE.pcrs.map((value) => Buffer.from(value).toString('hex')),
};

test('is the same in CBOR and in JSON, bytes in either alphabet', () => {
  expect(decodePlatform('azure-tdx', encodePlatform(AZURE))).toEqual(AZURE);
  expect(readPlatform('azure-tdx', JSON_FORM)).toEqual(AZURE);
  expect(decodePlatform('aws-nitrotpm', undefined)).toEqual({});
});

test.each<[string, () => unknown, string]>([
  ['a member of another TEE', () => decodePlatform('gcp-tdx', encodePlatform({ launchEndorsement: bytes(4), quote: bytes(4) })), 'malformed_document'],
  ['a member that lacks', () => decodePlatform('azure-tdx', encodePlatform({ hclReport: bytes(4) })), 'malformed_document'],
  ['none at all', () => decodePlatform('gcp-tdx', undefined), 'malformed_document'],
  ['no map', () => decodePlatform('gcp-tdx', encodeCbor([1])), 'malformed_document'],
  ['text for bytes', () => decodePlatform('gcp-tdx', encodeCbor(new Map([['launch_endorsement', 'AAAA']]))), 'malformed_document'],
  ['an integer key', () => decodePlatform('gcp-tdx', encodeCbor(new Map([[1, bytes(4)]]))), 'malformed_document'],
  ['a quote that is too long', () => decodePlatform('azure-tdx', encodePlatform({ ...AZURE, quote: bytes(1025) })), 'malformed_document'],
  ['25 PCRs', () => decodePlatform('azure-tdx', encodePlatform({ ...AZURE, pcrs: Array.from({ length: 25 }, () => bytes(32)) })), 'malformed_document'],
  ['CBOR that is not canonical', () => decodePlatform('gcp-tdx', Uint8Array.of(0xbf, 0xff)), 'malformed_cbor'],
  ['base64 that is not canonical', () => readPlatform('azure-tdx', { ...JSON_FORM, quote: 'AB' }), 'malformed_base64'],
  ['PCRs as base64', () => readPlatform('azure-tdx', { ...JSON_FORM, pcrs: ['+/=='] }), 'malformed_hex'],
  ['an unknown member', () => readPlatform('azure-tdx', { ...JSON_FORM, hcl: '' }), 'malformed_evidence'],
])('%s', (_what, action, code) => {
  expect(codeOf(action)).toBe(code);
}); // prettier-ignore

test('any bytes end in the typed error', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (input) => {
      accepted(() => decodePlatform('azure-sev-snp', input));
    }),
  );
});
