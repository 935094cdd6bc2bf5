// The guest policy, held together: the launch lines of docs/hardware.md, the example and the table of
// docs/policy.md, the policy of a release, the policy lint, the message of S21, what the simulated TEE signs
// and the reports of real machines say one thing.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, test } from 'vitest';
import { runEvidence } from '../../../attestation/appraise/evidence-contract.ts';
import { parsePolicy, policyToJson } from '../../../attestation/appraise/policy.ts';
import { lintPolicy } from '../../../attestation/appraise/policy-lint.ts';
import { releasePolicy } from '../../../attestation/appraise/reference-values.ts';
import { toBase64 } from '../../../attestation/encoding/bytes.ts';
import { encodePem } from '../../../attestation/simulated/issue.ts';
import type { SimulatedAmd } from '../../../attestation/simulated/amd.ts';
import {
  GUEST_POLICY_GRADES,
  guestPolicyProblems,
  guestPolicyToJson,
  launchPolicy,
  readGuestPolicy,
  type DecidedGuestPolicy,
} from '../../../attestation/snp/guest-policy.ts';
import { decodeGuestPolicy, parseReport } from '../../../attestation/snp/report.ts';
import { verifySnp } from '../../../attestation/snp/verify.ts';
import { haveVectors, vectorPath } from '../../fixtures/shared.ts';
import { evidenceOf, NOW, simulatedAmd } from '../../fixtures/attestation/snp-simulated.ts';

function doc(name: string): string {
  return readFileSync(fileURLToPath(new URL(`../../../docs/${name}`, import.meta.url)), 'utf8');
}

const M = 'ab'.repeat(48);
const D = 'cd'.repeat(32);
const BASE = { measurements: [M], models: { demo: D } };
const DEBUG = 1n << 19n;

/** The policy= of the launch line, and the one named for each stricter grade beside it. */
function documentedLaunches(): Readonly<Record<string, bigint>> {
  const text = doc('hardware.md');
  const [, line] = /-object sev-snp-guest,[^\n]*policy=(0x[0-9a-f]+)/.exec(text) ?? [];
  const [, strict] = /grade `strict`[\s\S]*?`policy=(0x[0-9a-f]+)`/.exec(text) ?? [];
  return { baseline: BigInt(line ?? 0), strict: BigInt(strict ?? 0) };
}

let genoa: SimulatedAmd;

beforeAll(async () => {
  genoa = await simulatedAmd({ product: 'Genoa' });
});

async function judged(guestPolicy: bigint | undefined, policy: unknown): Promise<readonly string[]> {
  const report = await genoa.signReport(guestPolicy === undefined ? {} : { guestPolicy });
  const found = await verifySnp(await evidenceOf(genoa, { report }), policy as object, {
    now: NOW,
    roots: [genoa.ark],
  });
  return found.transcript.checks.filter(({ status }) => status === 'fail').map(({ id }) => id);
}

