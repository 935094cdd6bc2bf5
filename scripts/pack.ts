// `make pack`: the npm packages into out/, compiled anew, so that no file of an earlier state of dist/ is in
// them. Each carries its production packages, byte for byte as package-lock.json has them, so that a user
// gets what was tested; only native builds come from the registry, by exact version. No install script is in
// them. The same sources give the same bytes: the compiler writes no paths or times, and npm sets those of
// the archive. Prints name and SHA-512.

import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { closure, isNative, LEFT_OUT } from './tcb.ts';

const run = promisify(execFile);

export interface Packed {
  readonly name: string;
  readonly filename: string;
  /** Subresource form: `sha512-…`. */
  readonly integrity: string;
  readonly files: readonly { readonly path: string; readonly mode: number }[];
}

type Manifest = Record<string, unknown> & {
  readonly name: string;
  readonly dependencies: Readonly<Record<string, string>>;
};

/** Compiles and packs the server and the verifier of the tree at `top`, whose dist/ folders are made anew. */
export async function pack(top: string, destination: string): Promise<readonly Packed[]> {
  for (const folder of ['dist', 'attestation/dist'])
    await rm(join(top, folder), { recursive: true, force: true });
  const compiler = join(top, 'node_modules/typescript/bin/tsc');
  await run(process.execPath, [compiler, '-b', 'attestation', 'attestation/node', 'src', 'image'], {
    cwd: top,
  });
  await run(process.execPath, [join(top, 'dist/image/console.js')], { cwd: top });
  await mkdir(destination, { recursive: true });
  const packed: Packed[] = [];
  for (const [folder, root] of [
    ['.', ''],
    ['attestation', 'attestation'],
  ] as const) {
    const stage = await mkdtemp(join(tmpdir(), 'assay-stage-'));
    try {
      await copyPackage(join(top, folder), stage);
      await bundle(top, root, stage);
      const args = ['pack', '--json', '--ignore-scripts', '--offline', '--pack-destination', destination];
      const { stdout } = await run('npm', args, { cwd: stage, maxBuffer: 64 << 20 });
      packed.push(...(JSON.parse(stdout) as Packed[]));
    } finally {
      await rm(stage, { recursive: true, force: true });
    }
  }
  return packed;
}

/** The files that package.json's `files` names, and those npm always takes. */
async function copyPackage(from: string, to: string): Promise<void> {
  const manifest = await readManifest(from);
  const named = (manifest['files'] as readonly string[]).filter((name) => !name.startsWith('!'));
  for (const name of ['package.json', 'README.md', 'LICENSE', ...named])
    await cp(join(from, name), join(to, name), { recursive: true });
}

/**
 * Puts the locked production packages of the package at `root` below `stage`, without what
 * would run or be fetched.
 */
async function bundle(top: string, root: string, stage: string): Promise<void> {
  const manifest = await readManifest(stage);
  const bundled = new Set([...closure(root), ...closure('attestation')].filter((key) => !isNative(key)));
  const natives: Record<string, string> = {};
  for (const key of bundled) Object.assign(natives, await copyLocked(top, key, stage));
  if (root === '') {
    const verifier = join(stage, 'node_modules/@assay/attestation');
    await copyPackage(join(top, 'attestation'), verifier);
  }
  const bundledNames = Object.keys(manifest.dependencies).filter((name) => !isNative(`node_modules/${name}`));
  const {
    devDependencies: _dev,
    overrides: _overrides,
    workspaces: _workspaces,
    scripts: _scripts,
    ...rest
  } = manifest;
  const optionalDependencies = {
    ...(rest['optionalDependencies'] as Record<string, string> | undefined),
    ...natives,
  };
  await writeManifest(stage, {
    ...rest,
    ...(Object.keys(optionalDependencies).length > 0 && { optionalDependencies }),
    bundleDependencies: bundledNames,
  });
}

/**
 * Copies a package of the lock without its scripts, and returns the native builds it would have
 * fetched, by exact version.
 */
async function copyLocked(
  top: string,
  key: string,
  stage: string,
): Promise<Readonly<Record<string, string>>> {
  const from = join(top, key);
  const to = join(stage, key);
  await mkdir(dirname(to), { recursive: true });
  // Nested packages are entries of the lock of their own.
  await cp(from, to, {
    recursive: true,
    filter: (path) => !path.slice(from.length).includes('node_modules'),
  });
  const {
    scripts: _scripts,
    devDependencies: _dev,
    optionalDependencies,
    ...manifest
  } = await readManifest(to);
  await writeManifest(to, manifest);
  const optional = Object.entries((optionalDependencies ?? {}) as Record<string, string>);
  return Object.fromEntries(optional.filter(([name]) => RUNS_ON.test(name) && !LEFT_OUT.has(name)));
}

/** The platforms the engine has builds for. */
const RUNS_ON = /-(linux-x64|linux-arm64|darwin-x64|darwin-arm64)$/;

async function readManifest(folder: string): Promise<Manifest> {
  return JSON.parse(await readFile(join(folder, 'package.json'), 'utf8')) as Manifest;
}

async function writeManifest(folder: string, manifest: object): Promise<void> {
  await writeFile(join(folder, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const top = fileURLToPath(new URL('..', import.meta.url));
  for (const { filename, integrity } of await pack(top, join(top, 'out')))
    console.log(`out/${filename}  ${integrity}`);
}
