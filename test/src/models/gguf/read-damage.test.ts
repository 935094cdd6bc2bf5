// The GGUF reader on damaged headers: its typed error or sane numbers, and no file accepted
// that makes llama.cpp abort.

import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test, onTestFinished } from 'vitest';
import { ensureDemoModels } from '../../../../scripts/demo-model/main.ts';
import type { WrittenValue } from '../../../../scripts/demo-model/gguf.ts';
import { after, tinyGguf } from '../../../fixtures/models/gguf-tiny.ts';
import { accepted } from '../../../fixtures/models/gguf-source.ts';

const models = await ensureDemoModels();

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assay-gguf-'));
});

afterAll(() => rm(folder, { recursive: true }));

interface Mutation {
  readonly at: number;
  readonly bytes: readonly number[];
}

function mutation(headerBytes: number): fc.Arbitrary<Mutation> {
  return fc.record({
    at: fc.nat(headerBytes - 1),
    bytes: fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 8 }).map((bytes) => [...bytes]),
      fc.constantFrom(
        [0],
        [0xff],
        [0, 0, 0, 0],
        [0xff, 0xff, 0xff, 0xff],
        [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        [0, 0, 0, 0, 1, 0, 0, 0],
        [1, 0, 0, 0],
      ),
    ),
  });
}

function mutate(file: Uint8Array, mutations: readonly Mutation[]): Buffer {
  const out = Buffer.from(file);
  for (const { at, bytes } of mutations) Buffer.from(bytes).copy(out, at);
  return out;
}

describe('on damaged headers', () => {
  test('throws its typed error or gives sane numbers, and never reads past the file', async () => {
    const file = tinyGguf();
    const headerBytes = after(file, 'output.weight') + 40;
    await fc.assert(
      fc.asyncProperty(
        fc.array(mutation(headerBytes), { minLength: 1, maxLength: 4 }),
        fc.option(fc.nat(file.length)),
        async (mutations, cut) => {
          const damaged = mutate(file, mutations).subarray(0, cut ?? undefined);
          const info = await accepted(damaged);
          if (info === undefined) return;
          expect(info.tensorBytes).toBeLessThanOrEqual(damaged.length);
          expect(info.blockCount).toBeGreaterThan(0);
          expect(info.headCount).toBeGreaterThan(0);
        },
      ),
      { numRuns: 3000 },
    );
  });

  test('throws its typed error on any bytes at all', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 400 }), fc.boolean(), async (bytes, magic) => {
        expect(
          await accepted(magic ? Buffer.concat([Buffer.from('GGUF\x03\0\0\0'), bytes]) : bytes),
        ).toBeUndefined();
      }),
      { numRuns: 1000 },
    );
  });

  test('accepts nothing that makes llama.cpp abort', { timeout: 400_000 }, async () => {
    const tiny = tinyGguf();
    const embed = await readFile(models['demo-embed'].path);
    const survivors: string[] = [];
    for (const [name, file, end] of [
      ['tiny', tiny, after(tiny, 'output.weight') + 40],
      ['embed', embed, after(embed, 'blk.1.layer_output_norm.bias') + 40],
    ] as const) {
      let found = 0;
      const limit = Number(process.env['ASSAY_TEST_GGUF_SURVIVORS'] ?? 40);
      const seed = Number(process.env['ASSAY_TEST_GGUF_SEED'] ?? 20261120);
      const samples = fc.sample(fc.array(mutation(end), { minLength: 1, maxLength: 2 }), {
        numRuns: limit * 40,
        seed,
      });
      for (const mutations of samples) {
        if (found >= limit) break;
        const damaged = mutate(file, mutations);
        if ((await accepted(damaged)) === undefined) continue;
        const path = join(folder, `${name}-${found++}.gguf`);
        await writeFile(path, damaged);
        survivors.push(path);
      }
      expect(found).toBe(limit);
    }
    const deaths = await loadAll(survivors);
    expect(deaths).toEqual([]);
  });

  test('accepts no odd setting that makes llama.cpp abort', { timeout: 400_000 }, async () => {
    const survivors: string[] = [];
    // One in six; all of them (a thousand files) with ASSAY_TEST_GGUF_ALL.
    const step = process.env['ASSAY_TEST_GGUF_ALL'] === undefined ? 6 : 1;
    for (const [k, name] of tinyKeys().entries()) {
      for (const [i, value] of ODD.entries()) {
        if ((k + i) % step !== 0) continue;
        const file = tinyGguf({ metadata: { [name]: value } });
        if ((await accepted(file)) === undefined) continue;
        const path = join(folder, `${name}-${i}.gguf`);
        await writeFile(path, file);
        survivors.push(path);
      }
    }
    expect(survivors.length).toBeGreaterThan(100);
    expect(await loadAll(survivors)).toEqual([]);
  });
});

