// The checks of a LoRA adapter: what llama.cpp would abort on or silently leave out is refused with a typed
// error, and what they accept is applied by real llama.cpp without an abort.

import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { WrittenValue } from '../../../../scripts/demo-model/gguf.ts';
import { ApiError } from '../../../../src/base/errors.ts';
import { inspectAdapter, type AdapterInfo } from '../../../../src/models/gguf/adapter.ts';
import { readHeader } from '../../../../src/models/gguf/header.ts';
import {
  adapterFile,
  randomPairs,
  TINY_TARGETS,
  tinyAdapter,
} from '../../../fixtures/models/gguf-adapter.ts';
import { source } from '../../../fixtures/models/gguf-source.ts';
import { after, tinyGguf, type Changes } from '../../../fixtures/models/gguf-tiny.ts';

const tiny = tinyGguf();
const base = await readHeader(source(tiny));
const words = base.tensors[0]!.shape[1];

async function accepted(bytes: Uint8Array): Promise<AdapterInfo | undefined> {
  try {
    return await inspectAdapter(source(bytes), base);
  } catch (error) {
    if (
      error instanceof ApiError &&
      error.status === 400 &&
      (error.code === 'invalid_gguf' || error.code === 'adapter_mismatch')
    )
      return undefined;
    throw error;
  }
}

test('an adapter that fits is described', async () => {
  expect(await inspectAdapter(source(tinyAdapter()), base)).toEqual({
    architecture: 'llama',
    alpha: 8,
    pairs: 2,
    rank: 4,
    parameters: 4 * (32 + 32) + 4 * (32 + 64),
    quantization: 'F32',
    fileSize: tinyAdapter().length,
  });
});

/** The alpha of the file: a key that may be missing. */
test.each([
  ['F16', tinyAdapter({}, { type: 'F16' })],
  ['Q8_0 of rank 32', tinyAdapter({}, { type: 'Q8_0', rank: 32 })],
  ['no alpha', tinyAdapter({ metadata: { 'adapter.lora.alpha': undefined } })],
  [
    'the embedding',
    adapterFile(
      randomPairs({ targets: [{ name: 'token_embd.weight', columns: 32, rows: words }] }).map((pair) => ({
        ...pair,
        a: { ...pair.a, shape: [4, words], values: new Float32Array(4 * words).fill(0.5) },
        b: { ...pair.b, shape: [4, 32], values: new Float32Array(4 * 32).fill(0.5) },
      })),
    ),
  ],
])('taken: %s', async (_what, file) => {
  expect(await accepted(file)).toBeDefined();
});

const Q = 'blk.0.attn_q.weight';

function metadata(key: string, value: WrittenValue | undefined): Changes {
  return { metadata: { [key]: value } };
}

/** `[u32]` where the writer has `[i32]` only. */
function activated(tokens: readonly number[]): Buffer {
  const key = 'adapter.alora.invocation_tokens';
  const file = tinyAdapter(metadata(key, { i32s: tokens }));
  file.writeUInt32LE(4, after(file, key) + 4);
  return file;
}

/** A rank-1 tensor of its own beside the pairs. */
function beside(name: string): Buffer {
  const pairs = randomPairs({ targets: TINY_TARGETS });
  const [first] = pairs;
  return adapterFile([
    ...pairs,
    { ...first!, a: { ...first!.a, name }, b: { ...first!.b, name: `${name}2` } },
  ]);
}

