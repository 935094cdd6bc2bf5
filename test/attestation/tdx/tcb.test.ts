// TCB levels: matching, shortfalls, convergence of three statuses, and what two SVNs of one quote come to, as
// pure functions and through a whole verification with every status Intel can give.

import * as fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { createSimulatedIntel, type SimulatedIntel } from '../../../attestation/simulated/intel.ts';
import {
  TCB_STATUSES,
  type SvnComponent,
  type TcbInfo,
  type TcbLevel,
  type TcbStatus,
} from '../../../attestation/tdx/collateral.ts';
import {
  converge,
  convergeRelaunch,
  matchIsv,
  matchPlatform,
  platformShortfall,
  shortfallText,
  sortedLevels,
} from '../../../attestation/tdx/tcb.ts';
import { verifyTdx } from '../../../attestation/tdx/verify.ts';

/** `make fuzz` multiplies the runs. */
const FUZZ = Number(process.env['ASSAY_FUZZ'] ?? 1);

const now = new Date('2026-06-15T12:00:00Z');

function components(...svns: readonly number[]): readonly SvnComponent[] {
  return Array.from({ length: 16 }, (_, i) => ({ svn: svns[i] ?? 0, type: undefined }));
}

function svn(...values: readonly number[]): Uint8Array {
  return Uint8Array.from({ length: 16 }, (_, i) => values[i] ?? 0);
}

function level(sgx: readonly number[], pceSvn: number, tdx: readonly number[], status: TcbStatus): TcbLevel {
  return {
    sgx: components(...sgx),
    pceSvn,
    tdx: components(...tdx),
    status,
    tcbDate: now,
    advisoryIds: [],
  };
}

function platform(sgx: readonly number[], pceSvn: number): { components: readonly number[]; pceSvn: number } {
  return {
    components: [...svn(...sgx)],
    pceSvn,
  };
}

const LEVELS = [
  level([5, 5], 13, [5, 0, 5], 'UpToDate'),
  level([5, 5], 5, [5, 0, 5], 'OutOfDate'),
  level([3, 3], 5, [3, 0, 3], 'OutOfDate'),
] as const;

function info(levels: readonly TcbLevel[], moduleSvns: readonly number[] = []): TcbInfo {
  return {
    id: 'TDX',
    version: 3,
    tcbType: 0,
    issueDate: now,
    nextUpdate: now,
    tcbEvaluationDataNumber: 1,
    fmspc: new Uint8Array(6),
    pceId: new Uint8Array(2),
    module: undefined,
    levels,
    moduleIdentities: [
      {
        id: 'TDX_01',
        mrSigner: new Uint8Array(48),
        attributes: new Uint8Array(8),
        attributesMask: new Uint8Array(8),
        levels: moduleSvns.map((isvSvn, i) => ({
          isvSvn,
          status: i === 0 ? 'UpToDate' : 'OutOfDate',
          tcbDate: now,
          advisoryIds: [],
        })),
      },
    ],
  };
}

describe('matching', () => {
  test('levels are put in order, whatever order they came in', () => {
    expect(sortedLevels(info([...LEVELS].toReversed()))).toEqual(LEVELS);
  });

  test.each([
    ['all equal', platform([5, 5], 13), svn(5, 0, 5), LEVELS[0]],
    ['above', platform([9, 9, 9], 20), svn(9, 0, 9, 9), LEVELS[0]],
    ['PCESVN short', platform([5, 5], 12), svn(5, 0, 5), LEVELS[1]],
    ['one SGX component short', platform([5, 4], 13), svn(5, 0, 5), LEVELS[2]],
    ['one TDX component short', platform([5, 5], 13), svn(5, 0, 4), LEVELS[2]],
    ['module version 0: its svn counts', platform([5, 5], 13), svn(4, 0, 5), LEVELS[2]],
    ['module version 1: its svn is the identity’s business', platform([5, 5], 13), svn(1, 1, 5), LEVELS[0]],
    ['nothing reached', platform([2, 5], 13), svn(5, 0, 5), undefined],
    ['SGX reached, TDX not', platform([5, 5], 13), svn(5, 0, 2), undefined],
  ] as const)('%s', (_name, pck, teeTcbSvn, expected) => {
    expect(matchPlatform(LEVELS, pck, teeTcbSvn).tdx).toBe(expected);
  });

  test('the SGX level is found even where no level matches in full', () => {
    expect(matchPlatform(LEVELS, platform([5, 5], 13), svn(0, 0, 0)).sgx).toBe(LEVELS[0]);
  });

  test('SVNs match downwards from the highest', () => {
    const levels = [{ isvSvn: 2 }, { isvSvn: 6 }, { isvSvn: 4 }].map((item) => ({
      ...item,
      status: 'UpToDate' as const,
      tcbDate: now,
      advisoryIds: [],
    }));
    expect([7, 6, 5, 2, 1].map((value) => matchIsv(levels, value)?.isvSvn)).toEqual([6, 6, 4, 2, undefined]);
  });
});

