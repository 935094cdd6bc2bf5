// Merging adapters: the merged model writes what base and adapter write together in the engine, and the
// values are those of arithmetic in every type.

import { mkdtemp, open, readFile, rm, writeFile, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openEngine } from '../../../../src/engine/open.ts';
import type { Engine, GenerateEvent, LoadSpec } from '../../../../src/engine/seam/engine.ts';
import { readHeader } from '../../../../src/models/gguf/header.ts';
import { mergeLora } from '../../../../src/workshop/gguf/lora.ts';
import { run, workerEntry } from '../../../fixtures/engine/demo-engine.ts';
import { adapterFile, foldedTiny, randomPairs, TINY_TARGETS } from '../../../fixtures/models/gguf-adapter.ts';
import { source } from '../../../fixtures/models/gguf-source.ts';
import { tinyGguf } from '../../../fixtures/models/gguf-tiny.ts';

const signal = new AbortController().signal;
const tiny = tinyGguf();
const pairs = randomPairs({ targets: TINY_TARGETS, rank: 4, seed: 5 });
const adapter = adapterFile(pairs, { alpha: 8 });
let folder: string;
let made = 0;
const ENGINES: Engine[] = [];
const FILES: FileHandle[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assay-merge-'));
});
afterAll(async () => {
  await Promise.all([...ENGINES.map((each) => each.close()), ...FILES.map((each) => each.close())]);
  await rm(folder, { recursive: true });
});

async function merged(base: Buffer, given: Buffer, scale?: number): Promise<Buffer> {
  const path = join(folder, `merged-${(made += 1)}.gguf`);
  await mergeLora(source(base), source(given), path, { signal, scale });
  return readFile(path);
}

async function fdOf(bytes: Buffer): Promise<number> {
  const path = join(folder, `file-${(made += 1)}.gguf`);
  await writeFile(path, bytes);
  const file = await open(path);
  FILES.push(file);
  return file.fd;
}

async function engineOf(bytes: Buffer, spec: Partial<LoadSpec> = {}): Promise<Engine> {
  const fd = await fdOf(bytes);
  const engine = await openEngine({ workerEntry })(
    { path: '/proc/self/fd/4', fd, slots: 1, ...spec },
    signal,
  );
  ENGINES.push(engine);
  return engine;
}

async function valuesOf(bytes: Buffer, name: string): Promise<Buffer> {
  const header = await readHeader(source(bytes));
  const { offset, bytes: size } = header.tensors.find((tensor) => tensor.name === name)!;
  const at = header.dataOffset + offset;
  return bytes.subarray(at, at + size);
}

/** For each token written: the logprobs of the four most likely. */
function logprobs(events: readonly GenerateEvent[]): readonly ReadonlyMap<string, number>[] {
  return events.flatMap((event) =>
    event.kind === 'delta'
      ? (event.logprobs ?? []).map(
          ({ top }) => new Map(top.map(({ bytes, logprob }) => [bytes.join(), logprob])),
        )
      : [],
  );
}

describe.skipIf(process.platform !== 'linux')('in the engine', () => {
  test.each([1, 0.5, -1])('scale %d: what base and adapter write together', async (scale) => {
    const asked = {
      prompt: { kind: 'text', text: 'the model the model' },
      maxTokens: 8,
      logprobs: 4,
    } as const;
    const together = await engineOf(tiny, { adapters: [{ key: 'red', fd: await fdOf(adapter), scale }] });
    const expected = await run(together, { ...asked, adapter: 'red' });
    const result = await run(await engineOf(await merged(tiny, adapter, scale)), asked);
    const base = await run(together, asked);
    expect(result.tokens).toEqual(expected.tokens);
    const [a, b, c] = [result, expected, base].map(({ events }) => logprobs(events));
    const difference = (left: typeof a, right: typeof a): number =>
      Math.max(
        ...left!.flatMap((step, i) =>
          [...step].map(([token, value]) => Math.abs(value - (right![i]!.get(token) ?? Infinity))),
        ),
      );
    expect(difference(a, b)).toBeLessThan(1e-4);
    expect(difference(a, c)).toBeGreaterThan(0.05);
  });
});

