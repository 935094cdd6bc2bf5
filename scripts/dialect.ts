// The house's dialect as checks over every source, with oxc's parser: what a linter's rule does not express.
// CONTRIBUTING.md explains each rule. `npx tsx scripts/dialect.ts [FOLDER…]` lists the problems;
// test/tree/dialect.test.ts fails on any.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseSync, type Comment, type Directive, type Statement } from 'oxc-parser';
import { sourcesBelow, TOP } from './closures.ts';

const MAX_LINES = 400;
const MAX_HEADER_LINES = 8;
const MAX_HEADER_WORDS = 100;
const MAX_FUNCTION_LINES = 100;

export interface Problem {
  readonly file: string;
  readonly line: number;
  readonly rule: string;
  readonly message: string;
}

interface Source {
  readonly file: string;
  readonly text: string;
  readonly body: readonly (Directive | Statement)[];
  readonly comments: readonly Comment[];
}

export const FOLDERS = ['attestation', 'src', 'image', 'scripts', 'test'];

/** Every problem of one source, in the order of its lines. */
export function problemsOf(
  file: string,
  text: string = readFileSync(join(TOP, file), 'utf8'),
): readonly Problem[] {
  const { program, comments } = parseSync(file, text);
  const source: Source = { file, text, body: program.body, comments };
  return [
    ...lengthOf(source),
    ...headerOf(source),
    ...importsOf(source),
    ...declarationsOf(source),
    ...optionalsOf(source),
    ...functionsOf(source),
  ].toSorted((a, b) => a.line - b.line);
}

function problem({ file, text }: Source, offset: number, rule: string, message: string): Problem {
  return { file, line: lineAt(text, offset), rule, message };
}

function lengthOf(source: Source): readonly Problem[] {
  const lines = source.text.split('\n').length - 1;
  return lines <= MAX_LINES
    ? []
    : [problem(source, 0, 'file-length', `${lines} lines, at most ${MAX_LINES}`)];
}

/**
 * A header says what the file is, what it follows and what it refuses: 2 to 8 lines, then a blank line.
 * One line may do in tests.
 */
