// Every row of the goal list for TDX (T1–T28, E1–E3), accepted once and refused at least once by name,
// on the simulated hierarchy: real formats and algorithms, every field open. The last tests hold the
// table itself to account.

import { describe, expect, test } from 'vitest';
import { toHex } from '../../../attestation/encoding/bytes.ts';
import { ATTESTATION_CODES } from '../../../attestation/transcript/codes.ts';
import { AttestationError } from '../../../attestation/transcript/errors.ts';
import { createRollbackMemory } from '../../../attestation/transcript/rollback-memory.ts';
import { buildEventLog, buildRuntimeLog } from '../../../attestation/simulated/intel-eventlog.ts';
import { SIMULATED_INTEL_SERIALS } from '../../../attestation/simulated/intel.ts';
import { SIMULATED_TD_ATTRIBUTES, SIMULATED_XFAM } from '../../../attestation/simulated/intel-quote.ts';
import type { TdxPolicy } from '../../../attestation/tdx/policy.ts';
import { TDX_RULES } from '../../../attestation/tdx/rules.ts';
import type { TdxEvidence } from '../../../attestation/tdx/subject.ts';
import { verifyTdx, type TdxVerification } from '../../../attestation/tdx/verify.ts';
import {
  now,
  fill,
  hex,
  intel,
  stranger,
  type Case,
  rtmrFields,
  trust,
} from '../../fixtures/attestation/tdx-rules.ts';
import { QUOTE_CASES } from '../../fixtures/attestation/tdx-rule-cases.ts';
import { COLLATERAL_CASES } from '../../fixtures/attestation/tdx-rule-cases-collateral.ts';

async function evidenceOf({
  quote,
  collateral,
  eventLog,
}: Pick<Case, 'quote' | 'collateral' | 'eventLog'>): Promise<TdxEvidence> {
  const fields = typeof quote === 'function' ? await quote() : quote;
  const evidence = await intel.evidence(fields, await collateral?.());
  return eventLog === undefined ? evidence : { ...evidence, eventLog: await eventLog() };
}

/**
 * Everything a policy can ask for, answered by a version 5 quote with a CCEL, and once more with dstack's
 * log.
 */
async function accepted(): Promise<TdxVerification[]> {
  const boot = await buildEventLog();
  const run = await buildRuntimeLog([
    { name: 'app-id', payload: fill(4, 1) },
    { name: 'key', payload: fill(0, 0), digest: '' },
  ]);
  const fields = { version: 5, reportData: fill(64, 0x52), mrTd: fill(48, 0x11) };
  const policy: TdxPolicy = {
    mrTd: [hex(48, 0x10), hex(48, 0x11)],
    rtmr0: toHex(boot.rtmrs[0]),
    rtmr1: toHex(boot.rtmrs[1]).toUpperCase(),
    rtmr2: toHex(boot.rtmrs[2]),
    rtmr3: hex(48, 0),
    mrSeam: hex(48, 0),
    mrSignerSeam: hex(48, 0),
    seamAttributes: hex(8, 0),
    tdAttributes: toHex(SIMULATED_TD_ATTRIBUTES),
    xfam: toHex(SIMULATED_XFAM),
    mrConfigId: hex(48, 0),
    mrOwner: hex(48, 0),
    mrOwnerConfig: hex(48, 0),
    mrServiceTd: hex(48, 0),
    reportData: hex(64, 0x52),
    minimumTeeTcbSvn: `060105${'00'.repeat(13)}`,
    minimumTcbEvaluationDataNumber: 20,
    tcbStatus: ['UpToDate'],
    advisories: [],
    fmspc: toHex(intel.fmspc),
    ppid: toHex(intel.ppid),
    pckSerial: SIMULATED_INTEL_SERIALS.pck.toString(16),
    requireSeptVeDisable: true,
  };
  const context = { ...trust(), memory: createRollbackMemory() };
  const first = await verifyTdx(
    { ...(await intel.evidence({ ...fields, ...rtmrFields(boot.rtmrs) })), eventLog: boot.log },
    policy,
    context,
  );
  const second = await verifyTdx(
    { ...(await intel.evidence({ ...fields, rtmr3: run.rtmrs[3] })), eventLog: run.log },
    {},
    context,
  );
  return [first, second];
}

function failuresOf({ transcript, accepted }: TdxVerification): Readonly<Record<string, unknown>> {
  const failed = transcript.checks.filter(({ status }) => status === 'fail');
  return {
    throws: undefined,
    codes: failed.map(({ code }) => code),
    rows: failed.map(({ id }) => id),
    accepted,
  };
}

const CASES = [...QUOTE_CASES, ...COLLATERAL_CASES];

