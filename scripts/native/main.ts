// `make native`: builds the libraries of recipes.ts into dist/native/<platform>/, where the server looks for
// them. One that this machine cannot build is named, and left out: everything else works without it.
// Where compiler, linker and C library are the recorded ones, the bytes must be the recorded ones too.
//   node --import tsx scripts/native/main.ts [--check] [--record] [LIBRARY]…
// --check compiles anew and compares; --record writes image/native.lock.json from what was built. Exits with
// 1 where a digest differs or a compilation fails, with 2 where only something is missing here.

import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { buildNative, placeLibrary, toolchain, type Built } from './build.ts';
import { recordDigests, recordedDigests, type Digests } from './digests.ts';
import { RECIPES, type Recipe } from './recipes.ts';
import { NativeError } from './sources.ts';

const PLATFORM = `${process.platform}-${process.arch}`;
const FOLDER = fileURLToPath(new URL(`../../dist/native/${PLATFORM}`, import.meta.url));

async function make(recipe: Recipe, digests: Digests, fresh: boolean): Promise<Built> {
  const before = performance.now();
  const built = await buildNative(recipe, digests.sources, { fresh });
  const seconds = (performance.now() - before) / 1000;
  const file = `${recipe.library}.so`;
  const recorded = digests.results[PLATFORM];
  const expected = recorded?.toolchain === toolchain() ? recorded?.libraries[file] : undefined;
  if (expected !== undefined && expected !== built.sha256)
    throw new NativeError(
      'differs',
      `${file} has the SHA-256 ${built.sha256}, recorded for this compiler is ${expected}`,
    );
  placeLibrary(built, join(FOLDER, file));
  const how = built.compiled ? `compiled in ${seconds.toFixed(0)} s` : 'from the cache';
  const as = expected === undefined ? 'nothing is recorded for this compiler' : 'as recorded';
  console.log(`${file} ${built.sha256} (${how}, ${as})`);
  return built;
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    options: { check: { type: 'boolean' }, record: { type: 'boolean' } },
    allowPositionals: true,
  });
  if (process.platform !== 'linux') throw new NativeError('unavailable', 'native parts are built on Linux');
  const recorded = recordedDigests();
  const digests = values.record === true ? { ...recorded, results: {} } : recorded;
  const wanted = RECIPES.filter(({ library }) => positionals.length === 0 || positionals.includes(library));
  const libraries: Record<string, string> = {};
  let code = 0;
  for (const recipe of wanted) {
    try {
      const built = await make(recipe, digests, values.check === true);
      libraries[`${recipe.library}.so`] = built.sha256;
    } catch (error) {
      code = Math.max(1, code === 1 ? 1 : said(error, `${recipe.library}.so is not built`));
    }
  }
  if (values.record === true && code === 0) {
    const kept = recorded.results[PLATFORM]?.libraries;
    const results = { toolchain: toolchain() ?? '', libraries: { ...kept, ...libraries } };
    recordDigests({ ...recorded, results: { ...recorded.results, [PLATFORM]: results } });
  }
  return code;
}

/** Prints the reason, and gives the exit status for it. */
function said(error: unknown, what: string): 1 | 2 {
  if (!(error instanceof NativeError)) throw error;
  console.error(`! ${what}: ${error.message}`);
  return error.kind === 'unavailable' ? 2 : 1;
}

process.exitCode = await main().catch((error: unknown) => said(error, 'nothing is built'));
