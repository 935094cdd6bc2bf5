// Claims that may be made: `authentic` and `claims` rest on every link from the report to the trusted root,
// also on those another document judges; dates, TCB and policy break none of them. A check printed beside a
// refusal says when it is not authenticated.

import { beforeAll, describe, expect, test } from 'vitest';
import { fromHex, toBase64, utf8 } from '../../../attestation/encoding/bytes.ts';
import { runEvidence } from '../../../attestation/appraise/evidence-contract.ts';
import { AttestationError } from '../../../attestation/transcript/errors.ts';
import { detailOf } from '../../../attestation/appraise/explain.ts';
import { renderVerdict } from '../../../attestation/node/cli/table.ts';
import type { SimulatedAmd } from '../../../attestation/simulated/amd.ts';
import type { SimulatedQuote } from '../../../attestation/simulated/intel-quote.ts';
import {
  createSimulatedIntel,
  SIMULATED_INTEL_SERIALS,
  type SimulatedIntel,
} from '../../../attestation/simulated/intel.ts';
import { encodePem, generateEcKey } from '../../../attestation/simulated/issue.ts';
import type { SnpPolicy } from '../../../attestation/snp/policy.ts';
import { verifySnp } from '../../../attestation/snp/verify.ts';
import type { TdxCollateral } from '../../../attestation/tdx/collateral.ts';
import type { TdxPolicy } from '../../../attestation/tdx/policy.ts';
import { verifyTdx, type TdxVerification } from '../../../attestation/tdx/verify.ts';
import { evidenceOf, NOW, simulatedAmd } from '../../fixtures/attestation/snp-simulated.ts';
import type { SnpEvidence } from '../../../attestation/snp/subject.ts';

const now = NOW;
function fill(size: number, value: number): Uint8Array {
  return new Uint8Array(size).fill(value);
}
const FORGED = 'ee'.repeat(48);

interface Input {
  readonly quote?: SimulatedQuote | undefined;
  readonly collateral?: Partial<TdxCollateral> | undefined;
  readonly policy?: TdxPolicy | undefined;
}

const intel = await createSimulatedIntel({ now });
const stranger = await createSimulatedIntel({ now });

