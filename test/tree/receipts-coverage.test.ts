// Every numbered requirement of docs/receipts.md is named by a test: `[R12]` in a test's title or beside its
// assertion.

import { expect, test } from 'vitest';
import { namedByTests, requiredIn } from '../fixtures/tree/requirements.ts';

test('every R of docs/receipts.md is named by a test', () => {
  const required = requiredIn('docs/receipts.md', /^\| (R\d+) \|/gm);
  expect(required.size).toBe(25);
  const named = namedByTests('R');
  expect([...required].filter((id) => !named.has(id))).toEqual([]);
});
