// The words of `evidence`: each refusal names the thing that was given and what to do, each check carries its
// title and, when it fails, code and hint; a PCK chain, CRLs in every form and containers of clouds are known
// for what they are.

import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';
import { concatBytes, toBase64, utf8 } from '../../../attestation/encoding/bytes.ts';
import { type EvidenceResult, runEvidence } from '../../../attestation/appraise/evidence-contract.ts';
import { hintOf } from '../../../attestation/appraise/hints.ts';
import { createSimulatedIntel, type SimulatedIntel } from '../../../attestation/simulated/intel.ts';
import { encodePem } from '../../../attestation/simulated/issue.ts';
import type { SimulatedAmd } from '../../../attestation/simulated/amd.ts';
import { GPU_RULES } from '../../../attestation/gpu/rules.ts';
import { SNP_RULES } from '../../../attestation/snp/rules.ts';
import { TDX_RULES } from '../../../attestation/tdx/rules.ts';
import type { Rule } from '../../../attestation/transcript/checks.ts';
import type { TdxEvidence } from '../../../attestation/tdx/subject.ts';
import { NOW, simulatedAmd } from '../../fixtures/attestation/snp-simulated.ts';
import { haveVectors, vectorPath } from '../../fixtures/shared.ts';

let amd: SimulatedAmd;
let intel: SimulatedIntel;
let report: Uint8Array;
beforeAll(async () => {
  amd = await simulatedAmd({ product: 'Genoa' });
  intel = await createSimulatedIntel({ now: NOW });
  report = await amd.signReport({});
});

function runSnp(changes: Record<string, unknown> = {}): Promise<EvidenceResult> {
  return runEvidence(
    JSON.stringify({
      tee: 'snp',
      report: toBase64(report),
      vek: toBase64(amd.vek),
      chain: [encodePem(amd.ask), encodePem(amd.ark)],
      crl: toBase64(amd.crl),
      roots: [encodePem(amd.ark)],
      now: NOW.toISOString(),
      policy: {},
      ...changes,
    }),
  );
}

function runTdx(
  { quote, collateral: c }: TdxEvidence,
  { collateral = {}, ...changes }: { collateral?: object; policy?: unknown; quote?: string } = {},
): Promise<EvidenceResult> {
  return runEvidence(
    JSON.stringify({
      tee: 'tdx',
      quote: toBase64(quote),
      collateral: {
        tcb_info: c.tcbInfo,
        tcb_info_issuer_chain: c.tcbInfoIssuerChain,
        qe_identity: c.qeIdentity,
        qe_identity_issuer_chain: c.qeIdentityIssuerChain,
        pck_crl: toBase64(c.pckCrl),
        root_ca_crl: toBase64(c.rootCaCrl),
        ...collateral,
      },
      roots: [encodePem(intel.root)],
      now: NOW.toISOString(),
      policy: {},
      ...changes,
    }),
  );
}

function failing({ output }: EvidenceResult, id: string) {
  return output.checks.find((check) => check.id === id && check.status === 'fail');
}

describe('checks', () => {
  test('every failing rule of a vendor has a hint', () => {
    const rules = [SNP_RULES, TDX_RULES, GPU_RULES].flatMap((each): readonly Rule[] => Object.values(each));
    const shape = new Set([
      'snp_version',
      'tdx_certification_data',
      'tdx_body_descriptor',
      'tdx_signature_data',
    ]);
    const without = rules.filter(({ code }) => hintOf(code) === undefined && !shape.has(code));
    expect(without.map(({ id, code }) => `${id} ${code}`)).toEqual([]);
  });

  test('a failure carries code, expected, actual and hint, every check a title', async () => {
    const result = await runSnp({ policy: { measurement: '08'.repeat(48) } });
    for (const { title, spec } of result.output.checks) expect([title, spec]).not.toContain('');
    expect(failing(result, 'S27')).toMatchObject({
      code: 'snp_measurement',
      expected: '08'.repeat(48),
      hint: hintOf('snp_measurement'),
    });
    expect(result.output.checks.filter(({ status }) => status !== 'fail').every((c) => !('code' in c))).toBe(
      true,
    );
  });
});