test.each<readonly [what: string, file: Buffer, code: string, message: string]>([
  [
    'alpha as u32, an abort',
    tinyAdapter(metadata('adapter.lora.alpha', { u32: 8 })),
    'invalid_gguf',
    'adapter.lora.alpha has type u32, expected f32',
  ],
  [
    'alpha NaN',
    tinyAdapter(metadata('adapter.lora.alpha', { f32: NaN })),
    'invalid_gguf',
    'adapter.lora.alpha is NaN',
  ],
  [
    'alpha infinite',
    tinyAdapter(metadata('adapter.lora.alpha', { f32: Infinity })),
    'invalid_gguf',
    'adapter.lora.alpha is Infinity',
  ],
  [
    'alpha negative',
    tinyAdapter(metadata('adapter.lora.alpha', { f32: -1 })),
    'invalid_gguf',
    'adapter.lora.alpha is -1',
  ],
  [
    'general.type as u32, an abort',
    tinyAdapter(metadata('general.type', { u32: 1 })),
    'invalid_gguf',
    'general.type has type u32',
  ],
  ['a model', tinyGguf(), 'invalid_gguf', 'general.type is model, expected adapter'],
  [
    'no general.type',
    tinyAdapter(metadata('general.type', undefined)),
    'invalid_gguf',
    'general.type is missing',
  ],
  [
    'adapter.type as bool, an abort',
    tinyAdapter(metadata('adapter.type', { bool: true })),
    'invalid_gguf',
    'adapter.type has type bool',
  ],
  [
    'another kind of adapter',
    tinyAdapter(metadata('adapter.type', { string: 'ia3' })),
    'invalid_gguf',
    'adapter.type is ia3, expected lora',
  ],
  [
    'architecture as u32, an abort',
    tinyAdapter(metadata('general.architecture', { u32: 1 })),
    'invalid_gguf',
    'general.architecture has type u32',
  ],
  [
    'another architecture',
    tinyAdapter(metadata('general.architecture', { string: 'qwen2' })),
    'adapter_mismatch',
    'general.architecture is qwen2, that of the base is llama',
  ],
  [
    'an architecture that is no name',
    tinyAdapter(metadata('general.architecture', { string: 'a\nb' })),
    'adapter_mismatch',
    'is of an unknown kind',
  ],
  ['an activated LoRA', activated([1, 2]), 'invalid_gguf', 'an activated LoRA is not supported'],
  [
    'activation tokens beyond the vocabulary',
    activated([words]),
    'invalid_gguf',
    'an activated LoRA is not supported',
  ],
  [
    'activation tokens of another type',
    tinyAdapter(metadata('adapter.alora.invocation_tokens', { i32s: [1] })),
    'invalid_gguf',
    'has type array of i32',
  ],
  ['a part of a split file', tinyAdapter(metadata('split.count', { u32: 2 })), 'invalid_gguf', 'split.count'],
  ['no tensor', adapterFile([]), 'invalid_gguf', 'no pair'],
  [
    'A alone',
    tinyAdapter({ tensors: { [`${Q}.lora_b`]: undefined } }),
    'invalid_gguf',
    `tensor ${Q}.lora_b is missing`,
  ],
  [
    'B alone',
    tinyAdapter({ tensors: { [`${Q}.lora_a`]: undefined } }),
    'invalid_gguf',
    `tensor ${Q}.lora_a is missing`,
  ],
  [
    'a norm, which would be left out',
    beside('output_norm.weight'),
    'invalid_gguf',
    'only LoRA pairs are applied',
  ],
  ['a suffix twice', beside(`${Q}.lora_a.lora_a`), 'invalid_gguf', 'has its suffix twice'],
  ['a pair on a vector', tinyAdapterOn('output_norm.weight', 32, 1), 'invalid_gguf', 'is no matrix'],
  [
    'a tensor the base lacks',
    tinyAdapterOn('blk.7.attn_q.weight', 32, 32),
    'adapter_mismatch',
    'the base has no tensor blk.7.attn_q.weight',
  ],
  [
    'A of other columns',
    tinyAdapter({ tensors: { [`${Q}.lora_a`]: { shape: [64, 4] } } }),
    'adapter_mismatch',
    `tensor ${Q}.lora_a is [64, 4, 1, 1], the base makes it [32, 4, 1, 1]`,
  ],
  [
    'B of other rows',
    tinyAdapter({ tensors: { [`${Q}.lora_b`]: { shape: [4, 64] } } }),
    'adapter_mismatch',
    `tensor ${Q}.lora_b is [4, 64, 1, 1], the base makes it [4, 32, 1, 1]`,
  ],
  [
    'two ranks',
    tinyAdapter({ tensors: { [`${Q}.lora_b`]: { shape: [8, 32] } } }),
    'adapter_mismatch',
    `tensor ${Q}.lora_a is [32, 4, 1, 1]`,
  ],
  [
    'a third dimension, an abort',
    tinyAdapter({ tensors: { [`${Q}.lora_a`]: { shape: [32, 4, 3] } } }),
    'adapter_mismatch',
    `tensor ${Q}.lora_a is [32, 4, 3, 1]`,
  ],
  [
    'the embedding with its pair the other way, an abort',
    tinyAdapterOn('token_embd.weight', 32, words),
    'adapter_mismatch',
    'tensor token_embd.weight.lora_a is [32, 4, 1, 1]',
  ],
])('refused: %s', async (_what, file, code, message) => {
  // prettier-ignore
  const refused = inspectAdapter(source(file), base);
  await expect(refused).rejects.toMatchObject({ status: 400, code });
  await expect(refused).rejects.toThrow(message);
});

function tinyAdapterOn(name: string, columns: number, rows: number): Buffer {
  return adapterFile(randomPairs({ targets: [{ name, columns, rows }] }));
}

test('a weight type that llama.cpp would not multiply is refused by its name', async () => {
  const file = tinyAdapter({}, { rank: 32 });
  // The type follows the name, the number of dimensions and two of them; 18 bytes of a Q4_0 block fit in 128.
  const at = after(file, `${Q}.lora_a`) + 4 + 16;
  file.writeUInt32LE(2, at);
  // Q4_0 is smaller, so the tensor after it is out of place; as the last one it is not.
  await expect(inspectAdapter(source(file), base)).rejects.toMatchObject({ code: 'invalid_gguf' });
  const last = adapterFile(randomPairs({ targets: TINY_TARGETS.slice(0, 1), rank: 32 }));
  last.writeUInt32LE(2, after(last, `${Q}.lora_b`) + 4 + 16);
  await expect(inspectAdapter(source(last), base)).rejects.toThrow(
    `tensor ${Q}.lora_b has type Q4_0, expected F32`,
  );
});

