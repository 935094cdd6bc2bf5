// Readers of tar, deb and ar against the programs that write them; damage is refused with our error.

import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { decompress, readAr, readDeb, readTar, readTgz } from '../../image/archive.ts';
import { ImageError } from '../../image/errors.ts';

function has(program: string): boolean {
  return spawnSync('sh', ['-c', `PATH="$PATH:/usr/sbin:/sbin" command -v ${program}`]).status === 0;
}

function run(program: string, ...args: string[]): string {
  return execFileSync(program, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin`, LC_ALL: 'C' },
  });
}

let folder = '';

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'assay-image-'));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('archives', () => {
  test.skipIf(!has('tar'))('tar: long names, links, empty files, both dialects', () => {
    const source = join(folder, 'tar-source');
    mkdirSync(join(source, 'd'.repeat(90), 'e'.repeat(90)), { recursive: true });
    writeFileSync(join(source, 'd'.repeat(90), 'e'.repeat(90), 'f'.repeat(90)), 'deep');
    writeFileSync(join(source, 'empty'), '');
    execFileSync('ln', ['-s', 'g'.repeat(150), join(source, 'link')]);
    for (const format of ['gnu', 'posix', 'ustar']) {
      const skipLong = format === 'ustar' ? ['--exclude=link', `--exclude=${'d'.repeat(90)}`] : [];
      const tar = execFileSync('tar', [
        `--format=${format}`,
        '--create',
        ...skipLong,
        '--directory',
        source,
        '.',
      ]);
      const entries = readTar(tar);
      expect(entries.find(({ path }) => path === 'empty')).toMatchObject({ kind: 'file', mode: 0o644 });
      if (format === 'ustar') continue;
      const deep = entries.find(({ path }) => path.endsWith('f'));
      expect(Buffer.from(deep!.data).toString()).toBe('deep');
      expect(deep!.path).toBe(['d', 'e', 'f'].map((letter) => letter.repeat(90)).join('/'));
      expect(entries.find(({ path }) => path === 'link')!.target).toBe('g'.repeat(150));
      expect(readTgz(gzipSync(tar))).toHaveLength(entries.length);
    }
  });

  test.skipIf(!has('dpkg-deb'))('deb: what dpkg-deb packs', async () => {
    const source = join(folder, 'deb');
    mkdirSync(join(source, 'DEBIAN'), { recursive: true });
    mkdirSync(join(source, 'usr/bin'), { recursive: true });
    writeFileSync(
      join(source, 'DEBIAN/control'),
      'Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n',
    );
    writeFileSync(join(source, 'usr/bin/x'), 'program', { mode: 0o755 });
    for (const compressor of ['xz', 'gzip', 'none']) {
      const deb = join(folder, `${compressor}.deb`);
      run('dpkg-deb', '--build', `-Z${compressor}`, '--root-owner-group', source, deb);
      const entry = (await readDeb(readFileSync(deb))).find(({ path }) => path === 'usr/bin/x');
      expect(Buffer.from(entry!.data).toString()).toBe('program');
      expect(entry!.mode).toBe(0o755);
    }
  });

  test('damaged archives are refused, with our error', async () => {
    const header = Buffer.alloc(512);
    header.write('name', 0);
    header.write('0000644\0', 100);
    header.write('00000000005\0', 124);
    header.fill(32, 148, 156);
    header[156] = 48;
    header.write(
      `${header
        .reduce((a, b) => a + b, 0)
        .toString(8)
        .padStart(6, '0')}\0 `,
      148,
    );
    const tar = Buffer.concat([header, Buffer.from('hello'), Buffer.alloc(507), Buffer.alloc(1024)]);
    expect(Buffer.from(readTar(tar)[0]!.data).toString()).toBe('hello');
    fc.assert(
      fc.property(fc.nat({ max: 511 }), fc.integer({ min: 1, max: 255 }), (at, change) => {
        const damaged = Buffer.from(tar);
        damaged[at]! ^= change;
        // The checksum does not cover what ends its own field, and both spellings of that are in use.
        fc.pre(at < 154 || at > 155 || ![0, 32].includes(damaged[at]!));
        expect(() => readTar(damaged)).toThrow(ImageError);
      }),
    );
    for (let length = 0; length < 512 * 2; length += 100)
      expect(() => readTar(tar.subarray(0, length))).toThrow(ImageError);
    expect(() => readAr(Buffer.from('!<arch>\nshort'))).toThrow(ImageError);
    expect(() => readTgz(Buffer.from('1f8b0800ff', 'hex'))).toThrow(ImageError);
    await expect(readDeb(Buffer.from('nothing'))).rejects.toThrow(ImageError);
    await expect(decompress(Buffer.from('fd377a585a00ffffffff', 'hex'))).rejects.toThrow(/xz/);
  });
});
