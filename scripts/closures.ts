// The files each process loads. Reads the imports of our own sources with oxc's parser and follows them from
// an entry, so that the floors, the closures and docs/tcb.md count the same thing. Value imports are what is
// there when a process runs; a type import is erased. `npx tsx scripts/closures.ts` prints files and lines of
// every entry; `npx tsx scripts/closures.ts ENTRY` lists its files.

import { readdirSync, readFileSync } from 'node:fs';
import { join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseSync } from 'oxc-parser';
import { TOP } from '../image/top.ts';

export { TOP } from '../image/top.ts';

/** The entries of the workspace's package, as sources. */
export const PACKAGE_ENTRIES: Readonly<Record<string, string>> = {
  '@assay/attestation': 'attestation/index.ts',
  '@assay/attestation/codes': 'attestation/transcript/codes.ts',
  '@assay/attestation/console': 'attestation/node/console-page.ts',
  '@assay/attestation/endorsements': 'attestation/node/endorsements/endorsements.ts',
  '@assay/attestation/explain': 'attestation/appraise/explain.ts',
  '@assay/attestation/issue': 'attestation/protocol/issue.ts',
  '@assay/attestation/job-record': 'attestation/receipts/job.ts',
  '@assay/attestation/job-verdict': 'attestation/appraise/job-record.ts',
  '@assay/attestation/receipt-verdict': 'attestation/appraise/receipt-verdict.ts',
  '@assay/attestation/launch': 'attestation/launch/index.ts',
  '@assay/attestation/node': 'attestation/node/index.ts',
  '@assay/attestation/policy-lint': 'attestation/appraise/policy-lint.ts',
  '@assay/attestation/receipt': 'attestation/receipts/index.ts',
  '@assay/attestation/sealed': 'attestation/client/sealed-fetch.ts',
  '@assay/attestation/sealed-envelope': 'attestation/sealed/envelope.ts',
  '@assay/attestation/simulated': 'attestation/simulated/hierarchy.ts',
  '@assay/attestation/vtpm': 'attestation/appraise/clouds.ts',
};

/** The processes, and the two packages of the client. */
export const PROCESSES = {
  server: 'src/cli/main.ts',
  engineChild: 'src/engine/child/worker.ts',
  engineLaunch: 'src/engine/child/adapted/launch.ts',
  audioChild: 'src/engine/child/audio/worker.ts',
  converter: 'src/engine/child/convert/worker.ts',
  quantiser: 'src/engine/child/quantize/worker.ts',
  quantiserLaunch: 'src/engine/child/quantize/launch.ts',
  workshop: 'src/workshop/main.ts',
  workshopTool: 'src/workshop/tool/gguf.ts',
  rootPart: 'src/attestd/main.ts',
  client: 'attestation/node/index.ts',
  browser: 'attestation/index.ts',
  console: 'attestation/console/main.ts',
} as const;

/** Loaded by the server when the simulated TEE is asked for, and in no production image (image/bundle.ts). */
export const ON_DEMAND: readonly string[] = ['src/attester/simulated.ts'];

export interface Import {
  readonly specifier: string;
  /** Repository path of the file it names, null for packages and `node:`. */
  readonly file: string | null;
  readonly kind: 'value' | 'type' | 'dynamic';
}

const CACHE = new Map<string, readonly Import[]>();

/** Every import and re-export of a source, in order; `import('…')` with a literal is `dynamic`. */
export function importsOf(file: string): readonly Import[] {
  const known = CACHE.get(file);
  if (known !== undefined) return known;
  const text = readFileSync(join(TOP, file), 'utf8');
  const { module } = parseSync(file, text);
  const found: Import[] = [];
  const add = (specifier: string, kind: Import['kind']): void => {
    const target = specifier.startsWith('.')
      ? posix.join(posix.dirname(file), specifier)
      : PACKAGE_ENTRIES[specifier];
    found.push({ specifier, file: target ?? null, kind });
  };
  for (const { moduleRequest, start } of module.staticImports) {
    add(moduleRequest.value, /^import\s+type\b/.test(text.slice(start, start + 16)) ? 'type' : 'value');
  }
  for (const { entries, start } of module.staticExports) {
    const request = entries[0]?.moduleRequest;
    if (request)
      add(request.value, /^export\s+type\b/.test(text.slice(start, start + 16)) ? 'type' : 'value');
  }
  for (const { moduleRequest } of module.dynamicImports) {
    const literal = /^(['"])(.*)\1$/.exec(text.slice(moduleRequest.start, moduleRequest.end));
    if (literal?.[2] !== undefined) add(literal[2], 'dynamic');
  }
  CACHE.set(file, found);
  return found;
}

/** All our sources below a folder, sorted. */
export function sourcesBelow(folder: string): readonly string[] {
  return readdirSync(join(TOP, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !/(^|\/)(dist|node_modules)\//.test(name))
    .map((name) => posix.join(folder, name))
    .toSorted();
}

export interface ClosureOptions {
  /** False: without what is imported dynamically. */
  readonly dynamic?: boolean | undefined;
  /** Files whose dynamic imports are not followed; static ones always are. */
  readonly lazy?: readonly string[] | undefined;
}

/** Our own files that the entries load by value imports; `dynamic` ones too unless told otherwise. Sorted. */
export function closureOf(
  entries: string | readonly string[],
  options: ClosureOptions = {},
): readonly string[] {
  const seen = new Set<string>();
  const queue = typeof entries === 'string' ? [entries] : [...entries];
  for (let at = queue.pop(); at !== undefined; at = queue.pop()) {
    if (seen.has(at)) continue;
    seen.add(at);
    for (const { file, kind } of importsOf(at)) {
      if (file === null || kind === 'type' || !file.endsWith('.ts')) continue;
      if (kind === 'dynamic' && (options.dynamic === false || options.lazy?.includes(file) === true))
        continue;
      queue.push(file);
    }
  }
  return [...seen].toSorted();
}

export function linesOf(files: readonly string[]): number {
  return files.reduce((sum, file) => sum + readFileSync(join(TOP, file), 'utf8').split('\n').length - 1, 0);
}

function main(): void {
  const [entry] = process.argv.slice(2);
  if (entry !== undefined) {
    const files = closureOf(entry);
    console.log([...files, `${files.length} files, ${linesOf(files)} lines`].join('\n'));
    return;
  }
  for (const [name, path] of Object.entries(PROCESSES)) {
    const files = closureOf(path, { lazy: ON_DEMAND });
    console.log(
      `${name.padEnd(12)} ${String(files.length).padStart(4)} files ${String(linesOf(files)).padStart(6)} lines  ${path}`,
    );
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main();