describe('the code names what is wrong', () => {
  test('a flipped bit in the PEM of the quote is a matter of the certificate', async () => {
    const quote = await intel.signQuote();
    const at = Buffer.from(quote).indexOf('-----BEGIN');
    for (const offset of [0, 5, 40, 300]) {
      const damaged = quote.slice();
      damaged[at + offset] = (damaged[at + offset] ?? 0) | 0x80;
      const { exitCode, output } = await runTdx({ ...(await intel.evidence()), quote: damaged });
      expect([exitCode, output.code]).toEqual([30, 'malformed_certificate']);
    }
  });

  test('other text that is no text has the code of what it was to be', async () => {
    const evidence = await intel.evidence();
    const bad = concatBytes(utf8('-----BEGIN X509 CRL-----'), Uint8Array.of(0xff));
    const crl = await runTdx(evidence, { collateral: { pck_crl: toBase64(bad) } });
    expect(crl.output.code).toBe('malformed_crl');
    expect((await runSnp({ crl: toBase64(bad) })).output.code).toBe('malformed_crl');
  });

  test.each([
    ['TCB', 'snp_vek_tcb', () => amd.issueVek({ tcb: { ...amd.tcb, microcode: 1 }, spki: otherKey() })],
    ['chip', 'snp_hwid', () => amd.issueVek({ chipId: new Uint8Array(64).fill(9), spki: otherKey() })],
  ])('a VCEK of another %s', async (_, code, issue) => {
    const result = await runSnp({ vek: toBase64(await issue()) });
    expect([result.exitCode, result.output.code]).toEqual([10, code]);
    expect(failing(result, 'S1')).toBeDefined();
    expect(result.output.checks.find((check) => check.code === code)?.hint).toContain('VCEK');
  });

  test('a report that was changed stays a matter of the signature', async () => {
    const damaged = await amd.signReport({ damage: (bytes) => void (bytes[0x90] = 1) });
    expect((await runSnp({ report: toBase64(damaged) })).output.code).toBe('snp_signature');
  });
});

/** The key of the ASK's CRL signer would do as well: any key that did not sign the report. */
function otherKey(): Uint8Array {
  return OTHER.spki;
}
const OTHER: { spki: Uint8Array } = { spki: new Uint8Array() };
beforeAll(async () => {
  const pair = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-384' }, true, [
    'sign',
    'verify',
  ]);
  OTHER.spki = new Uint8Array(await crypto.subtle.exportKey('spki', pair.publicKey));
});

describe('a quote that only names its PCK', () => {
  const NAMES = { certificationType: 3, certificationData: new Uint8Array(404) };

  test('is accepted with the chain beside it', async () => {
    const evidence = await intel.evidence(NAMES);
    const { exitCode, output } = await runTdx(evidence, { collateral: { pck_chain: intel.pckChainPem } });
    expect([exitCode, output.code]).toEqual([0, null]);
  });

  test.each([1, 2, 3, 4])('type %i without it: says which key to give', async (certificationType) => {
    const { exitCode, output } = await runTdx(await intel.evidence({ ...NAMES, certificationType }));
    expect([exitCode, output.code]).toEqual([20, 'tdx_certification_data']);
    expect(output.checks.at(-1)?.hint).toContain('pck_chain');
  });

  test('another chain does not do', async () => {
    const other = await createSimulatedIntel({ now: NOW });
    const evidence = await intel.evidence(NAMES);
    const { exitCode } = await runTdx(evidence, { collateral: { pck_chain: other.pckChainPem } });
    expect(exitCode).toBe(10);
  });
});

