// Every numbered requirement of docs/protocol.md is named by a test: `[M12]` in a test's title
// or beside its assertion.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const top = fileURLToPath(new URL('../..', import.meta.url));

test('every [M…] of docs/protocol.md is named by a test', () => {
  const required = new Set(
    [...readFileSync(join(top, 'docs/protocol.md'), 'utf8').matchAll(/\*\*\[(M\d+)\]\*\*/g)].map(
      (match) => match[1] ?? '',
    ),
  );
  expect(required.size).toBeGreaterThan(15);
  const named = new Set<string>();
  for (const name of readdirSync(join(top, 'test'), { recursive: true, encoding: 'utf8' })) {
    if (!name.endsWith('.test.ts') || name === 'tree/protocol-coverage.test.ts') continue;
    for (const match of readFileSync(join(top, 'test', name), 'utf8').matchAll(/\[(M\d+)\]/g))
      named.add(match[1] ?? '');
  }
  expect([...required].filter((id) => !named.has(id))).toEqual([]);
});
