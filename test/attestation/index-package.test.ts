// The package as its users meet it: package.json can be read through it, and its README names no file that is
// not in it.

import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';

const path = createRequire(import.meta.url).resolve('@assay/attestation/package.json');
const folder = dirname(path);
const manifest = JSON.parse(readFileSync(path, 'utf8')) as {
  readonly name: string;
  readonly files: readonly string[];
  readonly exports: Readonly<Record<string, unknown>>;
};

test('exports its package.json, as bundlers and tools ask for it', () => {
  expect(manifest.name).toBe('@assay/attestation');
  expect(existsSync(join(folder, String(manifest.exports['./package.json'])))).toBe(true);
});

test('README.md names files of the package, or says that they are in the repository', () => {
  const readme = readFileSync(join(folder, 'README.md'), 'utf8');
  const paragraphs = readme.split(/\n\s*\n/);
  const named = paragraphs.flatMap((paragraph) =>
    [...paragraph.matchAll(/`([\w-]+\/[\w./-]+\.\w+)`/g)].map(([, file = '']) => [file, paragraph] as const),
  );
  expect(named.length).toBeGreaterThan(0);
  for (const [file, paragraph] of named) {
    const shipped = manifest.files.some((name) => file.startsWith(`${name}/`));
    // `.assay/…` and the like are the reader's own.
    if (!shipped && !file.startsWith('.')) expect(paragraph, file).toMatch(/^In the repository/);
  }
});
