// Roll-back memory on disk, shared by processes.

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { fileRollbackMemory } from '../../../attestation/node/memory-file.ts';

describe('roll-back memory on disk', () => {
  test('two processes with one file do not make each other forget', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'assay-memory-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const path = join(folder, 'seen.json');
    const [one, two] = [await fileRollbackMemory(path), await fileRollbackMemory(path)];
    await one.remember('snp/a/crlNumber', 10n);
    await two.remember('snp/b/crlNumber', 1n);
    expect(JSON.parse(readFileSync(path, 'utf8'))).toEqual({
      'snp/a/crlNumber': '10',
      'snp/b/crlNumber': '1',
    });
    await two.remember('snp/a/crlNumber', 9n);
    expect(await two.highest('snp/a/crlNumber')).toBe(10n);
    expect(JSON.parse(readFileSync(path, 'utf8'))).toEqual({
      'snp/a/crlNumber': '10',
      'snp/b/crlNumber': '1',
    });
  });
});