describe('values whose absence means zero', () => {
  const SET = new Uint8Array(48).fill(3);

  test.each([
    [undefined, 'a service TD is bound; the policy accepts none'],
    ['00'.repeat(48), 'a service TD is bound; the policy accepts none'],
    ['04'.repeat(48), 'not the value accepted'],
    [['04'.repeat(48), '05'.repeat(48)], 'not one of the 2 values accepted'],
  ])('a service TD, and the policy names %j', async (mrServiceTd, words) => {
    const evidence = await intel.evidence({ version: 5, mrServiceTd: SET });
    const result = await runTdx(evidence, { policy: mrServiceTd === undefined ? {} : { mrServiceTd } });
    expect(result.output.code).toBe('tdx_mr_service_td');
    const check = result.output.checks.find(({ code }) => code === 'tdx_mr_service_td');
    expect(check?.detail).toContain(words);
  });

  test.each([
    ['seamAttributes', { seamAttributes: new Uint8Array(8).fill(1) }, {}, 'the TDX module has attributes'],
    ['mrConfigId', { mrConfigId: SET }, { mrConfigId: '00'.repeat(48) }, 'a configuration id is set'],
    ['mrOwner', { mrOwner: SET }, { mrOwner: '00'.repeat(48) }, 'an owner is set'],
  ])('%s', async (_, quote, policy, words) => {
    const { output } = await runTdx(await intel.evidence(quote), { policy });
    const details = output.checks.filter(({ status }) => status === 'fail').map(({ detail }) => detail);
    expect(details.join('\n')).toContain(`${words}; the policy accepts none`);
  });

  test('SEV-SNP: an id key, data of the host, a migration agent', async () => {
    report = await amd.signReport({ idKeyDigest: SET, hostData: new Uint8Array(32).fill(1), reportIdMa: new Uint8Array(32).fill(2) });
    const { output } = await runSnp({ policy: { idKeyDigest: '00'.repeat(48), hostData: '00'.repeat(32) } });
    const details = output.checks.filter(({ status }) => status === 'fail').map(({ detail }) => detail);
    for (const words of ['launched with an id key', 'the host has set data', 'a migration agent is bound'])
      expect(details.join('\n')).toContain(`${words}; the policy accepts none`);
    report = await amd.signReport({});
  }); // prettier-ignore
});

describe('CRLs in the forms services give', () => {
  const forms = (der: Uint8Array): [string, string][] => {
    const pem = `-----BEGIN X509 CRL-----\n${toBase64(der).replace(/.{64}/g, '$&\n')}\n-----END X509 CRL-----\n`;
    const hex = Buffer.from(der).toString('hex');
    return [
      ['DER', toBase64(der)],
      ['PEM', toBase64(utf8(pem))],
      ['PEM after blank lines', toBase64(utf8(`\n\n${pem}`))],
      ['PEM as text', pem],
      ['hex', toBase64(utf8(hex))],
      ['hex in capitals', toBase64(utf8(hex.toUpperCase()))],
    ];
  };

  test('SEV-SNP', async () => {
    for (const [form, crl] of forms(amd.crl))
      expect([form, (await runSnp({ crl })).output.code]).toEqual([form, null]);
  });

  test('TDX', async () => {
    const evidence = await intel.evidence();
    const { pckCrl } = evidence.collateral;
    for (const [form, pck_crl] of forms(pckCrl))
      expect([form, (await runTdx(evidence, { collateral: { pck_crl } })).output.code]).toEqual([form, null]);
  });

  test('a VEK in PEM is taken as well, and text where base64 belongs says so', async () => {
    const pem = encodePem(amd.vek);
    expect((await runSnp({ vek: toBase64(utf8(pem)) })).exitCode).toBe(0);
    const { output } = await runSnp({ vek: pem });
    expect(output.checks.at(-1)).toMatchObject({
      code: 'malformed_base64',
      detail: 'vek is PEM text, expected base64',
    });
  });
});

