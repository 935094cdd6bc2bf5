// The table of image formats: those with a library of their own are taken where it is.

import { expect, test } from 'vitest';
import { decodedKinds, IMAGE_KINDS, kindNames, mediaType } from '../../../src/base/image-formats.ts';
import { nativeLibrary } from '../../../src/base/native-library.ts';

test('all kinds with all libraries, and by their names', () => {
  expect(decodedKinds(() => true)).toEqual(IMAGE_KINDS);
  expect(kindNames(IMAGE_KINDS)).toBe('PNG, JPEG, GIF or WebP');
  expect(IMAGE_KINDS.map(mediaType)).toEqual(['image/png', 'image/jpeg', 'image/gif', 'image/webp']);
});

test('WebP goes with its library, and what is asked for is that of this machine', () => {
  const without = decodedKinds((library) => library !== 'libwebpdecoder');
  expect(without).toEqual(['png', 'jpeg', 'gif']);
  expect(decodedKinds()).toEqual(nativeLibrary('libwebpdecoder') === undefined ? without : IMAGE_KINDS);
});
