// The example in docs/simulated.md is run as a reader would run it, against the built package, and prints
// what it says.

import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { transformSync } from 'esbuild';
import { expect, test } from 'vitest';

function at(path: string): string {
  return fileURLToPath(new URL(`../../${path}`, import.meta.url));
}

test('the example of docs/simulated.md prints the codes in its comments', () => {
  const [, example = ''] = /```ts\n([\s\S]*?)```/.exec(readFileSync(at('docs/simulated.md'), 'utf8')) ?? [];
  const promised = [...example.matchAll(/console\.log\(.*\); \/\/ ([a-z_]+)/g)].map((match) => match[1]);
  expect(promised.length).toBeGreaterThan(3);
  // Inside the repository, so that the package is found as an installed one is.
  const folder = at('.cache/simulated-doc');
  mkdirSync(folder, { recursive: true });
  writeFileSync(`${folder}/example.mjs`, transformSync(example, { loader: 'ts', format: 'esm' }).code);
  const { stdout, stderr } = spawnSync(process.execPath, [`${folder}/example.mjs`], { encoding: 'utf8' });
  rmSync(folder, { recursive: true });
  expect(stderr).toBe('');
  expect(stdout.trim().split('\n')).toEqual(promised);
});
