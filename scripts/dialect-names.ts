// Two rules about names: the discriminant of a union is `kind`, and a name is exported by one module. Wire
// formats that name their own discriminant are exceptions by name in test/tree/dialect-names.test.ts.
// `npx tsx scripts/dialect-names.ts` prints every finding.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseSync } from 'oxc-parser';
import { sourcesBelow, TOP } from './closures.ts';
import { FOLDERS, type Problem, walk } from './dialect.ts';

type SyntaxNode = Parameters<Parameters<typeof walk>[1]>[0];

/** A name is exported once over these folders; tests and their fixtures may repeat one. */
export const EXPORTING = FOLDERS.filter((folder) => folder !== 'test');

/**
 * Unions of object types that are told apart by another property than `kind`: each member has it, with
 * literals that differ. Members are followed through the interfaces and aliases of the same file.
 */
export function discriminantsOf(
  file: string,
  text: string = readFileSync(join(TOP, file), 'utf8'),
): readonly Problem[] {
  const { program } = parseSync(file, text);
  const declared = new Map<string, SyntaxNode>();
  walk(program.body, (node) => {
    if (node.type === 'TSInterfaceDeclaration' || node.type === 'TSTypeAliasDeclaration')
      declared.set((node['id'] as { readonly name: string }).name, node);
  });
  const found: Problem[] = [];
  walk(program.body, (node) => {
    if (node.type !== 'TSUnionType') return;
    const members = (node['types'] as SyntaxNode[]).flatMap((type) => objectsOf(type, declared, 8));
    if (members.length < 2) return;
    const names = discriminating(members);
    if (names.length === 0 || names.includes('kind')) return;
    const line = text.slice(0, node.start).split('\n').length;
    found.push({ file, line, rule: 'discriminant', message: `${names.join(', ')}, expected kind` });
  });
  return found;
}

/** Property → its literal, of the properties whose type is one literal. */
type Literals = ReadonlyMap<string, string>;

function objectsOf(
  type: SyntaxNode,
  declared: ReadonlyMap<string, SyntaxNode>,
  depth: number,
): readonly Literals[] {
  if (depth === 0) return [];
  const follow = (each: unknown): readonly Literals[] => objectsOf(each as SyntaxNode, declared, depth - 1);
  switch (type.type) {
    case 'TSTypeLiteral':
      return [literalsOf(type['members'] as SyntaxNode[])];
    case 'TSParenthesizedType':
      return follow(type['typeAnnotation']);
    case 'TSTypeAliasDeclaration':
      return follow(type['typeAnnotation']);
    case 'TSInterfaceDeclaration':
      return [literalsOf((type['body'] as { readonly body: SyntaxNode[] }).body)];
    case 'TSUnionType':
      return (type['types'] as SyntaxNode[]).flatMap(follow);
    case 'TSIntersectionType': {
      const parts = (type['types'] as SyntaxNode[]).map(follow).filter((each) => each.length === 1);
      return parts.length === 0 ? [] : [new Map(parts.flatMap(([only]) => [...(only ?? [])]))];
    }
    case 'TSTypeReference': {
      const name = (type['typeName'] as { readonly name?: string }).name;
      const target = name === undefined ? undefined : declared.get(name);
      return target === undefined ? [] : follow(target);
    }
    default:
      return [];
  }
}

function literalsOf(members: readonly SyntaxNode[]): Literals {
  const literals = new Map<string, string>();
  for (const member of members) {
    if (member.type !== 'TSPropertySignature') continue;
    const key = member['key'] as { readonly name?: string; readonly value?: string };
    const annotation = member['typeAnnotation'] as { readonly typeAnnotation?: SyntaxNode } | null;
    const type = annotation?.typeAnnotation;
    if (type?.type !== 'TSLiteralType') continue;
    const { value } = type['literal'] as { readonly value?: unknown };
    literals.set(key.name ?? key.value ?? '', JSON.stringify(value));
  }
  return literals;
}

/** Names that every member has, with at least two literals among them. */
function discriminating(members: readonly Literals[]): readonly string[] {
  return [...(members[0]?.keys() ?? [])].filter(
    (name) =>
      members.every((member) => member.has(name)) &&
      new Set(members.map((member) => member.get(name))).size > 1,
  );
}

/** Names that a module declares and exports. A re-export is the same name once more, and is not counted. */
export function exportsOf(
  file: string,
  text: string = readFileSync(join(TOP, file), 'utf8'),
): readonly string[] {
  const { module } = parseSync(file, text);
  return module.staticExports.flatMap(({ entries }) =>
    entries
      .filter(({ moduleRequest }) => moduleRequest === null)
      .map(({ exportName }) => exportName.name)
      .filter((name) => name !== null),
  );
}

/** Name → the modules that export it, where they are more than one. */
export function exportedTwice(files: readonly string[]): ReadonlyMap<string, readonly string[]> {
  const modules = new Map<string, string[]>();
  for (const file of files)
    for (const name of new Set(exportsOf(file))) modules.set(name, [...(modules.get(name) ?? []), file]);
  return new Map([...modules].filter(([, each]) => each.length > 1).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

function main(): void {
  for (const { file, line, rule, message } of FOLDERS.flatMap((folder) => sourcesBelow(folder)).flatMap(
    (file) => discriminantsOf(file),
  ))
    console.log(`${file}:${line} ${rule}: ${message}`);
  for (const [name, modules] of exportedTwice(EXPORTING.flatMap((folder) => sourcesBelow(folder))))
    console.log(`${name} is exported by ${modules.join(' and ')}`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main();
