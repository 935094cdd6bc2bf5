// The soak of receipts in short; `make soak` has a thousand (docs/receipts.md [R15] [R25]).

import { expect, test } from 'vitest';
import { soakReceipts } from '../fixtures/e2e/soak-receipts.ts';

test('[R15] [R25] each receipt holds, its chain has no gap', { timeout: 300_000 }, async () => {
  const soak = await soakReceipts(24);
  expect(soak.problems).toEqual([]);
  expect(soak.verified).toBe(24);
  expect(soak.checkpoints).toBeGreaterThan(0);
});
