// The tests of clients/python, with the vectors that every client runs (docs/clients.md).

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { clientsPython } from '../../scripts/python-clients.ts';

const top = fileURLToPath(new URL('../..', import.meta.url));
const python = clientsPython();
if (python === undefined)
  console.warn('\n! `make python-clients` was not run: clients/python is not tested\n');

test.skipIf(python === undefined)(
  'vectors, tries and receipts [B22]',
  () => {
    const { status, stderr } = spawnSync(python ?? '', ['-W', 'error', '-m', 'unittest', '-v'], {
      cwd: join(top, 'clients/python'),
      encoding: 'utf8',
      env: { ...process.env, PYTHONDONTWRITEBYTECODE: '1' },
    });
    expect(stderr).toMatch(/\nOK/);
    expect(status).toBe(0);
    expect(Number(/Ran (\d+) tests/.exec(stderr)?.[1])).toBeGreaterThanOrEqual(30);
    expect(stderr).not.toMatch(/skipped=/);
  },
  120_000,
);
