// The engine digest: another byte, name or release is another digest (docs/receipts.md [R4]).

import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { engineDigest } from '../../../src/receipts/engine-digest.ts';

const folder = mkdtempSync(join(tmpdir(), 'assay-engine-digest-'));
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test('[R4] a swapped library, changed code and another release are seen', async () => {
  const [code, libraries] = [join(folder, 'code'), join(folder, 'lib')];
  mkdirSync(join(code, 'deep'), { recursive: true });
  mkdirSync(libraries);
  writeFileSync(join(code, 'deep/a.js'), '1');
  writeFileSync(join(libraries, 'libx.so'), 'x');
  writeFileSync(join(libraries, 'read.me'), 'of no account');
  const digest = async (release = '1'): Promise<string> =>
    Buffer.from(await engineDigest({ release, code: [code], libraries: [libraries] })).toString('hex');
  const first = await digest();
  expect(await digest()).toBe(first);
  expect(await digest('2')).not.toBe(first);
  writeFileSync(join(libraries, 'read.me'), 'still of no account');
  expect(await digest()).toBe(first);
  writeFileSync(join(libraries, 'libx.so'), 'y');
  const swapped = await digest();
  expect(swapped).not.toBe(first);
  writeFileSync(join(code, 'deep/a.js'), '2');
  expect(await digest()).not.toBe(swapped);
  // A library under the name of its version, or behind a link, is mapped as well.
  for (const name of ['libz.so.1', 'libz.so.1.2.3', 'libz.dylib', 'z.node']) {
    const before = await digest();
    writeFileSync(join(libraries, name), 'z');
    expect(await digest(), name).not.toBe(before);
  }
  writeFileSync(join(folder, 'elsewhere'), '1');
  symlinkSync(join(folder, 'elsewhere'), join(libraries, 'liblink.so'));
  const linked = await digest();
  writeFileSync(join(folder, 'elsewhere'), '2');
  expect(await digest()).not.toBe(linked);
});
