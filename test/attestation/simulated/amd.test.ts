// The simulated AMD hierarchy: real formats and algorithms, restorable byte for byte, unmistakably not AMD,
// and never accepted by a verifier whose roots were not replaced by it.

import 'reflect-metadata';
import * as peculiar from '@peculiar/x509';
import { describe, expect, test } from 'vitest';
import { toHex } from '../../../attestation/encoding/bytes.ts';
import {
  createSimulatedAmd,
  isSimulatedRoot,
  SIMULATED_SERIALS,
  type SimulatedAmdKeys,
} from '../../../attestation/simulated/amd.ts';
import { parseReport } from '../../../attestation/snp/report.ts';
import { PRODUCTS } from '../../../attestation/snp/tcb.ts';
import { verifySnp } from '../../../attestation/snp/verify.ts';
import { parseCertificate, parseCrl } from '../../../attestation/x509/certificate.ts';
import { evidenceOf, NOW, simulatedAmd } from '../../fixtures/attestation/snp-simulated.ts';

function serial(der: Uint8Array): number {
  return Number.parseInt(toHex(parseCertificate(der).serial), 16);
}

describe('simulated AMD', () => {
  test.each(
    PRODUCTS.flatMap((product) => (['vcek', 'vlek'] as const).map((vekKind) => [product, vekKind] as const)),
  )('%s with a %s is accepted under its own root only', async (product, vekKind) => {
    const simulated = await simulatedAmd({ product, vekKind });
    const evidence = await evidenceOf(simulated);
    const own = await verifySnp(evidence, {}, { now: NOW, roots: [simulated.ark] });
    expect([own.accepted, own.rootsReplaced, own.product]).toEqual([true, true, product]);
    const pinned = await verifySnp(evidence, {}, { now: NOW });
    expect([pinned.accepted, pinned.authentic, pinned.transcript.firstFailure?.id]).toEqual([
      false,
      false,
      'S11',
    ]);
    const strangers = await createSimulatedAmd({ product, vekKind, rsaBits: 2048, now: NOW });
    expect((await verifySnp(evidence, {}, { now: NOW, roots: [strangers.ark] })).accepted).toBe(false);
    expect(isSimulatedRoot(simulated, evidence.chain[1] ?? new Uint8Array())).toBe(true);
  });

  test('keys of 4096 bits by default, 2048 only when asked', async () => {
    const simulated = await simulatedAmd({ rsaBits: 4096 });
    for (const der of [simulated.ark, simulated.ask, simulated.asvk])
      expect(parseCertificate(der).publicKey).toMatchObject({ kind: 'rsa', bits: 4096 });
    expect(parseCertificate((await simulatedAmd()).ark).publicKey).toMatchObject({ bits: 2048 });
    expect(
      (await verifySnp(await evidenceOf(simulated), {}, { now: NOW, roots: [simulated.ark] })).accepted,
    ).toBe(true);
  });

  test('exported keys are JSON and restore the same root, chain and chip', async () => {
    const first = await simulatedAmd({ product: 'Genoa' });
    const saved = JSON.parse(JSON.stringify(await first.exportKeys())) as SimulatedAmdKeys;
    const second = await createSimulatedAmd({
      product: 'Genoa',
      keys: saved,
      now: new Date('2027-03-01T00:00:00Z'),
    });
    expect([second.ark, second.ask, second.asvk, second.chipId].map(toHex)).toEqual(
      [first.ark, first.ask, first.asvk, first.chipId].map(toHex),
    );
    const evidence = await evidenceOf(second);
    expect(
      (await verifySnp(evidence, {}, { now: new Date('2027-03-01T00:00:00Z'), roots: [first.ark] })).accepted,
    ).toBe(true);
    const otherProduct = await createSimulatedAmd({ product: 'Turin', keys: saved, now: NOW });
    expect(toHex(otherProduct.ark)).not.toBe(toHex(first.ark));
    expect(
      (await verifySnp(await evidenceOf(otherProduct), {}, { now: NOW, roots: [otherProduct.ark] })).accepted,
    ).toBe(true);
  });

  test('names say what it is, in words no AMD certificate has', async () => {
    const simulated = await simulatedAmd();
    for (const der of [simulated.ark, simulated.ask, simulated.vek]) {
      const { issuer, subject } = new peculiar.X509Certificate(der as BufferSource);
      for (const name of [issuer, subject]) {
        expect(name).toContain('SIMULATED');
        expect(name).not.toContain('Advanced Micro Devices');
      }
    }
  });

  test('serials are numbered as AMD does, VEKs have none', async () => {
    const simulated = await simulatedAmd({ product: 'Milan' });
    expect([simulated.ark, simulated.ask, simulated.asvk, simulated.vek].map(serial)).toEqual([
      ...Object.values(SIMULATED_SERIALS.Milan),
      0,
    ]);
    expect(parseCrl(await simulated.issueCrl({ revoked: [0x10001] })).revoked.map(toHex)).toEqual(['010001']);
  });

  test.each([2, 3, 4, 5])('version %i carries every field given', async (version) => {
    const simulated = await simulatedAmd({ product: 'Milan' });
    const report = parseReport(
      await simulated.signReport({
        version,
        measurement: new Uint8Array(48).fill(1),
        reportData: new Uint8Array(64).fill(2),
        vmpl: 3,
        guestSvn: 9,
      }),
    );
    expect(report).toMatchObject({
      version,
      vmpl: 3,
      guestSvn: 9,
      measurement: new Uint8Array(48).fill(1),
      reportData: new Uint8Array(64).fill(2),
    });
    expect(report.cpuidFamily).toBe(version === 2 ? undefined : 0x19);
  });

  test('a field of the wrong size is a mistake of the caller', async () => {
    const simulated = await simulatedAmd();
    await expect(simulated.signReport({ measurement: new Uint8Array(47) })).rejects.toThrow(
      'measurement must be 48 bytes',
    );
  });
});
