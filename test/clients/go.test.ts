// The tests of clients/go, with the vectors that every client runs (docs/clients.md). No network: standard
// library alone.

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { goTool } from '../fixtures/clients/go.ts';

const top = fileURLToPath(new URL('../..', import.meta.url));
const go = goTool();
if (go === undefined) console.warn('\n! Go 1.26 is not here: clients/go is not tested\n');
const RECEIPTS = process.env['ASSAY_RECEIPT_VECTORS'] ?? join(top, 'test/vectors/receipts/receipts-v1.json');

test.skipIf(go === undefined)(
  'vectors, tries and receipts [B22]',
  () => {
    const { status, stdout, stderr } = spawnSync(go ?? '', ['test', '-count=1', '-v', './...'], {
      cwd: join(top, 'clients/go'),
      encoding: 'utf8',
      env: { ...process.env, GOPROXY: 'off', GOTOOLCHAIN: 'local' },
    });
    expect([status, stdout.match(/--- FAIL.*|panic:.*/g), stderr]).toEqual([0, null, '']);
    expect(stdout.match(/--- PASS/g)?.length).toBeGreaterThanOrEqual(9);
    expect(stdout.match(/--- SKIP/g)?.length ?? 0).toBe(existsSync(RECEIPTS) ? 0 : 2);
  },
  240_000,
);