describe('what is documented', () => {
  test.each(GUEST_POLICY_GRADES)('a guest launched as the documents say for %s meets it', async (grade) => {
    const launch = documentedLaunches()[grade] ?? 0n;
    expect(launch).toBe(launchPolicy(readGuestPolicy(grade)));
    expect(await judged(launch, { guestPolicy: grade })).toEqual([]);
  });

  test('the documented launch line passes every default', async () => {
    const { baseline = 0n } = documentedLaunches();
    expect(await judged(baseline, {})).toEqual([]);
    expect(await judged(baseline, { guestPolicy: 'strict' })).toEqual(['S21']);
    expect(await judged(undefined, {})).toEqual([]);
    expect(parseReport(await genoa.signReport()).guestPolicy).toBe(baseline);
  });

  test('the table of docs/policy.md is the grades', () => {
    const rows = [...doc('policy.md').matchAll(/^\| `(\w+)` \| (\d+) \| (true|false) \| (true|false) \|/gm)];
    const graded = (column: number): unknown =>
      Object.fromEntries(rows.map((row) => [row[1], row[column] === 'true']));
    expect(graded(3)).toEqual(guestPolicyToJson(readGuestPolicy('baseline')));
    expect(graded(4)).toEqual(guestPolicyToJson(readGuestPolicy('strict')));
    for (const [, key = '', bit] of rows) {
      const strict = readGuestPolicy('strict');
      const before = guestPolicyProblems(decodeGuestPolicy(launchPolicy(strict)), strict);
      const flipped = decodeGuestPolicy(launchPolicy(strict) ^ (1n << BigInt(bit ?? 0)));
      expect([key, before, guestPolicyProblems(flipped, strict)]).toEqual([
        key,
        [],
        [expect.stringContaining(`bit ${bit}`)],
      ]);
    }
  });

  test('the example of docs/policy.md, the policy of a release and the default name the same grade', () => {
    const [, example = ''] = /```json\n([\s\S]*?)```/.exec(doc('policy.md')) ?? [];
    const { guestPolicy } = JSON.parse(example) as { guestPolicy: unknown };
    const release = releasePolicy([{ measurement: M }], [{ name: 'demo', sha256: D }]);
    expect([guestPolicy, release.guestPolicy]).toEqual(['baseline', 'baseline']);
    const decided = parsePolicy(BASE).guestPolicy;
    expect(parsePolicy(release).guestPolicy).toEqual(decided);
    expect(readGuestPolicy(guestPolicy)).toEqual(decided);
    expect(parsePolicy(JSON.stringify(policyToJson(parsePolicy(BASE)))).guestPolicy).toEqual(decided);
  });

  test('lint is silent about what can be launched, and says of the rest what it needs', () => {
    const remarks = (guestPolicy: unknown): readonly string[] =>
      lintPolicy(parsePolicy(JSON.stringify({ ...BASE, guestPolicy }))).filter((remark) =>
        remark.startsWith('guestPolicy'),
      );
    const { strict = 0n } = documentedLaunches();
    expect(remarks('baseline')).toEqual([]);
    expect(remarks({ minimumAbi: '0.31' })).toEqual([]);
    expect(remarks('strict')).toEqual([
      expect.stringMatching(new RegExp(`policy=0x${strict.toString(16)}$`)),
    ]);
    expect(remarks({ requireSingleSocket: true })).toEqual([
      expect.stringMatching(/requireSingleSocket true \(needs .*policy=0x130000$/),
    ]);
  });

  test('S21 says what is weaker, and with which policy= it would pass', async () => {
    const { baseline = 0n, strict = 0n } = documentedLaunches();
    const result = await runEvidence(
      JSON.stringify({
        tee: 'snp',
        report: toBase64(await genoa.signReport({ guestPolicy: baseline })),
        vek: toBase64(genoa.vek),
        chain: [encodePem(genoa.ask), encodePem(genoa.ark)],
        crl: toBase64(genoa.crl),
        now: NOW.toISOString(),
        roots: [encodePem(genoa.ark)],
        policy: { guestPolicy: 'strict' },
      }),
    );
    expect(result.exitCode).toBe(10);
    const found = await verifySnp(
      await evidenceOf(genoa, { report: await genoa.signReport({ guestPolicy: baseline }) }),
      { guestPolicy: 'strict' },
      { now: NOW, roots: [genoa.ark] },
    );
    expect(found.transcript.firstFailure).toMatchObject({
      code: 'snp_guest_policy',
      expected: expect.stringContaining(`policy=0x${strict.toString(16)}`) as string,
      actual: `0x${baseline.toString(16)}`,
    });
  });
});

describe('single bits', () => {
  test.each<[unknown, Partial<DecidedGuestPolicy>]>([
    [{}, {}],
    [{ requireRaplDisabled: true }, { requireRaplDisabled: true }],
    [{ allowSmt: false }, { allowSmt: false }],
    [{ grade: 'baseline', allowCxl: true }, { allowCxl: true }],
    [{ minimumAbi: '1.55' }, { minimumAbi: { major: 1, minor: 55 } }],
    [{ minimumAbi: { major: 0, minor: 31 } }, { minimumAbi: { major: 0, minor: 31 } }],
  ])('%j is over the baseline', (given, changed) => {
    expect(readGuestPolicy(given)).toEqual({ ...readGuestPolicy('baseline'), ...changed });
  });

  test('over the strict grade, where it says so', () => {
    expect(readGuestPolicy({ grade: 'strict', allowSmt: true })).toEqual({
      ...readGuestPolicy('strict'),
      allowSmt: true,
    });
  });

  test.each([
    null,
    1,
    true,
    [],
    'none',
    '',
    { grade: 1 },
    { grade: 'Strict' },
    { minimumAbi: '1.055' },
    { allowDebug: true },
  ])('%j is malformed', (given) => {
    expect(() => readGuestPolicy(given)).toThrow(/guestPolicy/);
  });

  test('a mistyped key gets a hint', () => {
    expect(() => readGuestPolicy({ allowSMT: true })).toThrow(
      expect.objectContaining({ hint: 'did you mean allowSmt?' }) as Error,
    );
  });

  test('debugging is refused under every policy', async () => {
    const loosest = { allowSmt: true, allowMigrationAgent: true, allowCxl: true };
    for (const guestPolicy of ['baseline', 'strict', loosest, { grade: 'strict', ...loosest }])
      expect(await judged(launchPolicy(readGuestPolicy('strict')) | DEBUG, { guestPolicy })).toEqual(['S21']);
  });

  test.each(Array.from({ length: 64 - 26 }, (_, i) => i + 26))(
    'bit %i, not defined, is refused',
    async (bit) => {
      expect(await judged(0x30000n | (1n << BigInt(bit)), {})).toEqual(['S7']);
    },
  );

  test.each(Array.from({ length: 64 }, (_, i) => i))(
    'bit %i of PLATFORM_INFO is accepted: what is not defined is recorded',
    async (bit) => {
      const report = await genoa.signReport({ platformInfo: 1n << BigInt(bit) });
      const { accepted, claims } = await verifySnp(
        await evidenceOf(genoa, { report }),
        {},
        {
          now: NOW,
          roots: [genoa.ark],
        },
      );
      expect(accepted).toBe(true);
      const { unknown } = claims['platformInfo'] as { unknown?: string };
      const isKnown = [0, 1, 2, 3, 4, 5, 7].includes(bit);
      expect(unknown ?? '0x0').toBe(isKnown ? '0x0' : `0x${(1n << BigInt(bit)).toString(16)}`);
    },
  );

  test.each(Array.from({ length: 27 }, (_, i) => i + 5))('bit %i of KEY_INFO is refused', async (bit) => {
    const report = await genoa.signReport({ keyInfo: 2 ** bit });
    const { transcript } = await verifySnp(
      await evidenceOf(genoa, { report }),
      {},
      { now: NOW, roots: [genoa.ark] },
    );
    expect(transcript.checks.filter(({ status }) => status === 'fail').map(({ id }) => id)).toEqual(['S9']);
  });
});

describe.skipIf(!haveVectors)('real machines', () => {
  interface Recorded {
    readonly id: string;
    readonly policy: string;
    readonly input: Record<string, unknown>;
  }
  const recorded = haveVectors
    ? (JSON.parse(readFileSync(vectorPath('snp/evidence-inputs.json'), 'utf8')) as readonly Recorded[])
    : [];

  test.each(recorded.map((item) => [item.id, item] as const))(
    '%s passes the default, the CRL aside, unless it can be debugged',
    async (_id, { input, policy }) => {
      const isDebug = (BigInt(policy) & DEBUG) !== 0n;
      const result = await runEvidence(JSON.stringify({ ...input, policy: { requireCrl: false } }));
      const failed = result.output.checks.filter(({ status }) => status === 'fail').map(({ id }) => id);
      expect([result.exitCode, failed]).toEqual(isDebug ? [10, ['S21']] : [0, []]);
    },
  );
});
