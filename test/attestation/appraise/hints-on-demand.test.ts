// Hints are loaded on demand; where they cannot be, a refusal keeps its code and comes without advice.

import { expect, test, vi } from 'vitest';
import { runEvidence } from '../../../attestation/appraise/evidence-contract.ts';
import { hintsOnDemand, noHint } from '../../../attestation/appraise/hints-on-demand.ts';

vi.mock('../../../attestation/appraise/hints.ts', () => {
  throw new Error('not here');
});

test('a refusal is not lost for want of its hint', async () => {
  expect(await hintsOnDemand()).toBe(noHint);
  const { exitCode, output } = await runEvidence(JSON.stringify({ tee: 'sgx', now: '2026-01-01T00:00:00Z' }));
  expect(exitCode).toBe(20);
  expect(output).toMatchObject({ accepted: false, code: 'unsupported_tee' });
  expect(output.checks.at(-1)).not.toHaveProperty('hint');
});
