// A TD launched on one TCB that runs on another: TEE_TCB_SVN and TEE_TCB_SVN_2 through a whole verification.

import * as fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { toHex } from '../../../attestation/encoding/bytes.ts';
import { createSimulatedIntel, type SimulatedIntel } from '../../../attestation/simulated/intel.ts';
import { TCB_STATUSES, type TcbStatus, type TdxCollateral } from '../../../attestation/tdx/collateral.ts';
import type { TdxPolicy } from '../../../attestation/tdx/policy.ts';
import { convergeRelaunch, shortfallText } from '../../../attestation/tdx/tcb.ts';
import { verifyTdx, type TdxVerification } from '../../../attestation/tdx/verify.ts';

/** `make fuzz` multiplies the runs. */
const FUZZ = Number(process.env['ASSAY_FUZZ'] ?? 1);

const now = new Date('2026-06-15T12:00:00Z');

function svn(...values: readonly number[]): Uint8Array {
  return Uint8Array.from({ length: 16 }, (_, i) => values[i] ?? 0);
}

describe('TEE_TCB_SVN and TEE_TCB_SVN_2 through a whole verification', () => {
  const zero48 = '0'.repeat(96);
  const LISTED = TCB_STATUSES.filter((status) => status !== 'Revoked');
  let intel: SimulatedIntel;
  let collateral: Partial<TdxCollateral>;

  /**
   * Modules 1 and 3, each with levels from revoked to up to date, over platform levels that ask
   * for microcode 3, 4 and 5.
   */
  beforeAll(async () => {
    intel = await createSimulatedIntel({ now });
    const module = { mrsigner: zero48, attributes: '0'.repeat(16), attributesMask: 'F'.repeat(16) };
    const isv = (isvsvn: number, tcbStatus: TcbStatus): object => ({
      tcb: { isvsvn },
      tcbStatus,
      tcbDate: '2025-05-14T00:00:00Z',
    });
    const tcbInfo = await intel.tcbInfo({
      members: (regular) => {
        const [given] = regular['tcbLevels'] as readonly {
          readonly tcb: Readonly<Record<string, unknown>>;
        }[];
        const platformLevel = (tdx: readonly number[], tcbStatus: TcbStatus): object => ({
          tcb: { ...given?.tcb, tdxtcbcomponents: [...svn(...tdx)].map((value) => ({ svn: value })) },
          tcbStatus,
          tcbDate: '2025-05-14T00:00:00Z',
          advisoryIDs: tcbStatus === 'UpToDate' ? [] : [`INTEL-SA-0000${tdx[2]}`],
        });
        return {
          ...regular,
          tdxModuleIdentities: [
            {
              id: 'TDX_01',
              ...module,
              tcbLevels: [isv(6, 'UpToDate'), isv(4, 'OutOfDate'), isv(2, 'Revoked')],
            },
            { id: 'TDX_03', ...module, tcbLevels: [isv(2, 'UpToDate'), isv(1, 'OutOfDate')] },
          ],
          tcbLevels: [
            platformLevel([5, 0, 5], 'UpToDate'),
            platformLevel([4, 0, 4], 'OutOfDate'),
            platformLevel([4, 0, 3], 'Revoked'),
          ],
        };
      },
    });
    collateral = { tcbInfo };
  });
  const judge = async (
    launch: Uint8Array,
    running: Uint8Array,
    policy: TdxPolicy = {},
  ): Promise<TdxVerification> =>
    verifyTdx(
      await intel.evidence({ version: 5, teeTcbSvn: launch, teeTcbSvn2: running }, collateral),
      policy,
      {
        now,
        roots: [intel.root],
      },
    );
  const codesOf = ({ transcript }: TdxVerification): readonly unknown[] =>
    transcript.checks.flatMap(({ code }) => code ?? []);
  const relaunch = ({ transcript }: TdxVerification): string =>
    transcript.checks.find(({ id }) => id === 'T18')?.detail ?? '';
  const GOOD = svn(6, 1, 5);

  test.each([
    ['the same', svn(6, 1, 5)],
    ['newer', svn(7, 1, 5)],
    ['newer in every component', svn(9, 1, 9, 1, 1)],
    ['another version that is listed', svn(2, 3, 5)],
    ['version 0, judged by the components', svn(5, 0, 5)],
  ])('accepted: %s', async (_name, running) => {
    const result = await judge(GOOD, running);
    expect([result.accepted, codesOf(result)]).toEqual([true, []]);
    expect(result.claims).toMatchObject({
      tcbStatus: 'UpToDate',
      tcbStatusAtLaunch: 'UpToDate',
      tcbStatusNow: 'UpToDate',
      moduleStatusAtLaunch: 'UpToDate',
      moduleStatusNow: 'UpToDate',
    });
  });

  test.each([
    ['a version that is not listed', svn(7, 9, 5), 'tdx_module_identity'],
    ['a version far above', svn(255, 255, 255), 'tdx_module_identity'],
    ['below every level of its module', svn(1, 1, 5), 'tdx_module_identity'],
    ['svn zero', svn(0, 1, 5), 'tdx_module_identity'],
    ['all zero', svn(), 'tdx_no_tcb_level'],
    ['microcode below every level', svn(6, 1, 2), 'tdx_no_tcb_level'],
    ['version 0 below every level', svn(3, 0, 5), 'tdx_no_tcb_level'],
    ['a revoked module', svn(2, 1, 5), 'tdx_tcb_convergence'],
    ['a revoked platform level', svn(6, 1, 3), 'tdx_platform_revoked'],
  ] as const)('refused whatever is listed: %s', async (_name, running, code) => {
    for (const policy of [{}, { tcbStatus: LISTED, tcbGraceDays: 3660 }]) {
      const result = await judge(GOOD, running, policy);
      expect([result.accepted, codesOf(result)]).toEqual([false, expect.arrayContaining([code]) as unknown]);
      expect(relaunch(result)).not.toContain('would not change');
    }
  });

  test('revoked now is in the claims beside what it was at launch', async () => {
    expect((await judge(GOOD, svn(2, 1, 5), { tcbStatus: LISTED })).claims).toMatchObject({
      tcbStatus: 'Revoked',
      tcbStatusAtLaunch: 'UpToDate',
      tcbStatusNow: 'Revoked',
      moduleStatusAtLaunch: 'UpToDate',
      moduleStatusNow: 'Revoked',
    });
  });

  test('a component that is late now is refused, unless that status is listed, and both statuses and the shortfall are told', async () => {
    const refused = await judge(GOOD, svn(4, 1, 4));
    expect(codesOf(refused)).toEqual(['tdx_tcb_status']);
    expect(refused.claims).toMatchObject({ tcbStatus: 'OutOfDate', tcbStatusAtLaunch: 'UpToDate', tcbStatusNow: 'OutOfDate', moduleStatusNow: 'OutOfDate', advisoryIds: ['INTEL-SA-00004'] }); // prettier-ignore
    expect(refused.tcb.shortfall.map(shortfallText)).toEqual([
      'tdx component 3 is now 4, needs 5',
      'module svn is now 4, needs 6',
    ]);
    expect((await judge(GOOD, svn(4, 1, 4), { tcbStatus: ['UpToDate', 'OutOfDate'] })).accepted).toBe(true);
    expect(codesOf(await judge(GOOD, svn(4, 1, 4), { tcbStatus: ['OutOfDate'], advisories: [] }))).toEqual([
      'tdx_tcb_advisory',
    ]);
  });

  test.each([
    ['module', svn(4, 1, 5)],
    ['platform level', svn(6, 1, 4)],
    ['both', svn(4, 1, 4)],
  ])('launched on a late %s, which is reached now: a relaunch is advised', async (_name, launch) => {
    const result = await judge(launch, GOOD);
    expect(codesOf(result)).toEqual(['tdx_relaunch_advised', 'tdx_tcb_status']);
    expect(result.claims).toMatchObject({
      tcbStatus: 'TDRelaunchAdvised',
      tcbStatusAtLaunch: 'OutOfDate',
      tcbStatusNow: 'UpToDate',
    });
    expect((await judge(launch, GOOD, { tcbStatus: ['TDRelaunchAdvised'] })).accepted).toBe(true);
    expect((await judge(launch, GOOD, { tcbGraceDays: 1000 })).accepted).toBe(true);
    expect((await judge(launch, GOOD, { tcbGraceDays: 30 })).accepted).toBe(false);
  });

  test('a relaunch does not mend what is late now as well, nor a TCB no level has', async () => {
    const late = await judge(svn(4, 1, 4), svn(5, 1, 4));
    expect([late.tcb.status, codesOf(late)]).toEqual(['OutOfDate', ['tdx_tcb_status']]);
    expect(relaunch(late)).toContain('a relaunch would not change the TCB status');
    expect(codesOf(await judge(svn(6, 1, 2), GOOD))).toContain('tdx_no_tcb_level');
    expect(codesOf(await judge(svn(6, 9, 5), GOOD))).toContain('tdx_module_identity');
  });

  test('the minimum of TEE_TCB_SVN holds for both', async () => {
    const minimumTeeTcbSvn = toHex(svn(6, 1, 5));
    expect((await judge(svn(6, 1, 5), svn(7, 1, 5), { minimumTeeTcbSvn })).accepted).toBe(true);
    const policy = { minimumTeeTcbSvn, tcbStatus: LISTED };
    for (const late of [svn(5, 1, 5), svn(6, 1, 4)]) {
      expect(codesOf(await judge(late, GOOD, policy))).toEqual(['tdx_tee_tcb_svn']);
      expect(codesOf(await judge(GOOD, late, policy))).toEqual(['tdx_tee_tcb_svn']);
    }
  });

  test('a TD 1.0 body claims one status and nothing of what runs now', async () => {
    const result = await verifyTdx(await intel.evidence({}, collateral), {}, { now, roots: [intel.root] });
    expect([result.accepted, result.tcb.now, result.claims['tcbStatus']]).toEqual([
      true,
      undefined,
      'UpToDate',
    ]);
    expect(Object.keys(result.claims).filter((key) => /AtLaunch|Now/.test(key))).toEqual([]);
  });

  test('property: two SVNs are never judged better than either of them alone', async () => {
    const component = fc.integer({ min: 0, max: 8 });
    const anySvn = fc
      .tuple(
        component,
        fc.constantFrom(0, 1, 3, 9),
        component,
        fc.array(fc.constantFrom(0, 0, 1, 255), { minLength: 13, maxLength: 13 }),
      )
      .map(([first, version, microcode, rest]) => svn(first, version, microcode, ...rest));
    const policies: readonly TdxPolicy[] = [
      {},
      { tcbStatus: LISTED },
      { tcbStatus: LISTED, minimumTeeTcbSvn: toHex(svn(4, 0, 4)) },
    ];
    await fc.assert(
      fc.asyncProperty(anySvn, anySvn, fc.constantFrom(...policies), async (launch, running, policy) => {
        const [both, first, second] = await Promise.all([
          judge(launch, running, policy),
          judge(launch, launch, policy),
          judge(running, running, policy),
        ]);
        if (both.accepted) expect([first.accepted, second.accepted]).toEqual([true, true]);
        expect(both.tcb.atLaunch).toBe(first.tcb.status);
        expect(both.tcb.now?.status).toBe(second.tcb.status);
        const known = first.tcb.status !== undefined && second.tcb.status !== undefined;
        expect(both.tcb.status).toBe(
          known ? convergeRelaunch(first.tcb.status, second.tcb.status) : undefined,
        );
      }),
      { numRuns: 60 * FUZZ },
    );
  });
});
