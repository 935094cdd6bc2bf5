// Debian's own metadata (repository format: Release files, Packages indices; policy §5.6.12 for versions),
// read for the lock. A Release file is believed after gpgv accepts its signature with Debian's archive
// keyring, an index by the digest in it.

import { spawn } from 'node:child_process';
import { badInput, ImageError } from './errors.ts';

export type Stanza = ReadonlyMap<string, string>;

/** The text a good signature covers; throws unless gpgv exits 0 with the keyring given. */
export function verifiedRelease(inRelease: Uint8Array, keyring: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn('gpgv', ['--keyring', keyring, '--output', '-', '-'], {
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    const out: Buffer[] = [];
    const complaints: Buffer[] = [];
    child.on('error', (cause) =>
      reject(
        new ImageError('tool', 'gpgv is needed to check Debian signatures and could not be started', cause),
      ),
    );
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => complaints.push(chunk));
    child.stdin.on('error', () => undefined);
    child.on('close', (status) => {
      if (status === 0) resolve(Buffer.concat(out).toString('utf8'));
      else
        reject(
          badInput(
            `the signature of a Release file is not good: ${Buffer.concat(complaints).toString().trim().split('\n').at(-1) ?? ''}`,
          ),
        );
    });
    child.stdin.end(inRelease);
  });
}

export interface Release {
  readonly codename: string;
  /** Path below `dists/<suite>/` → SHA-256. */
  readonly sha256: ReadonlyMap<string, string>;
}

/**
 * Refuses a Release file past its Valid-Until, since a mirror may not replay an old one;
 * `allowExpired` is for frozen mirrors.
 */
export function parseRelease(
  text: string,
  now: Date,
  { allowExpired = false }: { readonly allowExpired?: boolean } = {},
): Release {
  const [stanza] = parseStanzas(text);
  const codename = stanza?.get('Codename');
  if (stanza === undefined || codename === undefined) throw badInput('Release file has no Codename');
  const until = stanza.get('Valid-Until');
  if (!allowExpired && until !== undefined && !(Date.parse(until) > now.getTime()))
    throw badInput(`Release file of ${codename} was valid until ${until}`);
  const sha256 = new Map<string, string>();
  for (const line of (stanza.get('SHA256') ?? '').split('\n')) {
    const [digest, , path] = line.trim().split(/ +/);
    if (digest !== undefined && path !== undefined && /^[0-9a-f]{64}$/.test(digest)) sha256.set(path, digest);
  }
  return { codename, sha256 };
}

/** RFC 822-like paragraphs; continuation lines are joined by line feeds. */
export function parseStanzas(text: string): readonly Stanza[] {
  return text
    .split(/\n{2,}/)
    .filter((paragraph) => paragraph.trim() !== '')
    .map((paragraph) => {
      const fields = new Map<string, string>();
      let key = '';
      for (const line of paragraph.split('\n')) {
        if (/^[ \t]/.test(line)) fields.set(key, `${fields.get(key) ?? ''}\n${line.slice(1)}`);
        else {
          key = line.slice(0, Math.max(0, line.indexOf(':')));
          fields.set(key, line.slice(key.length + 1).trim());
        }
      }
      return fields;
    });
}

/** Names a Depends-like field asks for: alternatives in order, without versions and architectures. */
export function parseDepends(field: string | undefined): readonly (readonly string[])[] {
  if (field === undefined || field.trim() === '') return [];
  return field
    .split(',')
    .map((group) => group.split('|').map((name) => name.trim().replace(/[ (:[].*$/s, '')));
}

/** Debian's order of versions: negative, zero, positive. */
export function compareVersions(a: string, b: string): number {
  const [epochA, restA] = splitEpoch(a);
  const [epochB, restB] = splitEpoch(b);
  if (epochA !== epochB) return epochA - epochB;
  const [upstreamA, revisionA] = splitRevision(restA);
  const [upstreamB, revisionB] = splitRevision(restB);
  return comparePart(upstreamA, upstreamB) || comparePart(revisionA, revisionB);
}

function splitEpoch(version: string): readonly [number, string] {
  const colon = version.indexOf(':');
  return colon < 0 ? [0, version] : [Number(version.slice(0, colon)), version.slice(colon + 1)];
}

function splitRevision(version: string): readonly [string, string] {
  const dash = version.lastIndexOf('-');
  return dash < 0 ? [version, '0'] : [version.slice(0, dash), version.slice(dash + 1)];
}

/**
 * Letters sort before other characters, `~` before everything, even the end; runs of
 * digits compare as numbers.
 */
function comparePart(a: string, b: string): number {
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    while ((i < a.length && !digit(a, i)) || (j < b.length && !digit(b, j))) {
      const difference = weight(a, i) - weight(b, j);
      if (difference !== 0) return difference;
      i += 1;
      j += 1;
    }
    const [runA, runB] = [digits(a, i), digits(b, j)];
    i += runA.length;
    j += runB.length;
    const [x, y] = [runA.replace(/^0+/, ''), runB.replace(/^0+/, '')];
    if (x.length !== y.length) return x.length - y.length;
    if (x !== y) return x < y ? -1 : 1;
  }
  return 0;
}

function digit(text: string, at: number): boolean {
  return /\d/.test(text.charAt(at));
}
function digits(text: string, at: number): string {
  return /^\d*/.exec(text.slice(at))?.[0] ?? '';
}

function weight(text: string, at: number): number {
  const character = text.charAt(at);
  if (character === '' || digit(text, at)) return 0;
  if (character === '~') return -1;
  return /[A-Za-z]/.test(character) ? character.charCodeAt(0) : character.charCodeAt(0) + 256;
}
