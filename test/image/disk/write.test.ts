// The whole disk and the forms the clouds import: what is in them, and that the guest sees the same bytes.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readGpt } from '@assay/attestation/launch';
import { type DiskContent, guidOf, layoutDisk, OPERATOR_DIGEST } from '../../../image/disk/layout.ts';
import { diskBytesFor, writeDisk } from '../../../image/disk/write.ts';

let folder = '';

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'assay-disk-'));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

function sha256(bytes: Uint8Array | string): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function put(name: string, text: string, size: number): { path: string; size: number } {
  const path = join(folder, name);
  writeFileSync(path, Buffer.alloc(size, text));
  return { path, size };
}

function content(): DiskContent {
  return {
    uki: Buffer.alloc(70_000, 'uki'),
    root: { ...put('root.img', 'root', 3 * 4096), rootHash: sha256('root') },
    config: { ...put('config.img', 'config', 512), sha256: sha256('config') },
    models: [{ ...put('model-a.img', 'model', 2 << 20), name: 'a', rootHash: sha256('a') }],
  };
}

function contentBytes(name: string): Buffer {
  return readFileSync(join(folder, name));
}

describe('a disk', () => {
  test('has each part where the table says, zeros between, and nothing of this build but its files', async () => {
    const layout = layoutDisk(content());
    const path = join(folder, 'disk.raw');
    const sums = await writeDisk(layout, path);
    const disk = readFileSync(path);
    expect(disk).toHaveLength(layout.bytes);
    expect(sums).toEqual({ file: sha256(disk), disk: sha256(disk) });
    const { entries } = readGpt(disk);
    const part = (digest: string): Buffer => {
      const entry = entries.find(({ guid }) => guid === guidOf(digest))!;
      return disk.subarray(entry.firstSector * 512, (entry.lastSector + 1) * 512);
    };
    expect(part(sha256('root')).equals(contentBytes('root.img'))).toBe(true);
    expect(part(sha256('config')).equals(contentBytes('config.img'))).toBe(true);
    expect(part(sha256('a')).equals(contentBytes('model-a.img'))).toBe(true);
    expect(part(OPERATOR_DIGEST)).toHaveLength(64 * 1024);
    expect(part(OPERATOR_DIGEST).every((byte) => byte === 0)).toBe(true);
    expect(entries.every(({ firstSector }) => firstSector % 2048 === 0)).toBe(true);
    const again = await writeDisk(layoutDisk(content()), join(folder, 'again.raw'));
    expect(again).toEqual(sums);
  });

  test('Google Cloud: disk.raw of whole GiB in a tar, which tar unpacks to the same disk', async () => {
    const layout = layoutDisk(content());
    await writeDisk(layout, join(folder, 'disk.raw'));
    const { file, disk } = await writeDisk(layout, join(folder, 'disk.tar.gz'), 'gcp');
    const packed = readFileSync(join(folder, 'disk.tar.gz'));
    expect(file).toBe(sha256(packed));
    expect(execFileSync('tar', ['-tzf', join(folder, 'disk.tar.gz')], { encoding: 'utf8' })).toBe(
      'disk.raw\n',
    );
    const raw = gunzipSync(packed).subarray(512, 512 + diskBytesFor(layout, 'gcp'));
    expect(raw).toHaveLength(1 << 30);
    expect(sha256(raw)).toBe(disk);
    expect(raw.subarray(0, layout.bytes).equals(readFileSync(join(folder, 'disk.raw')))).toBe(true);
  });

  test('Azure: a fixed VHD, the disk and one sector with a right checksum', async () => {
    const layout = layoutDisk(content());
    const { disk } = await writeDisk(layout, join(folder, 'disk.vhd'), 'azure');
    const bytes = readFileSync(join(folder, 'disk.vhd'));
    expect(bytes).toHaveLength(layout.bytes + 512);
    expect(sha256(bytes.subarray(0, -512))).toBe(disk);
    expect(layout.bytes % (1 << 20)).toBe(0);
    const footer = Buffer.from(bytes.subarray(-512));
    expect(footer.toString('latin1', 0, 8)).toBe('conectix');
    expect(footer.readBigUInt64BE(48)).toBe(BigInt(layout.bytes));
    expect(footer.readUInt32BE(60)).toBe(2);
    const stated = footer.readUInt32BE(64);
    footer.writeUInt32BE(0, 64);
    expect(stated).toBe(~footer.reduce((sum, byte) => sum + byte, 0) >>> 0);
  });

  test('a file that changes while it is written leaves no disk', async () => {
    const made = content();
    const layout = layoutDisk(made);
    truncateSync(made.root.path, 4096);
    const path = join(folder, 'broken.raw');
    await expect(writeDisk(layout, path)).rejects.toThrow(/changed while it was read/);
    expect(existsSync(path)).toBe(false);
    expect(existsSync(`${path}.partial`)).toBe(false);
  });

  test('a full disk, and a folder that is not there, end with an error', async () => {
    await expect(writeDisk(layoutDisk(content()), join(folder, 'none', 'disk.raw'))).rejects.toThrow(
      /ENOENT/,
    );
    await expect(writeDisk(layoutDisk(content()), '/dev/full/x')).rejects.toThrow(/ENOTDIR/);
  });

  test('the same model twice is refused', () => {
    const made = content();
    expect(() => layoutDisk({ ...made, models: [...made.models, ...made.models] })).toThrow(
      /GUID of another/,
    );
  });
});
