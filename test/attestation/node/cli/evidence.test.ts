// `assay-verify evidence` as a process: one JSON object, whatever comes in.

import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

describe('the command line', () => {
  test('evidence: answers too much input with its one JSON object', () => {
    const command = fileURLToPath(new URL('../../../../attestation/dist/node/cli/main.js', import.meta.url));
    const { status, stdout, stderr } = spawnSync(process.execPath, [command, 'evidence'], {
      input: Buffer.alloc(5 << 20, ' '),
      encoding: 'utf8',
    });
    expect(JSON.parse(stdout)).toMatchObject({ accepted: false, code: 'input_too_large', claims: {} });
    expect([status, stderr]).toEqual([30, '']);
  });
});
