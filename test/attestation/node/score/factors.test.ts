// docs/score.md and the code list the same factors, in the same order, each under its group, with what
// passing and failing mean and where it is seen.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { FACTORS, type Factor } from '../../../../attestation/node/score/factors.ts';

const text = readFileSync(fileURLToPath(new URL('../../../../docs/score.md', import.meta.url)), 'utf8');

interface Row {
  readonly group: string;
  readonly id: string;
  readonly cells: readonly string[];
}

function rowsOf(page: string): Row[] {
  const rows: Row[] = [];
  let group = '';
  for (const line of page.split('\n')) {
    group = /^### (\w+)$/.exec(line)?.[1]?.toLowerCase() ?? group;
    const id = /^\| `([a-z0-9-]+)` \|/.exec(line)?.[1];
    if (id === undefined || group === '' || line.split('|').length !== 7) continue;
    rows.push({
      group,
      id,
      cells: line
        .split('|')
        .slice(2, -1)
        .map((cell) => cell.trim()),
    });
  }
  return rows;
}

const rows = rowsOf(text);

test('the page and the code list the same factors', () => {
  expect(rows.map(({ group, id }) => `${group} ${id}`)).toEqual(
    FACTORS.map(({ group, id }) => `${group} ${id}`),
  );
  expect(new Set(FACTORS.map(({ id }) => id)).size).toBe(FACTORS.length);
  expect(FACTORS.length).toBeGreaterThanOrEqual(20);
});

/** `S1–S9, S32` → each of them. */
function idsIn(cell: string): Set<string> {
  const ids = new Set<string>();
  for (const [, letter = '', from = '', , to = from] of cell.matchAll(/\b([A-Z])(\d+)(–[A-Z](\d+))?/g))
    for (let number = Number(from); number <= Number(to); number++) ids.add(`${letter}${number}`);
  return ids;
}

describe.each(rows.map((row) => [row.id, row] as const))('%s', (id, { cells }) => {
  const [pass = '', fail = '', seen = ''] = cells;

  test('says what pass and fail mean, and where it is seen', () => {
    for (const cell of [pass, fail, seen]) expect(cell.length).toBeGreaterThan(1);
  });

  test('names every rule it rests on', () => {
    const { rules }: Partial<Factor> = FACTORS.find((factor) => factor.id === id) ?? {};
    const rests = [rules?.snp, rules?.tdx, rules?.all, rules?.also].flatMap((each) => each ?? []);
    // D4 and the like are named as "by D4" where a factor is about the value, not about the rule.
    expect([...new Set(rests.map((rule) => rule.id))].filter((rule) => !idsIn(seen).has(rule))).toEqual([]);
  });
});
