// Compiles and links one recipe: units side by side over the cores, results kept in the cache under the
// digest of all inputs (recipe, sources, the libraries linked with, compiler, linker and C library), so that
// it is built once. Compilers see paths relative to one folder and no environment of the caller's.

import { execFile, execFileSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { llamaFolder } from '../../src/engine/seam/library-folder.ts';
import { cacheFolder } from '../real-models/install.ts';
import { COMPILE_FLAGS, LINK_FLAGS, type Places, type Recipe, type Unit } from './recipes.ts';
import { NativeError, sha256Hex, unpackSources, type SourceDigests } from './sources.ts';

const COMPILER = 'g++';
const MAX_UNIT_MS = 20 * 60_000;

export interface Built {
  readonly path: string;
  readonly sha256: string;
  /** False: the cache had it. */
  readonly compiled: boolean;
}

/** The programs whose change changes bytes, as they name themselves; undefined without a compiler. */
export function toolchain(): string | undefined {
  const first = (program: string, ...args: readonly string[]): string =>
    execFileSync(program, args, { encoding: 'utf8', env: environment(), stdio: ['ignore', 'pipe', 'ignore'] })
      .split('\n')[0]!
      .trim();
  try {
    return [
      first(COMPILER, '--version'),
      first(COMPILER, '-dumpmachine'),
      first('ld', '--version'),
      first('ldd', '--version'),
    ].join('; ');
  } catch {
    return undefined;
  }
}

/** The library from the cache; compiled into it where it is not there, or anew for `fresh`. */
export async function buildNative(
  recipe: Recipe,
  expected: SourceDigests,
  { fresh = false, jobs = availableParallelism() }: { readonly fresh?: boolean; readonly jobs?: number } = {},
): Promise<Built> {
  const tools = toolchain();
  if (tools === undefined)
    throw new NativeError('unavailable', 'there is no C++ compiler here: apt-get install g++ (Debian)');
  const places = unpackSources(recipe.needs, expected);
  const units = recipe.units(places);
  const digest = inputsDigest(recipe, units, expected, tools);
  const folder = join(cacheFolder(), `native-${digest}`);
  const kept = join(folder, `${recipe.library}.so`);
  if (!fresh && existsSync(kept))
    return { path: kept, sha256: sha256Hex(readFileSync(kept)), compiled: false };
  mkdirSync(cacheFolder(), { recursive: true });
  const work = mkdtempSync(join(cacheFolder(), '.native-'));
  try {
    const made = await compile(recipe, units, { places, work, jobs });
    mkdirSync(folder, { recursive: true });
    renameSync(made, kept);
    return { path: kept, sha256: sha256Hex(readFileSync(kept)), compiled: true };
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function inputsDigest(
  recipe: Recipe,
  units: readonly Unit[],
  expected: SourceDigests,
  tools: string,
): string {
  const own = units.filter(({ from }) => from === 'own').map(({ source }) => ownDigest(source));
  const linked = recipe.links.map((name) => sha256Hex(readFileSync(join(llamaFolder(), name))));
  const sources = recipe.needs.map((need) => (need === 'own' ? own : expected[need]));
  const inputs = [{ ...recipe, units }, COMPILE_FLAGS, LINK_FLAGS, sources, linked, tools];
  return sha256Hex(JSON.stringify(inputs)).slice(0, 16);
}

function ownDigest(source: string): string {
  return sha256Hex(readFileSync(new URL(source, import.meta.url)));
}

interface Workshop {
  readonly places: Places;
  readonly work: string;
  readonly jobs: number;
}

async function compile(
  recipe: Recipe,
  units: readonly Unit[],
  { places, work, jobs }: Workshop,
): Promise<string> {
  for (const need of recipe.needs) symlinkSync(places[need], join(work, need));
  const objects = units.map(({ from, source }) => join('objects', from, `${source}.o`));
  for (const object of objects) mkdirSync(dirname(join(work, object)), { recursive: true });
  const includes = recipe.includes.map((path) => `-I${path}`);
  // Longest first, so that no core waits for the last one.
  const order = units
    .map((_, i) => i)
    .toSorted((a, b) => sizeOf(places, units[b]!) - sizeOf(places, units[a]!));
  const next = order.values();
  const worker = async (): Promise<void> => {
    for (const i of next) {
      const { from, source, flags = [] } = units[i]!;
      const path = `${from}/${source}`;
      const seed = `-frandom-seed=${path}`;
      const map = `-ffile-prefix-map=${work}=.`;
      const language = source.endsWith('.c') ? ['-x', 'c'] : ['-x', 'c++', '-std=c++17'];
      const own = [...language, ...recipe.flags, ...COMPILE_FLAGS, ...flags, ...includes, seed, map];
      await run(work, [...own, '-c', path, '-o', objects[i]!]);
    }
  };
  await Promise.all(Array.from({ length: Math.max(1, jobs) }, worker));
  const name = `${recipe.library}.so`;
  const libraries = recipe.links.map((file) => `-l:${file}`);
  writeFileSync(join(work, 'exports'), `{ global: ${recipe.exports.join('; ')}; local: *; };\n`);
  const named = [`-Wl,-soname,${name}`, '-Wl,--version-script=exports'];
  const from = `-L${llamaFolder()}`;
  const linkFlags = [...LINK_FLAGS, ...(recipe.linkFlags ?? [])];
  await run(work, [...linkFlags, ...named, '-o', name, ...objects, from, ...libraries]);
  return join(work, name);
}

function sizeOf(places: Places, { from, source }: Unit): number {
  return readFileSync(join(places[from], source)).length;
}

async function run(cwd: string, args: readonly string[]): Promise<void> {
  try {
    const options = { cwd, env: environment(), timeout: MAX_UNIT_MS, maxBuffer: 8 << 20 };
    await promisify(execFile)(COMPILER, [...args], options);
  } catch (cause) {
    const said = (cause as { readonly stderr?: string }).stderr ?? '';
    const at = args.includes('-c') ? (args[args.indexOf('-c') + 1] ?? '') : 'linking';
    throw new NativeError('failed', `${COMPILER} failed on ${at}: ${said.slice(0, 800)}`, cause);
  }
}

function environment(): NodeJS.ProcessEnv {
  return { PATH: process.env['PATH'], LC_ALL: 'C', SOURCE_DATE_EPOCH: '0' };
}

/** Puts a built library where the server looks for it. */
export function placeLibrary(built: Built, to: string): void {
  mkdirSync(dirname(to), { recursive: true });
  const part = `${to}.${process.pid}`;
  copyFileSync(built.path, part);
  renameSync(part, to);
}
