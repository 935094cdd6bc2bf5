// The tests of clients/go, with the vectors that every client runs (docs/clients.md). No network: standard
// library alone.

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { goTool } from '../../scripts/go-toolchain.ts';

const top = fileURLToPath(new URL('../..', import.meta.url));
const go = goTool();
if (go === undefined) console.warn('\n! Go 1.26 is not here: clients/go is not tested\n');

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
    expect(stdout).not.toMatch(/--- SKIP/);
  },
  240_000,
);
