// The verdict around the TDX rules: what is claimed, skipped and listed, and evidence that comes in another
// form.

import { describe, expect, test } from 'vitest';
import { fromHex, toHex, utf8 } from '../../../attestation/encoding/bytes.ts';
import { encodeDer, TAG } from '../../../attestation/x509/der.ts';
import { createSimulatedIntel } from '../../../attestation/simulated/intel.ts';
import type { SimulatedQuote } from '../../../attestation/simulated/intel-quote.ts';
import { encodePem, generateEcKey } from '../../../attestation/simulated/issue.ts';
import type { TdxPolicy } from '../../../attestation/tdx/policy.ts';
import { verifyTdx } from '../../../attestation/tdx/verify.ts';
import {
  now,
  fill,
  hex,
  intel,
  stranger,
  pckChain,
  flip,
  attributes,
  trust,
} from '../../fixtures/attestation/tdx-rules.ts';

describe('what surrounds the rules', () => {
  test('nothing asked still lists every check, skips visible, and a changed root is said', async () => {
    const result = await verifyTdx(await intel.evidence(), {}, trust());
    expect(result.accepted).toBe(true);
    expect(result.rootsReplaced).toBe(true);
    const skipped = result.transcript.checks.filter(({ status }) => status === 'skip').map(({ id }) => id);
    expect(skipped).toEqual(
      expect.arrayContaining([
        'T18',
        'T20',
        'T21',
        'T22',
        'T23',
        'T24',
        'T25',
        'T26',
        'T27',
        'T28',
        'E1',
        'E2',
        'E3',
      ]),
    );
  });

  test('claims are empty when the quote is not vouched for', async () => {
    const broken = await verifyTdx(await intel.evidence({ damage: flip(48 + 200) }), {}, trust());
    expect(broken.claims).toEqual({});
    const good = await verifyTdx(await intel.evidence({ mrTd: fill(48, 0x11) }), {}, trust());
    expect(good.claims).toMatchObject({
      mrTd: hex(48, 0x11),
      fmspc: toHex(intel.fmspc),
      tcbStatus: 'UpToDate',
    });
  });

  test('a quote that only names its PCK verifies with the chain given beside it, and only with the right one', async () => {
    const quote: SimulatedQuote = { certificationType: 3, certificationData: fill(404, 1) };
    const right = await intel.evidence(quote, { pckChain: intel.pckChainPem });
    expect((await verifyTdx(right, {}, trust())).accepted).toBe(true);
    const wrong = await intel.evidence(quote, { pckChain: stranger.pckChainPem });
    const codes = (await verifyTdx(wrong, {}, trust())).transcript.checks.map(({ code }) => code);
    expect(codes).toEqual(expect.arrayContaining(['tdx_qe_report_signature', 'tdx_root_not_trusted']));
    const ignored = await intel.evidence({}, { pckChain: stranger.pckChainPem });
    expect((await verifyTdx(ignored, {}, trust())).accepted).toBe(true);
  });

  test('all that is wrong is listed at once', async () => {
    const evidence = await intel.evidence(
      { tdAttributes: attributes(1n), trailing: fill(3, 1) },
      { tcbInfo: await intel.tcbInfo({ status: 'OutOfDate' }) },
    );
    const result = await verifyTdx(evidence, { mrTd: hex(48, 1) }, trust());
    expect(
      result.transcript.checks.filter(({ status }) => status === 'fail').map(({ code }) => code),
    ).toEqual(['tdx_trailing_bytes', 'tdx_tcb_status', 'tdx_debug', 'tdx_mr_td']);
  });

  test('a PCK key cannot stand in for the key that signs TCB info', async () => {
    const pem = intel.pckChainPem
      .split(/(?<=-----END CERTIFICATE-----\n)/)
      .slice(0, 2)
      .join('');
    const evidence = await intel.evidence(
      {},
      { tcbInfo: await intel.tcbInfo({ signer: intel.keys.pck }), tcbInfoIssuerChain: pem },
    );
    const result = await verifyTdx(evidence, {}, trust());
    expect(result.accepted).toBe(false);
    expect(result.transcript.checks.some(({ code }) => code === 'tdx_certificate_role')).toBe(true);
  });

  test('CRLs may come as PEM or hex text, chains of the Processor CA work', async () => {
    const processor = await createSimulatedIntel({ now, ca: 'processor' });
    const evidence = await processor.evidence();
    const { pckCrl, rootCaCrl } = evidence.collateral;
    const collateral = {
      ...evidence.collateral,
      pckCrl: utf8(encodePem(pckCrl, 'X509 CRL')),
      rootCaCrl: utf8(`${toHex(rootCaCrl)}\n`),
    };
    expect(
      (await verifyTdx({ ...evidence, collateral }, {}, { now, roots: [processor.root] })).accepted,
    ).toBe(true);
  });

  test('OutOfDate passes within its grace, and only then', async () => {
    const evidence = await intel.evidence({}, { tcbInfo: await intel.tcbInfo({ status: 'OutOfDate' }) });
    expect((await verifyTdx(evidence, { tcbGraceDays: 1000 }, trust())).accepted).toBe(true);
    const revoked = await intel.evidence({}, { tcbInfo: await intel.tcbInfo({ status: 'Revoked' }) });
    expect((await verifyTdx(revoked, { tcbGraceDays: 3000 }, trust())).accepted).toBe(false);
  });

  test('a shortfall says which component and by how much', async () => {
    const result = await verifyTdx(
      await intel.evidence({}, { tcbInfo: await intel.tcbInfo({ status: 'OutOfDate' }) }),
      {},
      trust(),
    );
    expect(result.tcb.shortfall).toEqual([
      { part: 'sgx', component: 2, type: 'SGX Late Microcode Update', actual: 5, needed: 6 },
    ]);
    expect(result.transcript.firstFailure?.detail).toContain(
      'sgx component 2 (SGX Late Microcode Update) is 5, needs 6',
    );
  });

  test.each([
    'not a policy',
    { unknown: 1 },
    { mrTd: [] },
    { mrTd: '00' },
    { mrTd: 'zz' },
    { tcbStatus: ['Revoked'] },
    { tcbStatus: ['Fine'] },
    { tcbGraceDays: -1 },
    { reportData: 5 },
    { allowMigratable: 'yes' },
  ])('policy %j is malformed', async (policy) => {
    await expect(verifyTdx(await intel.evidence(), policy as TdxPolicy, trust())).rejects.toMatchObject({
      kind: 'malformed',
      code: 'malformed_policy',
    });
  });

  test('a member of the SGX extensions that is not DER is a failed check, not a crash', async () => {
    const pck = intel.issuePck({
      members: (list) => [{ arc: '1', value: encodeDer(TAG.octetString, fromHex('00')) }, ...list.slice(1)],
    });
    const result = await verifyTdx(await intel.evidence(await pckChain({ pck })), {}, trust());
    expect(result.transcript.firstFailure).toMatchObject({ code: 'tdx_pck_extensions' });
  });

  test('an out-of-range key does not verify: fresh keys only sign their own', async () => {
    const key = await generateEcKey('P-256');
    const result = await verifyTdx(await intel.evidence({ signer: key }), {}, trust());
    expect(result.transcript.firstFailure).toMatchObject({ code: 'tdx_quote_signature' });
  });
});