test('on a base whose embedding is its output layer, no pair for it is taken, which llama.cpp aborts on', async () => {
  const tied = await readHeader(source(tinyGguf({ tensors: { 'output.weight': undefined } })));
  const pairs = randomPairs({ targets: [{ name: 'token_embd.weight', columns: words, rows: 32 }] });
  await expect(inspectAdapter(source(adapterFile(pairs)), tied)).rejects.toThrow(
    'is its output layer as well',
  );
});

describe('on damaged headers', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'assay-adapter-'));
    await writeFile(join(folder, 'base.gguf'), tiny);
  });
  afterAll(() => rm(folder, { recursive: true }));

  const file = tinyAdapter();
  const end = after(file, 'blk.0.ffn_up.weight.lora_b') + 40;
  const mutations = fc.array(
    fc.record({
      at: fc.nat(end - 1),
      bytes: fc.oneof(
        fc.uint8Array({ minLength: 1, maxLength: 8 }),
        fc.constantFrom([0], [0xff], [0, 0, 0, 0], [1, 0, 0, 0], [0xff, 0xff, 0xff, 0xff]),
      ),
    }),
    { minLength: 1, maxLength: 3 },
  );
  const damage = (changes: readonly { readonly at: number; readonly bytes: ArrayLike<number> }[]): Buffer => {
    const out = Buffer.from(file);
    for (const { at, bytes } of changes) Buffer.from(Array.from(bytes)).copy(out, at);
    return out;
  };

  test('throws its typed error or gives sane numbers', async () => {
    await fc.assert(
      fc.asyncProperty(mutations, fc.option(fc.nat(file.length)), async (changes, cut) => {
        const info = await accepted(damage(changes).subarray(0, cut ?? undefined));
        if (info === undefined) return;
        expect(info.rank).toBeGreaterThan(0);
        expect(Number.isFinite(info.alpha)).toBe(true);
        expect(info.pairs).toBeGreaterThan(0);
      }),
      { numRuns: 3000 },
    );
  });

  test(
    'accepts nothing that makes llama.cpp abort, which it does on what is refused',
    { timeout: 300_000 },
    async () => {
      const survivors: string[] = [];
      for (const [i, changes] of fc.sample(mutations, { numRuns: 2500, seed: 20261129 }).entries()) {
        const damaged = damage(changes);
        if (survivors.length >= 60 || (await accepted(damaged)) === undefined) continue;
        const path = join(folder, `${i}.gguf`);
        await writeFile(path, damaged);
        survivors.push(path);
      }
      expect(survivors).toHaveLength(60);
      expect(await applied(join(folder, 'base.gguf'), survivors)).toEqual({ died: undefined, ok: 60 });
      // The check has a point: llama.cpp ends the process on these.
      await writeFile(join(folder, 'tied.gguf'), tinyGguf({ tensors: { 'output.weight': undefined } }));
      const embedding = randomPairs({ targets: [{ name: 'token_embd.weight', columns: 4, rows: words }] });
      const tied = embedding.map(({ a, b, ...pair }) => ({
        ...pair,
        a: { ...a, shape: [4, words], values: new Float32Array(4 * words) },
        b: { ...b, shape: [4, 32], values: new Float32Array(4 * 32) },
      }));
      for (const [name, base, bytes] of [
        ['alpha', 'base', tinyAdapter(metadata('adapter.lora.alpha', { u32: 8 }))],
        ['dimension', 'base', tinyAdapter({ tensors: { [`${Q}.lora_a`]: { shape: [32, 4, 3] } } })],
        ['embedding', 'tied', adapterFile(tied)],
      ] as const) {
        const path = join(folder, `${name}.gguf`);
        await writeFile(path, bytes);
        expect(await applied(join(folder, `${base}.gguf`), [path])).toEqual({ died: path, ok: 0 });
      }
    },
  );
});

const loader = fileURLToPath(new URL('../../../fixtures/models/gguf-adapter-load.ts', import.meta.url));

/** How many were applied, and the file at which llama.cpp ended the process. */
async function applied(
  model: string,
  paths: readonly string[],
): Promise<{ readonly died: string | undefined; readonly ok: number }> {
  const child = spawn(process.execPath, ['--import', 'tsx', loader, model], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  const outcomes: string[] = [];
  createInterface({ input: child.stdout }).on('line', (line) => {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the child is ours
    outcomes.push((JSON.parse(line) as { outcome: string }).outcome);
  });
  child.stdin.on('error', () => undefined);
  child.stdin.end(paths.join('\n'));
  await new Promise((resolve) => child.on('close', resolve));
  expect(outcomes.filter((outcome) => outcome !== 'ok')).toEqual([]);
  return { died: paths[outcomes.length], ok: outcomes.length };
}
