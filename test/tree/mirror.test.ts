// Tests mirror the sources: a test of test/src, test/attestation, test/image or test/scripts stands in the
// folder of its source and is named after it, or after it and what it asks of it:
// `bodies.test.ts`, `bodies-limits.test.ts` for `bodies.ts`. The exceptions only shrink.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { sourcesBelow, TOP } from '../../scripts/closures.ts';

const MIRRORED = ['src', 'attestation', 'image', 'scripts'];

/** Tests that wait for their name or their place. */
const EXCEPTIONS: ReadonlySet<string> = new Set([]);

/** Whether a file is there that the test's name begins with, in the folder its own folder mirrors. */
function isNamedAfterSource(path: string, isThere: (source: string) => boolean): boolean {
  const words = path
    .replace(/^test\//, '')
    .replace(/\.test\.ts$/, '')
    .split('-');
  return words.some((_, i) => isThere(`${words.slice(0, words.length - i).join('-')}.ts`));
}

const strays = MIRRORED.flatMap((folder) => sourcesBelow(`test/${folder}`))
  .filter((path) => path.endsWith('.test.ts'))
  .filter((path) => !isNamedAfterSource(path, (source) => existsSync(join(TOP, source))));

test('a test is named after its source', () => {
  expect(strays.filter((path) => !EXCEPTIONS.has(path))).toEqual([]);
});

test('no exception that is not needed', () => {
  expect([...EXCEPTIONS].filter((path) => !strays.includes(path))).toEqual([]);
});

test.each([
  ['test/src/http/json.test.ts', true],
  ['test/src/http/json-server.test.ts', true],
  ['test/src/http/json-a-b.test.ts', true],
  ['test/src/http/jsons.test.ts', false],
  ['test/src/json.test.ts', false],
  ['test/attestation/http/json.test.ts', false],
  ['test/src/http/two-words.test.ts', true],
  ['test/src/http/two.test.ts', false],
])('%s: %s', (path, expected) => {
  const sources = ['src/http/json.ts', 'src/http/two-words.ts'];
  expect(isNamedAfterSource(path, (source) => sources.includes(source))).toBe(expected);
});
