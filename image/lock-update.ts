// `make image-lock`: finds the wanted packages in signature-checked Debian indices and npm metadata, and
// writes image/inputs.lock.json. It does not build: review the difference, then build.

import { createHash } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { decompress } from './archive.ts';
import {
  compareVersions,
  parseDepends,
  parseRelease,
  parseStanzas,
  type Stanza,
  verifiedRelease,
} from './debian.ts';
import { badInput } from './errors.ts';
import { type DebianInput, type Lock, lockText, type NpmInput } from './lock.ts';
import { download, findMirrors, type Mirrors } from './mirror.ts';
import { TOP } from './top.ts';
import { type Suite, WANTED, WANTED_NPM, type Wanted } from './packages.ts';

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

/**
 * For a frozen mirror: signatures still count, freshness does not. Look at the versions in the difference.
 */
const ALLOW_EXPIRED = process.argv.includes('--allow-expired');

/** Package name → its stanzas, of every suite it is in. */
type Index = Map<string, Stanza[]>;

async function readSuite(suite: Suite, mirrors: Mirrors, cache: string): Promise<Stanza[]> {
  const archive = suite.endsWith('-security') ? 'debian-security' : 'debian';
  const base = `${mirrors[archive]}/dists/${suite}`;
  const release = parseRelease(
    await verifiedRelease(await download(`${base}/InRelease`, cache), KEYRING),
    new Date(),
    {
      allowExpired: ALLOW_EXPIRED,
    },
  );
  if (release.codename !== suite) throw badInput(`the mirror gives ${release.codename} for ${suite}`);
  // Debian's index of an architecture has the architecture-independent packages as well.
  const folder = 'main/binary-amd64';
  const digest = release.sha256.get(`${folder}/Packages.xz`);
  if (digest === undefined) throw badInput(`the Release file of ${suite} has no ${folder}/Packages.xz`);
  const packed = await download(`${base}/${folder}/by-hash/SHA256/${digest}`, cache);
  if (createHash('sha256').update(packed).digest('hex') !== digest)
    throw badInput(`the package index of ${suite} is not what its Release file says`);
  const stanzas = parseStanzas(Buffer.from(await decompress(packed)).toString('utf8'));
  return stanzas.map((stanza) => new Map([...stanza, ['X-Archive', archive], ['X-Suite', suite]]));
}

function best(index: Index, name: string, wanted: Wanted): Stanza {
  const candidates = (index.get(name) ?? []).filter(
    (stanza) =>
      (wanted.suites as readonly string[]).includes(field(stanza, 'X-Suite')) &&
      (wanted.version === undefined || field(stanza, 'Version') === wanted.version),
  );
  const [first] = candidates.toSorted((a, b) => compareVersions(field(b, 'Version'), field(a, 'Version')));
  if (first === undefined)
    throw badInput(
      `${name}${wanted.version === undefined ? '' : ` ${wanted.version}`} is in none of ${wanted.suites.join(', ')}`,
    );
  return first;
}

function resolve(index: Index, wanted: Wanted): readonly Stanza[] {
  let stanza = best(index, wanted.package, wanted);
  if (wanted.through !== undefined) {
    const { through } = wanted;
    const name = parseDepends(stanza.get('Depends'))
      .flat()
      .find((dependency) => through.test(dependency));
    if (name === undefined) throw badInput(`${wanted.package} depends on nothing like ${through}`);
    stanza = best(index, name, wanted);
  }
  if (wanted.closure === undefined) return [stanza];
  const found = new Map<string, Stanza>([[field(stanza, 'Package'), stanza]]);
  for (const [, current] of found) {
    for (const alternatives of [
      ...parseDepends(current.get('Depends')),
      ...parseDepends(current.get('Pre-Depends')),
    ]) {
      const name = alternatives.find((candidate) => index.has(candidate)) ?? providerOf(index, alternatives);
      if (name !== undefined && !found.has(name) && wanted.without?.test(name) !== true)
        found.set(name, best(index, name, wanted));
    }
  }
  return [...found.values()];
}

function providerOf(index: Index, names: readonly string[]): string | undefined {
  for (const [name, stanzas] of index) {
    const provided = stanzas.flatMap((stanza) => parseDepends(stanza.get('Provides')).flat());
    if (names.some((candidate) => provided.includes(candidate))) return name;
  }
  return undefined;
}

function field(stanza: Stanza, name: string): string {
  return stanza.get(name) ?? '';
}

function debianInput(stanza: Stanza, use: DebianInput['use']): DebianInput {
  return {
    package: field(stanza, 'Package'),
    version: field(stanza, 'Version'),
    architecture: field(stanza, 'Architecture'),
    archive: field(stanza, 'X-Archive') as DebianInput['archive'],
    path: field(stanza, 'Filename'),
    size: Number(field(stanza, 'Size')),
    sha256: field(stanza, 'SHA256'),
    use,
  };
}

function npmInputs(): readonly NpmInput[] {
  const packageLock = JSON.parse(readFileSync(join(TOP, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { version?: string; integrity?: string } | undefined>;
  };
  return WANTED_NPM.map((wanted) => {
    if (wanted.version === 'package-lock') {
      const entry = packageLock.packages[`node_modules/${wanted.package}`];
      if (entry?.version === undefined || entry.integrity === undefined)
        throw badInput(`package-lock.json has no ${wanted.package}`);
      return { package: wanted.package, version: entry.version, integrity: entry.integrity };
    }
    const integrity = execFileSync(
      'npm',
      ['view', '--silent', `${wanted.package}@${wanted.version}`, 'dist.integrity'],
      {
        encoding: 'utf8',
      },
    ).trim();
    return { package: wanted.package, version: wanted.version, integrity };
  });
}

async function updatedLock(mirrors: Mirrors, cache: string): Promise<Lock> {
  const index: Index = new Map();
  for (const suite of ['trixie', 'trixie-security', 'forky'] as const) {
    for (const stanza of await readSuite(suite, mirrors, cache)) {
      const name = field(stanza, 'Package');
      index.set(name, [...(index.get(name) ?? []), stanza]);
    }
  }
  const debian = new Map<string, DebianInput>();
  for (const wanted of WANTED) {
    for (const stanza of resolve(index, wanted)) {
      const input = debianInput(stanza, wanted.use);
      // A package the image takes first stays an image input, whatever else needs it.
      if (!debian.has(input.package)) debian.set(input.package, input);
    }
  }
  return { version: 1, debian: [...debian.values()], npm: npmInputs() };
}

const mirrors = await findMirrors(process.env);
const lock = await updatedLock(mirrors, join(TOP, '.cache/inputs'));
const path = join(TOP, 'image/inputs.lock.json');
writeFileSync(path, lockText(lock));
process.stdout.write(`${path}: ${lock.debian.length} Debian packages, ${lock.npm.length} npm packages\n`);
