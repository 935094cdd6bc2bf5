// Writes the table of docs/proofs.md: every query of every model of scripts/prove/models, with the property
// and the requirements it stands for and what falls without what, as the models say it. `npx tsx
// scripts/proofs.ts [--check]`; `--check` compares and fails when the table is stale.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { TOP } from './closures.ts';
import { allModels, type Model } from './prove/models.ts';

const BEGIN = '<!-- queries: begin -->\n';
const END = '<!-- queries: end -->';

function rowsOf(model: Model): readonly string[] {
  return model.queries
    .filter(({ reached }) => !reached)
    .map((query) => {
      const carried = query.requirements.map((id) => `[${id}]`).join(' ');
      const stands =
        query.standsWithout.length === 0 ? '' : ` (stands without: ${query.standsWithout.join(', ')})`;
      const falls = `${query.fallsWithout.join(', ')}${stands}`;
      const sessions = query.sessions ?? model.sessions;
      return `| ${query.id} | ${model.name} | ${query.properties.join(' ')} | ${carried} | ${query.says} | ${sessions} | ${falls} |`;
    });
}

function table(): string {
  const head =
    '| query | model | property | requirements | what it says | sessions | an attack is found without |';
  return [head, '|---|---|---|---|---|--:|---|', ...allModels().flatMap(rowsOf), ''].join('\n');
}

function main(): void {
  const path = join(TOP, 'docs/proofs.md');
  const text = readFileSync(path, 'utf8');
  const [before = '', rest = ''] = text.split(BEGIN);
  const wanted = `${before}${BEGIN}${table()}${rest.slice(rest.indexOf(END))}`;
  if (!process.argv.includes('--check')) writeFileSync(path, wanted);
  else if (wanted !== text) {
    console.error('docs/proofs.md is stale: run `npx tsx scripts/proofs.ts`');
    process.exitCode = 1;
  }
}

main();
