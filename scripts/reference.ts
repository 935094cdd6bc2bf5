// Writes docs/reference/: the API of @assay/attestation, an entry a page, from the declarations the compiler
// emits. An export without a comment is an error. `npx tsx scripts/reference.ts [--check]` after
// `make build`; `--check` compares.

import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, posix } from 'node:path';
import { parseSync, type Comment, type Statement } from 'oxc-parser';
import { TOP } from './closures.ts';

const ENTRIES = [
  ['@assay/attestation', 'index', 'The verifier; browser-safe.'],
  [
    '@assay/attestation/node',
    'node/index',
    'The client for Node: a fetch over attested TLS, a local proxy, endorsements.',
  ],
  [
    '@assay/attestation/issue',
    'protocol/issue',
    'What a guest issues: claims, documents, trees of a batch; browser-safe.',
  ],
  ['@assay/attestation/job-record', 'receipts/job', 'Records of a workshop’s jobs: their form, both ends.'],
  ['@assay/attestation/job-verdict', 'appraise/job-record', 'The verdict on a record of a job.'],
  [
    '@assay/attestation/receipt-verdict',
    'appraise/receipt-verdict',
    'The verdict on a kept receipt, offline.',
  ],
  ['@assay/attestation/launch', 'launch/index', 'Launch measurements, recomputed from what is launched.'],
  [
    '@assay/attestation/codes',
    'transcript/codes',
    'Every code of a refusal, with its meaning; browser-safe.',
  ],
  [
    '@assay/attestation/console',
    'node/console-page',
    'The built console, with the headers it is served with.',
  ],
  [
    '@assay/attestation/endorsements',
    'node/endorsements/endorsements',
    'Endorsements of AMD and Intel: fetched, kept, by themselves.',
  ],
  ['@assay/attestation/explain', 'appraise/explain', 'A transcript in plain words; browser-safe.'],
  [
    '@assay/attestation/policy-lint',
    'appraise/policy-lint',
    'What of a policy is worth a second look; browser-safe.',
  ],
  ['@assay/attestation/receipt', 'receipts/index', 'Signed receipts of answers: both ends; browser-safe.'],
  [
    '@assay/attestation/sealed',
    'client/sealed-fetch',
    'A fetch that seals its requests to a proven key: pages, and networks that end TLS; browser-safe.',
  ],
  [
    '@assay/attestation/sealed-envelope',
    'sealed/envelope',
    'Sealed bodies as bytes: for whoever opens them, or seals without a fetch; browser-safe.',
  ],
  ['@assay/attestation/simulated', 'simulated/hierarchy', 'Fake vendors for tests and demos.'],
  [
    '@assay/attestation/vtpm',
    'appraise/clouds',
    'The verifier of evidence of Azure, AWS and GCP, handed to `verify`; browser-safe.',
  ],
] as const;

const DIST = join(TOP, 'attestation/dist');

interface Declaration {
  readonly name: string;
  readonly kind: 'function' | 'class' | 'interface' | 'type' | 'constant';
  readonly signature: string;
  /** Text of its TSDoc, without stars; null where there is none. */
  readonly doc: string | null;
}

const KINDS: Readonly<Record<string, Declaration['kind']>> = {
  TSDeclareFunction: 'function',
  FunctionDeclaration: 'function',
  ClassDeclaration: 'class',
  TSInterfaceDeclaration: 'interface',
  TSTypeAliasDeclaration: 'type',
  VariableDeclaration: 'constant',
};

/** All declarations of a module by name, and where the names it re-exports come from. */
interface Module {
  readonly declared: ReadonlyMap<string, Declaration>;
  readonly from: ReadonlyMap<string, { readonly module: string; readonly name: string }>;
}

/** The declarations the compiler emitted, each module parsed once. */
class Modules {
  readonly #parsed = new Map<string, Module>();

  /** The declaration behind an exported name, through any number of re-exports. */
  find(module: string, name: string): Declaration {
    const { declared, from } = this.#moduleOf(module);
    const here = declared.get(name);
    if (here !== undefined) return here;
    const there = from.get(name);
    if (there === undefined) throw new Error(`${module} has no ${name}`);
    return this.find(there.module, there.name);
  }

  /** The exported names of a module, sorted. */
  namesOf(module: string): readonly string[] {
    const { declared, from } = this.#moduleOf(module);
    const text = readFileSync(join(DIST, `${module}.d.ts`), 'utf8');
    const own = [...declared.keys()].filter((name) =>
      new RegExp(`^export [^\\n]*\\b${name}\\b`, 'm').test(text),
    );
    return [...new Set([...own, ...from.keys()])].toSorted((a, b) => a.localeCompare(b, 'en'));
  }

