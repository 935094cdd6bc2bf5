// The highest release that was accepted: an older one is noticed, whatever a policy calls it.

import { expect, test } from 'vitest';
import { olderThanSeen } from '../../../attestation/console/storage.ts';
import { createRollbackMemory } from '../../../attestation/transcript/rollback-memory.ts';

test('an older release than one seen before is named; newer, equal and unnumbered ones are not', async () => {
  const memory = createRollbackMemory();
  expect(await olderThanSeen(memory, 'release 0.9.12')).toBeUndefined();
  expect(await olderThanSeen(memory, 'assay 0.10.0, simulated')).toBeUndefined();
  expect(await olderThanSeen(memory, 'release 0.10.0')).toBeUndefined();
  expect(await olderThanSeen(memory, 'release 0.9.13')).toBe('0.10.0');
  expect(await olderThanSeen(memory, 'ours')).toBeUndefined();
  expect(await olderThanSeen(memory, undefined)).toBeUndefined();
  expect(await olderThanSeen(memory, 'release 1.0.0')).toBeUndefined();
  expect(await olderThanSeen(memory, 'release 0.10.0')).toBe('1.0.0');
});
