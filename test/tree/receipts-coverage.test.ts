// Every numbered requirement of docs/receipts.md is named by a test: `[R12]` in a test's title or beside its
// assertion.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const top = fileURLToPath(new URL('../..', import.meta.url));

test('every R of docs/receipts.md is named by a test', () => {
  const text = readFileSync(join(top, 'docs/receipts.md'), 'utf8');
  const required = new Set([...text.matchAll(/^\| (R\d+) \|/gm)].map((match) => match[1] ?? ''));
  expect(required.size).toBe(24);
  const named = new Set<string>();
  for (const name of readdirSync(join(top, 'test'), { recursive: true, encoding: 'utf8' })) {
    if (!name.endsWith('.test.ts') || name === 'tree/receipts-coverage.test.ts') continue;
    for (const match of readFileSync(join(top, 'test', name), 'utf8').matchAll(/\[(R\d+)\]/g))
      named.add(match[1] ?? '');
  }
  expect([...required].filter((id) => !named.has(id))).toEqual([]);
});
