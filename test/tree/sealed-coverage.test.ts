// Every numbered requirement of docs/sealed.md is named by a test: `[B12]` in a test's title or beside its
// assertion.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const top = fileURLToPath(new URL('../..', import.meta.url));

test('every [B…] of docs/sealed.md is named by a test', () => {
  const text = readFileSync(join(top, 'docs/sealed.md'), 'utf8');
  const required = new Set([...text.matchAll(/\*\*\[(B\d+)\]\*\*/g)].map((match) => match[1] ?? ''));
  expect(required.size).toBeGreaterThan(20);
  const named = new Set<string>();
  for (const name of readdirSync(join(top, 'test'), { recursive: true, encoding: 'utf8' })) {
    if (!name.endsWith('.test.ts') || name === 'tree/sealed-coverage.test.ts') continue;
    for (const match of readFileSync(join(top, 'test', name), 'utf8').matchAll(/\[(B\d+)\]/g))
      named.add(match[1] ?? '');
  }
  expect([...required].filter((id) => !named.has(id))).toEqual([]);
  // The rest of the design is said to be missing, and no test claims it.
  for (const id of ['B17', 'B18', 'B24', 'B25', 'B26'])
    expect([required.has(id), named.has(id)]).toEqual([false, false]);
});