  #moduleOf(path: string): Module {
    const known = this.#parsed.get(path);
    if (known !== undefined) return known;
    const text = readFileSync(join(DIST, `${path}.d.ts`), 'utf8');
    const { program, comments, module } = parseSync(`${path}.d.ts`, text);
    const declared = new Map<string, Declaration>();
    for (const statement of program.body) {
      for (const each of declarationsOf(statement, text, comments)) declared.set(each.name, each);
    }
    const from = new Map<string, { readonly module: string; readonly name: string }>();
    const resolved = (specifier: string): string =>
      posix.join(posix.dirname(path), specifier.replace(/\.(ts|js)$/, ''));
    for (const { entries } of module.staticExports) {
      for (const { moduleRequest, exportName, importName } of entries) {
        if (!moduleRequest) continue;
        if (String(importName.kind) === 'AllButDefault') {
          const all = resolved(moduleRequest.value);
          for (const name of this.namesOf(all)) from.set(name, { module: all, name });
          continue;
        }
        if (exportName.name === null || importName.name === null) continue;
        from.set(exportName.name, { module: resolved(moduleRequest.value), name: importName.name });
      }
    }
    const made = { declared, from };
    this.#parsed.set(path, made);
    return made;
  }
}

function declarationsOf(
  statement: Statement,
  text: string,
  comments: readonly Comment[],
): readonly Declaration[] {
  const node = statement.type === 'ExportNamedDeclaration' ? statement.declaration : statement;
  const kind = node === null ? undefined : KINDS[node.type];
  if (node === null || kind === undefined) return [];
  const doc = docBefore(statement.start, text, comments);
  const signature = text
    .slice(node.start, node.end)
    .replace(/^(export )?declare /, '')
    .trim();
  if (node.type === 'VariableDeclaration') {
    return node.declarations.flatMap(({ id }) =>
      id.type === 'Identifier' ? [{ name: id.name, kind, signature, doc }] : [],
    );
  }
  const id = 'id' in node ? node.id : null;
  return id !== null && 'name' in id ? [{ name: String(id.name), kind, signature, doc }] : [];
}

function docBefore(start: number, text: string, comments: readonly Comment[]): string | null {
  const comment = comments.findLast(
    (each) => each.type === 'Block' && each.end <= start && text.slice(each.end, start).trim() === '',
  );
  if (comment === undefined || !comment.value.startsWith('*')) return null;
  return comment.value
    .slice(1)
    .split('\n')
    .map((line) => line.replace(/^\s*\* ?/, ''))
    .join('\n')
    .trim();
}

/** TSDoc as Markdown: tags become paragraphs, an example a block. */
function markdown(doc: string): string {
  return doc
    .replaceAll(/\{@link ([^}\s]+)[^}]*\}/g, '`$1`')
    .replaceAll(/^@throws\s+/gm, '**Throws** ')
    .replaceAll(/^@returns\s+/gm, '**Returns** ')
    .replaceAll(/^@param (\w+)\s*-?\s*/gm, '* `$1` — ')
    .replaceAll(
      /^@example\s+((?:(?!^@)[\s\S])+)/gm,
      (_, code: string) => `\n**Example**\n\n\`\`\`ts\n${code.trimEnd()}\n\`\`\``,
    );
}

/** An entry's page, and its exports without a comment. */
function page(
  modules: Modules,
  [entry, module, about]: (typeof ENTRIES)[number],
): { readonly text: string; readonly missing: readonly string[] } {
  const missing: string[] = [];
  const parts = [
    `# ${entry}`,
    `${about} Generated by \`scripts/reference.ts\` from the emitted declarations; \`make drift\` fails when it is stale.`,
  ];
  for (const name of modules.namesOf(module)) {
    const { kind, signature, doc } = modules.find(module, name);
    if (doc === null) missing.push(`${entry}: ${name} has no comment`);
    parts.push(
      `## ${name}`,
      `*${kind}*`,
      `\`\`\`ts\n${signature}\n\`\`\``,
      ...(doc === null ? [] : [markdown(doc)]),
    );
  }
  return { text: `${parts.join('\n\n')}\n`, missing };
}

function main(): void {
  const modules = new Modules();
  for (const entry of ENTRIES) {
    const path = join(TOP, 'docs/reference', `${entry[0].split('/').slice(1).join('-')}.md`);
    const { text, missing } = page(modules, entry);
    if (!process.argv.includes('--check')) {
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, text);
    } else if (!existsSync(path) || readFileSync(path, 'utf8') !== text) {
      console.error(`${path.slice(TOP.length)} is stale: run \`npx tsx scripts/reference.ts\``);
      process.exitCode = 1;
    }
    for (const each of missing) console.error(each);
    if (missing.length > 0) process.exitCode = 1;
  }
}

main();