describe('shortfalls', () => {
  test('to the nearest accepted level, component by component', () => {
    const short = platformShortfall(LEVELS, platform([5, 3], 12), svn(5, 0, 4), ['UpToDate']) ?? [];
    expect(short.map(shortfallText)).toEqual([
      'sgx component 2 is 3, needs 5',
      'pcesvn is 12, needs 13',
      'tdx component 3 is 4, needs 5',
    ]);
    expect(platformShortfall(LEVELS, platform([5, 3], 12), svn(5, 0, 4), ['UpToDate', 'OutOfDate'])).toEqual(
      [],
    );
    expect(
      platformShortfall(LEVELS, platform([5, 3], 12), svn(5, 0, 4), ['SWHardeningNeeded']),
    ).toBeUndefined();
  });
});

describe('convergence', () => {
  /**
   * Rows: platform status; columns: the status a module or QE brings. Intel's convergeTcbStatuses, and
   * beyond it the same idea.
   */
  test.each([
    ['UpToDate', 'UpToDate', 'UpToDate'],
    ['UpToDate', 'OutOfDate', 'OutOfDate'],
    ['SWHardeningNeeded', 'OutOfDate', 'OutOfDate'],
    ['ConfigurationNeeded', 'OutOfDate', 'OutOfDateConfigurationNeeded'],
    ['ConfigurationAndSWHardeningNeeded', 'OutOfDate', 'OutOfDateConfigurationNeeded'],
    ['OutOfDate', 'UpToDate', 'OutOfDate'],
    ['OutOfDateConfigurationNeeded', 'OutOfDate', 'OutOfDateConfigurationNeeded'],
    ['SWHardeningNeeded', 'UpToDate', 'SWHardeningNeeded'],
    ['ConfigurationNeeded', 'SWHardeningNeeded', 'ConfigurationAndSWHardeningNeeded'],
    ['TDRelaunchAdvised', 'UpToDate', 'TDRelaunchAdvised'],
    ['TDRelaunchAdvised', 'ConfigurationNeeded', 'TDRelaunchAdvisedConfigurationNeeded'],
    ['TDRelaunchAdvised', 'OutOfDate', 'OutOfDate'],
  ] as const)('%s with %s is %s', (a, b, expected) => {
    expect(converge([a, b])).toBe(expected);
    expect(converge([b, a])).toBe(expected);
  });

  test.each(TCB_STATUSES)('Revoked wins over %s, and %s over UpToDate', (status) => {
    expect(converge([status, 'Revoked'])).toBe('Revoked');
    expect(converge([status, 'UpToDate', 'UpToDate'])).toBe(status);
  });
});