/** Values a converter's mistake or a hand's edit might leave in any key. */
const ODD: readonly WrittenValue[] = [
  ...[0, 1, 2, 3, 15, 16, 17, 33, 128, 513, 65_536, 2 ** 31, 2 ** 32 - 1].map((u32) => ({ u32 })),
  ...[-1, 0, 7].map((i32) => ({ i32 })),
  ...[0, -1, 1e-30, 1e30, NaN, Infinity].map((f32) => ({ f32 })),
  { bool: true },
  { bool: false },
  ...['', 'llama', 'gpt2', 'bert', 't5', 'default', 'yarn', 'longrope', 'x'.repeat(5000), '\0'].map(
    (string) => ({ string }),
  ),
  { strings: [] },
  { strings: ['a', '', 'a'] },
  { i32s: [] },
  { i32s: [1] },
  { i32s: [0] },
  { i32s: [-5] },
  { f32s: [1] },
];

const OPTIONAL_KEYS = [
  'expert_count',
  'expert_used_count',
  'expert_group_count',
  'attention.causal',
  'attention.sliding_window',
  'attention.clamp_kqv',
  'attention.max_alibi_bias',
  'attention.scale',
  'attention.key_length_swa',
  'embedding_length_out',
  'logit_scale',
  'nextn_predict_layers',
  'pooling_type',
  'rope.scaling.attn_factor',
  'rope.scaling.factor',
  'rope.scaling.finetuned',
  'rope.scaling.original_context_length',
  'rope.scaling.type',
  'rope.scale_linear',
  'tensor_data_layout',
].map((name) => `llama.${name}`);

const OPTIONAL_TOKENIZER_KEYS = [
  'add_eos_token',
  'add_sep_token',
  'add_space_prefix',
  'cls_token_id',
  'eom_token_id',
  'mask_token_id',
  'precompiled_charsmap',
  'remove_extra_whitespaces',
  'scores',
  'seperator_token_id',
  'suppress_tokens',
  'token_type_count',
  'unknown_token_id',
].map((name) => `tokenizer.ggml.${name}`);

function tinyKeys(): readonly string[] {
  const keys = /(?:general|llama|tokenizer)\.[a-z_.]+/g;
  return [
    ...new Set([
      ...(tinyGguf().toString('latin1').match(keys) ?? []),
      ...OPTIONAL_KEYS,
      ...OPTIONAL_TOKENIZER_KEYS,
    ]),
  ];
}

/** Loads every file in child processes; returns those whose child died, with the signal or code. */
async function loadAll(paths: readonly string[]): Promise<readonly string[]> {
  const deaths: string[] = [];
  let rest = [...paths];
  while (rest.length > 0) {
    const child = spawn(
      process.execPath,
      ['--import', 'tsx', fileURLToPath(new URL('../../../fixtures/models/gguf-load.ts', import.meta.url))],
      {
        stdio: ['pipe', 'pipe', 'pipe'],
      },
    );
    const ended = new Promise<string>((resolve) =>
      child.once('exit', (code, signal) => resolve(`${signal ?? code}`)),
    );
    let complaint = '';
    child.stderr.on('data', (chunk: Buffer) => (complaint = (complaint + chunk.toString()).slice(-4000)));
    child.stdin.on('error', () => undefined);
    child.stdin.end(rest.join('\n'));
    onTestFinished(() => void child.kill('SIGKILL'));
    let done = 0;
    for await (const line of createInterface({ input: child.stdout })) if (line.startsWith('{')) done += 1;
    const how = await ended;
    if (done < rest.length)
      deaths.push(
        `${rest[done]}: ${how} ${/GGML_ASSERT.*|terminate.*|what\(\).*/.exec(complaint)?.[0] ?? complaint}`,
      );
    else if (how !== '0') deaths.push(`at the end: ${how}`);
    rest = rest.slice(done + 1);
  }
  return deaths;
}
