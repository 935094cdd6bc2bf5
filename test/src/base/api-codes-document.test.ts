// docs/api.md names every error code the server can give.

import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

function at(path: string): string {
  return fileURLToPath(new URL(`../../../${path}`, import.meta.url));
}

test('every code of an ApiError is in docs/api.md', () => {
  const documented = new Set(
    [...readFileSync(at('docs/api.md'), 'utf8').matchAll(/`([a-z_]+)`/g)].map((match) => match[1]),
  );
  const codes = new Set<string>();
  for (const entry of readdirSync(at('src'), { recursive: true, encoding: 'utf8' })) {
    if (!entry.endsWith('.ts')) continue;
    const source = readFileSync(at(`src/${entry}`), 'utf8');
    for (const [, code] of source.matchAll(/new ApiError\(\s*(?:\d{3},\s*)?'([a-z_]+)'/g))
      codes.add(code as string);
    for (const [, code] of source.matchAll(/refuse\(\s*'([a-z_]+)'/g)) codes.add(code as string);
  }
  expect(codes.size).toBeGreaterThan(40);
  expect([...codes].filter((code) => !documented.has(code))).toEqual([]);
});