describe('rows accepted', () => {
  test('every rule passes at least once on evidence that meets every policy key', async () => {
    const [first, second] = await accepted();
    expect(first?.transcript.checks.filter(({ status }) => status === 'fail')).toEqual([]);
    expect(second?.transcript.checks.filter(({ status }) => status === 'fail')).toEqual([]);
    expect([first?.accepted, second?.accepted]).toEqual([true, true]);
    const passed = new Set(
      [first, second].flatMap((result) =>
        result?.transcript.checks.filter(({ status }) => status === 'pass').map(({ title }) => title),
      ),
    );
    expect(Object.values(TDX_RULES).filter(({ title }) => !passed.has(title))).toEqual([]);
  });

  test.each(
    Object.values(TDX_RULES)
      .map(({ id }) => id)
      .filter((id, i, all) => all.indexOf(id) === i),
  )('%s accepted', async (id) => {
    const checks = (await accepted()).flatMap(({ transcript }) => transcript.checks);
    expect(checks.some((check) => check.id === id && check.status === 'pass')).toBe(true);
  });
});

describe('rows refused', () => {
  test.each(CASES.map((item) => [item.row, item.what, item] as const))(
    '%s refused: %s',
    async (row, _what, item) => {
      const evidence = await evidenceOf(item);
      const context = item.context === undefined ? trust() : { now, ...item.context() };
      const outcome: unknown = await verifyTdx(evidence, item.policy ?? {}, context).catch(
        (thrown: unknown) => thrown,
      );
      const seen =
        outcome instanceof AttestationError
          ? { throws: outcome.kind, codes: [outcome.code], rows: [row], accepted: false }
          : failuresOf(outcome as TdxVerification);
      expect(seen).toEqual({
        throws: item.throws,
        codes: expect.arrayContaining([item.code]) as unknown,
        rows: expect.arrayContaining([row]) as unknown,
        accepted: false,
      });
    },
  );

  test('T21 refused: collateral older than what was seen before', async () => {
    const memory = createRollbackMemory();
    const context = { ...trust(), memory };
    const newer = await intel.evidence({}, { tcbInfo: await intel.tcbInfo({ tcbEvaluationDataNumber: 21 }) });
    expect((await verifyTdx(newer, {}, context)).accepted).toBe(true);
    const result = await verifyTdx(await intel.evidence(), {}, context);
    expect(result.transcript.firstFailure).toMatchObject({ id: 'T21', code: 'tdx_collateral_rollback' });
    const crls = await intel.evidence(
      {},
      { tcbInfo: newer.collateral.tcbInfo, rootCaCrl: await intel.issueCrl('root', { number: 7 }) },
    );
    expect((await verifyTdx(crls, {}, context)).accepted).toBe(true);
    const older = await verifyTdx(newer, {}, context);
    expect(older.transcript.firstFailure).toMatchObject({ code: 'tdx_collateral_rollback' });
  });

  test('what fails before a signature holds is not remembered', async () => {
    const memory = createRollbackMemory();
    const forged = await intel.evidence(
      {},
      { tcbInfo: await intel.tcbInfo({ tcbEvaluationDataNumber: 99, signer: stranger.keys.tcbSigning }) },
    );
    await verifyTdx(forged, {}, { ...trust(), memory });
    expect(memory.entries().some(([, value]) => value === 99n)).toBe(false);
    const foreign = createRollbackMemory();
    await verifyTdx(await stranger.evidence(), {}, { ...trust(), memory: foreign });
    expect(foreign.entries()).toEqual([]);
  });
});

describe('the table', () => {
  test('has a refusal for every row and every rule code', () => {
    const refused = new Set<string>([...CASES.map(({ code }) => code), 'tdx_collateral_rollback']);
    expect(Object.values(TDX_RULES).filter(({ code }) => !refused.has(code))).toEqual([]);
    const rows = new Set([...CASES.map(({ row }) => row), 'T21']);
    const wanted = [...Array.from({ length: 28 }, (_, i) => `T${i + 1}`), 'E1', 'E2', 'E3'];
    expect(wanted.filter((row) => !rows.has(row))).toEqual([]);
  });

  test('reaches every code this verifier has', () => {
    const reached = new Set<string>([...CASES.map(({ code }) => code), 'tdx_collateral_rollback']);
    const own = Object.keys(ATTESTATION_CODES).filter(
      (code) => code.startsWith('tdx_') || code === 'malformed_event_log',
    );
    expect(own.filter((code) => !reached.has(code))).toEqual([]);
  });

  test('one code per rule', () => {
    const codes = Object.values(TDX_RULES).map(({ code }) => code);
    expect(new Set(codes).size).toBe(codes.length);
  });
});
