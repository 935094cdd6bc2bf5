// `make llama-server`: the peers of the benches, llama-server and llama-quantize, built once from the
// pinned sources of llama.cpp into a cache outside the tree. Only these are compiled. Their CPU kernels
// are the files this server loads too (libggml-cpu-*.so, copied beside it; ggml loads the one for this
// processor), so the comparison is of programs and not of compilers. Needs cmake and a C++ compiler;
// builds with JOBS=n, one by default.

import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { llamaFolder } from '../../src/engine/seam/library-folder.ts';
import { cacheFolder } from './install.ts';
import { bundleCommit, llamaSources } from './llama-sources.ts';

const FLAGS: Readonly<Record<string, string>> = {
  CMAKE_BUILD_TYPE: 'Release',
  // Names of the libraries as in the shipped build: its kernels find libggml-base.so by that name.
  CMAKE_PLATFORM_NO_VERSIONED_SONAME: 'ON',
  CMAKE_BUILD_WITH_INSTALL_RPATH: 'ON',
  CMAKE_INSTALL_RPATH: '$ORIGIN',
  BUILD_SHARED_LIBS: 'ON',
  GGML_BACKEND_DL: 'ON',
  GGML_CPU: 'OFF',
  GGML_NATIVE: 'OFF',
  GGML_OPENMP: 'OFF',
  GGML_CCACHE: 'OFF',
  LLAMA_OPENSSL: 'OFF',
  LLAMA_BUILD_TESTS: 'OFF',
  LLAMA_BUILD_EXAMPLES: 'OFF',
  LLAMA_BUILD_APP: 'OFF',
  LLAMA_BUILD_UI: 'OFF',
  LLAMA_USE_PREBUILT_UI: 'OFF',
};

/** The folder of the build of the pinned sources; undefined where these are missing. */
function buildFolder(): string | undefined {
  const commit = bundleCommit();
  return commit === undefined ? undefined : join(cacheFolder(), `llama-server-${commit}`);
}

const PROGRAMS = ['llama-server', 'llama-quantize'] as const;

/** A file that `make llama-server` built; undefined where it is not there. */
export function findPeer(program: (typeof PROGRAMS)[number]): string | undefined {
  const folder = buildFolder();
  const built = folder === undefined ? undefined : join(folder, program);
  return built !== undefined && existsSync(built) ? built : undefined;
}

/** LLAMA_SERVER, else what was built; undefined where neither is there. */
export function findLlamaServer(): string | undefined {
  const own = process.env['LLAMA_SERVER'];
  return own !== undefined && own !== '' ? own : findPeer('llama-server');
}

function has(tool: string): boolean {
  return spawnSync(tool, ['--version'], { stdio: 'ignore' }).status === 0;
}

function build(jobs: number): void {
  const missing = ['git', 'cmake', 'make', 'c++'].filter((tool) => !has(tool));
  if (missing.length > 0)
    throw new Error(`${missing.join(', ')} missing: apt-get install git cmake make g++ (Debian)`);
  const folder = buildFolder();
  const sources = llamaSources();
  if (folder === undefined || sources === undefined)
    throw new Error('the sources of llama.cpp are missing: `make test` installs them');
  // Kept when the build is cut off: the next one goes on where it stopped.
  const work = `${folder}.build`;
  mkdirSync(work, { recursive: true });
  const flags = Object.entries(FLAGS).map(([name, value]) => `-D${name}=${value}`);
  const run = (...args: readonly string[]): void => {
    execFileSync('nice', ['-n', '19', 'cmake', ...args], { stdio: 'inherit' });
  };
  run('-S', sources, '-B', work, ...flags);
  run('--build', work, '--target', ...PROGRAMS, '-j', String(jobs));
  const bin = join(work, 'bin');
  const shipped = llamaFolder();
  for (const name of readdirSync(shipped))
    if (name.startsWith('libggml-cpu-')) copyFileSync(join(shipped, name), join(bin, name));
  rmSync(folder, { recursive: true, force: true });
  renameSync(bin, folder);
  rmSync(work, { recursive: true });
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  try {
    if (!PROGRAMS.every((program) => findPeer(program) !== undefined))
      build(Number(process.env['JOBS'] ?? 1));
    console.log(findPeer('llama-server'));
  } catch (error) {
    console.error(
      `! llama-server cannot be built: ${error instanceof Error ? error.message : String(error)}`,
    );
    process.exitCode = 1;
  }
}
