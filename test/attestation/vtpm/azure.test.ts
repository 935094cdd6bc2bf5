// Every single bit of a real HCL report, of its quote, signature and PCR values: all refused. And the codes
// of the forms a HCL report can break.

import { describe, expect, test } from 'vitest';
import { viewOf } from '../../../attestation/encoding/bytes.ts';
import { Transcript } from '../../../attestation/transcript/checks.ts';
import { AttestationError } from '../../../attestation/transcript/errors.ts';
import { checkAzure } from '../../../attestation/vtpm/azure.ts';
import { decideVtpmPolicy } from '../../../attestation/vtpm/policy.ts';
import { createKeyCache } from '../../../attestation/x509/signature.ts';
import { type AzureCapture, azureCapture } from '../../fixtures/attestation/cloud-vectors.ts';
import { flipped } from '../../fixtures/attestation/cloud-documents.ts';
import { haveVectors } from '../../fixtures/shared.ts';

const keys = createKeyCache();
const policy = decideVtpmPolicy({}, 'one');

/** Codes of failing rules, or of the error, against the CPU report of the unchanged capture. */
async function codesOf(capture: AzureCapture, changes: Partial<AzureCapture> = {}): Promise<string[]> {
  const report = capture.hclReport.subarray(32, 1216);
  const cpu = {
    kind: 'snp',
    report,
    reportData: report.subarray(0x50, 0x90),
    measurement: report.subarray(0x90, 0xc0),
  } as const;
  const transcript = new Transcript();
  try {
    await checkAzure(
      { ...capture, ...changes },
      cpu,
      { policy, context: { now: new Date('2026-02-01'), keys } },
      transcript,
    );
  } catch (error) {
    if (error instanceof AttestationError) return [error.code];
    throw error;
  }
  return transcript.checks.flatMap(({ status, code }) => (status === 'fail' ? [code ?? ''] : []));
}

describe.skipIf(!haveVectors)('a real capture', () => {
  const capture = (): AzureCapture => azureCapture('snp-milan-userdata');

  test('as it is, passes', async () => {
    expect(await codesOf(capture())).toEqual([]);
  });

  test('every bit of the HCL report', { timeout: 400_000 }, async () => {
    const whole = capture();
    const jsonEnd = 1236 + viewOf(whole.hclReport).getUint32(1232, true);
    const expected = (bit: number): RegExp => {
      const byte = bit >> 3;
      // Version 1 and 2 both occur, and the header is not signed: what it says is checked for what it means.
      if (byte >= 32 && byte < 1216) return /^hcl_report_mismatch$/;
      if (byte >= 1236 && byte < jsonEnd) return /^hcl_hash$/;
      if (byte >= 1228 && byte < 1232) return /^hcl_(format|hash)$/;
      return /^hcl_(format|length)$/;
    };
    const missed: string[] = [];
    for (let bit = 0; bit < 8 * whole.hclReport.length; bit++) {
      // oxlint-disable-next-line no-await-in-loop -- one at a time: two cores are shared
      const [first = 'accepted'] = await codesOf(whole, { hclReport: flipped(whole.hclReport, bit) });
      if (!expected(bit).test(first)) missed.push(`0x${(bit >> 3).toString(16)}.${bit & 7}: ${first}`);
    }
    expect(missed).toEqual([]);
  });

  test('every bit of quote, signature and PCR values', { timeout: 400_000 }, async () => {
    const whole = capture();
    const missed: string[] = [];
    const attempt = async (what: string, changes: Partial<AzureCapture>, code: RegExp): Promise<void> => {
      const found = await codesOf(whole, changes);
      if (!found.some((each) => code.test(each))) missed.push(`${what}: ${found.join(' ')}`);
    };
    for (let bit = 0; bit < 8 * whole.quote.length; bit++)
      // oxlint-disable-next-line no-await-in-loop -- one at a time: two cores are shared
      await attempt(`quote ${bit}`, { quote: flipped(whole.quote, bit) }, /^tpm_(magic|quote|signature)$/);
    for (let bit = 0; bit < 8 * whole.signature.length; bit++)
      // oxlint-disable-next-line no-await-in-loop -- one at a time: two cores are shared
      await attempt(`signature ${bit}`, { signature: flipped(whole.signature, bit) }, /^tpm_signature$/);
    for (let bit = 0; bit < 8 * 32 * 24; bit += 8) {
      const pcrs = whole.pcrs.map((value, i) => (i === bit >> 8 ? flipped(value, bit & 255) : value));
      // oxlint-disable-next-line no-await-in-loop -- one at a time: two cores are shared
      await attempt(`PCR ${bit}`, { pcrs }, /^tpm_pcr_digest$/);
    }
    expect(missed).toEqual([]);
  });

  test.each<[string, (hcl: Uint8Array) => Uint8Array, string]>([
    ['one byte less', (hcl) => hcl.subarray(0, -1), 'hcl_length'],
    ['one byte more', (hcl) => Uint8Array.of(...hcl, 0), 'hcl_length'],
    ['the 2023 form of 2048 bytes', (hcl) => hcl.subarray(0, 2048), 'hcl_length'],
    ['a byte after the JSON', (hcl) => hcl.with(2599, 1), 'hcl_length'],
    ['another magic', (hcl) => hcl.with(0, 0x49), 'hcl_format'],
    ['an unknown version', (hcl) => hcl.with(4, 3), 'hcl_format'],
    ['an unknown report type', (hcl) => hcl.with(1224, 3), 'hcl_format'],
    ['an unknown hash', (hcl) => hcl.with(1228, 4), 'hcl_format'],
    ['SHA-384 where SHA-256 was signed', (hcl) => hcl.with(1228, 2), 'hcl_hash'],
    ['a report of TDX', (hcl) => hcl.with(1224, 4), 'hcl_format'],
  ])('%s', async (_what, change, code) => {
    const whole = capture();
    expect((await codesOf(whole, { hclReport: change(whole.hclReport) }))[0]).toBe(code);
  });
});