describe('TDX', () => {
  const judge = async ({ quote, collateral, policy }: Input): Promise<TdxVerification> =>
    verifyTdx(await intel.evidence({ mrTd: fill(48, 0xee), ...quote }, collateral), policy ?? {}, {
      now,
      roots: [intel.root],
    });
  const qeIdentity = async (changes: Parameters<SimulatedIntel['qeIdentity']>[0]): Promise<Input> => ({
    collateral: { qeIdentity: await intel.qeIdentity(changes) },
  });
  const tcbInfo = async (changes: Parameters<SimulatedIntel['tcbInfo']>[0]): Promise<Input> => ({
    collateral: { tcbInfo: await intel.tcbInfo(changes) },
  });
  const qeReport = (changes: NonNullable<SimulatedQuote['qeReport']>): Input => ({
    quote: { qeReport: changes },
  });
  const member = (key: string, value: unknown): Promise<Input> =>
    qeIdentity({ members: (list) => ({ ...list, [key]: value }) });

  const NOT_VOUCHED: readonly (readonly [string, () => Input | Promise<Input>])[] = [
    ['another signer and product', () => qeReport({ mrSigner: fill(32, 0x66), isvProdId: 99 })],
    ['another signer', () => qeReport({ mrSigner: fill(32, 0x66) })],
    ['one bit of the signer', () => qeReport({ mrSigner: Uint8Array.from({ length: 32 }, (_, i) => (0xa0 ^ i) ^ (i === 31 ? 1 : 0)) })],
    ['another product', () => qeReport({ isvProdId: 1 })],
    ['a debug enclave', () => qeReport({ attributes: fromHex('13000000000000000000000000000000') })],
    ['an enclave that is not initialised', () => qeReport({ attributes: fromHex('10000000000000000000000000000000') })],
    ['MISCSELECT', () => qeReport({ miscSelect: 1 })],
    ['all of it at once, and old', () => qeReport({ mrSigner: fill(32, 1), isvProdId: 0, miscSelect: 7, isvSvn: 0 })],
    ['an identity of another enclave', () => member('id', 'QE')],
    ['an identity of another version', () => member('version', 1)],
    ['an identity with another signer', () => member('mrsigner', '66'.repeat(32))],
    ['an identity with another product', () => member('isvprodid', 3)],
    ['an identity by a key that is not in its chain', () => qeIdentity({ signer: stranger.keys.tcbSigning })],
    ['an identity altered after it was signed', () => qeIdentity({ damage: (text) => text.replace('"isvprodid":2', '"isvprodid":1') })],
    [
      'an identity of a stranger, with the stranger’s chain',
      async () => ({ collateral: { qeIdentity: await stranger.qeIdentity(), qeIdentityIssuerChain: stranger.signingChainPem } }),
    ],
    [
      'an identity signed by a certificate of another role',
      async () => ({
        collateral: {
          qeIdentity: await intel.qeIdentity({ signer: intel.keys.pck }),
          qeIdentityIssuerChain: encodePem(intel.pck) + encodePem(intel.root),
        },
      }),
    ],
    ['a module of another signer', () => ({ quote: { mrSignerSeam: fill(48, 0x66) } })],
    ['a debug module', () => ({ quote: { seamAttributes: fill(8, 1) } })],
    [
      'a module of another signer, with TCB info nobody signed',
      async () => ({ quote: { mrSignerSeam: fill(48, 0x66) }, ...(await tcbInfo({ signer: stranger.keys.tcbSigning })) }),
    ],
    ['a quote by another key', () => ({ quote: { signer: stranger.keys.attestation } })],
    ['a QE report by another PCK', () => ({ quote: { qeSigner: stranger.keys.pck } })],
    ['a QE report for another attestation key', () => qeReport({ reportData: fill(64, 1) })],
    ['a PCK of a stranger', () => ({ quote: { certificationData: utf8(stranger.pckChainPem), qeSigner: stranger.keys.pck } })],
    ['a revoked PCK', async () => ({ collateral: { pckCrl: await intel.issueCrl('platform', { revoked: [SIMULATED_INTEL_SERIALS.pck] }) } })],
    ['a revoked PCK CA', async () => ({ collateral: { rootCaCrl: await intel.issueCrl('root', { revoked: [SIMULATED_INTEL_SERIALS.platform] }) } })],
    ['a PCK CRL of a stranger', async () => ({ collateral: { pckCrl: await intel.issueCrl('platform', { signer: stranger.keys.platform }) } })],
    [
      'a second root certificate that is revoked, over the QE identity alone',
      async () => ({
        collateral: {
          qeIdentityIssuerChain: encodePem(intel.tcbSigning) + encodePem(await intel.issueCa('root', { serial: 0x51dead })),
          rootCaCrl: await intel.issueCrl('root', { revoked: [0x51dead] }),
        },
      }),
    ],
    [
      'a second PCK CA certificate that is revoked, over the PCK CRL alone',
      async () => ({
        collateral: {
          pckCrlIssuerChain: encodePem(await intel.issueCa('platform', { serial: 0x51dead })) + encodePem(intel.root),
          rootCaCrl: await intel.issueCrl('root', { revoked: [0x51dead] }),
        },
      }),
    ],
  ]; // prettier-ignore
  test.each(NOT_VOUCHED)('nothing is claimed: %s', async (_name, make) => {
    const result = await judge(await make());
    expect([result.accepted, result.authentic, result.claims]).toEqual([false, false, {}]);
    // Whatever is still listed of the forged TD, passed, failed or skipped, says that it is not
    // authenticated.
    const told = result.transcript.checks.filter(({ detail }) => detail.includes(FORGED));
    expect(told.length).toBeGreaterThan(0);
    for (const check of told)
      expect([check.authenticated, detailOf(check)]).toEqual([
        false,
        expect.stringMatching(/^not authenticated: /),
      ]);
  });

  const VOUCHED: readonly (readonly [string, () => Input | Promise<Input>])[] = [
    ['an old quoting enclave', () => qeIdentity({ status: 'OutOfDate' })],
    ['a revoked quoting enclave level', () => qeIdentity({ status: 'Revoked' })],
    ['a quoting enclave below every level', () => qeReport({ isvSvn: 3 })],
    ['a QE identity that ran out', () => qeIdentity({ nextUpdate: now })],
    ['TCB info that ran out', () => tcbInfo({ nextUpdate: now })],
    ['a platform out of date', () => tcbInfo({ status: 'OutOfDate' })],
    ['a platform revoked', () => tcbInfo({ status: 'Revoked' })],
    ['TCB info of another platform', () => tcbInfo({ fmspc: fill(6, 9) })],
    ['TCB info nobody signed', () => tcbInfo({ signer: stranger.keys.tcbSigning })],
    [
      'a module version that is not listed',
      () => ({ quote: { version: 5, teeTcbSvn2: Uint8Array.from([7, 9, 5, ...fill(13, 0)]) } }),
    ],
    [
      'CRLs that ran out',
      async () => ({ collateral: { pckCrl: await intel.issueCrl('platform', { nextUpdate: now }) } }),
    ],
    ['a debug TD', () => ({ quote: { tdAttributes: fromHex('0100000000000000') } })],
    ['a policy that wants another MRTD', () => ({ policy: { mrTd: '11'.repeat(48) } })],
  ];
  test.each(VOUCHED)('refused, and claimed all the same: %s', async (_name, make) => {
    const result = await judge(await make());
    expect([result.accepted, result.authentic, result.claims['mrTd']]).toEqual([false, true, FORGED]);
    expect(result.transcript.checks.filter(({ authenticated }) => authenticated === false)).toEqual([]);
  });

  test('bits the masks of the identity leave out are the enclave’s own affair', async () => {
    const attributes = fromHex('15000000000000000700000000000000');
    expect(await judge(qeReport({ attributes }))).toMatchObject({ accepted: true, authentic: true });
  });

  test('no open advisory is claimed only where the TCB could be judged', async () => {
    expect((await judge(await tcbInfo({ fmspc: fill(6, 9) }))).claims).not.toHaveProperty('advisoryIds');
    expect((await judge({})).claims).toMatchObject({ advisoryIds: [] });
  });

  test('the table for a terminal labels what it lists of a forged quote', async () => {
    const { transcript } = await judge({ ...qeReport({ isvProdId: 99 }), policy: { mrTd: FORGED } });
    const error = new AttestationError('refused', 'tdx_qe_identity', 'refused', {
      transcript: transcript.checks,
    });
    const row = renderVerdict('https://assay.test', { error }).find(
      (line) => line.startsWith('T25') && line.includes('MRTD is '),
    );
    expect(row).toMatch(/ok .* not authenticated: MRTD is eeeeeeee…eeee$/);
  });

  test('the hermetic contract labels what it lists of a forged quote', async () => {
    const c = await intel.collateral();
    const input = {
      tee: 'tdx',
      quote: toBase64(
        await intel.signQuote({ mrTd: fill(48, 0xee), qeReport: { mrSigner: fill(32, 0x66) } }),
      ),
      now: now.toISOString(),
      roots: [encodePem(intel.root)],
      policy: { mrTd: FORGED },
      collateral: {
        tcb_info: c.tcbInfo,
        tcb_info_issuer_chain: c.tcbInfoIssuerChain,
        qe_identity: c.qeIdentity,
        qe_identity_issuer_chain: c.qeIdentityIssuerChain,
        pck_crl: toBase64(c.pckCrl),
        root_ca_crl: toBase64(c.rootCaCrl),
      },
    };
    const { exitCode, output } = await runEvidence(JSON.stringify(input));
    expect([exitCode, output.code, output.claims]).toEqual([10, 'tdx_qe_identity', { rootsReplaced: true }]);
    const told = output.checks.filter(({ detail }) => detail.includes(FORGED));
    expect(told.map(({ id, status, authenticated }) => [id, status, authenticated])).toEqual([
      ['T25', 'pass', false],
    ]);
    expect(output.checks.find(({ id }) => id === 'T6')).not.toHaveProperty('authenticated');
  });
});

