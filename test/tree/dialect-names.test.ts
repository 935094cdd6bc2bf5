// Two rules about names (scripts/dialect-names.ts): the discriminant of a union is `kind`, a name is exported
// by one module. Exceptions are named, needed, and only become fewer.

import { describe, expect, test } from 'vitest';
import { sourcesBelow } from '../../scripts/closures.ts';
import { discriminantsOf, exportedTwice, EXPORTING, exportsOf } from '../../scripts/dialect-names.ts';
import { FOLDERS } from '../../scripts/dialect.ts';

/** File and property → the specification that names it, or why it stays for now. */
const DISCRIMINANTS: Readonly<Record<string, string>> = {
  'src/models/seam.ts status': 'docs/api.md names the events of a pull by status',
};

/** Names that two modules export still. */
const EXPORTED_TWICE: ReadonlySet<string> = new Set<string>([]);

describe('discriminants', () => {
  const found = FOLDERS.flatMap((folder) => sourcesBelow(folder)).flatMap((file) => discriminantsOf(file));
  const keys = new Set(found.map(({ file, message }) => `${file} ${message.replace(', expected kind', '')}`));

  test('a union of objects is told apart by kind', () => {
    expect([...keys].filter((key) => !Object.hasOwn(DISCRIMINANTS, key))).toEqual([]);
  });

  test('no exception that is not needed', () => {
    expect(Object.keys(DISCRIMINANTS).filter((key) => !keys.has(key))).toEqual([]);
  });
});

describe('exports', () => {
  const twice = exportedTwice(EXPORTING.flatMap((folder) => sourcesBelow(folder)));

  test('a name is exported by one module', () => {
    expect([...twice].filter(([name]) => !EXPORTED_TWICE.has(name))).toEqual([]);
  });

  test('no exception that is not needed', () => {
    expect([...EXPORTED_TWICE].filter((name) => !twice.has(name))).toEqual([]);
  });
});

test.each<[string, string, readonly string[]]>([
  ['kind', "type A = { kind: 'b' } | { kind: 'c'; d: string };", []],
  ['type', "type A = { type: 'b' } | { type: 'c' };", ['type, expected kind']],
  ['a number', 'type A = { t: 1; b: string } | { t: 2 };', ['t, expected kind']],
  [
    'through interfaces',
    "interface B { is: 'b' }\ninterface C { is: 'c' }\ntype A = B | C;",
    ['is, expected kind'],
  ],
  ['through an intersection', "type A = (D & { is: 'b' }) | (D & { is: 'c' });", ['is, expected kind']],
  ['beside kind', "type A = { kind: 'b'; type: 'x' } | { kind: 'c'; type: 'y' };", []],
  ['the same literal in all', 'type A = { version: 1; b: string } | { version: 1; c: string };', []],
  ['a property that one member lacks', "type A = { type: 'b' } | { c: string };", []],
  ['not a literal', 'type A = { type: string } | { type: number };', []],
  ['a union of literals', "type A = { type: 'b' | 'c' };", []],
  ['a member in a property', "interface A { b: { t: 'x' } | { t: 'y' } }", ['t, expected kind']],
])('discriminant: %s', (_what, text, expected) => {
  expect(discriminantsOf('src/base/x.ts', text).map(({ message }) => message)).toEqual(expected);
});

test('exported names: declarations and lists; not what is re-exported', () => {
  const text =
    "export const A = 1;\nexport function b() {}\nexport interface C {}\ntype D = 1;\nexport { type D };\nexport { e } from './e.ts';\nexport * from './f.ts';\nexport default 1;\n";
  expect(exportsOf('src/base/x.ts', text)).toEqual(['A', 'b', 'C', 'D']);
});
