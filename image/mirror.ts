// Fetches inputs: Debian packages from the mirror this machine's own apt is set up for (or
// ASSAY_DEBIAN_MIRROR and ASSAY_DEBIAN_SECURITY_MIRROR), npm tarballs through the npm client and so from
// whatever registry it is set up for. No address is written in this repository. What arrives is believed only
// by its digest, and kept in a cache named by it; a filled cache folder is all a build without network needs.

import { createHash } from 'node:crypto';
import { execFile } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { badInput, ImageError } from './errors.ts';
import type { DebianInput, NpmInput } from './lock.ts';

const run = promisify(execFile);

export interface Mirrors {
  readonly debian: string;
  readonly 'debian-security': string;
}

export interface Inputs {
  /** Bytes of a locked package: from the cache, or fetched and checked. */
  debian(input: DebianInput): Promise<Uint8Array>;
  npm(input: NpmInput): Promise<Uint8Array>;
}

export function openInputs(cache: string, mirrors: () => Promise<Mirrors>): Inputs {
  const folder = join(cache, 'sha256');
  return {
    async debian(input) {
      const path = join(folder, input.sha256);
      if (existsSync(path))
        return checked(readFileSync(path), 'sha256', Buffer.from(input.sha256, 'hex'), input.package);
      const base = (await mirrors())[input.archive];
      const bytes = await download(`${base}/${input.path.replaceAll('+', '%2B')}`, cache);
      if (bytes.length !== input.size)
        throw badInput(`${input.package} is ${bytes.length} bytes, the lock says ${input.size}`);
      return store(
        folder,
        checked(bytes, 'sha256', Buffer.from(input.sha256, 'hex'), input.package),
        input.sha256,
      );
    },
    async npm(input) {
      const digest = Buffer.from(input.integrity.slice('sha512-'.length), 'base64');
      const path = join(cache, 'sha512', digest.toString('hex').slice(0, 64));
      if (existsSync(path)) return checked(readFileSync(path), 'sha512', digest, input.package);
      const bytes = checked(await npmPack(input, cache), 'sha512', digest, input.package);
      return store(join(cache, 'sha512'), bytes, digest.toString('hex').slice(0, 64));
    },
  };
}

/** The mirror apt uses here, unless the environment names others. */
export async function findMirrors(
  environment: Readonly<Record<string, string | undefined>>,
): Promise<Mirrors> {
  const named = {
    debian: environment['ASSAY_DEBIAN_MIRROR'],
    security: environment['ASSAY_DEBIAN_SECURITY_MIRROR'],
  };
  const sites = named.debian !== undefined && named.security !== undefined ? [] : await aptSites();
  const debian = named.debian ?? sites.find((site) => /\/debian\/?$/.test(site));
  if (debian === undefined) {
    throw new ImageError(
      'tool',
      'no Debian mirror is set up for apt here: name one in ASSAY_DEBIAN_MIRROR and ASSAY_DEBIAN_SECURITY_MIRROR',
    );
  }
  // apt lists only archives it has indices of; mirrors keep the security archive beside the main one.
  const security =
    named.security ??
    sites.find((site) => site.includes('security')) ??
    `${debian.replace(/\/$/, '')}-security`;
  return { debian: debian.replace(/\/$/, ''), 'debian-security': security.replace(/\/$/, '') };
}

async function aptSites(): Promise<string[]> {
  try {
    const { stdout } = await run('apt-get', ['indextargets', '--format', '$(SITE)']);
    return [...new Set(stdout.split('\n').filter((line) => line !== ''))];
  } catch {
    return [];
  }
}

const APT_HELPER = '/usr/lib/apt/apt-helper';

/**
 * One file, by apt's own downloader where there is one (it knows the machine's proxies), else by plain HTTP.
 */
export async function download(url: string, scratch: string): Promise<Uint8Array> {
  if (!existsSync(APT_HELPER)) {
    const response = await fetch(url);
    if (!response.ok) throw badInput(`the mirror answered ${response.status} for ${new URL(url).pathname}`);
    return new Uint8Array(await response.arrayBuffer());
  }
  mkdirSync(scratch, { recursive: true });
  const folder = mkdtempSync(join(scratch, 'fetch-'));
  try {
    await run(APT_HELPER, ['-o', 'APT::Sandbox::User=root', 'download-file', url, join(folder, 'file')]);
    return readFileSync(join(folder, 'file'));
  } catch (cause) {
    // A superseded package leaves the mirror: the cache of an earlier build, or the release's
    // bundle of inputs, has it.
    throw badInput(
      `the mirror does not give ${new URL(url).pathname}; refresh the lock, or put the file into the cache of inputs`,
      cause,
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function npmPack(input: NpmInput, scratch: string): Promise<Uint8Array> {
  mkdirSync(scratch, { recursive: true });
  const folder = mkdtempSync(join(scratch, 'npm-'));
  try {
    await run(
      'npm',
      [
        'pack',
        '--ignore-scripts',
        '--silent',
        '--pack-destination',
        folder,
        `${input.package}@${input.version}`,
      ],
      {
        maxBuffer: 1 << 24,
      },
    );
    const name = readdirSync(folder).find((file) => file.endsWith('.tgz'));
    if (name === undefined) throw badInput(`npm gave no tarball for ${input.package}@${input.version}`);
    return readFileSync(join(folder, name));
  } catch (cause) {
    if (cause instanceof ImageError) throw cause;
    throw badInput(`npm could not fetch ${input.package}@${input.version}`, cause);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function checked(
  bytes: Uint8Array,
  algorithm: 'sha256' | 'sha512',
  expected: Uint8Array,
  name: string,
): Uint8Array {
  const actual = createHash(algorithm).update(bytes).digest();
  if (!actual.equals(expected)) {
    throw badInput(
      `${name} has ${algorithm} ${actual.toString('hex')}, the lock says ${Buffer.from(expected).toString('hex')}`,
    );
  }
  return bytes;
}

/** Written under another name first: a half-written file never has a digest for a name. */
function store(folder: string, bytes: Uint8Array, name: string): Uint8Array {
  mkdirSync(folder, { recursive: true });
  const partial = join(folder, `.${name}.${process.pid}`);
  writeFileSync(partial, bytes);
  renameSync(partial, join(folder, name));
  return bytes;
}
