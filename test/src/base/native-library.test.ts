// Where a library of `make native` is looked for: below the folder of the package, from any depth in it.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { nativeLibrary } from '../../../src/base/native-library.ts';

const FOLDERS = ['dist/src/engine/seam', 'dist/src/shared', 'dist', '.'];
let top: string;
let libraries: string;
beforeAll(() => {
  top = mkdtempSync(join(tmpdir(), 'assay-native-library-'));
  libraries = join(top, 'package/dist/native', `${process.platform}-${process.arch}`);
  for (const folder of [libraries, ...FOLDERS.map((each) => join(top, 'package', each))])
    mkdirSync(folder, { recursive: true });
  writeFileSync(join(top, 'package/package.json'), '{}');
  writeFileSync(join(libraries, 'libmtmd.so'), '');
});
afterAll(() => rmSync(top, { recursive: true, force: true }));

test.each(FOLDERS)('from %s', (below) => {
  expect(nativeLibrary('libmtmd', join(top, 'package', below))).toBe(join(libraries, 'libmtmd.so'));
  expect(nativeLibrary('libwhisper', join(top, 'package', below))).toBeUndefined();
});

test('never from above the package', () => {
  mkdirSync(join(top, 'package/inner'), { recursive: true });
  writeFileSync(join(top, 'package/inner/package.json'), '{}');
  expect(nativeLibrary('libmtmd', join(top, 'package/inner'))).toBeUndefined();
});
