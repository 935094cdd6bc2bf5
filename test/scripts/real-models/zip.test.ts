// The zip reader of wheels: bounded by the directory; lies, links and slips are refused.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { assert, asyncProperty, integer, nat } from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openZip, ZipError } from '../../../scripts/real-models/zip.ts';
import { type EndLies, type ZipEntry, zipOf } from '../../fixtures/models/zip.ts';

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'assay-real-models-'));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

const BYTES = Buffer.from('weights '.repeat(5000));

const WHOLE: ZipEntry = { name: 'some/weights.bin', data: BYTES };

async function read(archive: Uint8Array, name: string): Promise<Buffer> {
  const path = join(folder, 'archive.zip');
  writeFileSync(path, archive);
  const zip = await openZip(path);
  try {
    const chunks: Uint8Array[] = [];
    for await (const chunk of zip.read(name)) chunks.push(chunk);
    return Buffer.concat(chunks);
  } finally {
    await zip.close();
  }
}

describe('zip', () => {
  test('gives the members, deflated, stored, empty, behind a comment', async () => {
    const archive = zipOf(
      [
        WHOLE,
        { name: 'stored', data: BYTES, stored: true },
        { name: 'empty', data: Buffer.alloc(0), stored: true },
        { name: 'folder/', data: Buffer.alloc(0), lies: { unixType: 0o040000 } },
      ],
      { comment: 'PK\u0005\u0006 is not the end' },
    );
    expect(await read(archive, 'some/weights.bin')).toEqual(BYTES);
    expect(await read(archive, 'stored')).toEqual(BYTES);
    expect(await read(archive, 'empty')).toEqual(Buffer.alloc(0));
    await expect(read(archive, 'absent')).rejects.toThrow('no member "absent"');
  });

  const bad: readonly (readonly [what: string, entry: Partial<ZipEntry>, reason: string])[] = [
    ['a way up', { name: 'a/../../b' }, 'leaves its folder'],
    ['a bare way up', { name: '..' }, 'leaves its folder'],
    ['an absolute path', { name: '/etc/passwd' }, 'leaves its folder'],
    ['a drive', { name: 'C:x' }, 'leaves its folder'],
    ['a backslash', { name: 'a\\..\\b' }, 'leaves its folder'],
    ['a NUL', { name: 'a\0b' }, 'leaves its folder'],
    ['no name', { name: '' }, 'leaves its folder'],
    ['a name that is no text', { name: Buffer.from([0xff, 0xfe]) }, 'not UTF-8'],
    ['a link', { lies: { unixType: 0o120000 } }, 'neither file nor folder'],
    ['a device', { lies: { unixType: 0o060000 } }, 'neither file nor folder'],
    ['encryption', { lies: { flags: 1 } }, 'encrypted'],
    ['another compression', { lies: { method: 14 } }, 'method 14'],
    ['more bytes than promised', { lies: { bytes: 10 } }, 'more than its 10 bytes'],
    ['fewer bytes than promised', { lies: { bytes: BYTES.length + 1 } }, 'not the 40001 bytes'],
    ['another checksum', { lies: { crc: 1 } }, 'not the 40000 bytes'],
    ['data behind the directory', { lies: { compressedBytes: 1 << 20 } }, 'ends behind the directory'],
    ['a place without a header', { lies: { offset: 3 } }, 'no local header'],
    ['a place behind the end', { lies: { offset: 1 << 20 } }, 'archive ends before'],
    ['two names', { lies: { localName: 'some/weights.bix' } }, 'another name'],
    ['ZIP64', { lies: { bytes: 0xffffffff } }, 'ZIP64'],
  ];
  test.each(bad)('refuses %s', async (_, entry, reason) => {
    const reading = read(zipOf([{ ...WHOLE, ...entry }]), 'some/weights.bin');
    await expect(reading).rejects.toThrow(ZipError);
    await expect(reading).rejects.toThrow(reason);
  });

  const badEnds: readonly (readonly [what: string, end: EndLies, reason: string])[] = [
    ['more members than there are', { count: 2 }, 'no entry at'],
    ['a directory of gigabytes', { directoryBytes: 0xfffffff0 }, 'is over'],
    ['a directory behind the end', { start: 1 << 24 }, 'behind its own end'],
    ['a directory that begins elsewhere', { start: 5, directoryBytes: 46 }, 'no entry at'],
    ['an entry that is cut off', { directoryBytes: 50 }, 'cut off'],
    ['several disks', { disk: 1 }, 'several disks'],
    ['ZIP64', { start: 0xffffffff }, 'ZIP64'],
  ];
  test.each(badEnds)('refuses an end record that says %s', async (_, end, reason) => {
    await expect(read(zipOf([WHOLE], end), WHOLE.name as string)).rejects.toThrow(reason);
  });

  test('refuses a member that is there twice, and what is no archive', async () => {
    await expect(read(zipOf([WHOLE, WHOLE]), 'x')).rejects.toThrow('twice');
    await expect(read(Buffer.alloc(0), 'x')).rejects.toThrow('no zip archive');
    await expect(read(BYTES, 'x')).rejects.toThrow('no zip archive');
  });

  test('property: a damaged archive gives the right bytes, or none', async () => {
    const good = zipOf([WHOLE, { name: 'other', data: Buffer.from('other') }]);
    await assert(
      asyncProperty(nat(good.length - 1), integer({ min: 1, max: 255 }), async (at, flip) => {
        const archive = Buffer.from(good);
        archive[at] = (archive[at] ?? 0) ^ flip;
        const got = await read(archive, 'some/weights.bin').catch(() => null);
        expect(got === null || got.equals(BYTES)).toBe(true);
      }),
      { numRuns: 100 * Number(process.env['ASSAY_FUZZ'] ?? 1) },
    );
  });
});
