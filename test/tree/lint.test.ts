// Exceptions to the linter's rules on functions, with the reason of each: the table is what .oxlintrc.json
// lists, no more and no less, and every file on it still needs to be there. Measured here with oxc's parser,
// because the linter is installed for `make check` alone.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseSync } from 'oxc-parser';
import { describe, expect, test } from 'vitest';
import { TOP } from '../../scripts/closures.ts';
import { walk } from '../../scripts/dialect.ts';

type SyntaxNode = Parameters<Parameters<typeof walk>[1]>[0] & { readonly end: number };

/** Rule → file → reason. Lists of test/ shrink to nothing: their files are only counted. */
const REASONS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'max-lines-per-function': {
    'attestation/simulated/amd.ts':
      'createSimulatedAmd: one closure over the keys of a made-up vendor, read in order (house.md §4)',
    'attestation/simulated/intel.ts': 'createSimulatedIntel: the same for Intel',
  },
};

/** Files under test/ that stand in the linter's lists still, by rule; only falls. */
const LISTED_TESTS: Readonly<Record<string, number>> = {
  'max-lines-per-function': 0,
};

interface Override {
  readonly files: readonly string[];
  readonly rules: Readonly<Record<string, unknown>>;
}

const { overrides } = JSON.parse(readFileSync(join(TOP, '.oxlintrc.json'), 'utf8')) as {
  readonly overrides: readonly Override[];
};
const WHOLE_TESTS = 'test/**';

/** Files a rule is turned off for, one by one. */
function listedFor(rule: string): readonly string[] {
  return overrides
    .filter(({ rules }) => rules[rule] === 'off')
    .flatMap(({ files }) => files)
    .filter((file) => file !== WHOLE_TESTS);
}

const FUNCTION = /^(?:FunctionDeclaration|FunctionExpression|ArrowFunctionExpression)$/;

/** How often a source breaks a rule. */
function breaches(rule: string, file: string, text = readFileSync(join(TOP, file), 'utf8')): number {
  const { program, comments } = parseSync(file, text);
  const code = comments.reduce(
    (rest, { start, end }) =>
      rest.slice(0, start) + rest.slice(start, end).replaceAll(/[^\n]/g, ' ') + rest.slice(end),
    text,
  );
  let count = 0;
  walk(program.body, (each) => {
    const node = each as SyntaxNode;
    if (rule === 'no-nested-ternary') count += nestedTernaries(node);
    if (!FUNCTION.test(node.type)) return;
    const lines = code.slice(node.start, node.end).split('\n');
    if (rule === 'max-lines-per-function')
      count += lines.filter((line) => line.trim() !== '').length > 100 ? 1 : 0;
    if (rule === 'max-params') count += (node['params'] as unknown[]).length > 4 ? 1 : 0;
  });
  return count;
}

function nestedTernaries(node: SyntaxNode): number {
  if (node.type !== 'ConditionalExpression') return 0;
  return [node['consequent'], node['alternate']].filter((branch) => {
    let inner = branch as SyntaxNode;
    while (inner.type === 'ParenthesizedExpression') inner = inner['expression'] as SyntaxNode;
    return inner.type === 'ConditionalExpression';
  }).length;
}

test('overrides turn off these rules for single files, and no others', () => {
  const single = overrides.filter(({ files }) => !(files.length === 1 && files[0] === WHOLE_TESTS));
  const off = new Map(single.flatMap(({ rules }) => Object.entries(rules)));
  expect(off).toEqual(new Map(Object.keys(REASONS).map((rule) => [rule, 'off'])));
  expect(single.length).toBe(off.size);
});

describe.each(Object.keys(REASONS))('%s', (rule) => {
  const listed = listedFor(rule);

  test('every exception has its reason, every reason its exception', () => {
    expect(listed.filter((file) => !file.startsWith('test/'))).toEqual(Object.keys(REASONS[rule] ?? {}));
  });

  test('exceptions of test/ only become fewer', () => {
    const tests = listed.filter((file) => file.startsWith('test/'));
    expect(tests.length).toBeLessThanOrEqual(LISTED_TESTS[rule] ?? 0);
  });

  test('no exception that is not needed', () => {
    expect(listed.filter((file) => breaches(rule, file) === 0)).toEqual([]);
  });
});

function lines(count: number): string {
  return 'a();\n'.repeat(count);
}

test.each<[string, string, string, number]>([
  ['100 lines', 'max-lines-per-function', `function a() {\n${lines(98)}}\n`, 0],
  ['101 lines', 'max-lines-per-function', `function a() {\n${lines(99)}}\n`, 1],
  [
    'blank lines and comments are not counted',
    'max-lines-per-function',
    `x(() => {\n${lines(98)}\n// y\n});\n`,
    0,
  ],
  ['4 parameters', 'max-params', 'x((a, b, c, d) => 0);', 0],
  ['5 parameters', 'max-params', 'x((a, b, c, d, e) => 0);', 1],
  ['a ternary', 'no-nested-ternary', 'a ? b : c;', 0],
  ['a ternary in a ternary', 'no-nested-ternary', 'a ? b : (c ? d : e);', 1],
])('measured: %s', (_what, rule, text, expected) => {
  expect(breaches(rule, 'src/base/x.ts', text)).toBe(expected);
});