describe('containers', () => {
  const hcl = (kind: number, size: number): Uint8Array => {
    const bytes = new Uint8Array(size);
    bytes.set(utf8('HCLA'));
    bytes.set(report, 32);
    new DataView(bytes.buffer).setUint32(1224, kind, true);
    return bytes;
  };
  const padded = (before: number, after: number): Uint8Array =>
    concatBytes(new Uint8Array(before), report, new Uint8Array(after));
  const firmwareAnswer = (): Uint8Array => {
    const bytes = padded(32, 2784);
    new DataView(bytes.buffer).setUint32(4, 1184, true);
    return bytes;
  };

  test.each([
    [
      "Azure's",
      () => hcl(2, 2600),
      'Azure HCL report (2600 bytes, "HCLA"): its SEV-SNP report is at bytes 32 to 1216',
    ],
    ["Azure's with TDX", () => hcl(4, 2632), 'it holds a TDREPORT'],
    ['zeros after it', () => padded(0, 2816), 'a SEV-SNP report padded with 2816 zero bytes'],
    ['one zero after it', () => padded(0, 1), 'a SEV-SNP report padded with 1 zero bytes'],
    ['other bytes after it', () => concatBytes(report, utf8('certificates')), 'followed by 12 other bytes'],
    ["the driver's answer", firmwareAnswer, 'MSG_REPORT_RSP'],
    ['an unknown one', () => padded(77, 9), 'a SEV-SNP report seems to be at bytes 77 to 1261'],
    ['half of it', () => report.slice(0, 600), '584 bytes are missing'],
    ['base64 twice', () => utf8(toBase64(report)), 'base64 text, encoded a second time'],
    ['hex', () => utf8(Buffer.from(report).toString('hex')), 'hex text'],
    ['JSON', () => utf8(JSON.stringify({ report: toBase64(report) })), 'JSON'],
  ])('a report in %s', async (_, make, words) => {
    const { exitCode, output } = await runSnp({ report: toBase64(make()) });
    expect([exitCode, output.code]).toEqual([30, 'malformed_length']);
    expect(output.checks.at(-1)?.detail).toContain(words);
    expect(output.checks.at(-1)?.hint).toContain('report alone');
  });

  test('a quote, and what is none', async () => {
    const evidence = await intel.evidence();
    const quoted = (await runSnp({ report: toBase64(evidence.quote) })).output.checks.at(-1);
    expect(quoted?.detail).toContain('this is a TDX quote of version 4');
    const other = async (bytes: Uint8Array): Promise<string | undefined> =>
      (await runTdx(evidence, { quote: toBase64(bytes) })).output.checks.at(-1)?.detail;
    expect(await other(report)).toContain('this is a SEV-SNP report');
    expect(await other(hcl(4, 2600))).toContain('Azure HCL report');
    expect(await other(concatBytes(new Uint8Array(16), evidence.quote))).toContain(
      'TDX quote seems to start at byte 16',
    );
    const tdReport = new Uint8Array(1024);
    tdReport[0] = 0x81;
    expect(await other(tdReport)).toContain('TDREPORT');
  });

  test.skipIf(!haveVectors)('of real clouds', async () => {
    const azure = new Uint8Array(readFileSync(vectorPath('azure/snp-milan-report-v2/hcl-report.bin')));
    expect((await runSnp({ report: toBase64(azure) })).output.checks.at(-1)?.detail).toContain(
      'Azure HCL report',
    );
  });
});

test('TCB info and QE identity of two publications: a visible note', async () => {
  const same = await runTdx(await intel.evidence());
  expect(same.output.checks.some(({ detail }) => detail.startsWith('note:'))).toBe(false);
  const tcbInfo = await intel.tcbInfo({ tcbEvaluationDataNumber: 17 });
  const qeIdentity = await intel.qeIdentity({ tcbEvaluationDataNumber: 18 });
  const mixed = await runTdx(await intel.evidence({}, { tcbInfo, qeIdentity }));
  expect(mixed.exitCode).toBe(0);
  const note = mixed.output.checks.find(({ detail }) => detail.startsWith('note:'));
  expect(note).toMatchObject({ id: 'T21', status: 'skip' });
  expect(note?.detail).toContain('17');
  expect(note?.detail).toContain('18');
});
