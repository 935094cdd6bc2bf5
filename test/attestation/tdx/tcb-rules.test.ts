// The TCB rules where a module or a quote is not vouched for.

import { beforeAll, describe, expect, test } from 'vitest';
import { createSimulatedIntel, type SimulatedIntel } from '../../../attestation/simulated/intel.ts';
import { verifyTdx } from '../../../attestation/tdx/verify.ts';

const now = new Date('2026-06-15T12:00:00Z');

let intel: SimulatedIntel;

beforeAll(async () => {
  intel = await createSimulatedIntel({ now });
});

describe('the TCB', () => {
  test('a running module nobody knows is refused also where a relaunch is accepted', async () => {
    const teeTcbSvn2 = (version: number): Uint8Array =>
      Uint8Array.from([7, version, 5, ...new Uint8Array(13)]);
    const collateral = { tcbInfo: await intel.tcbInfo({ moduleStatus: 'OutOfDate' }) };
    const judged = async (version: number): Promise<boolean> => {
      const evidence = await intel.evidence({ version: 5, teeTcbSvn2: teeTcbSvn2(version) }, collateral);
      return (
        await verifyTdx(
          evidence,
          { tcbStatus: ['UpToDate', 'TDRelaunchAdvised'] },
          { now, roots: [intel.root] },
        )
      ).accepted;
    };
    expect([await judged(1), await judged(9)]).toEqual([true, false]);
  });

  test('a minimum TEE_TCB_SVN is not met by a quote that nobody vouches for', async () => {
    const evidence = await intel.evidence({ damage: (quote) => quote.set([(quote[250] ?? 0) ^ 1], 250) });
    const policy = { minimumTeeTcbSvn: '00'.repeat(16) };
    const { transcript } = await verifyTdx(evidence, policy, { now, roots: [intel.root] });
    expect(transcript.checks.flatMap(({ code }) => code ?? [])).toEqual(
      expect.arrayContaining(['tdx_quote_signature', 'tdx_tee_tcb_svn']),
    );
  });
});
