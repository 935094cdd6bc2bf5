// Every numbered requirement of docs/protocol.md is named by a test: `[M12]` in a test's title
// or beside its assertion.

import { expect, test } from 'vitest';
import { namedByTests, requiredIn } from '../fixtures/tree/requirements.ts';

test('every [M…] of docs/protocol.md is named by a test', () => {
  const required = requiredIn('docs/protocol.md', /\*\*\[(M\d+)\]\*\*/g);
  expect(required.size).toBeGreaterThan(15);
  const named = namedByTests('M');
  expect([...required].filter((id) => !named.has(id))).toEqual([]);
});