describe('launched on one TCB, running on another', () => {
  /**
   * Columns: at launch, now, what counts. Only lateness at launch is mended by a relaunch; else the worse
   * counts.
   */
  test.each([
    ['UpToDate', 'UpToDate', 'UpToDate'],
    ['OutOfDate', 'UpToDate', 'TDRelaunchAdvised'],
    ['OutOfDate', 'SWHardeningNeeded', 'TDRelaunchAdvised'],
    ['OutOfDate', 'ConfigurationNeeded', 'TDRelaunchAdvisedConfigurationNeeded'],
    ['OutOfDate', 'ConfigurationAndSWHardeningNeeded', 'TDRelaunchAdvisedConfigurationNeeded'],
    ['OutOfDateConfigurationNeeded', 'UpToDate', 'TDRelaunchAdvisedConfigurationNeeded'],
    ['OutOfDate', 'OutOfDate', 'OutOfDate'],
    ['OutOfDate', 'OutOfDateConfigurationNeeded', 'OutOfDateConfigurationNeeded'],
    ['UpToDate', 'OutOfDate', 'OutOfDate'],
    ['UpToDate', 'SWHardeningNeeded', 'SWHardeningNeeded'],
    ['SWHardeningNeeded', 'UpToDate', 'SWHardeningNeeded'],
    ['ConfigurationNeeded', 'UpToDate', 'ConfigurationNeeded'],
    ['UpToDate', 'Revoked', 'Revoked'],
    ['OutOfDate', 'Revoked', 'Revoked'],
    ['Revoked', 'UpToDate', 'Revoked'],
  ] as const)('%s, now %s: %s', (launch, now_, expected) =>
    expect(convergeRelaunch(launch, now_)).toBe(expected),
  );

  test('property: never better than what runs now, and than what was launched only where a relaunch would mend it', () => {
    const status = fc.constantFrom(...TCB_STATUSES);
    fc.assert(
      fc.property(status, status, (launch, running) => {
        const found = convergeRelaunch(launch, running);
        const mended = found.startsWith('TDRelaunchAdvised') && launch.startsWith('OutOfDate');
        expect(converge([found, running])).toBe(found);
        if (!mended) expect(converge([found, launch])).toBe(found);
      }),
      { numRuns: 200 * FUZZ },
    );
  });
});

describe('every status through a whole verification', () => {
  let intel: SimulatedIntel;
  beforeAll(async () => {
    intel = await createSimulatedIntel({ now });
  });
  const run = async (
    status: TcbStatus,
    part: 'platform' | 'module' | 'qe',
    accepted: readonly TcbStatus[],
  ): ReturnType<typeof verifyTdx> => {
    const tcbInfo = await intel.tcbInfo(
      { platform: { status }, module: { moduleStatus: status }, qe: {} }[part],
    );
    const qeIdentity = await intel.qeIdentity(part === 'qe' ? { status } : {});
    return verifyTdx(
      await intel.evidence({}, { tcbInfo, qeIdentity }),
      { tcbStatus: accepted },
      { now, roots: [intel.root] },
    );
  };

  test.each(
    TCB_STATUSES.flatMap((status) =>
      (['platform', 'module', 'qe'] as const).map((part) => [status, part] as const),
    ),
  )('%s of the %s', async (status, part) => {
    const others = TCB_STATUSES.filter((other) => other !== status && other !== 'Revoked');
    const refused = await run(status, part, others);
    expect(refused.tcb).toMatchObject({ status, [part]: status });
    expect(refused.accepted).toBe(false);
    expect(refused.transcript.checks.some(({ code }) => code === 'tdx_tcb_status')).toBe(true);
    const listed = status === 'Revoked' ? others : [status];
    expect((await run(status, part, listed)).accepted).toBe(status !== 'Revoked');
  });

  test('a module and a QE below the policy say their shortfall', async () => {
    expect((await run('OutOfDate', 'module', ['UpToDate'])).tcb.shortfall.map(shortfallText)).toEqual([
      'module svn is 6, needs 7',
    ]);
    expect((await run('OutOfDate', 'qe', ['UpToDate'])).tcb.shortfall.map(shortfallText)).toEqual([
      'qe svn is 4, needs 5',
    ]);
  });

  test('relaunch advice replaces OutOfDate and can be accepted by name', async () => {
    const evidence = await intel.evidence(
      { version: 5, teeTcbSvn2: svn(7, 1, 5) },
      { tcbInfo: await intel.tcbInfo({ moduleStatus: 'OutOfDate' }) },
    );
    const context = { now, roots: [intel.root] };
    expect(await verifyTdx(evidence, {}, context)).toMatchObject({
      accepted: false,
      tcb: { status: 'TDRelaunchAdvised', module: 'OutOfDate' },
    });
    expect((await verifyTdx(evidence, { tcbStatus: ['TDRelaunchAdvised'] }, context)).accepted).toBe(true);
  });
});
