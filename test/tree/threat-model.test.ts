// Every promise of docs/threat-model.md has a test: every row names at least one, and each is there.

import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

function at(path: string): string {
  return fileURLToPath(new URL(path, import.meta.url));
}
const text = readFileSync(at('../../docs/threat-model.md'), 'utf8');
function section(title: string): string {
  return text.split(/^## /m).find((part) => part.startsWith(title)) ?? '';
}
function rowsOf(title: string): string[] {
  return section(title)
    .split('\n')
    .filter((line) => line.startsWith('| '))
    .slice(1);
}

describe('docs/threat-model.md', () => {
  test.each(['What is guaranteed', 'What happens when something breaks'])(
    '%s: every row names a test',
    (title) => {
      const rows = rowsOf(title);
      expect(rows.length).toBeGreaterThanOrEqual(10);
      expect(rows.filter((row) => !/`[\w/*-]+\.test\.ts`[^|]*\|$/.test(row))).toEqual([]);
    },
  );

  test('every test it names exists', () => {
    const named = [...text.matchAll(/`([\w/*-]+\.test\.ts)`/g)].map((match) => match[1] ?? '');
    expect(named.length).toBeGreaterThan(40);
    expect(
      [...new Set(named)].filter((path) => !path.includes('*') && !existsSync(at(`../${path}`))),
    ).toEqual([]);
  });

  test('guarantees are numbered without a gap', () => {
    expect(rowsOf('What is guaranteed').map((row) => /^\| (G\d+) /.exec(row)?.[1])).toEqual(
      rowsOf('What is guaranteed').map((_, i) => `G${i + 1}`),
    );
  });

  test('each class of the input table is one of measured, bounded, forbidden, or said to be open', () => {
    const classes = rowsOf('Inputs of the image').map((row) => row.split('|')[2]?.trim());
    expect(classes.length).toBeGreaterThan(8);
    expect(classes.filter((each) => !/^(measured|bounded|forbidden|\*\*open\*\*)$/.test(each ?? ''))).toEqual(
      [],
    );
  });
});
