// The soak's own bookkeeping, and a short form of each of its parts. `make soak` is the long one.

import { describe, expect, test } from 'vitest';
import { runAgentLoop } from '../fixtures/e2e/agent-loop.ts';
import { runSoak } from '../fixtures/e2e/soak.ts';
import { runReplays } from '../fixtures/e2e/soak-replay.ts';
import { accounts, growth, type Sample } from '../fixtures/e2e/soak-accounts.ts';

describe('accounting', () => {
  const sent = new Map([
    ['soak-1', true],
    ['soak-2', true],
    ['soak-3', false],
  ]);

  test('a line for each answer; one that was cut off may have one', () => {
    expect(accounts(['soak-1', 'soak-2'], sent)).toEqual([]);
    expect(accounts(['soak-2', 'soak-3', 'soak-1'], sent)).toEqual([]);
  });

  test('lost, doubled and invented requests are found', () => {
    expect(accounts(['soak-1'], sent)).toEqual(['accounts: soak-2 was answered and is not in the audit log']);
    expect(accounts(['soak-1', 'soak-2', 'soak-2'], sent)).toEqual([
      'accounts: soak-2 is in the audit log twice',
    ]);
    expect(accounts(['soak-1', 'soak-2', 'soak-9'], sent)).toEqual([
      'accounts: soak-9 is in the audit log and was never sent',
    ]);
  });

  test('memory that grows is found, memory that was warmed up is not', () => {
    const samples = (bytes: (i: number) => number): Sample[] =>
      Array.from({ length: 40 }, (_, i) => ({
        seconds: i,
        rssBytes: bytes(i),
        descriptors: 30,
        children: 2,
      }));
    const mib = 1024 * 1024;
    expect(growth(samples((i) => (200 + Math.min(i, 8) * 20) * mib))).toEqual([]);
    expect(growth(samples((i) => (200 + i * 8) * mib))).toHaveLength(1);
  });
});

test(
  'seconds of random clients, and of every fault: no leak, every request accounted for',
  { timeout: 400_000 },
  async () => {
    const report = await runSoak({ seconds: 14, clients: 8, seed: 7, faultEveryMs: 300 });
    expect(report.problems).toEqual([]);
    expect(Object.entries(report.faults).filter(([, count]) => count === 0)).toEqual([]);
    expect(report.outcomes.get('200') ?? 0).toBeGreaterThan(10);
  },
);

test('turns of an agent over every dialect: each as recorded, no leak', { timeout: 400_000 }, async () => {
  const { problems, turns, calls, compactions, samples } = await runAgentLoop(80);
  expect(problems).toEqual([]);
  expect([turns >= 80, calls > 20, compactions > 5, samples.length > 10]).toEqual([true, true, true, true]);
});

test('receipts of answers that ran alone replay equal', { timeout: 120_000 }, async () => {
  const { equal, problems } = await runReplays(12, { withPublished: false });
  expect(problems).toEqual([]);
  expect(equal).toBe(12);
});
