// The runtime JSON of the HCL report: what is read of it, and what is refused.

import { describe, expect, test } from 'vitest';
import { fromUtf8, utf8 } from '../../../attestation/encoding/bytes.ts';
import { encodeHclReport, encodeRuntime, encodeTdReport } from '../../../attestation/simulated/tpm.ts';
import { parseHclReport, readHclRuntime, hclReportData } from '../../../attestation/vtpm/hcl.ts';
import { azureCapture } from '../../fixtures/attestation/cloud-vectors.ts';
import { codeOf } from '../../fixtures/refusal.ts';
import { haveVectors } from '../../fixtures/shared.ts';

const JSON_TEXT = fromUtf8(encodeRuntime({ modulus: new Uint8Array(256).fill(0xd7) }));

test.each<[string, (text: string) => string, string]>([
  ['as it is', (text) => text, 'accepted'],
  ['a key twice', (text) => text.replace('"keys":', '"user-data":"00","keys":'), 'hcl_json'],
  ['a second HCLAkPub', (text) => text.replace('"keys":[', '"keys":[{"kid":"HCLAkPub"},'), 'hcl_ak'],
  ['no HCLAkPub', (text) => text.replace('HCLAkPub', 'HCLEkPub'), 'hcl_ak'],
  ['a key that is not RSA', (text) => text.replace('"RSA"', '"EC"'), 'hcl_ak'],
  ['another exponent', (text) => text.replace('AQAB', 'AwAA'), 'hcl_ak'],
  ['a short modulus', (text) => text.replace(/"n":"[^"]*"/, '"n":"AQAB"'), 'hcl_ak'],
  ['a modulus that is no base64', (text) => text.replace('"n":"', '"n":"!'), 'hcl_ak'],
  ['no configuration', (text) => text.replace('vm-configuration', 'configuration'), 'hcl_json'],
  ['secure boot as text', (text) => text.replace('"secure-boot":true', '"secure-boot":"true"'), 'hcl_json'],
  ['user-data that is no hex', (text) => text.replace('"user-data":"00', '"user-data":"zz'), 'hcl_json'],
  ['user-data that is short', (text) => text.replace('"user-data":"00', '"user-data":"'), 'hcl_json'],
  ['no JSON', () => '{', 'hcl_json'],
])('%s', (_what, change, code) => {
  const changed = change(JSON_TEXT);
  expect(changed === JSON_TEXT).toBe(code === 'accepted');
  expect(codeOf(() => readHclRuntime(utf8(changed)))).toBe(code);
});

test('of a TDX guest the TDREPORT is 1024 bytes, and zeros follow', () => {
  const zero = (size: number): Uint8Array => new Uint8Array(size);
  const hwReport = encodeTdReport({
    reportData: zero(64),
    tdAttributes: zero(8),
    mrTd: zero(48),
    rtmrs: zero(192),
  });
  const report = encodeHclReport({ kind: 'tdx', hwReport, json: utf8(JSON_TEXT) });
  expect(parseHclReport(report).hwReport).toHaveLength(1024);
  expect(codeOf(() => parseHclReport(report.with(1215, 1)))).toBe('hcl_format');
});

test.each([
  [1, 32],
  [2, 48],
  [3, 64],
])('hash type %i fills %i of the 64 bytes', async (hashType, size) => {
  const report = encodeHclReport({ kind: 'snp', hwReport: new Uint8Array(1184), json: utf8(JSON_TEXT) });
  const data = await hclReportData(parseHclReport(report.with(1228, hashType)));
  expect(data).toHaveLength(64);
  expect(data.subarray(size).every((byte) => byte === 0)).toBe(true);
  expect(data.subarray(0, size).some((byte) => byte !== 0)).toBe(true);
});

describe.skipIf(!haveVectors)('real captures', () => {
  test('user-data in upper case is the same bytes as the challenge', () => {
    const { json } = parseHclReport(azureCapture('snp-milan-userdata').hclReport);
    expect(fromUtf8(json)).toMatch(/"user-data":"[0-9A-F]*[A-F][0-9A-F]*"/);
    const { userData } = readHclRuntime(json);
    expect(Buffer.from(userData.subarray(0, 48)).toString('hex')).toBe(
      '982f5c6e45df0ed3f10b6f60b02f0c8390e281300f3805e2279c16168cd6ae9aa398f647caa2338748cd0fd9f5f819ef',
    );
    expect(userData.subarray(48)).toEqual(new Uint8Array(16));
  });
});
