// The FAT32 writer: read back by a reader of this test that follows the specification from the boot sector
// on, by mtools where they are, and what it refuses. That a firmware reads it, test/e2e/image-disk shows.

import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { array, assert, pre, property, stringMatching, tuple, uint8Array, uniqueArray } from 'fast-check';
import { writeFat } from '../../../image/disk/fat.ts';

const SECTORS = 80 * 1024;

/** Every file of a FAT32 image by its path, read cluster by cluster. */
function filesOf(image: Buffer): Map<string, Buffer> {
  const sector = image.readUInt16LE(11);
  const perCluster = image.readUInt8(13);
  const reserved = image.readUInt16LE(14);
  const copies = image.readUInt8(16);
  const fatSectors = image.readUInt32LE(36);
  const cluster = (number: number): number =>
    (reserved + copies * fatSectors + (number - 2) * perCluster) * sector;
  const next = (number: number): number => image.readUInt32LE(reserved * sector + 4 * number) & 0x0fffffff;
  const chain = (first: number): Buffer => {
    const parts: Buffer[] = [];
    for (let at = first; at < 0x0ffffff8; at = next(at)) {
      expect(at).toBeGreaterThanOrEqual(2);
      parts.push(image.subarray(cluster(at), cluster(at) + sector * perCluster));
    }
    return Buffer.concat(parts);
  };
  const files = new Map<string, Buffer>();
  const walk = (first: number, path: string): void => {
    const bytes = chain(first);
    for (let at = 0; bytes[at] !== 0 && at < bytes.length; at += 32) {
      const attribute = bytes.readUInt8(at + 11);
      const stem = bytes.toString('latin1', at, at + 8).trimEnd();
      const extension = bytes.toString('latin1', at + 8, at + 11).trimEnd();
      if (attribute === 0x08 || stem === '.' || stem === '..') continue;
      const name = `${path}${stem}${extension === '' ? '' : `.${extension}`}`;
      const start = (bytes.readUInt16LE(at + 20) << 16) | bytes.readUInt16LE(at + 26);
      if (attribute === 0x10) walk(start, `${name}/`);
      else files.set(name, chain(start).subarray(0, bytes.readUInt32LE(at + 28)));
    }
  };
  walk(image.readUInt32LE(44), '');
  return files;
}

const segment = stringMatching(/^[A-Z0-9_]{1,8}$/);
const names = tuple(array(segment, { maxLength: 3 }), segment, stringMatching(/^(?:\.[A-Z]{1,3})?$/));

describe('a FAT32 file system', () => {
  let folder = '';
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'assay-fat-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test('has every file, whole, whatever their folders and sizes', () => {
    assert(
      property(
        uniqueArray(tuple(names, uint8Array({ maxLength: 5000 })), {
          maxLength: 6,
          selector: ([[folders, stem, extension]]) => [...folders, stem + extension].join('/'),
        }),
        (made) => {
          const files = new Map(
            made.map(([[folders, stem, extension], bytes]) => [
              [...folders, stem + extension].join('/'),
              bytes as Uint8Array,
            ]),
          );
          // A name that is a file and a folder at once is no tree.
          pre(
            ![...files.keys()].some((path) =>
              [...files.keys()].some((other) => other.startsWith(`${path}/`)),
            ),
          );
          const found = filesOf(Buffer.from(writeFat(files, SECTORS, 'TEST')));
          expect([...found.keys()].sort()).toEqual([...files.keys()].sort());
          for (const [path, bytes] of files) expect(found.get(path)!.equals(bytes)).toBe(true);
        },
      ),
      { numRuns: 15 },
    );
  });

  test('is what mtools and fsck.fat read, where they are', ({ skip }) => {
    const files = new Map([
      ['EFI/BOOT/BOOTX64.EFI', Buffer.alloc(3_000_001, 'kernel')],
      ['EFI/NOTE.TXT', Buffer.from('short')],
    ]);
    const path = join(folder, 'esp.img');
    writeFileSync(path, writeFat(files, SECTORS, 'ASSAY'));
    const fsck = spawnSync('fsck.fat', ['-n', path], { encoding: 'utf8' });
    const mtype = spawnSync('mtype', ['-i', path, '::EFI/NOTE.TXT'], { encoding: 'utf8' });
    if (fsck.error !== undefined && mtype.error !== undefined) skip('neither fsck.fat nor mtools is here');
    if (fsck.error === undefined) expect(`${fsck.status} ${fsck.stdout}`).toMatch(/^0 /);
    if (mtype.error === undefined) {
      expect(mtype.stdout).toBe('short');
      execFileSync('mcopy', ['-i', path, '::EFI/BOOT/BOOTX64.EFI', join(folder, 'back')]);
      expect(readFileSync(join(folder, 'back')).equals(files.get('EFI/BOOT/BOOTX64.EFI')!)).toBe(true);
    }
  });

  test.each([
    ['a long name', 'EFI/LONGERTHAN8.EFI'],
    ['lower case', 'efi/x.efi'],
    ['an empty part', 'EFI//X.EFI'],
    ['a dot alone', '..'],
  ])('%s is refused', (_what, path) => {
    expect(() => writeFat(new Map([[path, new Uint8Array(1)]]), SECTORS, 'X')).toThrow(
      expect.objectContaining({ kind: 'input' }),
    );
  });

  test('too few sectors for FAT32, and files that do not fit, are refused', () => {
    const refusal = expect.objectContaining({ kind: 'input' });
    expect(() => writeFat(new Map(), 66_000, 'X')).toThrow(refusal);
    expect(() => writeFat(new Map([['X', new Uint8Array(SECTORS * 512)]]), SECTORS, 'X')).toThrow(refusal);
  });
});
