// Every numbered requirement of docs/sealed.md is named by a test: `[B12]` in a test's title or beside its
// assertion.

import { expect, test } from 'vitest';
import { namedByTests, requiredIn } from '../fixtures/tree/requirements.ts';

test('every [B…] of docs/sealed.md is named by a test', () => {
  const required = requiredIn('docs/sealed.md', /\*\*\[(B\d+)\]\*\*/g);
  expect(required.size).toBeGreaterThan(26);
  const named = namedByTests('B');
  expect([...required].filter((id) => !named.has(id))).toEqual([]);
});
