// The image's own writers against independent readers: erofs-utils' fsck and extractor, cryptsetup's veritysetup, cpio and
// tar. Where such a program is missing its test is skipped; the byte-for-byte properties run everywhere.

import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { VERITY_SALT } from '@assay/attestation/launch';
import { decompress, readAr, readDeb, readTar, readTgz } from '../../image/archive.ts';
import { writeCpio } from '../../image/cpio.ts';
import { BLOCK_BYTES, erofsBytes, layoutErofs } from '../../image/erofs.ts';
import { ImageError } from '../../image/errors.ts';
import { addDirectory, addFile, addLink, newTree, sortedEntries, type Tree } from '../../image/tree.ts';
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

async function imageOf(tree: Tree): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of erofsBytes(layoutErofs(tree))) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** Everything that has broken file system writers: empty, one block, one byte more, big directories, long links and names. */
function awkwardTree(): Tree {
  const tree = newTree();
  addFile(tree, 'empty', new Uint8Array(0));
  addFile(tree, 'one-byte', Uint8Array.of(1));
  addFile(tree, 'one-block', new Uint8Array(4096).fill(7));
  addFile(tree, 'one-block-and-a-byte', new Uint8Array(4097).fill(8), 0o755);
  addFile(tree, 'usr/bin/program', new Uint8Array(100_000).fill(9), 0o755);
  addFile(tree, `names/${'n'.repeat(255)}`, Uint8Array.of(2));
  addFile(tree, 'names/ünïcode 🙂', Uint8Array.of(3));
  addFile(tree, 'a-b', Uint8Array.of(4));
  addFile(tree, 'a/b', Uint8Array.of(5));
  addLink(tree, 'bin', 'usr/bin');
  addLink(tree, 'long-link', `${'../'.repeat(1300)}usr`);
  addDirectory(tree, 'empty-directory', 0o700);
  for (let i = 0; i < 1500; i++)
    addFile(tree, `big/entry-${i}-${'x'.repeat(i % 60)}`, Buffer.from(`content ${i}`));
  for (let i = 0; i < 40; i++) addDirectory(tree, `big/sub-${i}`);
  return tree;
}

/** A tree read back from a folder, as `path kind mode content`. */
function described(root: string, path = ''): string[] {
  return readdirSync(join(root, path), { withFileTypes: true })
    .flatMap((entry) => {
      const at = path === '' ? entry.name : `${path}/${entry.name}`;
      if (entry.isSymbolicLink()) return [`${at} link ${readlinkSync(join(root, at))}`];
      const mode = (statSync(join(root, at)).mode & 0o7777).toString(8);
      if (entry.isDirectory()) return [`${at} directory ${mode}`, ...described(root, at)];
      return [
        `${at} file ${mode} ${createHash('sha256')
          .update(readFileSync(join(root, at)))
          .digest('hex')}`,
      ];
    })
    .sort();
}

function describedTree(tree: Tree): string[] {
  return sortedEntries(tree)
    .filter(([path]) => path !== '')
    .map(([path, node]) => {
      if (node.kind === 'link') return `${path} link ${node.target}`;
      if (node.kind === 'directory') return `${path} directory ${node.mode.toString(8)}`;
      return `${path} file ${node.mode.toString(8)} ${createHash('sha256')
        .update(node.content as Uint8Array)
        .digest('hex')}`;
    })
    .sort();
}

