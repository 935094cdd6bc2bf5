// RFC 9162 trees: the roots every Certificate Transparency implementation tests with, paths of every leaf of
// every small tree, and every way a path can be wrong.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { fromHex, toHex } from '../../../attestation/encoding/bytes.ts';
import { leafHash, MAX_TREE_SIZE, verifyInclusion } from '../../../attestation/protocol/merkle.ts';
import { inclusionPath, merkleRoot } from '../../../attestation/protocol/issue.ts';

const INPUTS = [
  '',
  '00',
  '10',
  '2021',
  '3031',
  '40414243',
  '5051525354555657',
  '606162636465666768696a6b6c6d6e6f',
];
const ROOTS = [
  '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
  'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125',
  'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77',
  'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
  '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
  '76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef',
  'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c',
  '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328',
];
const leaves = INPUTS.map((hex) => leafHash(fromHex(hex)));

describe('merkle tree', () => {
  test.each(ROOTS.map((root, i) => [i + 1, root] as const))(
    '%i leaves have the published root',
    (size, root) => {
      expect(toHex(merkleRoot(leaves.slice(0, size)))).toBe(root);
    },
  );

  test('a tree of one leaf is that leaf and needs no path', () => {
    const leaf = leafHash(Uint8Array.of(1));
    expect(merkleRoot([leaf])).toEqual(leaf);
    expect(inclusionPath([leaf], 0)).toEqual([]);
    expect(verifyInclusion(leaf, { index: 0, size: 1, path: [] }, leaf)).toBe(true);
  });

  test('refuses empty trees, and positions outside', () => {
    expect(() => merkleRoot([])).toThrow(RangeError);
    expect(() => inclusionPath(leaves, 8)).toThrow(RangeError);
    const root = merkleRoot(leaves);
    const path = inclusionPath(leaves, 0);
    for (const [index, size] of [
      [8, 8],
      [-1, 8],
      [0.5, 8],
      [0, 0],
      [0, MAX_TREE_SIZE + 1],
      [Number.NaN, 8],
    ] as const)
      // prettier-ignore
      expect(verifyInclusion(leaves[0] ?? new Uint8Array(32), { index, size, path }, root)).toBe(false);
  });

  test('every leaf of every tree is proven, and by no other position, size or path', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 70 }), fc.nat(), fc.nat(), (size, at, other) => {
        const tree = Array.from({ length: size }, (_, i) => leafHash(Uint8Array.of(i)));
        const index = at % size;
        const root = merkleRoot(tree);
        const path = inclusionPath(tree, index);
        const leaf = tree[index] ?? new Uint8Array();
        expect(verifyInclusion(leaf, { index, size, path }, root)).toBe(true);
        const wrong = other % size;
        expect(verifyInclusion(leaf, { index: wrong, size, path }, root)).toBe(wrong === index);
        expect(verifyInclusion(leaf, { index, size, path: [...path, root] }, root)).toBe(false);
        expect(verifyInclusion(leaf, { index, size, path: path.slice(1) }, root)).toBe(path.length === 0);
        const flipped = path.map((hash, i) =>
          i === other % path.length ? hash.map((b, j) => (j === 0 ? b ^ 1 : b)) : hash,
        );
        expect(verifyInclusion(leaf, { index, size, path: flipped }, root)).toBe(path.length === 0);
      }),
    );
  });

  test('a node does not pass for a leaf: the prefixes differ', () => {
    const [left, right] = [leafHash(Uint8Array.of(0)), leafHash(Uint8Array.of(1))];
    const root = merkleRoot([left, right]);
    expect(
      verifyInclusion(leafHash(Uint8Array.of(...left, ...right)), { index: 0, size: 1, path: [] }, root),
    ).toBe(false);
  });
});
