// The dialect of the house, over every source: scripts/dialect.ts has the rules, CONTRIBUTING.md explains
// them. Lists of exceptions and counts of words only shrink: a file that is mended leaves the list, a number
// that fell is written down.

import { describe, expect, test } from 'vitest';
import { FOLDERS, problemsOf, riddlesOf, RIDDLES } from '../../scripts/dialect.ts';
import { sourcesBelow } from '../../scripts/closures.ts';

const files = FOLDERS.flatMap((folder) => sourcesBelow(folder));

/** Rule and file, with the reason. */
const EXCEPTIONS: ReadonlySet<string> = new Set<string>([]);

/** At most so many in all comments. */
const RIDDLE_LIMITS: Readonly<Record<string, number>> = {
  'who, whoever': 0,
  'nobody, nothing': 5,
  'for ever': 0,
  'begins with what': 1,
};

describe('dialect', () => {
  test('every source is in the dialect', () => {
    const problems = files
      .flatMap((file) => problemsOf(file))
      .filter(({ rule, file }) => !EXCEPTIONS.has(`${rule} ${file}`))
      .map(({ file, line, rule, message }) => `${file}:${line} ${rule}: ${message}`);
    expect(problems).toEqual([]);
  });

  test('no exception that is not needed', () => {
    const needed = new Set(files.flatMap((file) => problemsOf(file).map(({ rule }) => `${rule} ${file}`)));
    expect([...EXCEPTIONS].filter((each) => !needed.has(each))).toEqual([]);
  });

  test.each(Object.keys(RIDDLES))('comments with "%s" only become fewer', (name) => {
    const count = files.reduce((sum, file) => sum + (riddlesOf(file)[name] ?? 0), 0);
    expect(count).toBeLessThanOrEqual(RIDDLE_LIMITS[name] ?? 0);
  });
});

describe('the rules', () => {
  const header = '// What this is.\n\n';
  const rules = (text: string): readonly string[] =>
    problemsOf('src/base/x.ts', text).map(({ rule }) => rule);

  test.each<[string, string, readonly string[]]>([
    [
      'a file in order',
      `${header}import { a } from 'node:fs';\nimport b from 'b';\n\nexport function c(): void {\n  a(b);\n}\n`,
      [],
    ],
    ['no header', "import { a } from 'node:fs';\n\na();\n", ['header']],
    ['no blank line after the header', '// x\nexport function a(): void {}\n', ['header']],
    ['a header of nine lines', `${'// x\n'.repeat(9)}\nexport function a(): void {}\n`, ['header']],
    [
      'a header of 101 words',
      `// ${'x '.repeat(51)}\n// ${'x '.repeat(50)}\n\nexport function a(): void {}\n`,
      ['header'],
    ],
    [
      'imports out of order',
      `${header}import b from './b.ts';\nimport a from 'a';\n\na(b);\n`,
      ['import-order'],
    ],
    ['no blank line after imports', `${header}import a from 'a';\na();\n`, ['import-order']],
    ['an arrow at the top', `${header}export const a = (): number => 1;\n`, ['top-level-function']],
    ['an arrow of a declared type', `${header}export const a: () => number = () => 1;\n`, []],
    [
      'a constant in camelCase',
      `${header}const limit = 5;\nconst names = new Set(['a']);\n`,
      ['constant-name', 'constant-name'],
    ],
    ['constants', `${header}const LIMIT = 5;\nconst shape = object({ a: text() });\n`, []],
    [
      'an optional without undefined',
      `${header}export interface A {\n  readonly a?: string;\n}\n`,
      ['optional'],
    ],
    [
      'an optional with undefined',
      `${header}export interface A {\n  readonly a?: string | undefined;\n}\n`,
      [],
    ],
    ['401 lines', `${header}${'\n'.repeat(399)}`, ['file-length']],
  ])('%s', (_what, text, expected) => {
    expect(rules(text)).toEqual(expected);
  });

  const lines = (count: number): string => 'a();\n'.repeat(count);
  const inTests = (text: string): readonly string[] =>
    problemsOf('test/src/base/x.test.ts', `${header}${text}`).map(
      ({ rule, message }) => `${rule}: ${message}`,
    );
  const tooLong = (count: number): string => `function-length: ${count} lines, at most 100`;

  test.each<[string, string, readonly string[]]>([
    ['a function of 100 lines', `function a() {\n${lines(98)}}\n`, []],
    ['of 101', `function a() {\n${lines(99)}}\n`, [tooLong(101)]],
    ['blank lines and comments are not counted', `function a() {\n${lines(98)}\n// x\n/* x\n*/\n}\n`, []],
    ['an arrow', `a(() => {\n${lines(99)}});\n`, [tooLong(101)]],
    ['a test', `test('a', () => {\n${lines(99)}});\n`, [tooLong(101)]],
    [
      'a describe without its tests, hooks and tables',
      `describe('a', () => {\n${lines(98)}beforeEach(() => {\n${lines(50)}});\ntest.each([\n${'1,\n'.repeat(200)}])('b', () => {});\n});\n`,
      [],
    ],
    [
      'a describe by itself',
      `describe.skipIf(a)('a', () => {\n${lines(99)}test('b', b);\n});\n`,
      [tooLong(101)],
    ],
    [
      'a test inside a describe',
      `describe.each([1])('a', () => {\ntest('b', () => {\n${lines(99)}});\n});\n`,
      [tooLong(101)],
    ],
    [
      'tests inside a loop of a describe are part of it',
      `describe('a', () => {\nfor (;;) {\ntest('b', () => {\n${lines(96)}});\n}\n});\n`,
      [tooLong(102)],
    ],
  ])('length of functions in test/: %s', (_what, text, expected) => {
    expect(inTests(text)).toEqual(expected);
  });

  test('words that read twice are counted in comments alone', () => {
    expect(
      riddlesOf(
        'src/base/x.ts',
        "// Who reads, reads nothing for ever.\nconst a = 'who nobody';\n// What is read.\n",
      ),
    ).toEqual({
      'who, whoever': 1,
      'nobody, nothing': 1,
      'for ever': 1,
      'begins with what': 1,
    });
  });
});
