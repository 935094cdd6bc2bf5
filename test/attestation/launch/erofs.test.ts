// Files read out of root images as image/erofs.ts writes them, and out of images that anyone wrote.

import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { erofsFile } from '../../../attestation/launch/erofs.ts';
import { erofsBytes, layoutErofs } from '../../../image/erofs.ts';
import { addDirectory, addFile, addLink, newTree, type Tree } from '../../../image/tree.ts';

async function imageOf(tree: Tree): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for await (const piece of erofsBytes(layoutErofs(tree))) pieces.push(piece);
  return Buffer.concat(pieces);
}

async function sample(): Promise<Uint8Array> {
  const tree = newTree();
  addFile(tree, 'opt/assay/page.html', Buffer.from('<!doctype html>'.repeat(1000)));
  addFile(tree, 'opt/assay/empty', Buffer.alloc(0));
  addLink(tree, 'opt/link', 'assay/page.html');
  addDirectory(tree, 'opt/folder');
  // More names than one block of a directory holds.
  for (let i = 0; i < 400; i += 1)
    addFile(tree, `many/file-with-a-long-name-${i}`, Buffer.from(`content ${i}`));
  return imageOf(tree);
}

test('each file of an image is read, and nothing else', async () => {
  const image = await sample();
  const text = (path: string): string | undefined => {
    const found = erofsFile(image, path);
    return found === undefined ? undefined : Buffer.from(found).toString();
  };
  expect(text('opt/assay/page.html')).toBe('<!doctype html>'.repeat(1000));
  expect(text('opt/assay/empty')).toBe('');
  for (let i = 0; i < 400; i += 1) expect(text(`many/file-with-a-long-name-${i}`)).toBe(`content ${i}`);
  for (const path of ['opt/assay', 'opt/link', 'opt/folder', 'opt/assay/page', 'page.html', '', '/opt/assay/page.html'])
    expect(text(path)).toBeUndefined(); // prettier-ignore
  expect(erofsFile(Buffer.alloc(100_000), 'opt/assay/page.html')).toBeUndefined();
  expect(erofsFile(new Uint8Array(0), 'opt/assay/page.html')).toBeUndefined();
});

test('property: a changed or cut image gives a file, other bytes or none, and never throws', async () => {
  const image = await sample();
  const metadata = 60_000;
  fc.assert(
    fc.property(fc.nat(metadata), fc.nat(255), fc.nat(image.length), (at, value, length) => {
      const changed = Buffer.from(image);
      changed[at] = value;
      erofsFile(changed, 'opt/assay/page.html');
      erofsFile(changed, 'many/file-with-a-long-name-399');
      const cut = erofsFile(image.subarray(0, length), 'opt/assay/page.html');
      expect(cut === undefined || cut.length === 15_000).toBe(true);
    }),
  );
});