describe('SEV-SNP', () => {
  let genoa: SimulatedAmd;
  let vlek: SimulatedAmd;
  let milan: SimulatedAmd;
  beforeAll(async () => {
    genoa = await simulatedAmd({ product: 'Genoa' });
    vlek = await simulatedAmd({ product: 'Genoa', vekKind: 'vlek' });
    milan = await simulatedAmd({ product: 'Milan' });
  });
  const measured = { measurement: fill(48, 0xee) };
  type Case = readonly [
    string,
    () => Promise<{ readonly evidence: SnpEvidence; readonly policy?: SnpPolicy | undefined }>,
  ];
  const judge = async (make: Case[1]): ReturnType<typeof verifySnp> => {
    const { evidence, policy } = await make();
    return verifySnp(evidence, policy ?? {}, { now, roots: [genoa.ark, milan.ark] });
  };
  const of = async (
    amd: SimulatedAmd,
    parts: Partial<SnpEvidence> = {},
  ): Promise<{ readonly evidence: SnpEvidence }> => ({
    evidence: await evidenceOf(amd, { report: await amd.signReport(measured), ...parts }),
  });

  const NOT_VOUCHED: readonly Case[] = [
    ['a report by another key', async () => of(genoa, { report: await genoa.signReport({ ...measured, signer: await generateEcKey('P-384') }) })],
    ['a VEK made for another TCB', async () => of(genoa, { vek: await genoa.issueVek({ tcb: { ...genoa.tcb, snp: genoa.tcb.snp - 1 } }) })],
    ['a VEK of another chip', async () => of(genoa, { vek: await genoa.issueVek({ chipId: fill(64, 9) }) })],
    ['a VEK that names another product', async () => of(genoa, { vek: await genoa.issueVek({ productName: 'Milan-B0' }) })],
    ['a CPUID of another product', async () => of(genoa, { report: await genoa.signReport({ ...measured, cpuidFamily: 0x19, cpuidModel: 1 }) })],
    ['a report that says a VLEK signed it', async () => of(genoa, { report: await genoa.signReport({ ...measured, keyInfo: 1 << 2 }) })],
    ['a report with the chip key masked', async () => of(genoa, { report: await genoa.signReport({ ...measured, keyInfo: 2 }) })],
    ['a VLEK without a provider', async () => of(vlek, { vek: await vlek.issueVek({ extensions: (list) => list.filter(({ oid }) => !oid.endsWith('.1.5')) }) })],
    ['a VLEK under the ASK', async () => of(vlek, { chain: [vlek.ask, vlek.ark] })],
    ['an intermediate of another product', async () => of(genoa, { chain: [milan.ask, genoa.ark] })],
    ['a revoked ASK', async () => of(genoa, { crl: await genoa.issueCrl({ revoked: [0x20001] }) })],
    ['a revoked ARK', async () => of(genoa, { crl: await genoa.issueCrl({ revoked: [0x20000] }) })],
    ['a revoked VEK', async () => of(genoa, { vek: await genoa.issueVek({ serial: 0x77 }), crl: await genoa.issueCrl({ revoked: [0x77] }) })],
  ]; // prettier-ignore
  test.each(NOT_VOUCHED)('nothing is claimed: %s', async (_name, make) => {
    const result = await judge(make);
    expect([result.accepted, result.authentic, result.claims]).toEqual([false, false, {}]);
    const told = result.transcript.checks.filter(({ detail }) => detail.includes(FORGED));
    expect(told.length).toBeGreaterThan(0);
    for (const check of told) expect(check.authenticated).toBe(false);
  });

  const VOUCHED: readonly Case[] = [
    [
      'a policy that wants another measurement',
      async () => ({ ...(await of(genoa)), policy: { measurement: '11'.repeat(48) } }),
    ],
    [
      'a product the policy does not list',
      async () => ({ ...(await of(genoa)), policy: { products: ['Turin'] } }),
    ],
    [
      'a provider the policy does not list',
      async () => ({ ...(await of(vlek)), policy: { cspIds: ['another'] } }),
    ],
    [
      'a VEK that expired',
      async () => of(genoa, { vek: await genoa.issueVek({ notAfter: new Date('2026-05-31T00:00:00Z') }) }),
    ],
    ['a TCB below the minimum', async () => ({ ...(await of(genoa)), policy: { minimumTcb: { snp: 255 } } })],
    ['no CRL', async () => of(genoa, { crl: undefined })],
  ];
  test.each(VOUCHED)('refused, and claimed all the same: %s', async (_name, make) => {
    const result = await judge(make);
    expect([result.accepted, result.authentic, result.claims['measurement']]).toEqual([false, true, FORGED]);
    expect(result.transcript.checks.filter(({ authenticated }) => authenticated === false)).toEqual([]);
  });

  test('what a CRL says of itself is claimed only when the ARK signed it', async () => {
    const forged = await judge(async () =>
      of(genoa, { crl: await genoa.issueCrl({ number: 99, signer: genoa.keys.ask }) }),
    );
    expect([forged.accepted, 'crl' in forged.claims]).toEqual([false, false]);
    expect((await judge(() => of(genoa))).claims).toHaveProperty('crl.number');
  });
});

