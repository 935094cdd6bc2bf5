// Verifpal, which searches the models of this folder for attacks: the crate from cargo's registry, refused
// where its SHA-256 is another one (its own Cargo.lock has the digests of all it builds on), compiled once
// into the cache. What is compiled is its library behind the few lines of program.rs, so without its command
// line, its editor services and the client that asks for updates: only cargo opens a connection.

import { execFile, execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { cacheFolder } from '../real-models/install.ts';

export const VERIFPAL = {
  name: 'verifpal',
  version: '1.6.7',
  sha256: '24f4eb8a9325e2af869335668e47c9cda2a7fe4b43722190175bbccb6faa9283',
} as const;

const CRATE = `${VERIFPAL.name}-${VERIFPAL.version}`;
const PROGRAM = fileURLToPath(new URL('program.rs', import.meta.url));
const BINARY = '\n[[bin]]\nname = "prove"\npath = "prove.rs"\n';

/** `unavailable`: this machine lacks something. `differs`: the crate is not the pinned one. */
export class ProveError extends Error {
  override readonly name = 'ProveError';
  readonly kind: 'unavailable' | 'differs' | 'failed';

  constructor(kind: 'unavailable' | 'differs' | 'failed', message: string, cause?: unknown) {
    super(message, { cause });
    this.kind = kind;
  }
}

/** The outcome of the search of one model. */
export interface Judged {
  /** A letter and a digit per query: `c1a0` is a secret that is learned, an agreement that holds. */
  readonly code: string;
  /** The traces of the attacks, in Verifpal's words. */
  readonly text: string;
  readonly seconds: number;
}

/** Where the compiled program is, or belongs: named by the digests of the crate and of program.rs. */
export function proverPath(): string {
  const program = createHash('sha256').update(readFileSync(PROGRAM)).digest('hex');
  return join(cacheFolder(), `prove-${VERIFPAL.sha256.slice(0, 16)}-${program.slice(0, 16)}`, 'prove');
}

export function haveProver(): boolean {
  return existsSync(proverPath());
}

/**
 * Fetches and compiles where the cache has no program yet: one to three minutes.
 * @throws ProveError
 */
export function installProver(): void {
  if (haveProver()) return;
  const work = mkdtempSync(join(tmpdir(), 'assay-prove-'));
  try {
    const archive = fetchedCrate();
    assertCrate(readFileSync(archive));
    const unpacking = { kind: 'failed', message: `tar cannot unpack ${CRATE}` } as const;
    run(unpacking, 'tar', ['-xzf', archive, '-C', work]);
    const folder = join(work, CRATE);
    copyFileSync(PROGRAM, join(folder, 'prove.rs'));
    appendFileSync(join(folder, 'Cargo.toml'), BINARY);
    compile(folder, work);
    const built = join(work, 'target/release/prove');
    mkdirSync(join(proverPath(), '..'), { recursive: true });
    // Under its final name only once it is whole.
    copyFileSync(built, `${proverPath()}.${process.pid}`);
    renameSync(`${proverPath()}.${process.pid}`, proverPath());
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** @throws ProveError of kind `differs` unless these are the bytes of the pinned crate. */
export function assertCrate(bytes: Uint8Array): void {
  const found = createHash('sha256').update(bytes).digest('hex');
  if (found !== VERIFPAL.sha256)
    throw new ProveError('differs', `${CRATE} has the SHA-256 ${found}, not ${VERIFPAL.sha256}`);
}

/** The crate declares a newer compiler than it needs: Rust 1.95 compiles it. */
function compile(folder: string, work: string): void {
  const args = ['build', '--release', '--locked', '--ignore-rust-version', '--no-default-features'];
  const wanted = ['--features', 'rayon', '--bin', 'prove', '--manifest-path', join(folder, 'Cargo.toml')];
  // Its own profile optimises across all crates, which takes minutes more and saves the search little.
  const profile = { CARGO_PROFILE_RELEASE_LTO: 'off', CARGO_PROFILE_RELEASE_CODEGEN_UNITS: '16' };
  const env = { ...process.env, ...profile, CARGO_TARGET_DIR: join(work, 'target') };
  const what = { kind: 'unavailable', message: `cargo (1.85 or later) cannot compile ${CRATE}` } as const;
  run(what, 'cargo', [...args, ...wanted], { cwd: work, env });
}

/** The archive in cargo's own cache, whichever registry it came from. */
function fetchedCrate(): string {
  const cache = join(process.env['CARGO_HOME'] ?? join(homedir(), '.cargo'), 'registry/cache');
  const find = (): string | undefined =>
    (existsSync(cache) ? readdirSync(cache) : [])
      .map((registry) => join(cache, registry, `${CRATE}.crate`))
      .find((path) => existsSync(path));
  const what = { kind: 'unavailable', message: `cargo (1.82 or later) cannot fetch ${CRATE}` } as const;
  if (find() === undefined) run(what, 'cargo', ['info', '--quiet', `${VERIFPAL.name}@${VERIFPAL.version}`]);
  const archive = find();
  if (archive === undefined) throw new ProveError('unavailable', `cargo has no archive of ${CRATE}`);
  return archive;
}

function run(
  what: { readonly kind: 'unavailable' | 'failed'; readonly message: string },
  program: string,
  args: readonly string[],
  { cwd = tmpdir(), env = process.env }: { cwd?: string; env?: NodeJS.ProcessEnv } = {},
): void {
  try {
    execFileSync(program, args, { cwd, env, stdio: ['ignore', 'ignore', 'pipe'], maxBuffer: 64 << 20 });
  } catch (cause) {
    throw new ProveError(what.kind, what.message, cause);
  }
}

/**
 * Searches one model.
 * @param sessions How many runs of each principal the attacker can use at once.
 * @throws ProveError where the model cannot be read, its honest run does not reach its end, or the
 * search takes more than `limitSeconds`.
 */
export async function judge(
  model: string,
  { sessions, limitSeconds = 600 }: { readonly sessions: number; readonly limitSeconds?: number },
): Promise<Judged> {
  const folder = mkdtempSync(join(tmpdir(), 'assay-prove-'));
  const start = performance.now();
  try {
    const file = join(folder, 'model.vp');
    writeFileSync(file, model);
    const options = { timeout: limitSeconds * 1000, maxBuffer: 64 << 20, killSignal: 'SIGKILL' } as const;
    const { stdout } = await promisify(execFile)(proverPath(), [file, `${sessions}`], options);
    const lines = stdout.trimEnd().split('\n');
    return {
      code: lines.at(-1) ?? '',
      text: lines.slice(0, -1).join('\n'),
      seconds: (performance.now() - start) / 1000,
    };
  } catch (cause) {
    const said = cause instanceof Error && 'stderr' in cause ? String(cause.stderr).trim() : '';
    const seconds = ((performance.now() - start) / 1000).toFixed(0);
    throw new ProveError('failed', `no verdict after ${seconds} s: ${said === '' ? 'ended' : said}`, cause);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
