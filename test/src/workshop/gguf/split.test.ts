// Splitting and merging: the same bytes as a writer of its own makes, llama.cpp and the server load the
// parts, and merging gives the file back.

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, open, readdir, readFile, rm, writeFile, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import * as fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ensureDemoModels } from '../../../../scripts/demo-model/main.ts';
import { readHeader } from '../../../../src/models/gguf/header.ts';
import { fileSource, inspectParts } from '../../../../src/models/gguf/read.ts';
import {
  mergeGguf,
  planParts,
  splitGguf,
  type SplitOptions,
  type WrittenPart,
} from '../../../../src/workshop/gguf/split.ts';
import { source } from '../../../fixtures/models/gguf-source.ts';
import { splitGguf as otherSplit } from '../../../fixtures/models/gguf-split.ts';
import { tinyGguf } from '../../../fixtures/models/gguf-tiny.ts';
import { publishedWeights } from '../../../fixtures/models/published.ts';

const signal = new AbortController().signal;
const smollm2 = await publishedWeights('smollm2');
let folder: string;
let handles: FileHandle[];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assay-split-'));
  handles = [];
});
afterEach(async () => {
  for (const handle of handles) await handle.close();
  await rm(folder, { recursive: true });
});

async function opened(path: string): ReturnType<typeof fileSource> {
  const handle = await open(path);
  handles.push(handle);
  return fileSource(handle);
}

function split(bytes: Buffer, options: Omit<SplitOptions, 'signal'>): Promise<readonly WrittenPart[]> {
  return splitGguf(source(bytes), { folder, stem: 'model' }, { signal, ...options });
}

async function merged(parts: readonly WrittenPart[]): Promise<Buffer> {
  const sources = [];
  for (const { name, path } of parts) sources.push({ name, source: await opened(path) });
  const path = join(folder, 'merged.gguf');
  await mergeGguf(sources, path, { signal });
  const bytes = await readFile(path);
  await rm(path);
  return bytes;
}

async function tensorsOf(bytes: Buffer): Promise<ReadonlyMap<string, string>> {
  const header = await readHeader(source(bytes));
  return new Map(
    header.tensors.map(({ name, offset, bytes: size }) => {
      const at = header.dataOffset + offset;
      return [
        name,
        createHash('sha256')
          .update(bytes.subarray(at, at + size))
          .digest('hex'),
      ];
    }),
  );
}

