// Results of the SNP verifier beside its rules: claims and authenticity of a report, and
// evidence that cannot be read.

import { describe, expect, test } from 'vitest';
import { toHex } from '../../../attestation/encoding/bytes.ts';
import type { AttestationError } from '../../../attestation/transcript/errors.ts';
import type { Product } from '../../../attestation/snp/tcb.ts';
import { refusalOf } from '../../fixtures/refusal.ts';
import { evidenceOf } from '../../fixtures/attestation/snp-simulated.ts';
import type { SnpEvidence } from '../../../attestation/snp/subject.ts';
import {
  type Given,
  milan,
  genoa,
  turin,
  verify,
  report,
  named,
  filled,
  hex,
} from '../../fixtures/attestation/snp-rules.ts';

async function refusalFor(given: Promise<Given>): Promise<AttestationError | undefined> {
  const input = await given;
  return refusalOf(() => verify(input));
}

describe('what cannot be read is not judged', () => {
  test.each([0, 1, 6, 0xffff_ffff])('S2 fail: version %i is unsupported', async (version) => {
    const error = await refusalFor(report({ version })());
    expect([error?.kind, error?.code, error?.check]).toEqual(['unsupported', 'snp_version', 'S2']);
  });

  test.each([0, 1, 1183, 1185, 4096])('S1 fail: a report of %i bytes is malformed', async (length) => {
    const error = await refusalFor(
      evidenceOf(genoa, { report: new Uint8Array(length) }).then((evidence) => ({ evidence })),
    );
    expect([error?.kind, error?.code, error?.check]).toEqual(['malformed', 'malformed_length', 'S1']);
  });

  test('S10 fail: a product nobody knows is unsupported', async () => {
    const evidence = await evidenceOf(genoa, {
      report: await genoa.signReport({ cpuidFamily: 0x1a, cpuidModel: 0x50 }),
      vek: await genoa.issueVek({ issuer: named('SEV-Venice') }),
      chain: [
        await genoa.issueCa('ask', { subject: named('SEV-Venice') }),
        await genoa.issueCa('ark', { subject: named('ARK-Venice'), issuer: named('ARK-Venice') }),
      ],
    });
    const error = await refusalFor(Promise.resolve({ evidence }));
    expect([error?.kind, error?.code, error?.actual]).toEqual(['unsupported', 'snp_product', 'Venice']);
  });

  test.each([0, 1, 3])('a chain of %i certificates is malformed', async (count) => {
    const error = await refusalFor(
      evidenceOf(genoa, { chain: [genoa.ask, genoa.ark, genoa.ark].slice(0, count) }).then((evidence) => ({
        evidence,
      })),
    );
    expect(error?.code).toBe('malformed_certificate');
  });

  test('a time that is none is malformed', async () => {
    const error = await refusalFor(
      evidenceOf(genoa).then((evidence) => ({ evidence, context: { now: new Date(Number.NaN) } })),
    );
    expect(error?.kind).toBe('malformed');
  });
});

/** The same bytes as a view that starts inside a larger buffer. */
function inside(bytes: Uint8Array, offset: number): Uint8Array {
  const buffer = new Uint8Array(bytes.length + offset + 13).fill(0xa5);
  buffer.set(bytes, offset);
  return buffer.subarray(offset, offset + bytes.length);
}

describe('claims and marks', () => {
  test.each(['Milan', 'Genoa', 'Turin'] as const satisfies readonly Product[])(
    '%s is accepted and says what it is',
    async (product) => {
      const simulated = { Milan: milan, Genoa: genoa, Turin: turin }[product];
      const { accepted, authentic, rootsReplaced, claims } = await verify({
        evidence: await evidenceOf(simulated),
      });
      expect({ accepted, authentic, rootsReplaced }).toEqual({
        accepted: true,
        authentic: true,
        rootsReplaced: true,
      });
      expect(claims).toMatchObject({
        product,
        version: 5,
        chipId: toHex(simulated.chipId),
        reportedTcb: simulated.tcb,
        rootsReplaced: true,
      });
      expect(() => JSON.stringify(claims)).not.toThrow();
    },
  );

  test('a report under a revoked ASK is not authentic, one without a CRL is', async () => {
    const revoked = await verify({
      evidence: await evidenceOf(genoa, { crl: await genoa.issueCrl({ revoked: [0x20001] }) }),
    });
    expect([revoked.authentic, revoked.accepted]).toEqual([false, false]);
    const forged = await verify({
      evidence: await evidenceOf(genoa, {
        crl: await genoa.issueCrl({ revoked: [0x20001], signer: genoa.keys.ask }),
      }),
    });
    expect([forged.authentic, forged.accepted]).toEqual([true, false]);
    const without = await verify({ evidence: await evidenceOf(genoa, { crl: undefined }) });
    expect([without.authentic, without.accepted]).toEqual([true, false]);
  });

  test('a report under a VEK whose extensions are wrong is not authentic', async () => {
    const { authentic, transcript } = await verify({
      evidence: await evidenceOf(genoa, { vek: await genoa.issueVek({ structVersion: 1 }) }),
    });
    expect([authentic, transcript.firstFailure?.id]).toEqual([false, 'S15']);
  });

  test('a report that is not signed is not authentic', async () => {
    const { authentic } = await verify(await report({ damage: (r) => void (r[0x90] = 1) })());
    expect(authentic).toBe(false);
  });

  test('inputs as views into larger buffers give the same transcript', async () => {
    const whole = await evidenceOf(genoa);
    const views: SnpEvidence = {
      report: inside(whole.report, 3),
      vek: inside(whole.vek, 7),
      chain: whole.chain.map((der) => inside(der, 11)),
      crl: inside(whole.crl ?? new Uint8Array(), 5),
    };
    expect((await verify({ evidence: views })).transcript.checks).toEqual(
      (await verify({ evidence: whole })).transcript.checks,
    );
  });

  test('buffers that change while signatures are being checked change nothing', async () => {
    const whole = await evidenceOf(genoa, { report: await genoa.signReport({ measurement: filled(48, 3) }) });
    const evidence: SnpEvidence = {
      report: whole.report.slice(),
      vek: whole.vek.slice(),
      chain: whole.chain.map((der) => der.slice()),
      crl: genoa.crl.slice(),
    };
    const running = verify({ evidence, policy: { measurement: hex(48, 3) } });
    for (const bytes of [evidence.report, evidence.vek, ...evidence.chain, evidence.crl ?? new Uint8Array()])
      bytes.fill(0xee);
    const { accepted, claims } = await running;
    expect([accepted, claims['measurement']]).toEqual([true, hex(48, 3)]);
  });

  test('the inputs are not written to, also as Node buffers', async () => {
    const whole = await evidenceOf(genoa);
    const buffers = { ...whole, report: Buffer.from(whole.report) };
    const before = Buffer.from(whole.report);
    expect((await verify({ evidence: buffers })).accepted).toBe(true);
    expect((await verify({ evidence: buffers })).accepted).toBe(true);
    expect(buffers.report.equals(before)).toBe(true);
  });
});
