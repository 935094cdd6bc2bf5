// Bits of real evidence flipped one at a time: every bit of a report is refused by its form or its signature;
// of a manifest a bit of every seventh byte, another one each time, is refused, too. ASSAY_EVERY_BIT=1 tries
// every bit of the manifest, which takes many minutes.

import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { equalBytes } from '../../../attestation/encoding/bytes.ts';
import { canonicalXml } from '../../../attestation/gpu/canonical-xml.ts';
import { judgeManifest } from '../../../attestation/gpu/manifest.ts';
import { readEnvelope } from '../../../attestation/gpu/manifest-envelope.ts';
import { readManifestValues } from '../../../attestation/gpu/manifest-values.ts';
import { parseGpuReport } from '../../../attestation/gpu/report.ts';
import { rootProblem } from '../../../attestation/gpu/roots.ts';
import { parseXml } from '../../../attestation/gpu/xml.ts';
import { AttestationError } from '../../../attestation/transcript/errors.ts';
import { parseCertificate } from '../../../attestation/x509/certificate.ts';
import { createKeyCache, verifyEcdsaRaw } from '../../../attestation/x509/signature.ts';
import {
  completeEvidence,
  failedCodes,
  judgeVector,
  UNASKED,
} from '../../fixtures/attestation/gpu-vectors.ts';
import { haveVectors } from '../../fixtures/shared.ts';

const BATCH = 64;
const EVERY_BIT = process.env['ASSAY_EVERY_BIT'] === '1';

function sha384(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHash('sha384').update(bytes).digest());
}

function flipped(bytes: Uint8Array, bit: number): Uint8Array {
  const copy = bytes.slice();
  copy[bit >> 3] = (copy[bit >> 3] ?? 0) ^ (1 << (bit & 7));
  return copy;
}

/** The bits for which `isRefused` is false. */
async function missed(
  bits: readonly number[],
  isRefused: (bit: number) => Promise<boolean>,
): Promise<number[]> {
  const left: number[] = [];
  for (let from = 0; from < bits.length; from += BATCH) {
    const batch = bits.slice(from, from + BATCH);
    const refused = await Promise.all(batch.map(isRefused));
    left.push(...batch.filter((_, i) => refused[i] !== true));
  }
  return left;
}

describe.skipIf(!haveVectors)('bit flips', () => {
  test('no bit of a report can be changed', { timeout: 1_200_000 }, async () => {
    const [device] = completeEvidence().devices;
    if (device === undefined) throw new Error('no device');
    expect(device.report.length).toBe(4129);
    const key = parseCertificate(device.certificates[0] ?? new Uint8Array()).publicKey;
    const keys = createKeyCache();
    // The two checks of verify.ts that a report has to pass before any of its values counts.
    const isRefused = async (bit: number): Promise<boolean> => {
      try {
        const { signed, signature, trailing } = parseGpuReport(flipped(device.report, bit));
        if (trailing > 0) return true;
        return !(await verifyEcdsaRaw(key, 'SHA-384', { bytes: signed, signature }, keys));
      } catch (error) {
        if (error instanceof AttestationError) return error.code === 'gpu_format';
        throw error;
      }
    };
    const bits = Array.from({ length: device.report.length * 8 }, (_, bit) => bit);
    expect(await missed(bits, isRefused)).toEqual([]);
  });

  test('the verdict of a changed report is a refusal by its own code', async () => {
    const { devices, manifests } = completeEvidence();
    const [device] = devices;
    if (device === undefined) throw new Error('no device');
    const codes = new Set<string>();
    for (let byte = 3; byte < device.report.length; byte += 97) {
      const report = flipped(device.report, byte * 8 + (byte % 8));
      const judging = {
        devices: [{ ...device, report }],
        manifests,
        now: '2026-09-16T00:00:00Z',
        policy: UNASKED,
      };
      try {
        const found = await judgeVector(judging);
        expect(found.accepted).toBe(false);
        codes.add(failedCodes(found)[0] ?? '');
      } catch (error) {
        if (!(error instanceof AttestationError)) throw error;
        codes.add(error.code);
      }
    }
    expect([...codes].toSorted()).toEqual(['gpu_format', 'gpu_signature']);
  });

  test('no bit of a manifest can be changed', { timeout: EVERY_BIT ? 7_200_000 : 1_200_000 }, async () => {
    const xml = completeEvidence().manifests[0]?.xml ?? new Uint8Array();
    const keys = createKeyCache();
    const isRefused = async (bit: number): Promise<boolean> => {
      const changed = flipped(xml, bit);
      try {
        // As manifest.ts does, until the first refusal.
        const root = parseXml(changed);
        const envelope = readEnvelope(root);
        readManifestValues(root);
        if (!equalBytes(sha384(canonicalXml(root, envelope.signatureElement)), envelope.digest)) return true;
      } catch (error) {
        if (error instanceof AttestationError) return true;
        throw error;
      }
      const judged = await judgeManifest(changed, { keys });
      const root = judged.chain.at(-1);
      return judged.problems.size > 0 || root === undefined || rootProblem(root.raw, 'manifest', undefined) !== undefined; // prettier-ignore
    };
    // 57 = 7 × 8 + 1: the bit wanders through its byte.
    const step = EVERY_BIT ? 1 : 57;
    const bits = Array.from({ length: Math.floor((xml.length * 8) / step) }, (_, i) => i * step);
    expect(await missed(bits, isRefused)).toEqual([]);
  });
});
