// Manifests of models that were made of a folder: `derived` and the sources say the same, or the manifest is
// refused with the reason, when it is read and when it is written.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  checkManifest,
  decodeManifest,
  encodeManifest,
  isKept,
  type ManifestBlob,
  type ModelManifest,
} from '../../../../src/models/store/manifest.ts';
import { manifestOf, sha } from '../../../fixtures/models/store-folder.ts';

function source(content: string): ManifestBlob {
  return { role: 'source', sha256: sha(content), size: content.length };
}

const GOOD: ModelManifest = {
  ...manifestOf('m', 'weights'),
  blobs: [...manifestOf('m', 'weights').blobs, source('a'), source('b')],
  derived: {
    from: [sha('a'), sha('b')],
    converter: 'assay/1',
    type: 'Q4_K_M',
    sha256: sha('weights'),
    otherTypes: 2,
  },
};
const made = GOOD.derived!;
const weights = GOOD.blobs[0]!;

test('one that was made of a folder is read as it was written; its sources are not in the store', () => {
  expect(decodeManifest(encodeManifest(GOOD), 'm.json')).toEqual(GOOD);
  expect(GOOD.blobs.filter(isKept)).toEqual([weights]);
});

describe('refused', () => {
  test.each<[string, object, string]>([
    ['sources alone', { derived: undefined }, 'has sources and no "derived"'],
    ['no sources', { blobs: [weights] }, 'has a derived.from that is not the list of its sources'],
    ['another order', { blobs: [weights, source('b'), source('a')] }, 'is not the list of its sources'],
    ['a source more', { blobs: [...GOOD.blobs, source('c')] }, 'is not the list of its sources'],
    [
      'weights behind',
      { blobs: [weights, source('a'), source('b'), { ...weights, role: 'template' }] },
      'has blobs behind its sources',
    ],
    [
      'a source in a place',
      { blobs: [weights, { ...source('a'), path: '/a' }, source('b')] },
      'has a source with a path',
    ],
    [
      'other weights',
      { derived: { ...made, sha256: sha('x') } },
      'derived.sha256 that is not that of its weights',
    ],
    [
      'weights in a place',
      { blobs: [{ ...weights, path: '/w.gguf' }, source('a'), source('b')] },
      'derived.sha256 that is not that of its weights',
    ],
    [
      'a split model',
      { blobs: [weights, weights, source('a'), source('b')] },
      'derived.sha256 that is not that of its weights',
    ],
    ['a source first', { blobs: [source('a'), source('b')] }, 'does not begin with the weights'],
    ['no converter', { derived: { ...made, converter: undefined } }, 'derived.converter is missing'],
    ['a type of no text', { derived: { ...made, type: 7 } }, 'derived.type'],
    ['half a tensor', { derived: { ...made, otherTypes: 0.5 } }, 'derived.otherTypes'],
    ['an unknown key', { derived: { ...made, by: 'x' } }, 'unknown key'],
    [
      'a digest in capitals',
      { derived: { ...made, from: [sha('a').toUpperCase(), sha('b')] } },
      'hex digits',
    ],
  ])('%s', (_title, fields, reason) => {
    const json = JSON.stringify({ ...GOOD, ...fields });
    expect(() => decodeManifest(json, 'm.json')).toThrow(reason);
    expect(() => checkManifest({ ...GOOD, ...fields })).toThrow(reason);
  });
});

test('property: of any blobs, only those that agree with "derived" are read', () => {
  const blob = fc.record({
    role: fc.constantFrom('weights' as const, 'projector' as const, 'source' as const),
    sha256: fc.constantFrom(sha('a'), sha('b'), sha('weights')),
    size: fc.nat(9),
  });
  let accepted = 0;
  fc.assert(
    fc.property(fc.array(blob, { minLength: 1, maxLength: 5 }), (blobs) => {
      const manifest = { ...GOOD, blobs: [weights, ...blobs] };
      try {
        decodeManifest(JSON.stringify(manifest), 'm.json');
      } catch {
        return;
      }
      accepted += 1;
      const sources = manifest.blobs.filter(({ role }) => role === 'source');
      expect(sources.map(({ sha256 }) => sha256)).toEqual(made.from);
      expect(manifest.blobs.slice(-sources.length)).toEqual(sources);
      expect(manifest.blobs.filter(({ role }) => role === 'weights')).toEqual([weights]);
    }),
    { numRuns: 5000 },
  );
  expect(accepted).toBeGreaterThan(5);
});
