// The closed list of codes: each of them is given somewhere.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { ATTESTATION_CODES } from '../../../attestation/transcript/codes.ts';

describe('the closed list of codes', () => {
  test('has none that nothing gives', () => {
    const folder = fileURLToPath(new URL('../../../attestation/', import.meta.url));
    const sources = readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((name) => /^(?!dist|node_modules).*\.ts$/.test(name) && name !== 'codes.ts')
      .map((name) => readFileSync(join(folder, name), 'utf8'))
      .join('');
    expect(Object.keys(ATTESTATION_CODES).filter((code) => !sources.includes(`'${code}'`))).toEqual([]);
  });
});
