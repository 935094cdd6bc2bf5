// `make prove`: searches the models of the protocol for attacks (docs/proofs.md). Prints the outcome and the
// seconds of each query of each whole model, and of each weakened model; `--traces` the attacks too. Exits
// with 1 where an outcome is not the one it has to be, with 2 where Verifpal cannot be had.
//   node --import tsx scripts/prove/main.ts [--install] [--traces] [MODEL]…

import { parseArgs } from 'node:util';
import { allModels, searchesOf, type Search } from './models.ts';
import { installProver, judge, ProveError, VERIFPAL } from './verifpal.ts';

/** Says what came out. Whether it is what has to. */
async function shown(search: Search, traces: boolean): Promise<boolean> {
  const { code, text, seconds } = await judge(search.text, search);
  const ids = search.queries.filter(({ reached }) => !reached).map(({ id }) => id);
  const what = `${search.model}${search.without === undefined ? '' : ` without ${search.without}`}`;
  const right = code === search.expected;
  const sessions = search.sessions === 1 ? '1 session' : `${search.sessions} sessions`;
  const said = right ? 'as it has to be' : `WRONG: ${search.expected} has to come out`;
  console.log(
    `${ids.join(' ').padEnd(12)} ${what.padEnd(36)} ${code.padEnd(10)} ${seconds.toFixed(1).padStart(6)} s  ${sessions}  ${said}`,
  );
  if (traces || !right) console.log(text);
  return right;
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    options: { install: { type: 'boolean' }, traces: { type: 'boolean' } },
    allowPositionals: true,
  });
  installProver();
  if (values.install === true) return 0;
  const models = allModels().filter(({ name }) => positionals.length === 0 || positionals.includes(name));
  const searches = models.flatMap((model) => searchesOf(model));
  console.log(`Verifpal ${VERIFPAL.version}; 0: no attack found, 1: attack found`);
  let wrong = 0;
  for (const search of searches) if (!(await shown(search, values.traces === true))) wrong += 1;
  console.log(`${searches.length - wrong} searches came out as they have to, ${wrong} did not`);
  return wrong === 0 && searches.length > 0 ? 0 : 1;
}

process.exitCode = await main().catch((error: unknown) => {
  if (!(error instanceof ProveError)) throw error;
  console.error(`! nothing is shown: ${error.message}`);
  return error.kind === 'unavailable' ? 2 : 1;
});
