// The doors for newcomers: every path and link that ARCHITECTURE.md, CONTRIBUTING.md, README.md and the
// documents name is there.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { describe, expect, test } from 'vitest';
import { TOP } from '../../scripts/closures.ts';

const documents = [
  'ARCHITECTURE.md',
  'CONTRIBUTING.md',
  'README.md',
  'SECURITY.md',
  'attestation/README.md',
  'examples/README.md',
  ...readdirSync(join(TOP, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => join('docs', name)),
];

describe.each(documents)('%s', (document) => {
  const text = readFileSync(join(TOP, document), 'utf8');

  test('links to files that are there', () => {
    const links = [...text.matchAll(/\]\((?!https?:|#)([^)#\s]+)(?:#[^)]*)?\)/g)].map(
      ([, path = '']) => path,
    );
    expect(links.filter((path) => !existsSync(join(TOP, dirname(document), path)))).toEqual([]);
  });

  test('names files of the tree that are there', () => {
    const named = [...text.matchAll(/`((?:src|attestation|image|scripts|test|examples)\/[\w./-]+)`/g)].map(
      ([, path = '']) => normalize(path),
    );
    expect(
      named.filter(
        (path) =>
          ![path, join('test', path)].some((each) => existsSync(join(TOP, each))) &&
          !/\/(dist|ROOM)\b/.test(path),
      ),
    ).toEqual([]);
  });
});

test('ARCHITECTURE.md is read at one sitting', () => {
  expect(readFileSync(join(TOP, 'ARCHITECTURE.md'), 'utf8').split('\n').length).toBeLessThanOrEqual(200);
});