describe('split', () => {
  test.each([1, 2, 5, 7, 100])('%i tensors a part: the bytes that another writer makes', async (max) => {
    const tiny = tinyGguf();
    const parts = await split(tiny, { by: { kind: 'tensors', max } });
    const others = await otherSplit(tiny, parts.length);
    expect(parts.map(({ name }) => name)).toEqual((await readdir(folder)).toSorted());
    // The other writer shares tensors out evenly: the same where the last part is full enough.
    const { tensors } = await readHeader(source(tiny));
    if (Math.ceil(tensors.length / parts.length) !== Math.min(max, tensors.length)) return;
    for (const [i, { path }] of parts.entries()) expect((await readFile(path)).equals(others[i]!)).toBe(true);
  });

  test('no tensor in the first part', async () => {
    const tiny = tinyGguf();
    const { tensors } = await readHeader(source(tiny));
    const parts = await split(tiny, { by: { kind: 'tensors', max: tensors.length }, noTensorFirst: true });
    const others = await otherSplit(tiny, 2, { emptyFirst: true });
    expect(parts.map((part) => part.tensors)).toEqual([0, tensors.length]);
    for (const [i, { path }] of parts.entries()) expect((await readFile(path)).equals(others[i]!)).toBe(true);
  });

  test('split and merged is the file, for any size', async () => {
    const tiny = tinyGguf();
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom('tensors' as const, 'bytes' as const),
        fc.integer({ min: 1, max: 40_000 }),
        fc.boolean(),
        async (kind, max, noTensorFirst) => {
          const parts = await split(tiny, { by: { kind, max }, noTensorFirst });
          if (parts.length > 1) expect((await merged(parts)).equals(tiny)).toBe(true);
          else expect((await readFile(parts[0]!.path)).length).toBeGreaterThan(tiny.length);
          for (const { path } of parts) await rm(path);
        },
      ),
      { numRuns: 60 },
    );
  });

  test('bytes of a part: never more than asked for, but for a tensor that is larger', async () => {
    const header = await readHeader(source(tinyGguf()));
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 60_000 }), (max) => {
        const parts = planParts(header, { by: { kind: 'bytes', max } });
        expect(parts.flat()).toEqual(header.tensors);
        for (const part of parts)
          if (part.length > 1)
            expect(part.reduce((sum, { bytes }) => sum + bytes, 0)).toBeLessThanOrEqual(max);
      }),
    );
  });

  test('another alignment: each part has the key, and tensors come back', async () => {
    const read = await readHeader(source(tinyGguf({ metadata: { 'general.alignment': { u32: 64 } } }))).catch(
      () => undefined,
    );
    expect(read?.alignment).toBe(64);
    const wide = tinyGguf({ metadata: { 'general.alignment': { u32: 64 } } });
    const parts = await split(wide, { by: { kind: 'tensors', max: 4 } });
    expect(parts.length).toBeGreaterThan(1);
    expect(await tensorsOf(await merged(parts))).toEqual(await tensorsOf(wide));
  });

  test('parts that are too many, or of a part', async () => {
    const header = await readHeader(source(tinyGguf()));
    const tensors = Array.from({ length: 61 }, (_, i) => ({ ...header.tensors[0]!, name: `t${i}` }));
    expect(() => planParts({ ...header, tensors }, { by: { kind: 'tensors', max: 1 } })).toThrow(
      'would have 61 parts, at most 60 are served',
    );
    const [, part] = await otherSplit(tinyGguf(), 2);
    await expect(split(part!, { by: { kind: 'tensors', max: 1 } })).rejects.toThrow('merge it first');
    await expect(split(tinyGguf(), { by: { kind: 'bytes', max: 0 } })).rejects.toMatchObject({
      code: 'invalid_value',
    });
    expect(await readdir(folder)).toEqual([]);
  });

  test('a file that is there is not replaced, and nothing of a cut-off run stays', async () => {
    const options = { by: { kind: 'tensors', max: 100 } } as const;
    await writeFile(join(folder, 'model-00001-of-00001.gguf'), 'mine');
    await expect(split(tinyGguf(), options)).rejects.toMatchObject({ code: 'EEXIST' });
    const aborted = AbortSignal.abort(new Error('enough'));
    const to = { folder, stem: 'other' };
    await expect(splitGguf(source(tinyGguf()), to, { ...options, signal: aborted })).rejects.toThrow(
      'enough',
    );
    expect(await readdir(folder)).toEqual(['model-00001-of-00001.gguf']);
  });
});

test('merge refuses parts out of order', async () => {
  const parts = await split(tinyGguf(), { by: { kind: 'tensors', max: 5 } });
  await expect(merged(parts.toReversed())).rejects.toMatchObject({ code: 'invalid_gguf' });
  expect(await readdir(folder)).toEqual(parts.map(({ name }) => name));
});

describe('a real model', () => {
  test('demo-chat: llama.cpp reads the parts as it reads the whole', async () => {
    const { 'demo-chat': chat } = await ensureDemoModels(['demo-chat']);
    const parts = await splitGguf(
      await opened(chat.path),
      { folder, stem: 'chat' },
      { signal, by: { kind: 'bytes', max: 600_000 } },
    );
    expect(parts.length).toBeGreaterThan(3);
    const sources = [];
    for (const { name, path } of parts) sources.push({ name, source: await opened(path) });
    expect((await inspectParts(sources)).parameters).toBeGreaterThan(1_000_000);
    expect((await merged(parts)).equals(await readFile(chat.path))).toBe(true);
    expect(await greedy(parts[0]!.path)).toEqual(await greedy(chat.path));
  });

  test.skipIf(smollm2 === undefined)('SmolLM2: merged, it has the same bytes', async () => {
    const parts = await splitGguf(
      await opened(smollm2!),
      { folder, stem: 'smol' },
      { signal, by: { kind: 'bytes', max: 30_000_000 } },
    );
    expect(parts.length).toBe(4);
    expect((await merged(parts)).equals(await readFile(smollm2!))).toBe(true);
  });
});

/** Tokens of llama.cpp itself, which finds the other parts by their names. */
async function greedy(path: string): Promise<readonly number[]> {
  const oracle = fileURLToPath(new URL('../../../fixtures/engine/llama-oracle.mjs', import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, [oracle, path, '[1,300,301,302]', '8'], {
    timeout: 60_000,
  }).catch((error: { readonly stdout?: string }) => ({ stdout: error.stdout ?? '' }));
  const tokens = JSON.parse(stdout) as readonly number[];
  expect(tokens.length).toBe(8);
  return tokens;
}
