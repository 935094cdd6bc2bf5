// Building native parts: the same bytes whenever and wherever they are compiled, no export that the
// recipe does not name, and no compilation where the cache has the result. Needs a C++ compiler.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { buildNative, placeLibrary, toolchain, type Built } from '../../../scripts/native/build.ts';
import { recordedDigests } from '../../../scripts/native/digests.ts';
import { RECIPES } from '../../../scripts/native/recipes.ts';
import { nativeLibrary } from '../../../src/base/native-library.ts';
import { haveWebp } from '../../fixtures/native/libraries.ts';
import { haveCompiler, soundOnly } from '../../fixtures/native/small-recipe.ts';
import { sha256Hex } from '../../../scripts/native/sources.ts';

const { sources, results } = recordedDigests();

describe.skipIf(!haveCompiler)('a library of few files', () => {
  let cache: string;
  let built: Built;
  const before = process.env['XDG_CACHE_HOME'];
  beforeAll(async () => {
    cache = mkdtempSync(join(tmpdir(), 'assay-native-'));
    process.env['XDG_CACHE_HOME'] = cache;
    built = await buildNative(soundOnly(), sources);
  });
  afterAll(() => {
    if (before === undefined) delete process.env['XDG_CACHE_HOME'];
    else process.env['XDG_CACHE_HOME'] = before;
    rmSync(cache, { recursive: true, force: true });
  });

  test('compiled again, in another folder and with other jobs: the same bytes', async () => {
    expect(built.compiled).toBe(true);
    process.env['XDG_CACHE_HOME'] = join(cache, 'another folder');
    const again = await buildNative(soundOnly(), sources, { fresh: true, jobs: 1 });
    process.env['XDG_CACHE_HOME'] = cache;
    expect(again.path).not.toBe(built.path);
    expect(again.sha256).toBe(built.sha256);
  });

  test('from the cache without compiling', async () => {
    expect(await buildNative(soundOnly(), sources)).toEqual({ ...built, compiled: false });
  });

  test('exports what the recipe names, and no path of this machine is in it', () => {
    const symbols = execFileSync('nm', ['-D', '--defined-only', built.path], { encoding: 'utf8' });
    expect(
      symbols
        .trim()
        .split('\n')
        .map((line) => line.split(' ').at(-1)),
    ).toEqual(['assay_audio_decode', 'assay_audio_opus', 'assay_audio_opus_version', 'assay_audio_version']);
    expect(readFileSync(built.path).includes(cache)).toBe(false);
  });

  test('is put where it is asked for, whole', () => {
    const to = join(cache, 'dist/native/some-platform/libwhisper.so');
    placeLibrary(built, to);
    expect(sha256Hex(readFileSync(to))).toBe(built.sha256);
    expect(statSync(to).size).toBeGreaterThan(10_000);
  });

  test.each(['llama', 'opus', 'whisper'] as const)('refuses other sources of %s', async (name) => {
    const [recipe, other] = [soundOnly(), { ...sources, [name]: '0'.repeat(64) }];
    if (name !== 'whisper')
      await expect(buildNative(recipe, other)).rejects.toMatchObject({
        name: 'NativeError',
        kind: 'differs',
      });
    // Sources that a recipe does not need are not asked for.
    else expect((await buildNative(recipe, other)).sha256).toBe(built.sha256);
  });
});

const webp = RECIPES.filter(({ library }) => library === 'libwebpdecoder');
describe.skipIf(!haveCompiler || !haveWebp)('the decoder of libwebp', () => {
  let cache: string;
  const before = process.env['XDG_CACHE_HOME'];
  beforeAll(() => {
    cache = mkdtempSync(join(tmpdir(), 'assay-native-'));
    process.env['XDG_CACHE_HOME'] = cache;
  });
  afterAll(() => {
    if (before === undefined) delete process.env['XDG_CACHE_HOME'];
    else process.env['XDG_CACHE_HOME'] = before;
    rmSync(cache, { recursive: true, force: true });
  });

  test.each(webp)(
    'compiled elsewhere, with one job: the bytes that the server has',
    async (recipe) => {
      const again = await buildNative(recipe, sources, { fresh: true, jobs: 1 });
      expect(again).toMatchObject({ compiled: true });
      expect(again.sha256).toBe(sha256Hex(readFileSync(nativeLibrary('libwebpdecoder')!)));
      expect(readFileSync(again.path).includes(cache)).toBe(false);
      const symbols = execFileSync('nm', ['-D', '--defined-only', again.path], { encoding: 'utf8' });
      // No encoder, and none of libwebp's own names.
      expect([...symbols.matchAll(/ T (\w+)/g)].map(([, name]) => name)).toEqual([
        'assay_webp_decode',
        'assay_webp_version',
      ]);
    },
    300_000,
  );

  test.each(webp)('refuses a crate of another digest', async (recipe) => {
    const other = { ...sources, webp: '0'.repeat(64) };
    await expect(buildNative(recipe, other)).rejects.toMatchObject({ name: 'NativeError', kind: 'differs' });
  });
});

const recorded = results[`${process.platform}-${process.arch}`];
describe.skipIf(recorded === undefined || recorded.toolchain !== toolchain())(
  'what make native built',
  () => {
    test.each(RECIPES.map(({ library }) => library))('%s is as recorded', (name) => {
      const path = nativeLibrary(name);
      if (path === undefined) return;
      expect(sha256Hex(readFileSync(path))).toBe(recorded?.libraries[`${name}.so`]);
    });
  },
);