function headerOf(source: Source): readonly Problem[] {
  const text = source.text.replace(/^#!.*\n/, '');
  const header = /^(?:\/\/.*\n)+/.exec(text)?.[0];
  if (header === undefined) return [problem(source, 0, 'header', 'begins without a header comment')];
  const lines = header.split('\n').length - 1;
  const words = header.replaceAll('//', '').split(/\s+/).filter(Boolean).length;
  const found: Problem[] = [];
  if (lines > MAX_HEADER_LINES || words > MAX_HEADER_WORDS)
    found.push(
      problem(
        source,
        0,
        'header',
        `${lines} lines and ${words} words, at most ${MAX_HEADER_LINES} and ${MAX_HEADER_WORDS}`,
      ),
    );
  if (text[header.length] !== '\n')
    found.push(problem(source, header.length, 'header', 'no blank line after the header'));
  return found;
}

/** node:, packages, @assay/attestation, relative; then a blank line. */
function importsOf(source: Source): readonly Problem[] {
  const imports = source.body.filter((statement) => statement.type === 'ImportDeclaration');
  const found: Problem[] = [];
  let highest = 0;
  for (const { source: from, start } of imports) {
    const rank = rankOf(from.value);
    if (rank < highest)
      found.push(
        problem(source, start, 'import-order', `${from.value} comes after imports of a later group`),
      );
    highest = Math.max(highest, rank);
  }
  const last = imports.at(-1);
  if (last !== undefined && !/^[^\n]*\n(?:\n|$)/.test(source.text.slice(last.end)))
    found.push(problem(source, last.end, 'import-order', 'no blank line after the imports'));
  return found;
}

export function rankOf(specifier: string): number {
  if (specifier.startsWith('node:')) return 0;
  if (specifier.startsWith('@assay/')) return 2;
  return specifier.startsWith('.') ? 3 : 1;
}

const VALUE_CLASSES = new Set(['Set', 'Map', 'Uint8Array']);

/**
 * Top-level constants of a plain value are SCREAMING_SNAKE, everything else camelCase; functions
 * are declared, not assigned.
 */
function declarationsOf(source: Source): readonly Problem[] {
  const found: Problem[] = [];
  for (const statement of source.body) {
    const declaration = statement.type === 'ExportNamedDeclaration' ? statement.declaration : statement;
    if (declaration?.type !== 'VariableDeclaration' || declaration.kind !== 'const') continue;
    for (const { id, init } of declaration.declarations) {
      if (id.type !== 'Identifier' || init === null) continue;
      const value = bare(init as unknown as Expression);
      const isFunction = value.type === 'ArrowFunctionExpression' || value.type === 'FunctionExpression';
      // A declared type says more than a signature could: such a constant stays one.
      if (isFunction && (id.typeAnnotation === null || id.typeAnnotation === undefined))
        found.push(
          problem(
            source,
            id.start,
            'top-level-function',
            `${id.name} is assigned, expected a function declaration`,
          ),
        );
      else if (!isFunction && isValue(value) && /[a-z]/.test(id.name))
        found.push(
          problem(
            source,
            id.start,
            'constant-name',
            `${id.name} is a constant value, expected SCREAMING_SNAKE`,
          ),
        );
    }
  }
  return found;
}

type Expression = { readonly type: string; readonly [key: string]: unknown };

/** Without `as const`, `satisfies` and parentheses. */
function bare(expression: Expression): Expression {
  let at = expression;
  while (/^(TSAsExpression|TSSatisfiesExpression|ParenthesizedExpression)$/.test(at.type))
    at = at.expression as Expression;
  return at;
}

/** Literals, and arrays, objects, sets and maps of them: no calls, no functions. */
function isValue(value: Expression): boolean {
  const at = bare(value);
  switch (at.type) {
    case 'Literal':
    case 'TemplateLiteral':
    case 'BinaryExpression':
      return true;
    case 'UnaryExpression':
      return at.operator === '-';
    case 'ArrayExpression':
      return (at.elements as (Expression | null)[]).every((each) => each !== null && isMember(each));
    case 'ObjectExpression':
      return (at.properties as Expression[]).every((each) =>
        isMember(each.type === 'Property' ? (each.value as Expression) : each),
      );
    case 'NewExpression': {
      const callee = at.callee as { readonly type: string; readonly name?: string };
      return VALUE_CLASSES.has(callee.name ?? '') && (at.arguments as Expression[]).every(isMember);
    }
    default:
      return false;
  }
}

function isMember(value: Expression): boolean {
  if (value.type === 'SpreadElement') return isMember(value.argument as Expression);
  const at = bare(value);
  return at.type === 'Identifier' || at.type === 'MemberExpression' || isValue(at);
}

/**
 * `x?: T` in types of src/ and attestation/ is written `x?: T | undefined`, so that it can be
 * passed on without a spread.
 */
function optionalsOf(source: Source): readonly Problem[] {
  if (!/^(src|attestation)\//.test(source.file)) return [];
  const found: Problem[] = [];
  walk(source.body, (node) => {
    if (node.type !== 'TSPropertySignature' || node['optional'] !== true) return;
    const annotation = node['typeAnnotation'] as { readonly typeAnnotation?: Node } | null;
    const type = annotation?.typeAnnotation;
    if (type === undefined || admitsUndefined(type)) return;
    found.push(problem(source, node.start, 'optional', 'an optional property without `| undefined`'));
  });
  return found;
}

interface Node {
  readonly type: string;
  readonly start: number;
  readonly end: number;
  readonly [key: string]: unknown;
}

function admitsUndefined(type: Node): boolean {
  if (/^TS(Undefined|Unknown|Any)Keyword$/.test(type.type)) return true;
  return type.type === 'TSUnionType' && (type['types'] as Node[]).some(admitsUndefined);
}

const FUNCTION = /^(?:FunctionDeclaration|FunctionExpression|ArrowFunctionExpression)$/;
const OUTLINED = /^(?:describe|test|beforeAll|beforeEach|afterAll|afterEach)$/;

/**
 * Functions of test/ have at most 100 lines, blank lines and comments not counted; oxlint checks all other
 * folders. The callback of a `describe` is an outline: the calls of tests, hooks and describes that stand
 * directly in it, with their tables of rows, are left out.
 */
function functionsOf(source: Source): readonly Problem[] {
  if (!source.file.startsWith('test/')) return [];
  const found: Problem[] = [];
  const outlines = new Set<Node>();
  const isCode = codeLines(source);
  const linesOf = ({ start, end }: Node): readonly number[] => {
    const first = lineAt(source.text, start);
    return range(first, lineAt(source.text, end)).filter((line) => isCode[line] === true);
  };
  walk(source.body, (node) => {
    if (outlinedBy(node) === 'describe')
      for (const argument of node['arguments'] as Node[]) outlines.add(argument);
    if (!FUNCTION.test(node.type)) return;
    const lines = new Set(linesOf(node));
    if (outlines.has(node))
      for (const statement of statementsOf(node))
        if (outlinedBy(statement['expression']) !== undefined)
          for (const line of linesOf(statement)) lines.delete(line);
    if (lines.size > MAX_FUNCTION_LINES)
      found.push(
        problem(source, node.start, 'function-length', `${lines.size} lines, at most ${MAX_FUNCTION_LINES}`),
      );
  });
  return found;
}

/** `test` of `test(…)`, `test.skipIf(…)(…)` and `test.each(…)(…)`. */
function outlinedBy(value: unknown): string | undefined {
  let at = value as Node | undefined;
  if (at?.type !== 'CallExpression') return undefined;
  while (at !== undefined && /^(?:Call|Member|TaggedTemplate)Expression$/.test(at.type))
    at = (at['callee'] ?? at['object'] ?? at['tag']) as Node | undefined;
  const name = at?.['name'];
  return typeof name === 'string' && OUTLINED.test(name) ? name : undefined;
}

function statementsOf(callback: Node): readonly Node[] {
  const { type, body } = callback['body'] as Node & { readonly body?: readonly Node[] };
  return type === 'BlockStatement' ? (body ?? []) : [];
}

/** By line number: whether the line has anything but blanks and comments. */
function codeLines({ text, comments }: Source): readonly boolean[] {
  let code = text;
  for (const { start, end } of comments)
    code = code.slice(0, start) + code.slice(start, end).replaceAll(/[^\n]/g, ' ') + code.slice(end);
  return ['', ...code.split('\n')].map((line) => line.trim() !== '');
}

function lineAt(text: string, offset: number): number {
  return text.slice(0, offset).split('\n').length;
}

function range(first: number, last: number): readonly number[] {
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}

export function walk(value: unknown, visit: (node: Node) => void): void {
  if (Array.isArray(value)) {
    for (const each of value) walk(each, visit);
    return;
  }
  if (typeof value !== 'object' || value === null) return;
  const node = value as Node;
  if (typeof node.type === 'string') visit(node);
  for (const [key, each] of Object.entries(node))
    if (key !== 'parent' && typeof each === 'object') walk(each, visit);
}

/**
 * Words of comments that read twice. Their counts only fall: lower the number with each file that is
 * rewritten.
 */
export const RIDDLES: Readonly<Record<string, RegExp>> = {
  'who, whoever': /\b(?:who|whoever)\b/gi,
  'nobody, nothing': /\b(?:nobody|nothing)\b/gi,
  'for ever': /\bfor ever\b/gi,
  'begins with what': /^\s*(?:\/\/|\*|\/\*\*)?\s*What\b/g,
};

export function riddlesOf(
  file: string,
  text: string = readFileSync(join(TOP, file), 'utf8'),
): Readonly<Record<string, number>> {
  const { comments } = parseSync(file, text);
  const counts: Record<string, number> = {};
  for (const [name, pattern] of Object.entries(RIDDLES)) {
    counts[name] = comments.reduce((sum, comment) => sum + (comment.value.match(pattern)?.length ?? 0), 0);
  }
  return counts;
}

function main(): void {
  const folders = process.argv.slice(2);
  const files = (folders.length === 0 ? FOLDERS : folders).flatMap((folder) => sourcesBelow(folder));
  const problems = files.flatMap((file) => problemsOf(file));
  for (const { file, line, rule, message } of problems) console.log(`${file}:${line} ${rule}: ${message}`);
  console.log(`${problems.length} problems in ${files.length} files`);
  process.exitCode = problems.length === 0 ? 0 : 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main();
