// Split models: the parts make the file they were cut from; what is missing, out of order, alien or said
// twice is refused with the part's name. llama.cpp's own reader of split files shows that the test's parts
// are such files.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { ensureDemoModels } from '../../../../scripts/demo-model/main.ts';
import { readHeader } from '../../../../src/models/gguf/header.ts';
import { namesOfParts, partOf } from '../../../../src/models/gguf/part-name.ts';
import { inspectGguf, inspectParts } from '../../../../src/models/gguf/read.ts';
import { joinParts, readParts } from '../../../../src/models/gguf/split.ts';
import { source } from '../../../fixtures/models/gguf-source.ts';
import { splitGguf, type SplitChanges } from '../../../fixtures/models/gguf-split.ts';
import { tinyGguf } from '../../../fixtures/models/gguf-tiny.ts';

const demo = await ensureDemoModels(['demo-chat', 'demo-context', 'demo-embed']);
const tiny = tinyGguf();

function named(parts: readonly Uint8Array[]): Parameters<typeof readParts>[0] {
  return parts.map((bytes, i) => ({ name: `M-${i + 1}.gguf`, source: source(bytes) }));
}

async function joined(parts: readonly Uint8Array[]): Promise<Buffer> {
  const model = joinParts(await readParts(named(parts)));
  const file = Buffer.alloc(model.header.fileSize);
  file.set(model.head);
  for (const [i, { from, to, at }] of model.sections.entries()) file.set(parts[i]!.subarray(from, to), at);
  return file;
}

