// The sources of `make native`, unpacked below one folder of the cache: llama.cpp from the git bundle that
// the tests' node-llama-cpp has, whisper.cpp and libopus from the npm packages of other bindings, libwebp
// from the crate of one. Each is refused where its SHA-256 is not the recorded one. No script of a package
// runs; the only network is npm's and cargo's, once.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cacheFolder } from '../real-models/install.ts';
import { BUNDLE, llamaSources } from '../real-models/llama-sources.ts';
import type { Places } from './recipes.ts';

export interface SourceDigests {
  /** The git bundle of llama.cpp. */
  readonly llama: string;
  /** The npm tarball that has whisper.cpp. */
  readonly whisper: string;
  /** The crate that has libwebp. */
  readonly webp: string;
  /** The npm tarball that has libopus. */
  readonly opus: string;
}

export class NativeError extends Error {
  override readonly name = 'NativeError';
  /** `unavailable`: this machine lacks something; all else goes on without the library. */
  readonly kind: 'differs' | 'unavailable' | 'failed';

  constructor(kind: 'differs' | 'unavailable' | 'failed', message: string, cause?: unknown) {
    super(message, { cause });
    this.kind = kind;
  }
}

/** libwebp 1.6.0, as its project released it, below `vendor`. */
const WEBP_CRATE = { name: 'libwebp-sys', version: '0.14.4' };
/** A folder of an npm package, of which `members` are unpacked. */
interface Packaged {
  readonly package: string;
  /** Below the package. */
  readonly folder: string;
  /** Below the folder. */
  readonly members: readonly string[];
}

const PACKAGED = {
  whisper: {
    package: '@fugood/whisper.node@1.1.3',
    folder: 'whisper.cpp',
    members: ['src/whisper.cpp', 'src/whisper-arch.h', 'include'],
  },
  // libopus 1.3.1. These folders are, byte for byte, those of the release (opus-1.3.1.tar.gz, SHA-256
  // 65b58e1e25b2a114157014736a3d9dfeaad8d41be1c8179866f144a2fb44ff9d), as Debian 12's source package has it.
  opus: {
    package: '@discordjs/opus@0.10.0',
    folder: 'deps/opus',
    members: ['COPYING', 'include', 'src', 'celt', 'silk'],
  },
} as const satisfies Readonly<Record<string, Packaged>>;
const LLAMA_PATHS = ['tools/mtmd', 'include', 'ggml/include', 'common', 'vendor', 'src/llama-ext.h'];

/** Unpacks what `needs` names. The folder of the others is one that is not there. */
export function unpackSources(needs: readonly (keyof Places)[], expected: SourceDigests): Places {
  return {
    llama: needs.includes('llama') ? llamaPlace(expected.llama) : '/nonexistent',
    whisper: needs.includes('whisper') ? packagedPlace('whisper', expected.whisper) : '/nonexistent',
    opus: needs.includes('opus') ? packagedPlace('opus', expected.opus) : '/nonexistent',
    webp: needs.includes('webp') ? webpPlace(expected.webp) : '/nonexistent',
    own: fileURLToPath(new URL('.', import.meta.url)),
  };
}

function llamaPlace(expected: string): string {
  if (!existsSync(BUNDLE))
    throw new NativeError('unavailable', 'no sources of llama.cpp: `make types` installs');
  assertDigest(readFileSync(BUNDLE), expected, 'the bundle of llama.cpp');
  const folder = llamaSources(...LLAMA_PATHS);
  if (folder === undefined)
    throw new NativeError('unavailable', 'git cannot unpack the sources of llama.cpp');
  return folder;
}

function packagedPlace(name: keyof typeof PACKAGED, expected: string): string {
  const packaged: Packaged = PACKAGED[name];
  return unpackedOnce(`${name}-sources`, expected, (work) => {
    const pack = ['pack', packaged.package, '--ignore-scripts', '--silent', '--pack-destination', work];
    quietly('unavailable', `npm cannot fetch ${packaged.package}`, 'npm', pack);
    const tarball = join(work, readdirSync(work).find((file) => file.endsWith('.tgz')) ?? '');
    assertDigest(readFileSync(tarball), expected, packaged.package);
    const within = `package/${packaged.folder}`;
    const members = packaged.members.map((path) => `${within}/${path}`);
    quietly('failed', `tar cannot unpack ${packaged.package}`, 'tar', [
      '-xzf',
      tarball,
      '-C',
      work,
      ...members,
    ]);
    return within;
  });
}

function webpPlace(expected: string): string {
  return unpackedOnce('webp-sources', expected, (work) => {
    const { name, version } = WEBP_CRATE;
    const crate = `${name}-${version}`;
    // Fetches this crate alone, where cargo keeps what it fetched.
    if (crateFile(crate) === undefined)
      quietly('unavailable', 'cargo (1.82 or later) cannot fetch the sources of libwebp', 'cargo', [
        'info',
        '--quiet',
        `${name}@${version}`,
      ]);
    const archive = crateFile(crate);
    if (archive === undefined) throw new NativeError('unavailable', `cargo has no archive of ${crate}`);
    assertDigest(readFileSync(archive), expected, crate);
    const members = ['COPYING', 'PATENTS', 'src'].map((path) => `${crate}/vendor/${path}`);
    quietly('failed', 'tar cannot unpack libwebp', 'tar', ['-xzf', archive, '-C', work, ...members]);
    return `${crate}/vendor`;
  });
}

/** The archive of a crate in cargo's own cache, whichever registry it came from. */
function crateFile(crate: string): string | undefined {
  const cache = join(process.env['CARGO_HOME'] ?? join(homedir(), '.cargo'), 'registry/cache');
  const registries = existsSync(cache) ? readdirSync(cache) : [];
  return registries
    .map((registry) => join(cache, registry, `${crate}.crate`))
    .find((path) => existsSync(path));
}

/** `unpack` makes, in a folder of its own, the one whose path it gives; that is kept under the digest. */
function unpackedOnce(name: string, digest: string, unpack: (work: string) => string): string {
  const top = join(cacheFolder(), name);
  const folder = join(top, digest.slice(0, 16));
  if (existsSync(folder)) return folder;
  mkdirSync(top, { recursive: true });
  const work = mkdtempSync(join(top, '.fetch-'));
  try {
    renameSync(join(work, unpack(work)), folder);
    return folder;
  } catch (error) {
    // Another process may have been first.
    if (existsSync(folder)) return folder;
    throw error;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function quietly(
  kind: 'unavailable' | 'failed',
  message: string,
  program: string,
  args: readonly string[],
): void {
  try {
    execFileSync(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  } catch (cause) {
    throw new NativeError(kind, message, cause);
  }
}

function assertDigest(bytes: Uint8Array, expected: string, what: string): void {
  const found = sha256Hex(bytes);
  if (found !== expected)
    throw new NativeError('differs', `${what} has the SHA-256 ${found}, native.lock.json says ${expected}`);
}

export function sha256Hex(bytes: Uint8Array | string): string {
  return createHash('sha256').update(bytes).digest('hex');
}
