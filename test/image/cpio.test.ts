// The cpio writer against cpio, and that its bytes do not depend on the machine.

import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { writeCpio } from '../../image/cpio.ts';
import { addDirectory, addFile, addLink, newTree, sortedEntries, type Tree } from '../../image/tree.ts';

function has(program: string): boolean {
  return spawnSync('sh', ['-c', `PATH="$PATH:/usr/sbin:/sbin" command -v ${program}`]).status === 0;
}

let folder = '';

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'assay-image-'));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

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