describe('two values of one thing in a SEV-SNP report', () => {
  let genoa: SimulatedAmd;
  beforeAll(async () => {
    genoa = await simulatedAmd({ product: 'Genoa' });
  });
  const failed = async (
    report: Parameters<SimulatedAmd['signReport']>[0],
    policy: SnpPolicy = {},
  ): Promise<readonly string[]> => {
    const evidence = await evidenceOf(genoa, { report: await genoa.signReport(report) });
    const { transcript } = await verifySnp(evidence, policy, { now, roots: [genoa.ark] });
    return transcript.checks.filter(({ status }) => status === 'fail').map(({ id }) => id);
  };
  /** Genoa: bootloader, tee, four reserved, snp, microcode. */
  const tcb = (snp: number): Uint8Array =>
    Uint8Array.from([genoa.tcb.bootloader, genoa.tcb.tee, 0, 0, 0, 0, snp, genoa.tcb.microcode]);

  test('the minimum TCB holds for what the guest was launched on, unless the policy has another minimum for that', async () => {
    const { snp } = genoa.tcb;
    expect(await failed({ launchTcb: tcb(snp - 1) })).toEqual([]);
    expect(await failed({ launchTcb: tcb(snp) }, { minimumTcb: { snp } })).toEqual([]);
    expect(await failed({ launchTcb: tcb(snp - 1) }, { minimumTcb: { snp } })).toEqual(['S25']);
    expect(await failed({ launchTcb: tcb(0) }, { minimumTcb: { snp } })).toEqual(['S25']);
    expect(
      await failed({ launchTcb: tcb(snp - 1) }, { minimumTcb: { snp }, minimumLaunchTcb: { snp: snp - 1 } }),
    ).toEqual([]);
    expect(
      await failed({ launchTcb: tcb(snp - 2) }, { minimumTcb: { snp }, minimumLaunchTcb: { snp: snp - 1 } }),
    ).toEqual(['S25']);
  });

  test.each([
    ['the same', 0xbn, 0xbn, []],
    ['one more now', 0xbn, 0xfn, []],
    ['one less now', 0xfn, 0xbn, ['S26']],
    ['another instead', 0x8n, 0x4n, ['S26']],
    ['none now', 0x1n, 0x0n, ['S26']],
  ] as const)('mitigations: %s', async (_name, launchMitVector, currentMitVector, expected) => {
    expect(await failed({ launchMitVector, currentMitVector })).toEqual(expected);
  });
});