describe('joining', () => {
  test.each(['demo-chat', 'demo-context', 'demo-embed'] as const)(
    'the parts of %s make its file again, byte for byte',
    async (name) => {
      const file = readFileSync(demo[name].path);
      for (const count of [2, 3, 7]) {
        const parts = await splitGguf(file, count);
        expect((await joined(parts)).equals(file), `${count} parts`).toBe(true);
        expect(await inspectParts(named(parts))).toEqual(await inspectGguf(source(file)));
      }
      expect((await joined(await splitGguf(file, 3, { emptyFirst: true }))).equals(file)).toBe(true);
    },
  );

  test('the header promised is the one the joined file has', async () => {
    const parts = await splitGguf(tiny, 3);
    const { head: _, spans: __, ...promised } = joinParts(await readParts(named(parts))).header;
    const { head: ___, spans: ____, ...read } = await readHeader(source(await joined(parts)));
    expect(promised).toEqual(read);
  });

  test('llama.cpp reads the same parts as one model, and chooses the same tokens', async () => {
    const oracle = fileURLToPath(new URL('../../../fixtures/engine/llama-oracle.mjs', import.meta.url));
    const folder = mkdtempSync(join(tmpdir(), 'assay-split-'));
    try {
      const parts = await splitGguf(readFileSync(demo['demo-context'].path), 3);
      const names = namesOfParts(join(folder, 'M-00001-of-00003.gguf'));
      for (const [i, name] of names.entries()) writeFileSync(name, parts[i]!);
      // The oracle ends itself with SIGKILL once it has written.
      const greedy = (path: string): string =>
        spawnSync(process.execPath, [oracle, path, '[9,10,11]', '8'], { encoding: 'utf8' }).stdout;
      const tokens = greedy(names[0]!);
      expect(JSON.parse(tokens)).toHaveLength(8);
      expect(tokens).toBe(greedy(demo['demo-context'].path));
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe('what is refused, with the part', () => {
  const wrong = (at: number, value: number | null) => (right: (part: number) => number) => (part: number) =>
    part === at ? value : right(part);
  const self = (part: number): number => part;
  const three = (): number => 3;
  const all = (): number => 12;
  test.each<[string, SplitChanges, RegExp]>([
    [
      'a part without split.count',
      { count: wrong(1, null)(three) },
      /part 2 of 3 \(M-2\.gguf\) has no split\.count/,
    ],
    [
      'a part of a model of four',
      { count: wrong(2, 4)(three) },
      /part 3 of 3 \(M-3\.gguf\) has split\.count 4, expected 3/,
    ],
    [
      'a part without split.no',
      { number: wrong(1, null)(self) },
      /part 2 of 3 .* split\.no missing, expected 1/,
    ],
    ['two parts of one number', { number: wrong(2, 1)(self) }, /part 3 of 3 .* split\.no 1, expected 2/],
    [
      'a part of a model with more tensors',
      { tensors: wrong(1, 13)(all) },
      /part 2 of 3 .* split\.tensors\.count 13, the first part 12/,
    ],
    [
      'a count of tensors that is not theirs',
      { tensors: () => 13 },
      /split\.tensors\.count is 13, its 3 parts have 12/,
    ],
  ])('%s', async (_, changes, message) => {
    await expect(inspectParts(named(await splitGguf(tiny, 3, changes)))).rejects.toMatchObject({
      status: 400,
      code: 'invalid_gguf',
      message: expect.stringMatching(message) as string,
    });
  });

  test('parts in another order, missing ones, and a part twice', async () => {
    const [a, b, c] = (await splitGguf(tiny, 3)) as [Buffer, Buffer, Buffer];
    const refusal = async (...parts: readonly Buffer[]): Promise<string> => {
      const error: unknown = await inspectParts(named(parts)).then(
        () => 'accepted',
        (reason: unknown) => reason,
      );
      expect(error).toMatchObject({ status: 400, code: 'invalid_gguf' });
      return (error as Error).message;
    };
    expect(await refusal(a, c, b)).toMatch(
      /part 2 of 3 \(M-2\.gguf\) has split\.no 2, expected 1: .* out of order/,
    );
    expect(await refusal(b, a, c)).toMatch(/part 1 of 3 .* split\.no 1, expected 0/);
    expect(await refusal(a, b)).toMatch(/part 1 of 2 .* split\.count 3, expected 2/);
    expect(await refusal(a, b, b)).toMatch(/part 3 of 3 .* split\.no 1, expected 2/);
    expect(await refusal(a, b, tiny)).toMatch(/part 3 of 3 \(M-3\.gguf\) has no split\.count/);
    expect(await refusal(a, Buffer.from('garbage, and no GGUF file'), c)).toMatch(/^M-2\.gguf: .*"GGUF"/);
  });

  test('a tensor that two parts have', async () => {
    const parts = [...(await splitGguf(tiny, 3, { tensors: () => null }))];
    const again = await splitGguf(tiny, 3, { number: () => 2, tensors: () => null });
    parts[2] = again[1]!;
    await expect(inspectParts(named(parts))).rejects.toThrow(
      /part 3 of 3 \(M-3\.gguf\) repeats tensor blk\.0\.attn_v\.weight of part 2 of 3 \(M-2\.gguf\)/,
    );
  });

  test('a part of another model of the same shape of names, by what the whole then lacks', async () => {
    const other = await splitGguf(
      tinyGguf({ tensors: { 'blk.0.ffn_norm.weight': { name: 'blk.3.ffn_norm.weight' } } }),
      3,
    );
    const [a, , c] = await splitGguf(tiny, 3);
    await expect(inspectParts(named([a!, other[1]!, c!]))).rejects.toThrow(
      /block_count is 1, but tensors are there for 4/,
    );
  });

  test('a damaged part never gives anything but the typed refusal or an accepted model', async () => {
    const parts = await splitGguf(tiny, 3);
    let refused = 0;
    for (let at = 0; at < 400; at++) {
      const damaged = parts.map((part) => Buffer.from(part));
      damaged[1 + (at % 2)]!.writeUInt8((at * 37 + 1) & 0xff, at >> 1);
      await inspectParts(named(damaged)).catch((error: unknown) => {
        expect(error).toMatchObject({ status: 400, code: 'invalid_gguf' });
        refused++;
      });
    }
    expect(refused).toBeGreaterThan(100);
  });

  test('one part given as a whole model', async () => {
    await expect(inspectGguf(source((await splitGguf(tiny, 2))[0]!))).rejects.toThrow(
      /one part of a split model/,
    );
  });
});

describe('names of parts', () => {
  test('the first tells the others', () => {
    expect(namesOfParts('/a/M-Q8_0-00001-of-00003.gguf')).toEqual([
      '/a/M-Q8_0-00001-of-00003.gguf',
      '/a/M-Q8_0-00002-of-00003.gguf',
      '/a/M-Q8_0-00003-of-00003.gguf',
    ]);
    expect(namesOfParts('/a/M.gguf')).toEqual(['/a/M.gguf']);
    expect(namesOfParts('/a/M-00001-of-00001.gguf')).toEqual(['/a/M-00001-of-00001.gguf']);
    expect(partOf('M-1-of-3.gguf')).toBeUndefined();
  });

  test.each([
    ['/a/M-00002-of-00003.gguf', /part 2 of 3 of a split model, expected its first part/],
    ['/a/M-00001-of-99999.gguf', /99999 parts, at most 60/],
  ])('%s is refused', (path, message) => {
    expect(() => namesOfParts(path)).toThrow(message);
  });
});
