// CompatCanary scans the API on real engines with the profile it has by default: both dialects, streams, a
// forced call, a strict schema. Skipped where it was not fetched.

import { expect, test } from 'vitest';
import { haveCompatcanary, scan } from '../fixtures/agents/compatcanary.ts';
import { startDemoApi } from '../fixtures/http/demo-api.ts';

test.skipIf(!haveCompatcanary)('every probe passes: 100 of 100', { timeout: 120_000 }, async () => {
  const { api, close } = await startDemoApi(['demo-chat']);
  try {
    const { target, score, compatible, results } = await scan(`${api.url}/v1`, 'demo-chat');
    expect(results.filter(({ status }) => status !== 'pass')).toEqual([]);
    expect([target.profile, score, compatible, results.length]).toEqual(['modern', 100, true, 7]);
  } finally {
    await close();
  }
});
