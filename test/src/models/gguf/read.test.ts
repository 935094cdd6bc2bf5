// The GGUF reader: reports real files, refuses corrupt ones with a reason, never anything but its typed error, and what it
// accepts does not take real llama.cpp down.

import { spawn } from 'node:child_process';
import { mkdtemp, open, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test, onTestFinished } from 'vitest';
import { ensureDemoModels } from '../../../../scripts/demo-model/main.ts';
import type { DemoModel, DemoModelName } from '../../../../scripts/demo-model/main.ts';
import type { WrittenValue } from '../../../../scripts/demo-model/gguf.ts';
import { CHAT_TEMPLATE } from '../../../../scripts/demo-model/text.ts';
import { ApiError } from '../../../../src/base/errors.ts';
import type { ByteSource } from '../../../../src/models/gguf/bytes.ts';
import { inspectGguf, readGguf } from '../../../../src/models/gguf/read.ts';
import type { GgufInfo } from '../../../../src/models/gguf/read.ts';
import { after, tinyGguf } from '../../../fixtures/models/gguf-tiny.ts';
import type { Changes } from '../../../fixtures/models/gguf-tiny.ts';

let models: Record<DemoModelName, DemoModel>;
let folder: string;

beforeAll(async () => {
  models = await ensureDemoModels();
  folder = await mkdtemp(join(tmpdir(), 'assay-gguf-'));
});

afterAll(() => rm(folder, { recursive: true }));

function source(bytes: Uint8Array): ByteSource {
  return {
    size: bytes.length,
    read: async (position, length) => bytes.subarray(position, position + length),
  };
}

function inspect(bytes: Uint8Array): Promise<GgufInfo> {
  return inspectGguf(source(bytes));
}

/** The info, or undefined when refused in the one way allowed. */
async function accepted(bytes: Uint8Array): Promise<GgufInfo | undefined> {
  try {
    return await inspect(bytes);
  } catch (error) {
    if (error instanceof ApiError && error.status === 400 && error.code === 'invalid_gguf') return undefined;
    throw error;
  }
}

function renamed(changes: Changes['metadata'] = {}): Buffer {
  return tinyGguf({
    metadata: {
      'general.architecture': { string: 'future-9' },
      'future-9.context_length': { u32: 4096 },
      'future-9.embedding_length': { u32: 32 },
      'future-9.block_count': { u32: 3 },
      'future-9.attention.head_count': { i32s: [2, 0, 2] },
      ...changes,
    },
  });
}

describe('what it reports', () => {
  test('reads the demo models', async () => {
    const read = async (name: DemoModelName) => {
      const handle = await open(models[name].path);
      try {
        return await readGguf(handle);
      } finally {
        await handle.close();
      }
    };
    expect(await read('demo-chat')).toMatchObject({
      architecture: 'llama',
      type: 'chat',
      quantization: 'Q8_0',
      contextLength: 2048,
      embeddingLength: 480,
      chatTemplate: CHAT_TEMPLATE,
      tokenizer: 'gpt2',
      license: 'apache-2.0',
      fileSize: models['demo-chat'].size,
    });
    expect(await read('demo-context')).toMatchObject({
      headCount: 4,
      headCountKv: 2,
      blockCount: 3,
      quantization: 'F32',
      // 3 layers × 2 heads × (32 + 32) × 2 bytes.
      cacheBytesPerToken: 768,
    });
    expect(await read('demo-embed')).toMatchObject({
      architecture: 'bert',
      type: 'embedding',
      pooling: 'mean',
      tokenizer: 'bert',
    });
    expect(await read('demo-rerank')).toMatchObject({ type: 'rerank', pooling: 'rank' });
  });

  test('counts parameters and bytes, and tells completion models from chat models', async () => {
    const info = await inspect(tinyGguf());
    expect(info.type).toBe('completion');
    expect(info.parameters).toBe(info.tensorBytes / 4);
    expect(info.tensorBytes).toBeLessThan(info.fileSize);
    expect(
      (await inspect(tinyGguf({ metadata: { 'tokenizer.chat_template': { string: '{{ x }}' } } }))).type,
    ).toBe('chat');
    expect((await inspect(tinyGguf({ metadata: { 'llama.pooling_type': { u32: 3 } } }))).type).toBe(
      'embedding',
    );
    expect((await inspect(tinyGguf({ metadata: { 'general.file_type': { u32: 15 } } }))).quantization).toBe(
      'Q4_K_M',
    );
    expect((await inspect(tinyGguf({ metadata: { 'general.file_type': undefined } }))).quantization).toBe(
      'F32',
    );
  });

  test('reads little of a large file', async () => {
    const path = join(folder, 'large.gguf');
    await writeFile(path, tinyGguf());
    await truncate(path, 2 ** 36);
    const handle = await open(path);
    let read = 0;
    const { size } = await handle.stat();
    const info = await inspectGguf({
      size,
      read: async (position, length) => {
        read += length;
        const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, position);
        return buffer.subarray(0, bytesRead);
      },
    });
    await handle.close();
    expect(info.fileSize).toBe(2 ** 36);
    expect(read).toBeLessThanOrEqual(1024 * 1024);
  });

  test('accepts architectures it does not know, by the generic rules', async () => {
    expect(await inspect(renamed())).toMatchObject({
      architecture: 'future-9',
      contextLength: 4096,
      headCount: 2,
    });
    await expect(inspect(renamed({ 'future-9.attention.head_count': { i32s: [2, 2] } }))).rejects.toThrow(
      '2 elements, expected one for each of 3 layers',
    );
  });
});

