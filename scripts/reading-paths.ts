// Writes the reading paths of ARCHITECTURE.md: what to read for one question, in files and lines
// counted from the tree. `npx tsx scripts/reading-paths.ts [--check]`; `--check` compares and fails
// when the table is stale.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { closureOf, linesOf, PROCESSES, TOP } from './closures.ts';

const PATHS: readonly (readonly [string, string, readonly string[], RegExp])[] = [
  ['What runs as root', 'src/attestd/main.ts', [PROCESSES.rootPart], /^/],
  ['What holds texts and weights', 'src/engine/child/worker.ts', [PROCESSES.engineChild], /^/],
  [
    'What a client must believe, SEV-SNP',
    'attestation/appraise/appraise.ts',
    ['attestation/appraise/appraise.ts', 'attestation/node/connect.ts'],
    /^attestation\/(?!tdx\/|eventlog\/|node\/endorsements\/|node\/cli\/)/,
  ],
  [
    'What a client must believe, TDX',
    'attestation/appraise/appraise.ts',
    ['attestation/appraise/appraise.ts', 'attestation/node/connect.ts'],
    /^attestation\/(?!snp\/|node\/endorsements\/|node\/cli\/)/,
  ],
  [
    'How the server proves itself',
    'src/http/attestation.ts',
    [
      'src/http/attestation.ts',
      'src/attester/batcher.ts',
      'src/attester/hardware.ts',
      'src/models/measure.ts',
    ],
    /^(src\/(attester|attestd|http\/attestation|models\/(measure|model|registry|load))|attestation\/(protocol|encoding)\/)/,
  ],
];

const BEGIN = '<!-- reading paths: begin -->\n';
const END = '<!-- reading paths: end -->';

function table(): string {
  const rows = PATHS.map(([question, begin, entries, within]) => {
    const files = closureOf(entries).filter((file) => within.test(file));
    return `| ${question} | [${begin}](${begin}) | ${files.length} | ${linesOf(files)} |`;
  });
  return ['| question | begin at | files | lines |', '|---|---|--:|--:|', ...rows, ''].join('\n');
}

function main(): void {
  const path = join(TOP, 'ARCHITECTURE.md');
  const text = readFileSync(path, 'utf8');
  const [before = '', rest = ''] = text.split(BEGIN);
  const after = rest.slice(rest.indexOf(END));
  const wanted = `${before}${BEGIN}${table()}${after}`;
  if (!process.argv.includes('--check')) writeFileSync(path, wanted);
  else if (wanted !== text) {
    console.error('ARCHITECTURE.md is stale: run `npx tsx scripts/reading-paths.ts`');
    process.exitCode = 1;
  }
}

main();
