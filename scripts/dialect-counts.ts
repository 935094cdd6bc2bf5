// Rules of the dialect that are not kept everywhere yet, counted by top folder: the width of comments,
// conditional spreads, parameters of one letter. The limits stand in test/tree/dialect-counts.test.ts and
// only fall. `npx tsx scripts/dialect-counts.ts [RULE…]` prints today's figures, and the places of the rules
// named.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseSync } from 'oxc-parser';
import { sourcesBelow, TOP } from './closures.ts';
import { FOLDERS, type Problem, walk } from './dialect.ts';

type SyntaxNode = Parameters<Parameters<typeof walk>[1]>[0];

export const MAX_WIDTH = 110;

export const COUNTED = ['comment-width', 'conditional-spread', 'single-letter'] as const;
export type Counted = (typeof COUNTED)[number];

/** Every place of one source that the counted rules speak of, in the order of its lines. */
export function countedOf(
  file: string,
  text: string = readFileSync(join(TOP, file), 'utf8'),
): readonly (Problem & { readonly rule: Counted })[] {
  const { program, comments } = parseSync(file, text);
  const at = (offset: number): number => text.slice(0, offset).split('\n').length;
  const lines = text.split('\n');
  const wide = comments
    .flatMap(({ type, value, start, end }) =>
      wideLines({ type, value, first: at(start), last: at(end), lines }),
    )
    .map((line) => ({
      file,
      line,
      rule: 'comment-width' as const,
      message: `${lines[line - 1]?.length ?? 0} characters, at most ${MAX_WIDTH}`,
    }));
  return [
    ...wide,
    ...conditionalSpreads(program.body).map((node) => ({
      file,
      line: at(node.start),
      rule: 'conditional-spread' as const,
      message: 'a spread that depends on a condition, expected `x?: T | undefined`',
    })),
    ...singleLetters(program.body).map(({ node, name }) => ({
      file,
      line: at(node.start),
      rule: 'single-letter' as const,
      message: `the parameter ${name} has one letter`,
    })),
  ].toSorted((a, b) => a.line - b.line);
}

interface CommentLines {
  readonly type: string;
  readonly value: string;
  readonly first: number;
  readonly last: number;
  readonly lines: readonly string[];
}

/** Directives, tables, drawings, code, and lines that one URL makes long stay as they are. */
const DIRECTIVE = /^\s*(?:oxlint|eslint|prettier-ignore|@ts-|v8 ignore|c8 ignore)/;
const EXEMPT = [/^\s*(?:\/\/|\*)\s*\|/, /[─│┌┐└┘├┤▲▼◀▶]/, /https?:\/\/\S{60}/];