/** Patches bytes after a marker text. */
function patched(marker: string, skip: number, bytes: readonly number[]): Buffer {
  const file = tinyGguf();
  Buffer.from(bytes).copy(file, after(file, marker) + skip);
  return file;
}
function u64(value: bigint): number[] {
  const out = Buffer.alloc(8);
  out.writeBigUInt64LE(value);
  return [...out];
}
function key(name: string, value: NonNullable<Changes['metadata']>[string]): Buffer {
  return tinyGguf({ metadata: { [name]: value } });
}

describe('what it refuses', () => {
  const cases: readonly (readonly [what: string, make: () => Uint8Array, message: string])[] = [
    ['an empty file', () => new Uint8Array(), 'ends inside the magic number'],
    ['another format', () => Buffer.from('PK\x03\x04 not a model'), 'starts with 504b0304'],
    ['version 1', () => patched('GGUF', 0, [1, 0, 0, 0]), 'version 1, expected 2 or 3'],
    ['version 4', () => patched('GGUF', 0, [4, 0, 0, 0]), 'version 4, expected 2 or 3'],
    ['big-endian files', () => patched('GGUF', 0, [0, 0, 0, 3]), 'big-endian'],
    [
      '2^63 tensors',
      () => patched('GGUF', 4, u64(2n ** 63n)),
      'the number of tensors is 9223372036854775808',
    ],
    ['a million tensors', () => patched('GGUF', 4, u64(1_000_000n)), '1000000 tensors, at most'],
    ['2^40 keys', () => patched('GGUF', 12, u64(2n ** 40n)), 'metadata keys, at most'],
    [
      'a key length of 4 GB',
      () => patched('GGUF', 20, u64(2n ** 32n)),
      'the length of metadata key 0|metadata key 0 has 4294967296 bytes',
    ],
    ['an unknown value type', () => patched('general.architecture', 0, [99]), 'unknown value type 99'],
    [
      'a string beyond the file',
      () => patched('general.architecture', 4, u64(10_000_000n)),
      'ends inside general.architecture',
    ],
    [
      'a string of 4 GB',
      () => patched('general.architecture', 4, u64(2n ** 32n)),
      'has 4294967296 bytes, at most',
    ],
    ['an array of arrays', () => patched('tokenizer.ggml.tokens', 4, [9]), 'array of arrays'],
    [
      'an array longer than the file',
      () => patched('tokenizer.ggml.tokens', 8, u64(2n ** 35n)),
      'do not fit',
    ],
    [
      'a numeric array longer than the file',
      () => patched('tokenizer.ggml.token_type', 8, u64(2n ** 35n)),
      'do not fit',
    ],
    ['a repeated key', () => patchKey('general.name', 'general.type'), 'occurs twice'],
    ['an unprintable key', () => patchKey('general.name', 'general\x00name'), 'not printable'],
    ['no architecture', () => key('general.architecture', undefined), 'general.architecture is missing'],
    [
      'an architecture that is a number',
      () => key('general.architecture', { u32: 1 }),
      'general.architecture has type u32, expected string',
    ],
    ['alignment 0', () => key('general.alignment', { u32: 0 }), 'general.alignment is 0'],
    ['alignment 24', () => key('general.alignment', { u32: 24 }), 'general.alignment is 24'],
    ['alignment as i32', () => key('general.alignment', { i32: 32 }), 'general.alignment has type i32'],
    ['a different alignment than the data has', () => key('general.alignment', { u32: 4096 }), 'offset'],
    ['block_count 0', () => key('llama.block_count', { u32: 0 }), 'llama.block_count is 0'],
    ['block_count 600', () => key('llama.block_count', { u32: 600 }), 'llama.block_count is 600'],
    [
      'block_count 2^32−1',
      () => key('llama.block_count', { u32: 4294967295 }),
      'llama.block_count is 4294967295',
    ],
    [
      'block_count beyond the tensors',
      () => key('llama.block_count', { u32: 2 }),
      'tensors are there for 1 blocks',
    ],
    [
      'block_count of another type',
      () => key('llama.block_count', { f32: 1 }),
      'llama.block_count has type f32, expected u32',
    ],
    ['no block_count', () => key('llama.block_count', undefined), 'llama.block_count is missing'],
    ['head_count 0', () => key('llama.attention.head_count', { u32: 0 }), 'llama.attention.head_count is 0'],
    [
      'no head_count',
      () => key('llama.attention.head_count', undefined),
      'llama.attention.head_count is missing',
    ],
    [
      'head_count_kv 0',
      () => key('llama.attention.head_count_kv', { u32: 0 }),
      'llama.attention.head_count_kv is 0',
    ],
    [
      'head_count_kv that does not divide',
      () => key('llama.attention.head_count_kv', { u32: 3 }),
      'not a multiple of head_count_kv 3',
    ],
    [
      'a negative head count',
      () => key('llama.attention.head_count', { i32s: [-2] }),
      'llama.attention.head_count holds a negative number',
    ],
    ['key_length 0', () => key('llama.attention.key_length', { u32: 0 }), 'llama.attention.key_length is 0'],
    [
      'key_length and value_length apart',
      () => key('llama.attention.value_length', { u32: 8 }),
      'differs from value_length 8',
    ],
    [
      'a rope dimension that is not the head',
      () => key('llama.rope.dimension_count', { u32: 8 }),
      'llama.rope.dimension_count is 8',
    ],
    [
      'an unknown rope scaling',
      () => key('llama.rope.scaling.type', { string: 'odd' }),
      'none of none, linear',
    ],
    ['a rope base of 0', () => key('llama.rope.freq_base', { f32: 0 }), 'llama.rope.freq_base is 0'],
    ['a negative epsilon', () => key('llama.attention.layer_norm_rms_epsilon', { f32: -1 }), 'epsilon is -1'],
    ['a NaN epsilon', () => key('llama.attention.layer_norm_rms_epsilon', { f32: NaN }), 'epsilon is NaN'],
    ['context_length 0', () => key('llama.context_length', { u32: 0 }), 'llama.context_length is 0'],
    ['embedding_length 0', () => key('llama.embedding_length', { u32: 0 }), 'llama.embedding_length is 0'],
    [
      'embedding_length unlike the tensors',
      () => key('llama.embedding_length', { u32: 64 }),
      'rows of 32, expected embedding_length 64',
    ],
    [
      'no feed_forward_length',
      () => key('llama.feed_forward_length', undefined),
      'llama.feed_forward_length is missing',
    ],
    [
      'feed_forward_length 0',
      () => key('llama.feed_forward_length', { u32: 0 }),
      'llama.feed_forward_length is 0',
    ],
    [
      'tokens that differ after a NUL only',
      () =>
        key('tokenizer.ggml.tokens', {
          strings: Array.from({ length: 267 }, (_, i) => (i < 2 ? `t\0${i}` : `t${i}`)),
        }),
      'tokens[1] repeats',
    ],
    [
      'negative experts',
      () => key('llama.expert_used_count', { i32s: [-5] }),
      'llama.expert_used_count holds a negative number',
    ],
    [
      'vectors wider than they are',
      () => key('llama.embedding_length_out', { u32: 33 }),
      'embedding_length_out is 33 for vectors of 32',
    ],
    [
      'a SentencePiece vocabulary without bytes',
      () => key('tokenizer.ggml.model', { string: 'llama' }),
      'has tokens for 94 of 256 bytes',
    ],
    [
      'experts used without experts',
      () => key('llama.expert_used_count', { u32: 2 }),
      'more than expert_count 0',
    ],
    ['experts without use', () => key('llama.expert_count', { u32: 8 }), 'is 0 for 8 experts'],
    ['5000 experts', () => key('llama.expert_count', { u32: 5000 }), 'at most 1024'],
    ['one part of many', () => key('split.count', { u32: 3 }), 'part of a split model'],
    ['no tokenizer', () => key('tokenizer.ggml.model', undefined), 'tokenizer.ggml.model is missing'],
    ['no vocabulary', () => key('tokenizer.ggml.model', { string: 'none' }), 'no vocabulary'],
    ['no tokens', () => key('tokenizer.ggml.tokens', { strings: [] }), 'missing or empty'],
    [
      'fewer tokens than rows',
      () => key('tokenizer.ggml.tokens', { strings: ['a', 'b'] }),
      'tokenizer.ggml.bos_token_id|beyond 2 tokens',
    ],
    [
      'equal tokens',
      () => key('tokenizer.ggml.tokens', { strings: Array.from({ length: 267 }, (_, i) => `t${i % 266}`) }),
      'tokens[266] repeats an earlier token',
    ],
    ['too few token types', () => key('tokenizer.ggml.token_type', { i32s: [1, 1] }), 'has 2 elements for'],
    [
      'token types as floats',
      () => key('tokenizer.ggml.token_type', { f32s: [1] }),
      'array of f32, expected array of i32',
    ],
    [
      'merges that are numbers',
      () => key('tokenizer.ggml.merges', { i32s: [1] }),
      'tokenizer.ggml.merges has type array of i32',
    ],
    [
      'an EOS beyond the vocabulary',
      () => key('tokenizer.ggml.eos_token_id', { u32: 99999 }),
      'tokenizer.ggml.eos_token_id is 99999',
    ],
    ['a LoRA adapter', () => key('general.type', { string: 'adapter' }), 'LoRA adapter'],
    ['a projector', () => key('general.architecture', { string: 'clip' }), 'multimodal projector'],
    [
      'no embedding',
      () => tinyGguf({ tensors: { 'token_embd.weight': undefined } }),
      'token_embd.weight is missing',
    ],
    [
      'a norm in F16',
      () => tinyGguf({ tensors: { 'blk.0.attn_norm.weight': { type: 'F16' } } }),
      'norms must be F32',
    ],
    [
      'a tensor twice',
      () => tinyGguf({ tensors: { 'blk.0.attn_k.weight': { name: 'blk.0.attn_q.weight' } } }),
      'occurs twice',
    ],
    [
      'a tensor with an empty name',
      () => tinyGguf({ tensors: { 'output.weight': { name: '' } } }),
      'is empty',
    ],
    [
      'a tensor name of 64 bytes',
      () => tinyGguf({ tensors: { 'output.weight': { name: 'x'.repeat(64) } } }),
      'has 64 bytes, at most 63',
    ],
    ['5 dimensions', () => patched('blk.0.attn_q.weight', 0, [5]), '5 dimensions'],
    [
      'a dimension of 0',
      () => patched('blk.0.attn_q.weight', 4, u64(0n)),
      'dimension 0 of tensor blk.0.attn_q.weight is 0',
    ],
    [
      'dimensions that overflow',
      () => patched('blk.0.attn_q.weight', 4, [...u64(2n ** 40n), ...u64(2n ** 40n)]),
      'too many elements',
    ],
    [
      'a tensor larger than the file',
      () => patched('blk.0.attn_q.weight', 4, u64(2n ** 30n)),
      'beyond the file',
    ],
    ['an unknown tensor type', () => patched('blk.0.attn_q.weight', 20, [31]), 'unknown type 31'],
    ['a weight of integers', () => patched('output.weight', 20, [26]), 'which no weight can have'],
    [
      'rows that are no whole blocks',
      () => patched('blk.0.attn_q.weight', 20, [12]),
      'not a multiple of the Q4_K block of 256',
    ],
    ['overlapping tensors', () => patched('blk.0.attn_q.weight', 24, u64(0n)), 'is at offset 0, expected'],
    ['a misaligned tensor', () => patched('blk.0.attn_q.weight', 24, u64(3n)), 'is at offset 3, expected'],
    ['a truncated file', () => tinyGguf().subarray(0, -5000), 'truncated|beyond the file'],
  ];

  test.each(cases)('%s', async (_, make, message) => {
    const error: unknown = await inspect(make()).catch((error: unknown) => error);
    expect(error).toBeInstanceOf(ApiError);
    expect(error).toMatchObject({ status: 400, code: 'invalid_gguf' });
    expect((error as ApiError).message).toMatch(new RegExp(message.split('|').map(escape).join('|')));
  });

  test('a token that has the name of an empty one, but not empty ones', async () => {
    const tokens = (first: string, second: string): Buffer =>
      key('tokenizer.ggml.tokens', {
        strings: Array.from({ length: 267 }, (_, i) => (i === 0 ? first : i === 1 ? second : `t${i}`)),
      });
    expect(await accepted(tokens('', '[EMPTY_0]'))).toBeUndefined();
    expect((await accepted(tokens('', '')))?.vocabSize).toBe(267);
  });

  test('every truncation', async () => {
    const file = tinyGguf();
    const headerEnd = after(file, 'output.weight') + 40;
    for (let length = 0; length < headerEnd; length += 41)
      expect(await accepted(file.subarray(0, length))).toBeUndefined();
    expect(await accepted(file)).toBeDefined();
  });

  test('folders and pipes', async () => {
    const handle = await open(folder);
    await expect(readGguf(handle)).rejects.toMatchObject({ code: 'invalid_gguf' });
    await handle.close();
  });
});

function escape(text: string): string {
  return text.replaceAll(/[.*+?^${}()[\]\\]/g, '\\$&');
}

function patchKey(from: string, to: string): Buffer {
  const file = tinyGguf();
  file.write(to.padEnd(from.length, 'x').slice(0, from.length), file.indexOf(from), 'latin1');
  return file;
}

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
