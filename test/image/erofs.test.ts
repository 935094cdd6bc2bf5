// The EROFS writer against erofs-utils' fsck and extractor; skipped where they are missing. The byte-for-byte
// properties run everywhere.

import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
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
import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BLOCK_BYTES, erofsBytes, layoutErofs } from '../../image/erofs.ts';
import { ImageError } from '../../image/errors.ts';
import { addDirectory, addFile, addLink, newTree, sortedEntries, type Tree } from '../../image/tree.ts';

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

/**
 * Everything that has broken file system writers: empty, one block, one byte more, big
 * directories, long links and names.
 */
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
