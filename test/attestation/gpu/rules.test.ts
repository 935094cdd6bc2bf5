// Each rule of the NVIDIA verifier accepted and refused: simulated evidence with exactly one thing wrong is
// refused by the rule that must catch it. Every code of the table is reached here or in appraise.test.ts.

import { describe, expect, test } from 'vitest';
import { GPU_RULES } from '../../../attestation/gpu/rules.ts';
import type { GpuPolicy } from '../../../attestation/gpu/policy.ts';
import { ocspSigning } from '../../../attestation/simulated/ocsp.ts';
import { generateEcKey } from '../../../attestation/simulated/issue.ts';
import {
  DEVICE_CASES,
  MANIFEST_CASES,
  OCSP_CASES,
  serialOf,
  SET_CASES,
} from '../../fixtures/attestation/gpu-rule-cases.ts';
import {
  GPU_NONCE,
  hierarchy,
  judge,
  replacing,
  withManifest,
  withReport,
} from '../../fixtures/attestation/gpu-simulated.ts';
import { failedCodes } from '../../fixtures/attestation/gpu-vectors.ts';

const CASES = [...DEVICE_CASES, ...MANIFEST_CASES, ...OCSP_CASES, ...SET_CASES];
/** Of the binding to a CPU's evidence: appraise.test.ts. */
const IN_DOCUMENTS: readonly string[] = [GPU_RULES.missing.code, GPU_RULES.bound.code];

describe('refused', () => {
  test.each(CASES.map((item) => [item.codes.join(', '), item.what, item] as const))(
    '%s: %s',
    async (_codes, _what, item) => {
      const { evidence, policy, context } = await item.make();
      const found = await judge(evidence, policy, context);
      const failed = found.transcript.checks.filter(({ status }) => status === 'fail');
      expect(
        failed.map(({ code }) => code),
        failed.map(({ detail }) => detail).join(' | '),
      ).toEqual(item.codes);
      expect(found.accepted).toBe(false);
    },
  );

  test('every code of the table', () => {
    const reached = new Set(CASES.flatMap(({ codes }) => codes));
    const rules = Object.values(GPU_RULES).filter(({ code }) => !IN_DOCUMENTS.includes(code));
    expect(rules.filter(({ code }) => !reached.has(code)).map(({ code }) => code)).toEqual([]);
    expect(new Set(Object.values(GPU_RULES).map(({ code }) => code)).size).toBe(
      Object.keys(GPU_RULES).length,
    );
  });
});

describe('accepted', () => {
  test('one GPU that meets every key of a policy, and a linked set: every rule passes', async () => {
    const { evidence, linked } = await hierarchy();
    const ueids = [...evidence.devices, ...linked.devices].map(({ certificates: [leaf] }) => serialOf(leaf));
    const versions: GpuPolicy = { arch: ['HOPPER'], minDriver: '600.10.02', minVbios: { '1010_0210': '96.00.A0.00.01', '5612': '96.10.A0.00.01' }, ueids, allowHold: true }; // prettier-ignore
    const one = await judge(evidence, { ...versions, count: 1, mode: ['spt'] });
    const set = await judge(linked, { ...versions, count: 4, mode: ['ppcie'] });
    expect([failedCodes(one), failedCodes(set)]).toEqual([[], []]);
    const passed = new Set(
      [one, set].flatMap(({ transcript }) =>
        transcript.checks.filter(({ status }) => status === 'pass').map(({ id }) => id),
      ),
    );
    const rules = Object.values(GPU_RULES).filter(({ code }) => !IN_DOCUMENTS.includes(code));
    expect(rules.filter(({ id }) => !passed.has(id))).toEqual([]);
    expect(one.rootsReplaced).toBe(true);
    // A transcript has each row once, whatever failed.
    expect(one.transcript.checks.map(({ id }) => id)).toEqual(rules.map(({ id }) => id));
  });

  test.each(['BLACKWELL', 'LS10'] as const)('a device of the architecture %s', async (arch) => {
    const { nvidia } = await hierarchy();
    const found = await judge(await nvidia.evidence(GPU_NONCE, [await nvidia.device({ arch })]), {
      topology: 'any',
    });
    expect(failedCodes(found)).toEqual([]);
    expect(found.claims).toMatchObject({ devices: [{ arch, fwid: arch === 'LS10' ? 'absent' : 'matched' }] });
  });

  test('index 35 whatever it measures, where NVDEC0 is off', async () => {
    const evidence = await withReport({ measurements: new Map([[35, new Uint8Array(48)]]) });
    expect(failedCodes(await judge(evidence))).toEqual([]);
  });

  test('a value that is one of several alternatives', async () => {
    const hash = /(index="7" active="True" alternatives=")1(" )ns2:Hash0="/;
    const write = replacing(hash, `$12$2ns2:Hash0="${'0'.repeat(96)}" ns2:Hash1="`);
    expect(failedCodes(await judge(await withManifest({ write })))).toEqual([]);
  });

  test('spellings that are the same canonical form', async () => {
    const damages: ((xml: string) => string)[] = [
      replacing('corpus="false" name="GH100"', 'name="GH100" corpus="false"'),
      replacing('corpus="false"', 'corpus="fals&#101;"'),
      (xml) => xml.replaceAll('\n', '\r\n'),
      replacing('name="Measurement_0" size="48"/>', 'name="Measurement_0" size="48"></ns0:Resource>'),
    ];
    for (const damage of damages)
      expect(failedCodes(await judge(await withManifest({ damage })))).toEqual([]);
  });

  test('an answer of a responder that the issuer, or a CA above it, named', async () => {
    const { nvidia, device, evidence } = await hierarchy();
    for (const by of ['identity', 'root'] as const) {
      const signer = await generateEcKey('P-384');
      const responder = await nvidia.issue({ spki: signer.spki, extensions: [ocspSigning()] }, by);
      const answers = await Promise.all([2, 3].map((place) => nvidia.ocsp(device.chain, place, place === 2 ? { signer, responder } : {}))); // prettier-ignore
      const found = await judge({ ...evidence, ocsp: answers }, { revocation: 'stapled' });
      expect(failedCodes(found)).toEqual([]);
      expect(found.transcript.checks.find(({ id }) => id === 'G11')?.detail).toBe('2 of 2 answers good, 2 certificates have none'); // prettier-ignore
    }
  });

  test('a certificate on hold, where the policy takes it', async () => {
    const item = OCSP_CASES.find(({ codes }) => codes[0] === 'gpu_hold');
    const made = await item?.make();
    if (made === undefined) throw new Error('no case');
    expect(failedCodes(await judge(made.evidence, { allowHold: true }))).toEqual([]);
  });

  test('evidence without answers, only where the policy does not ask', async () => {
    const { evidence } = await hierarchy();
    const bare = { ...evidence, ocsp: [] };
    expect(failedCodes(await judge(bare))).toEqual(['gpu_ocsp']);
    for (const revocation of ['stapled', 'off'] as const) {
      const found = await judge(bare, { revocation });
      expect(failedCodes(found)).toEqual([]);
      expect(found.claims).toMatchObject({ devices: [{ revocation: 'incomplete' }] });
    }
  });
});