function wideLines({ type, value, first, last, lines }: CommentLines): readonly number[] {
  if (DIRECTIVE.test(value)) return [];
  const found: number[] = [];
  let fenced = false;
  let example = false;
  for (let line = first; line <= last; line++) {
    const text = lines[line - 1] ?? '';
    if (type === 'Block') {
      if (/^\s*\*?\s*```/.test(text)) fenced = !fenced;
      if (/^\s*(?:\/\*)?\*+\s*@/.test(text)) example = text.includes('@example');
    }
    if (text.length <= MAX_WIDTH || fenced || example || EXEMPT.some((pattern) => pattern.test(text)))
      continue;
    if (value.length > 0) found.push(line);
  }
  return found;
}

/**
 * `...(x === undefined ? {} : { x })` and `...(x && { x })` in an object; the same in a list is no option
 * bag.
 */
function conditionalSpreads(body: unknown): readonly SyntaxNode[] {
  const found: SyntaxNode[] = [];
  walk(body, (node) => {
    if (node.type !== 'ObjectExpression') return;
    for (const each of node['properties'] as SyntaxNode[]) {
      if (each.type !== 'SpreadElement') continue;
      const argument = unwrapped(each['argument'] as SyntaxNode);
      if (argument.type === 'LogicalExpression' && argument['operator'] === '&&') found.push(each);
      if (
        argument.type === 'ConditionalExpression' &&
        [argument['consequent'], argument['alternate']].some((branch) => isEmptyObject(branch as SyntaxNode))
      )
        found.push(each);
    }
  });
  return found;
}

function unwrapped(node: SyntaxNode): SyntaxNode {
  return /^(ParenthesizedExpression|TSAsExpression|TSSatisfiesExpression)$/.test(node.type)
    ? unwrapped(node['expression'] as SyntaxNode)
    : node;
}

function isEmptyObject(node: SyntaxNode): boolean {
  const bare = unwrapped(node);
  if (bare.type !== 'ObjectExpression') return false;
  return (bare['properties'] as unknown[]).length === 0;
}

const FUNCTION =
  /^(?:FunctionDeclaration|FunctionExpression|ArrowFunctionExpression|TSDeclareFunction|TSEmptyBodyFunctionExpression|TSFunctionType|TSMethodSignature)$/;
const LOOP = /^(?:ForStatement|ForOfStatement|ForInStatement)$/;

/**
 * Letters that say enough: an index (`j` and `k` inside another), `(a, b)` of two values that are compared,
 * `_` for what is not used.
 */
function singleLetters(body: unknown): readonly { readonly node: SyntaxNode; readonly name: string }[] {
  const found: { readonly node: SyntaxNode; readonly name: string }[] = [];
  const visit = (value: unknown, nested: boolean): void => {
    if (Array.isArray(value)) {
      for (const each of value) visit(each, nested);
      return;
    }
    if (typeof value !== 'object' || value === null) return;
    const node = value as SyntaxNode;
    let inside = nested || LOOP.test(node.type);
    if (FUNCTION.test(node.type)) {
      const names = parametersOf(node).flatMap((each) => namesOf(each));
      const isPair = names.length === 2 && names[0]?.name === 'a' && names[1]?.name === 'b';
      for (const each of names) {
        if (each.name.length !== 1 || isPair || /[i_]/.test(each.name)) continue;
        if (!(nested && /[jk]/.test(each.name))) found.push(each);
      }
      inside ||= names.some(({ name }) => name === 'i');
    }
    for (const [key, each] of Object.entries(node)) if (key !== 'parent') visit(each, inside);
  };
  visit(body, false);
  return found;
}

function parametersOf(node: SyntaxNode): readonly SyntaxNode[] {
  return (node['params'] ?? []) as readonly SyntaxNode[];
}

/**
 * The names a parameter binds, those of a list pattern included; a property taken apart has the name its type
 * gives it.
 */
function namesOf(node: SyntaxNode): readonly { readonly node: SyntaxNode; readonly name: string }[] {
  switch (node.type) {
    case 'Identifier':
      return [{ node, name: node['name'] as string }];
    case 'AssignmentPattern':
      return namesOf(node['left'] as SyntaxNode);
    case 'RestElement':
      return namesOf(node['argument'] as SyntaxNode);
    case 'TSParameterProperty':
      return namesOf(node['parameter'] as SyntaxNode);
    case 'ArrayPattern':
      return (node['elements'] as (SyntaxNode | null)[]).flatMap((each) =>
        each === null ? [] : namesOf(each),
      );
    case 'ObjectPattern':
      return (node['properties'] as SyntaxNode[])
        .filter((each) => each['shorthand'] !== true)
        .flatMap((each) => namesOf((each.type === 'Property' ? each['value'] : each) as SyntaxNode));
    default:
      return [];
  }
}

function main(): void {
  const asked = process.argv.slice(2);
  for (const folder of FOLDERS) {
    const found = sourcesBelow(folder).flatMap((file) => countedOf(file));
    for (const { file, line, rule, message } of found)
      if (asked.includes(rule)) console.log(`${file}:${line} ${rule}: ${message}`);
    const counts = COUNTED.map((rule) => `${rule} ${found.filter((each) => each.rule === rule).length}`);
    console.log(`${folder}: ${counts.join(', ')}`);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main();
