// The dm-verity writer against cryptsetup's veritysetup, and that every bit counts.

import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { VERITY_SALT } from '@assay/attestation/launch';
import { BLOCK_BYTES } from '../../image/erofs.ts';
import { ImageError } from '../../image/errors.ts';
import { verityHasher } from '../../image/verity.ts';

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

function rootOf(data: Uint8Array): string {
  const hasher = verityHasher();
  hasher.update(data);
  return hasher.finish().rootHash;
}

describe('dm-verity', () => {
  test.skipIf(!has('veritysetup'))('root hash and tree are those of veritysetup', () => {
    // 130 blocks: two levels; 2 blocks: one.
    for (const blocks of [2, 128, 130]) {
      const data = Buffer.alloc(blocks * BLOCK_BYTES);
      for (let i = 0; i < blocks; i++) data.writeUInt32LE(i * 77, i * BLOCK_BYTES + 5);
      const file = join(folder, `verity-${blocks}`);
      writeFileSync(file, data);
      writeFileSync(`${file}.tree`, '');
      const out = run(
        'veritysetup',
        'format',
        '--no-superblock',
        `--salt=${VERITY_SALT}`,
        '--hash=sha256',
        `--data-blocks=${blocks}`,
        file,
        `${file}.tree`,
      );
      const hasher = verityHasher();
      // Chunks that do not end at block boundaries.
      for (let at = 0; at < data.length; at += 5000) hasher.update(data.subarray(at, at + 5000));
      const ours = hasher.finish();
      expect(ours.blocks).toBe(blocks);
      expect(out).toContain(ours.rootHash);
      expect(Buffer.compare(readFileSync(`${file}.tree`), ours.tree)).toBe(0);
    }
  });

  test('every bit of the data changes the root hash', () => {
    const data = Buffer.alloc(3 * BLOCK_BYTES, 'assay');
    const base = rootOf(data);
    fc.assert(
      fc.property(fc.nat({ max: data.length * 8 - 1 }), (bit) => {
        const changed = Buffer.from(data);
        changed[bit >> 3]! ^= 1 << (bit & 7);
        expect(rootOf(changed)).not.toBe(base);
      }),
    );
  });

  test('a part of a block, or a single one, is refused', () => {
    const short = verityHasher();
    short.update(new Uint8Array(5000));
    expect(() => short.finish()).toThrow(ImageError);
    const single = verityHasher();
    single.update(new Uint8Array(4096));
    expect(() => single.finish()).toThrow(ImageError);
  });
});