describe('values', () => {
  test('are those of the test that adds the deltas itself; all else is copied', async () => {
    const own = await merged(tiny, adapter);
    const oracle = await foldedTiny(pairs, 8 / 4);
    const header = await readHeader(source(own));
    expect(own.length).toBe(tiny.length);
    for (const { name } of header.tensors) {
      const [left, right, before] = await Promise.all(
        [own, oracle, tiny].map((each) => valuesOf(each, name)),
      );
      if (!TINY_TARGETS.some((target) => target.name === name)) {
        expect(left!.equals(before!), name).toBe(true);
        continue;
      }
      const [a, b] = [left, right].map((each) => new Float32Array(new Uint8Array(each!).buffer));
      a!.forEach((value, i) => expect(Math.abs(value - b![i]!)).toBeLessThan(1e-6));
      expect(left!.equals(before!)).toBe(false);
    }
    expect((await merged(tiny, adapter)).equals(own)).toBe(true);
  });

  test.each(['F16', 'Q8_0'] as const)('an adapter of %s', async (type) => {
    const targets = type === 'Q8_0' ? TINY_TARGETS.slice(0, 1) : TINY_TARGETS;
    const rank = type === 'Q8_0' ? 32 : 4;
    const given = randomPairs({ targets, rank, seed: 9, type });
    const file = adapterFile(given, { alpha: rank });
    const left = await valuesOf(await merged(tiny, file), targets[0]!.name);
    const right = await valuesOf(await foldedTiny(given, 1), targets[0]!.name);
    const [a, b] = [left, right].map((each) => new Float32Array(new Uint8Array(each).buffer));
    const far = Math.max(...a!.map((value, i) => Math.abs(value - b![i]!)));
    // The adapter's own rounding: up to 1/256 of the largest value in a block, over all of a rank.
    expect(far).toBeLessThan(type === 'F16' ? 2e-3 : 0.1);
    expect(far).toBeGreaterThan(0);
  });

  test('without alpha the scale alone counts; scale 0 is the base', async () => {
    const none = adapterFile(pairs, { alpha: 0 });
    expect((await merged(tiny, none, 2)).equals(await merged(tiny, adapter, 1))).toBe(true);
    expect((await merged(tiny, adapter, 0)).equals(tiny)).toBe(true);
  });

  test('a base of F16', async () => {
    const half = tinyGguf({ tensors: { 'blk.0.attn_q.weight': { type: 'F16' } } });
    const left = await valuesOf(await merged(half, adapter), 'blk.0.attn_q.weight');
    const right = await valuesOf(await merged(tiny, adapter), 'blk.0.attn_q.weight');
    expect(left.length).toBe(right.length / 2);
    const singles = new Float32Array(new Uint8Array(right).buffer);
    const halves = new Uint16Array(new Uint8Array(left).buffer);
    const value = (bits: number): number => {
      const exponent = (bits >> 10) & 31;
      const fraction = bits & 1023;
      const size = exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15);
      return bits & 0x8000 ? -size : size;
    };
    halves.forEach((bits, i) => expect(Math.abs(value(bits) - singles[i]!)).toBeLessThan(4e-3));
  });
});

describe('refused', () => {
  test('a quantised matrix, by its name', async () => {
    const quantised = tinyGguf({ tensors: { 'blk.0.attn_q.weight': { type: 'Q8_0' } } });
    await expect(merged(quantised, adapter)).rejects.toMatchObject({
      code: 'unsupported_model_format',
      message: expect.stringContaining('blk.0.attn_q.weight is Q8_0') as unknown,
    });
  });

  test('an adapter of another base, a scale that is none, values that become infinite', async () => {
    const other = adapterFile(
      randomPairs({ targets: [{ name: 'blk.0.attn_q.weight', columns: 64, rows: 32 }] }),
      {},
    );
    await expect(merged(tiny, other)).rejects.toMatchObject({ code: 'adapter_mismatch' });
    await expect(merged(tiny, adapter, Number.NaN)).rejects.toMatchObject({ code: 'invalid_value' });
    await expect(merged(tiny, adapter, 1e39)).rejects.toMatchObject({ code: 'invalid_gguf' });
  });
});
