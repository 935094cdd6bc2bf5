// The crate of Verifpal is taken by its digest alone.

import { expect, test } from 'vitest';
import { assertCrate, proverPath, VERIFPAL } from '../../../scripts/prove/verifpal.ts';

test('another crate is refused, and both digests are said', () => {
  expect(() => assertCrate(Buffer.from('another crate'))).toThrow(VERIFPAL.sha256);
  expect(() => assertCrate(Buffer.from('another crate'))).toThrow(
    /verifpal-1\.6\.7 has the SHA-256 [0-9a-f]{64}, not/,
  );
});

test('the compiled program is kept outside the tree, under the digest of its crate', () => {
  expect(proverPath()).toContain(VERIFPAL.sha256.slice(0, 16));
  expect(proverPath().startsWith(process.cwd())).toBe(false);
});
