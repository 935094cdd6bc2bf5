// Adapters in a real engine. The oracle is arithmetic: the same deltas folded into the base's weights by the
// test make another model file, and the adapter must write what that model writes.

import { mkdtemp, open, readFile, rm, writeFile, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openEngine } from '../../../src/engine/open.ts';
import type { Engine, GenerateEvent, LoadSpec } from '../../../src/engine/seam/engine.ts';
import { readHeader } from '../../../src/models/gguf/header.ts';
import { run, workerEntry } from '../../fixtures/engine/demo-engine.ts';
import { adapterFile, foldedTiny, randomPairs, TINY_TARGETS } from '../../fixtures/models/gguf-adapter.ts';
import { source } from '../../fixtures/models/gguf-source.ts';
import { tinyGguf } from '../../fixtures/models/gguf-tiny.ts';
import { apiRefusal } from '../../fixtures/refusal.ts';

const RANK = 4;
const ALPHA = 8;
const tiny = tinyGguf();
const header = await readHeader(source(tiny));

const red = randomPairs({ targets: TINY_TARGETS, rank: RANK, seed: 1 });
const blue = randomPairs({
  targets: [
    { name: 'blk.0.attn_v.weight', columns: 32, rows: 32 },
    { name: 'blk.0.ffn_down.weight', columns: 64, rows: 32 },
    { name: 'output.weight', columns: 32, rows: header.tensors[0]!.shape[1] },
  ],
  rank: RANK,
  seed: 2,
});

let folder: string;
const ENGINES: Engine[] = [];
const FILES: FileHandle[] = [];

async function fdOf(name: string, bytes: Buffer): Promise<number> {
  await writeFile(join(folder, name), bytes);
  const file = await open(join(folder, name));
  FILES.push(file);
  return file.fd;
}

async function engineOf(name: string, bytes: Buffer, spec: Partial<LoadSpec> = {}): Promise<Engine> {
  const fd = await fdOf(`${name}.gguf`, bytes);
  const engine = await openEngine({ workerEntry })(
    { path: '/proc/self/fd/4', fd, slots: 4, ...spec },
    new AbortController().signal,
  );
  ENGINES.push(engine);
  return engine;
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assay-adapters-'));
});

afterAll(async () => {
  await Promise.all([...ENGINES.map((engine) => engine.close()), ...FILES.map((file) => file.close())]);
  await rm(folder, { recursive: true });
});

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

/** The largest of a logprob; infinite where the likely tokens are others. */
function difference(a: ReturnType<typeof logprobs>, b: typeof a): number {
  expect([a.length, b.length]).toEqual([8, 8]);
  return Math.max(
    ...a.flatMap((step, i) =>
      [...step].map(([token, logprob]) => Math.abs(logprob - (b[i]!.get(token) ?? Infinity))),
    ),
  );
}

describe.skipIf(process.platform !== 'linux')('adapters of one engine', () => {
  const prompt = { kind: 'text', text: 'the model the model' } as const;
  const asked = { prompt, maxTokens: 8, logprobs: 4 };
  let adapted: Engine;

  beforeAll(async () => {
    adapted = await engineOf('base', tiny, {
      adapters: [
        { key: 'red', fd: await fdOf('red', adapterFile(red, { alpha: ALPHA })), scale: 1 },
        { key: 'half red', fd: await fdOf('half', adapterFile(red, { alpha: ALPHA })), scale: 0.5 },
        { key: 'blue', fd: await fdOf('blue', adapterFile(blue, { alpha: 0 })), scale: 0.25 },
      ],
    });
  });

  test.each([
    ['red', red, ALPHA / RANK],
    ['half red', red, (0.5 * ALPHA) / RANK],
    // Without an alpha the rank does not count.
    ['blue', blue, 0.25],
  ] as const)(
    '%s writes what the model with the deltas in its weights writes',
    async (adapter, pairs, factor) => {
      const alone = await engineOf(`folded ${adapter}`, await foldedTiny(pairs, factor));
      const oracle = await run(alone, asked);
      const result = await run(adapted, { ...asked, adapter });
      expect(result.tokens).toEqual(oracle.tokens);
      expect(difference(logprobs(result.events), logprobs(oracle.events))).toBeLessThan(1e-4);
      const base = await run(adapted, asked);
      expect(difference(logprobs(result.events), logprobs(base.events))).toBeGreaterThan(0.05);
    },
  );

  test('the base writes beside them what it writes without any', async () => {
    const plain = await run(await engineOf('plain', tiny), asked);
    await run(adapted, { ...asked, adapter: 'blue' });
    const beside = await run(adapted, { ...asked, cacheScope: 'beside' });
    expect(logprobs(beside.events)).toEqual(logprobs(plain.events));
  });

  test('together they write what each writes alone, and share no prefix', async () => {
    const adapters = ['red', 'half red', 'blue', undefined];
    const fresh = (adapter: string | undefined, cacheScope: string) =>
      run(adapted, { ...asked, adapter, cacheScope });
    const alone = [];
    for (const adapter of adapters) alone.push(await fresh(adapter, 'alone'));
    const together = await Promise.all(adapters.map((adapter) => fresh(adapter, 'together')));
    expect(together.map((result) => result.tokens)).toEqual(alone.map((result) => result.tokens));
    // The first of a scope finds no prefix, whatever other adapters left of the same text; its own it finds.
    expect([...alone, ...together].map((result) => result.cachedTokens)).toEqual(
      Array.from({ length: 8 }, () => 0),
    );
    const again = await fresh('red', 'together');
    expect(again.cachedTokens).toBe(again.promptTokens - 1);
    expect(again.tokens).toEqual(alone[0]!.tokens);
  });

  test('one that the engine does not have is refused, and the engine goes on', async () => {
    expect((await apiRefusal(run(adapted, { adapter: 'green' }))).code).toBe('engine_failed');
    expect((await run(adapted, { ...asked, adapter: 'red' })).finish).toBe('length');
  });

  test('the process may open no file once it serves', async () => {
    const status = await readFile(`/proc/${adapted.pid}/status`, 'utf8');
    // Two filters: the one for loading, and the one that took opening files away.
    expect(/^Seccomp_filters:\s+(\d+)$/m.exec(status)?.[1]).toBe('2');
    expect(/^NoNewPrivs:\s+1$/m.test(status)).toBe(true);
  });

  test('a file that is no adapter ends the load with a typed error', async () => {
    const error = await apiRefusal(
      engineOf('damaged', tiny, { adapters: [{ key: 'x', fd: await fdOf('x', tiny), scale: 1 }] }),
    );
    expect(error).toMatchObject({
      code: 'model_load_failed',
      message: expect.stringContaining('an adapter cannot be loaded'),
    });
  });
});
