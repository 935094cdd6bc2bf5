// `make client`: the command `assay-verify` as one executable, for machines without Node. Our TypeScript and
// its two packages are bundled by esbuild, and carried as a single executable application by the Node that
// the image ships, from the locked tarball (Node's documentation, "Single executable applications"; the
// blob is put in by Node's own tool, postject). Neither snapshot nor code cache: the same sources and inputs
// give the same bytes, whatever machine and folder.
//
//   node image/client.js [--platform linux-x64]… [--out FOLDER] [--inputs FOLDER]

import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { build } from 'esbuild';
import { readTgz } from './archive.ts';
import { defaultInputs } from './build.ts';
import { buildConsole } from './console.ts';
import { ImageError, badInput } from './errors.ts';
import { type NpmInput, readLock } from './lock.ts';
import { sha256 } from './manifest.ts';
import { findMirrors, type Inputs, openInputs } from './mirror.ts';
import { TOP } from './top.ts';

/**
 * Where Node is packaged and what comes out runs. Not macOS: it starts no executable without a signature, and
 * the tool that signs is on macOS alone.
 */
export const EXECUTABLE_PLATFORMS = ['linux-x64', 'linux-arm64', 'win-x64'] as const;
export type ExecutablePlatform = (typeof EXECUTABLE_PLATFORMS)[number];

/** Of Node's documentation: the mark in the program that says whether a blob is there. */
const FUSE = 'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2';
/** The Node that writes the blob; its format is that of one version. */
const BUILDER: ExecutablePlatform = 'linux-x64';

const run = promisify(execFile);

/** The command in one script, CommonJS, as Node carries it. `top`: where the sources are. */
export async function bundleClient(top = TOP): Promise<Uint8Array> {
  const { version } = JSON.parse(await readFile(join(top, 'attestation/package.json'), 'utf8')) as {
    version: string;
  };
  const { outputFiles } = await build({
    absWorkingDir: top,
    entryPoints: ['attestation/node/cli/main.ts'],
    bundle: true,
    write: false,
    platform: 'node',
    target: 'node22',
    format: 'cjs',
    define: {
      ASSAY_VERSION: JSON.stringify(version),
      ASSAY_CONSOLE: JSON.stringify(Buffer.from(await buildConsole(top)).toString('utf8')),
    },
    legalComments: 'none',
    charset: 'utf8',
    logLevel: 'silent',
    preserveSymlinks: true,
  });
  const script = outputFiles[0]?.contents;
  if (script === undefined) throw badInput('esbuild made no script');
  return script;
}

export interface ExecutableOptions {
  readonly platform: ExecutablePlatform;
  readonly inputs: Inputs;
  readonly out: string;
  /** Where the sources are; another folder only when reproducing. */
  readonly top?: string;
}

/** Writes `assay-verify-<platform>` into `out`. Returns its path and SHA-256. Throws ImageError. */
export async function buildClient(options: ExecutableOptions): Promise<{ path: string; digest: string }> {
  const { platform, inputs, out, top = TOP } = options;
  await mkdir(out, { recursive: true });
  const work = await mkdtemp(join(out, '.client-'));
  try {
    const builder = join(work, 'node');
    await writeFile(builder, await nodeOf(BUILDER, inputs, top), { mode: 0o755 });
    // The blob names its script: the same relative name everywhere.
    await writeFile(join(work, 'assay-verify.cjs'), await bundleClient(top));
    await writeFile(
      join(work, 'blob.json'),
      JSON.stringify({
        main: 'assay-verify.cjs',
        output: 'blob',
        disableExperimentalSEAWarning: true,
        useSnapshot: false,
        useCodeCache: false,
      }),
    );
    await tool(builder, ['--experimental-sea-config', 'blob.json'], work);
    const program = join(work, 'program');
    await writeFile(program, await nodeOf(platform, inputs, top), { mode: 0o755 });
    const postject = createRequire(import.meta.url).resolve('postject/dist/cli.js');
    await tool(
      process.execPath,
      [postject, 'program', 'NODE_SEA_BLOB', 'blob', '--sentinel-fuse', FUSE],
      work,
    );
    const path = join(out, `assay-verify-${platform}${platform.startsWith('win') ? '.exe' : ''}`);
    await rename(program, path);
    return { path, digest: sha256(await readFile(path)) };
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function tool(program: string, args: readonly string[], cwd: string): Promise<void> {
  try {
    await run(program, args, { cwd, env: {} });
  } catch (error) {
    const { stderr, message } = error as Error & { stderr?: string };
    throw new ImageError('tool', `${program} failed: ${stderr?.trim() || message}`, error);
  }
}

/** Node's program for a platform, from the locked tarball. All are of the image's version. */
async function nodeOf(platform: ExecutablePlatform, inputs: Inputs, top: string): Promise<Uint8Array> {
  const image = readLock(join(top, 'image/inputs.lock.json')).npm.find(isNode(BUILDER));
  const input =
    platform === BUILDER ? image : readLock(join(top, 'image/client.lock.json')).npm.find(isNode(platform));
  if (input === undefined) throw badInput(`the locks have no Node for ${platform}`);
  if (input.version !== image?.version)
    throw badInput(`${input.package} is ${input.version}, and the image's Node ${image?.version}`);
  const path = `package/bin/node${platform.startsWith('win') ? '.exe' : ''}`;
  const found = readTgz(await inputs.npm(input)).find((entry) => entry.path === path);
  if (found === undefined) throw badInput(`${input.package} has no file ${path}`);
  return found.data;
}

function isNode(platform: ExecutablePlatform): (input: NpmInput) => boolean {
  return (input) => input.package === `node-${platform}`;
}

function isPlatform(name: string): name is ExecutablePlatform {
  return (EXECUTABLE_PLATFORMS as readonly string[]).includes(name);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      platform: { type: 'string', multiple: true, default: ['linux-x64'] },
      out: { type: 'string', default: 'out/client' },
      inputs: { type: 'string' },
    },
  });
  const inputs = openInputs(values.inputs ?? defaultInputs(), () => findMirrors(process.env));
  const sums: string[] = [];
  for (const platform of values.platform) {
    if (!isPlatform(platform))
      throw new ImageError(
        'usage',
        `--platform is one of ${EXECUTABLE_PLATFORMS.join(', ')}, not ${platform}`,
      );
    const { path, digest } = await buildClient({ platform, inputs, out: resolve(values.out) });
    process.stdout.write(`${digest}  ${path}\n`);
    sums.push(`${digest}  ${path.replace(/^.*\//, '')}\n`);
  }
  await writeFile(join(values.out, 'SHA256SUMS'), sums.join(''));
}

if (process.argv[1] !== undefined && import.meta.url === new URL(`file://${resolve(process.argv[1])}`).href) {
  main().catch((error: unknown) => {
    process.stderr.write(
      `client: ${error instanceof ImageError ? error.message : String(error instanceof Error ? error.stack : error)}\n`,
    );
    process.exitCode = 1;
  });
}