describe('erofs', () => {
  test.skipIf(!has('fsck.erofs'))('fsck.erofs finds nothing wrong and extracts the very tree', async () => {
    const tree = awkwardTree();
    const image = join(folder, 'awkward.erofs');
    writeFileSync(image, await imageOf(tree));
    const out = join(folder, 'extracted');
    run('fsck.erofs', `--extract=${out}`, '--preserve-perms', image);
    expect(described(out)).toEqual(describedTree(tree));
  });

  test('the number of blocks is what was announced, and the same tree in another order gives the same bytes', async () => {
    const tree = awkwardTree();
    const image = await imageOf(tree);
    expect(image.length).toBe(layoutErofs(tree).blocks * BLOCK_BYTES);
    const reversed: Tree = new Map([...tree].toReversed());
    expect(Buffer.compare(await imageOf(reversed), image)).toBe(0);
  });

  test('a file taken from disk is written as the same bytes, and one that changed size is an error', async () => {
    const path = join(folder, 'large');
    const bytes = Buffer.alloc(3_000_001, 'model');
    writeFileSync(path, bytes);
    const [held, streamed, lying] = [newTree(), newTree(), newTree()];
    addFile(held, 'model.gguf', bytes, 0o444);
    addFile(streamed, 'model.gguf', { path, size: bytes.length }, 0o444);
    addFile(lying, 'model.gguf', { path, size: bytes.length - 1 }, 0o444);
    expect(Buffer.compare(await imageOf(streamed), await imageOf(held))).toBe(0);
    await expect(imageOf(lying)).rejects.toThrow(/changed while it was read/);
  });

  test.skipIf(!has('fsck.erofs'))('property: any tree survives', async () => {
    const name = fc.string({
      minLength: 1,
      maxLength: 20,
      unit: fc.constantFrom('a', 'b', '.x', '-', 'é', 'Z'),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.dictionary(
          fc.array(name, { minLength: 1, maxLength: 3 }).map((parts) => parts.join('/')),
          fc.uint8Array({ maxLength: 5000 }),
          { maxKeys: 12 },
        ),
        async (files) => {
          const tree = newTree();
          for (const [path, data] of Object.entries(files)) {
            // A generated path may run through a file: the tree refuses that one.
            try {
              addFile(tree, path, data);
            } catch (error) {
              if (!(error instanceof ImageError)) throw error;
            }
          }
          const run_ = mkdtempSync(join(folder, 'p-'));
          writeFileSync(join(run_, 'image'), await imageOf(tree));
          run('fsck.erofs', `--extract=${join(run_, 'out')}`, '--preserve-perms', join(run_, 'image'));
          expect(described(join(run_, 'out'))).toEqual(describedTree(tree));
          rmSync(run_, { recursive: true });
        },
      ),
      { numRuns: 15 },
    );
  });
});

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

describe('cpio', () => {
  test.skipIf(!has('cpio'))('cpio extracts the very tree', () => {
    const tree = newTree();
    addFile(tree, 'init', Buffer.from('#!/bin/sh\n'), 0o755);
    addFile(tree, 'lib/empty', new Uint8Array(0));
    for (let i = 1; i < 9; i++) addFile(tree, `lib/f${'x'.repeat(i)}`, new Uint8Array(i).fill(i));
    addLink(tree, 'bin', 'usr/bin');
    addDirectory(tree, 'proc', 0o555);
    const out = join(folder, 'cpio');
    mkdirSync(out);
    execFileSync('cpio', ['--extract', '--quiet', '--make-directories', '--no-preserve-owner'], {
      cwd: out,
      input: writeCpio(tree),
    });
    expect(described(out)).toEqual(describedTree(tree));
  });

  test('owner, times and inode numbers do not depend on the machine', () => {
    const tree = newTree();
    addFile(tree, 'b', Uint8Array.of(1));
    addFile(tree, 'a', Uint8Array.of(2));
    const text = Buffer.from(writeCpio(tree)).toString('latin1');
    expect(text.slice(0, 110)).toBe(
      `070701${['00000001', '000081A4', '00000000', '00000000', '00000001', '00000000', '00000001'].join('')}${'00000000'.repeat(4)}0000000200000000`,
    );
    expect(text).toMatch(/TRAILER!!!\0+$/);
    expect(writeCpio(tree).length % 4).toBe(0);
  });
});

describe('the tree', () => {
  test.each(['', '/a', 'a/', 'a//b', '../a', 'a/../b', './a', 'a\0b', 'a\nb', 'x'.repeat(256), '\ud800'])(
    'refuses the path %j',
    (path) => {
      expect(() => addFile(newTree(), path, new Uint8Array(0))).toThrow(ImageError);
    },
  );

  test('refuses the same file twice, and a file inside a file', () => {
    const tree = newTree();
    addFile(tree, 'a/b', new Uint8Array(0));
    expect(() => addFile(tree, 'a/b', new Uint8Array(0))).toThrow(/twice/);
    expect(() => addFile(tree, 'a/b/c', new Uint8Array(0))).toThrow(/not a directory/);
    expect(() => addFile(tree, 'a', new Uint8Array(0))).toThrow(/twice/);
  });
});

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
