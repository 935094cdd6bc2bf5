// The hermetic contract: one JSON object in, one out; exit codes; what is malformed,
// unsupported, refused; size caps.

import { readFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { toBase64, toHex } from '../../../attestation/encoding/bytes.ts';
import { ATTESTATION_CODES } from '../../../attestation/transcript/codes.ts';
import {
  MAX_EVIDENCE_BYTES,
  runEvidence,
  type EvidenceResult,
} from '../../../attestation/appraise/evidence-contract.ts';
import type { SimulatedAmd } from '../../../attestation/simulated/amd.ts';
import { encodePem } from '../../../attestation/simulated/issue.ts';
import { createSimulatedIntel } from '../../../attestation/simulated/intel.ts';
import { SNP_RULES } from '../../../attestation/snp/rules.ts';
import { haveVectors, vectorPath } from '../../fixtures/shared.ts';
import { NOW, simulatedAmd } from '../../fixtures/attestation/snp-simulated.ts';

/** `make fuzz` multiplies the runs. */
const FUZZ = Number(process.env['ASSAY_FUZZ'] ?? 1);

let simulated: SimulatedAmd;
let input: Record<string, unknown>;

beforeAll(async () => {
  simulated = await simulatedAmd({ product: 'Genoa' });
  input = {
    tee: 'snp',
    report: toBase64(await simulated.signReport({ measurement: new Uint8Array(48).fill(7) })),
    vek: toBase64(simulated.vek),
    chain: [encodePem(simulated.ask), encodePem(simulated.ark)],
    crl: toBase64(simulated.crl),
    roots: [encodePem(simulated.ark)],
    now: NOW.toISOString(),
    policy: {},
  };
});

function read(path: string): Uint8Array {
  return new Uint8Array(readFileSync(vectorPath(path)));
}
function run(changes: Record<string, unknown> = {}): Promise<EvidenceResult> {
  return runEvidence(JSON.stringify({ ...input, ...changes }));
}
function verdict({ exitCode, output }: EvidenceResult): readonly [number, string | null] {
  return [exitCode, output.code];
}

describe('what comes out', () => {
  test('accepted: exit 0, no code, every rule, claims marked as of replaced roots', async () => {
    const { exitCode, output } = await run();
    expect(exitCode).toBe(0);
    expect(Object.keys(output)).toEqual(['accepted', 'code', 'checks', 'claims']);
    expect(output).toMatchObject({
      accepted: true,
      code: null,
      claims: { measurement: '07'.repeat(48), product: 'Genoa', rootsReplaced: true },
    });
    expect(output.checks.map((check) => check.id).toSorted()).toEqual(Object.keys(SNP_RULES).toSorted());
    for (const check of output.checks)
      expect(Object.keys(check)).toEqual(['id', 'spec', 'title', 'status', 'detail']);
    expect(output.checks.find((check) => check.id === 'S27')).toMatchObject({ status: 'skip' });
    expect(JSON.parse(JSON.stringify(output))).toEqual(output);
  });

  test('refused by the policy: exit 10, the code of the rule, claims all the same', async () => {
    const { exitCode, output } = await run({ policy: { measurement: '08'.repeat(48) } });
    expect([exitCode, output.accepted, output.code]).toEqual([10, false, 'snp_measurement']);
    expect(output.claims['measurement']).toBe('07'.repeat(48));
  });

  test('not signed: exit 10, no claim is repeated, the mark stays', async () => {
    const report = await simulated.signReport({ damage: (bytes) => void (bytes[0x90] = 1) });
    const { exitCode, output } = await run({ report: toBase64(report) });
    expect([exitCode, output.code]).toEqual([10, 'snp_signature']);
    expect(output.claims).toEqual({ rootsReplaced: true });
  });

  test('without roots the pinned ones count, and nothing is marked', async () => {
    const { roots: _roots, ...rest } = input;
    const { exitCode, output } = await runEvidence(JSON.stringify(rest));
    expect([exitCode, output.code, output.claims]).toEqual([10, 'snp_chain', {}]);
  });

  test('a debug guest is refused and no policy can say otherwise', async () => {
    const report = toBase64(await simulated.signReport({ guestPolicy: 0x3da_0137n }));
    expect(verdict(await run({ report }))).toEqual([10, 'snp_guest_policy']);
    expect(verdict(await run({ report, policy: { guestPolicy: { allowDebug: true } } }))).toEqual([
      30,
      'malformed_policy',
    ]);
  });

  test('a CRL is required by default and optional when the policy says so', async () => {
    const { crl: _crl, ...rest } = input;
    expect(verdict(await runEvidence(JSON.stringify(rest)))).toEqual([10, 'snp_crl']);
    const { exitCode, output } = await runEvidence(
      JSON.stringify({ ...rest, policy: { requireCrl: false } }),
    );
    expect([exitCode, output.checks.find((check) => check.id === 'S19')?.status]).toEqual([0, 'skip']);
  });

  test('bytes and text are the same input', async () => {
    const text = JSON.stringify(input);
    expect(await runEvidence(new TextEncoder().encode(text))).toEqual(await runEvidence(text));
  });

  test('the policy may be left out', async () => {
    const { policy: _policy, ...rest } = input;
    expect((await runEvidence(JSON.stringify(rest))).exitCode).toBe(0);
  });
});

describe('what is not understood', () => {
  test('an unknown report version or product: exit 20', async () => {
    expect(verdict(await run({ report: toBase64(await simulated.signReport({ version: 6 })) }))).toEqual([
      20,
      'snp_version',
    ]);
    expect(verdict(await run({ tee: 'sgx' }))).toEqual([20, 'unsupported_tee']);
  });

  test.each([
    ['nothing', '', 'malformed_json'],
    ['no JSON', '{', 'malformed_json'],
    ['a second object after it', '{}{}', 'malformed_json'],
    ['a byte order mark', '\ufeff{}', 'malformed_json'],
    ['a list', '[]', 'malformed_evidence'],
    ['an empty object', '{}', 'malformed_evidence'],
    ['only a tee', '{"tee":"snp"}', 'malformed_evidence'],
    ['the same key twice', '{"tee":"snp","tee":"tdx"}', 'malformed_json'],
  ])('%s: exit 30', async (_name, text, code) => {
    expect(verdict(await runEvidence(text))).toEqual([30, code]);
  });

  test('bytes that are no UTF-8: exit 30', async () => {
    expect((await runEvidence(Uint8Array.of(0x7b, 0xff, 0x7d))).exitCode).toBe(30);
  });

  test.each([
    ['an unknown key', { extra: 1 }, 'malformed_evidence'],
    ['a key of the other tee', { quote: '' }, 'malformed_evidence'],
    ['tee as a number', { tee: 1 }, 'malformed_evidence'],
    ['report missing', { report: undefined }, 'malformed_evidence'],
    ['now missing', { now: undefined }, 'malformed_evidence'],
    ['report as a list', { report: [1] }, 'malformed_evidence'],
    ['report as base64url', { report: '__--' }, 'malformed_base64'],
    ['report with white space', { report: 'AAAA\n' }, 'malformed_base64'],
    ['report of three bytes', { report: 'AAAA' }, 'malformed_length'],
    ['report with a byte more', () => ({ report: toBase64(new Uint8Array(1185)) }), 'malformed_length'],
    ['vek that is no DER', { vek: 'AAAA' }, 'malformed_certificate'],
    ['vek in PEM', () => ({ vek: encodePem(simulated.vek) }), 'malformed_base64'],
    ['crl that is no DER', { crl: 'AAAA' }, 'malformed_crl'],
    ['crl empty', { crl: '' }, 'malformed_crl'],
    ['crl null', { crl: null }, 'malformed_evidence'],
    ['chain as a string', () => ({ chain: encodePem(simulated.ask) }), 'malformed_evidence'],
    ['chain of one', () => ({ chain: [encodePem(simulated.ask)] }), 'malformed_certificate'],
    [
      'chain of three',
      () => ({ chain: [encodePem(simulated.ask), encodePem(simulated.ark) + encodePem(simulated.ark)] }),
      'malformed_certificate',
    ],
    [
      'chain without PEM',
      () => ({ chain: [toBase64(simulated.ask), toBase64(simulated.ark)] }),
      'malformed_certificate',
    ],
    ['roots empty', { roots: [] }, 'malformed_evidence'],
    ['roots of two in one', () => ({ roots: [encodePem(simulated.ark).repeat(2)] }), 'input_too_large'],
    ['policy as a list', { policy: [] }, 'malformed_policy'],
    ['policy null', { policy: null }, 'malformed_policy'],
    ['guest policy null', { policy: { guestPolicy: null } }, 'malformed_policy'],
    ['policy with an unknown key', { policy: { mrtd: '' } }, 'malformed_policy'],
    ['now without a zone', { now: '2026-06-01T00:00:00' }, 'malformed_evidence'],
    ['now as a date', { now: '2026-06-01' }, 'malformed_evidence'],
    ['now on 30 February', { now: '2026-02-30T00:00:00Z' }, 'malformed_evidence'],
    ['now in hour 24', { now: '2026-02-03T24:00:00Z' }, 'malformed_evidence'],
    ['now as seconds', { now: 1 }, 'malformed_evidence'],
  ] as const)('%s: exit 30', async (_name, changes, code) => {
    expect(verdict(await run(typeof changes === 'function' ? changes() : changes))).toEqual([30, code]);
  });

  test('now with an offset and fractions', async () => {
    expect((await run({ now: '2026-06-01T14:00:00.123456789+02:00' })).exitCode).toBe(0);
    expect(verdict(await run({ now: '2046-06-01T14:00:00Z' }))).toEqual([10, 'snp_certificate_validity']);
  });

  test('a failure says what it was, and holds nothing back', async () => {
    const { output } = await run({ report: 'AAAA' });
    expect(output.checks).toEqual([
      {
        id: 'S1',
        spec: '',
        title: 'the input can be read',
        status: 'fail',
        detail: 'attestation report is 3 bytes, expected 1184',
        code: 'malformed_length',
        expected: '1184',
        actual: '3',
        hint: 'give the 1184 bytes of the report alone',
      },
    ]);
  });
});

describe('TDX through the same contract', () => {
  let tdx: Record<string, unknown>;

  beforeAll(async () => {
    const intel = await createSimulatedIntel({ now: NOW });
    const { quote, collateral } = await intel.evidence();
    tdx = {
      tee: 'tdx',
      quote: toBase64(quote),
      collateral: {
        tcb_info: collateral.tcbInfo,
        tcb_info_issuer_chain: collateral.tcbInfoIssuerChain,
        qe_identity: collateral.qeIdentity,
        qe_identity_issuer_chain: collateral.qeIdentityIssuerChain,
        pck_crl: toBase64(collateral.pckCrl),
        pck_crl_issuer_chain: intel.pckChainPem.slice(
          intel.pckChainPem.indexOf('-----END CERTIFICATE-----') + 26,
        ),
        root_ca_crl: toBase64(collateral.rootCaCrl),
      },
      roots: [encodePem(intel.root)],
      now: NOW.toISOString(),
      policy: {},
    };
  });

  const runTdx = (changes: Record<string, unknown> = {}): Promise<EvidenceResult> =>
    runEvidence(JSON.stringify({ ...tdx, ...changes }));
  const withCollateral = (changes: Record<string, unknown>): Promise<EvidenceResult> =>
    runTdx({ collateral: { ...(tdx['collateral'] as Record<string, unknown>), ...changes } });

  test('accepted: exit 0, the same four members, marked', async () => {
    const { exitCode, output } = await runTdx();
    expect([exitCode, output.code, Object.keys(output)]).toEqual([
      0,
      null,
      ['accepted', 'code', 'checks', 'claims'],
    ]);
    expect(output.claims).toMatchObject({ rootsReplaced: true });
    expect(JSON.parse(JSON.stringify(output))).toEqual(output);
    for (const check of output.checks)
      expect(Object.keys(check)).toEqual(['id', 'spec', 'title', 'status', 'detail']);
  });

  test('refused by the policy, and by the pinned root: exit 10', async () => {
    expect(verdict(await runTdx({ policy: { mrTd: '11'.repeat(48) } }))[0]).toBe(10);
    const { roots: _roots, ...rest } = tdx;
    expect((await runEvidence(JSON.stringify(rest))).exitCode).toBe(10);
  });

  test.each([
    ['an SNP key', { report: '' }],
    ['quote of three bytes', { quote: 'AAAA' }],
    ['collateral missing', { collateral: undefined }],
    ['policy of SNP', { policy: { measurement: '00'.repeat(48) } }],
    ['policy null', { policy: null }],
    ['event log that is no base64', { event_log: '*' }],
  ])('%s: exit 30', async (_name, changes) => {
    const { exitCode, output } = await runTdx(changes);
    expect([exitCode, output.accepted, output.claims]).toEqual([30, false, {}]);
  });

  test.each([
    ['an unknown key', { extra: 1 }],
    ['TCB info missing', { tcb_info: undefined }],
    ['TCB info that is no JSON', { tcb_info: '{' }],
    ['TCB info as an object', { tcb_info: {} }],
    ['PCK CRL in hex', { pck_crl: '3082zz' }],
    ['root CRL empty', { root_ca_crl: '' }],
    ['an issuer chain that is no PEM', { qe_identity_issuer_chain: 'x' }],
    ['a mebibyte of TCB info', { tcb_info: 'A'.repeat(1 << 20) }],
    ['a mebibyte of chain', { tcb_info_issuer_chain: ' '.repeat(1 << 20) }],
  ])('collateral with %s: exit 30', async (_name, changes) => {
    const { exitCode, output } = await withCollateral(changes);
    expect([exitCode, output.accepted]).toEqual([30, false]);
  });
});

describe('a mebibyte of anything in any field is the typed error', () => {
  const MIB = 1 << 20;
  const FILLS: readonly (readonly [string, string])[] = [
    ['letters', JSON.stringify('A'.repeat(MIB))],
    ['escapes', `"${'\\u0041'.repeat(MIB / 6)}"`],
    ['zeros', `[${'0,'.repeat(MIB / 2)}0]`],
    ['lists', `[${'[],'.repeat(MIB / 3)}0]`],
    ['nesting', '['.repeat(MIB)],
    ['keys', `{${Array.from({ length: 80_000 }, (_, i) => `"${i}":0`).join(',')}}`],
    ['PEM', JSON.stringify(`-----BEGIN CERTIFICATE-----\n${'A'.repeat(MIB)}\n-----END CERTIFICATE-----`)],
    ['white space', JSON.stringify(' '.repeat(MIB))],
  ];
  const FIELDS = ['tee', 'report', 'vek', 'chain', 'crl', 'roots', 'now', 'policy', 'extra'];

  test.each(FILLS)('%s', async (_name, fill) => {
    for (const field of FIELDS) {
      const text = JSON.stringify({ ...input, [field]: '@@' }).replace('"@@"', () => fill);
      const { exitCode, output } = await runEvidence(text);
      expect([field, [20, 30].includes(exitCode), output.accepted]).toEqual([field, true, false]);
      expect(output.code).not.toBe('internal');
    }
  });

  test('over the whole limit', async () => {
    expect(verdict(await runEvidence(' '.repeat(MAX_EVIDENCE_BYTES + 1)))).toEqual([30, 'input_too_large']);
  });

  test('a CRL of a mebibyte that parses is judged', async () => {
    const crl = await simulated.issueCrl({ revoked: Array.from({ length: 20_000 }, (_, i) => i + 1) });
    expect(verdict(await run({ crl: toBase64(crl) }))).toEqual([0, null]);
  });
});

describe('properties', () => {
  test(
    'property: any JSON: one of the exit codes and a code of the closed list',
    { timeout: 180_000 * FUZZ },
    async () => {
      await fc.assert(
        fc.asyncProperty(fc.json(), async (text) => {
          const { exitCode, output } = await runEvidence(text);
          expect(exitCode).toBe(30);
          expect(Object.keys(ATTESTATION_CODES)).toContain(output.code);
        }),
        { numRuns: 300 * FUZZ },
      );
    },
  );

  test(
    'property: evidence with a piece changed is never accepted unless nothing changed',
    { timeout: 180_000 * FUZZ },
    async () => {
      const field = fc.constantFrom('report', 'vek', 'crl');
      await fc.assert(
        fc.asyncProperty(field, fc.nat(20_000), fc.integer({ min: 1, max: 255 }), async (name, at, mask) => {
          const bytes = new Uint8Array(Buffer.from(input[name] as string, 'base64'));
          bytes[at % bytes.length] = (bytes[at % bytes.length] ?? 0) ^ mask;
          const { exitCode } = await run({ [name]: toBase64(bytes) });
          expect([10, 20, 30]).toContain(exitCode);
        }),
        { numRuns: 300 * FUZZ },
      );
    },
  );
});

describe.skipIf(!haveVectors)('real evidence through the contract', () => {
  test('a Genoa report of 2026', async () => {
    const field = {
      allowSmt: true,
      requireSingleSocket: false,
      requireAes256Xts: false,
      requireRaplDisabled: false,
      requireCiphertextHiding: false,
      requirePageSwapDisabled: false,
    };
    const { exitCode, output } = await runEvidence(
      JSON.stringify({
        tee: 'snp',
        report: toBase64(read('snp/genoa-v5/live-report-v5-genoa.bin')),
        vek: toBase64(read('snp/genoa-v5/live-vcek-genoa.der')),
        chain: [encodePem(read('amd-roots/genoa_ask.der')), encodePem(read('amd-roots/genoa_ark.der'))],
        now: '2026-06-01T00:00:00Z',
        policy: {
          requireCrl: false,
          guestPolicy: field,
          reportData: toHex(new TextEncoder().encode('hello-attestation')).padEnd(128, '0'),
        },
      }),
    );
    expect([exitCode, output.code]).toEqual([0, null]);
    expect(output.claims).not.toHaveProperty('rootsReplaced', true);
  });
});
