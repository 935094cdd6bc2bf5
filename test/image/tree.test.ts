// The tree the image is built from refuses paths that climb, repeat or run through a file.

import { describe, expect, test } from 'vitest';
import { ImageError } from '../../image/errors.ts';
import { addFile, newTree } from '../../image/tree.ts';

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
