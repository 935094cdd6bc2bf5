// Rules of the dialect that are counted until every source keeps them (scripts/dialect-counts.ts). The limits
// only fall: a folder that has fewer gets the smaller number.

import { describe, expect, test } from 'vitest';
import { COUNTED, countedOf, type Counted } from '../../scripts/dialect-counts.ts';
import { FOLDERS } from '../../scripts/dialect.ts';
import { sourcesBelow } from '../../scripts/closures.ts';

/**
 * At most so many by folder. Spreads stay where absence is written to a wire: documents, claims, collateral,
 * JSON of the API, manifests of packages. Wide comments stay in src where wrapping would take a file over 400
 * lines, and in the root part, whose 416 lines are pinned.
 */
const LIMITS: Readonly<Record<Counted, Readonly<Record<string, number>>>> = {
  'comment-width': { attestation: 0, src: 45, image: 0, scripts: 0, test: 0 },
  'conditional-spread': { attestation: 28, src: 20, image: 0, scripts: 7, test: 31 },
  'single-letter': { attestation: 0, src: 0, image: 0, scripts: 0, test: 253 },
};

describe.each(FOLDERS)('%s', (folder) => {
  const found = sourcesBelow(folder).flatMap((file) => countedOf(file));
  test.each(COUNTED)('%s', (rule) => {
    const { length } = found.filter((each) => each.rule === rule);
    // `npx tsx scripts/dialect-counts.ts RULE` lists the places.
    expect(length).toBeLessThanOrEqual(LIMITS[rule][folder] ?? 0);
  });
});

const wide = 'x'.repeat(108);

test.each<[string, string, readonly Counted[]]>([
  ['a comment of 110 columns', `// ${wide.slice(1)}\n`, []],
  ['of 111', `// ${wide}\n`, ['comment-width']],
  ['with its indentation', `if (a) {\n  // ${wide.slice(2)}\n}\n`, ['comment-width']],
  [
    'a TSDoc block, by its lines',
    `/**\n * ${wide}\n * short\n * ${wide}\n */\n`,
    ['comment-width', 'comment-width'],
  ],
  ['behind code', `const a = 1; // ${wide}\n`, ['comment-width']],
  ['a directive behind code', `const a = '${wide}'; // prettier-ignore\n`, []],
  ['a directive', `// oxlint-disable-next-line no-x -- ${wide}\n`, []],
  ['a URL that fills the line', `// https://example.org/${wide}\n`, []],
  ['a table', `// | ${wide} |\n`, []],
  ['a drawing', `// ┌──┐ ${wide}\n`, []],
  [
    'an example, up to the next tag',
    `/**\n * @example ${wide}\n * ${wide}\n * @throws ${wide}\n */\n`,
    ['comment-width'],
  ],
  ['fenced code', `/**\n * \`\`\`ts\n * ${wide}\n * \`\`\`\n * ${wide}\n */\n`, ['comment-width']],
  ['a long line of code', `const a = '${wide}';\n`, []],

  ['a spread unless undefined', 'a({ ...(b === undefined ? {} : { b }) });\n', ['conditional-spread']],
  ['the other way round', 'a({ ...(b !== undefined ? { b } : {}) });\n', ['conditional-spread']],
  ['a spread of &&', 'a({ ...(b && { b }) });\n', ['conditional-spread']],
  ['a spread of two values', 'a({ ...(b ? c : d), ...e });\n', []],
  ['a conditional part of a list', 'a([...(b === undefined ? [] : [b])]);\n', []],

  ['a parameter of one letter', 'function a(b: string): void {}\n', ['single-letter']],
  [
    'of an arrow, a method, a type',
    'x((b) => b);\nclass C {\n  m(n: number) {}\n}\ntype F = (v: string) => void;\n',
    ['single-letter', 'single-letter', 'single-letter'],
  ],
  [
    'with a default, in a list, the rest',
    'x((a = 1, [c], ...r) => 0);\n',
    ['single-letter', 'single-letter', 'single-letter'],
  ],
  ['a property taken apart keeps its name', 'x(({ n }) => n);\n', []],
  ['renamed to a letter', 'x(({ name: n }) => n);\n', ['single-letter']],
  ['an index, and what is not used', 'x((value, i) => i);\nx((_) => 0);\n', []],
  ['an inner index', 'x((row, i) => row.map((cell, j) => i + j));\n', []],
  ['an inner index of a loop', 'for (const row of rows) row.map((cell, k) => k);\n', []],
  ['an inner index without an outer one', 'x((cell, j) => j);\n', ['single-letter']],
  ['two that are compared', 'x.toSorted((a, b) => a - b);\nx.toSorted(([a], [b]) => a - b);\n', []],
  ['a and b among others', 'x((a, b, total) => a);\n', ['single-letter', 'single-letter']],
  ['a variable', 'const n = 1;\n', []],
])('%s', (_what, text, expected) => {
  expect(countedOf('src/base/x.ts', text).map(({ rule }) => rule)).toEqual(expected);
});
