// The GGUF reader: reports real files, refuses corrupt ones with a reason, never anything but its typed
// error, and what it accepts does not take real llama.cpp down.

import { mkdtemp, open, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ensureDemoModels } from '../../../../scripts/demo-model/main.ts';
import type { DemoModelName } from '../../../../scripts/demo-model/main.ts';
import { CHAT_TEMPLATE } from '../../../../scripts/demo-model/text.ts';
import { ApiError } from '../../../../src/base/errors.ts';
import { inspectGguf, readGguf } from '../../../../src/models/gguf/read.ts';
import { after, tinyGguf } from '../../../fixtures/models/gguf-tiny.ts';
import type { Changes } from '../../../fixtures/models/gguf-tiny.ts';
import { inspect, accepted } from '../../../fixtures/models/gguf-source.ts';
import { key, refusals } from '../../../fixtures/models/gguf-refusals.ts';

const models = await ensureDemoModels();

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assay-gguf-'));
});

afterAll(() => rm(folder, { recursive: true }));

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

describe('what it refuses', () => {
  test.each(refusals)('%s', async (_, make, message) => {
    const error: unknown = await inspect(make()).catch((error: unknown) => error);
    expect(error).toBeInstanceOf(ApiError);
    expect(error).toMatchObject({ status: 400, code: 'invalid_gguf' });
    expect((error as ApiError).message).toMatch(new RegExp(message.split('|').map(escape).join('|')));
  });

  test('a token that has the name of an empty one, but not empty ones', async () => {
    const tokens = (first: string, second: string): Buffer =>
      key('tokenizer.ggml.tokens', {
        strings: [first, second, ...Array.from({ length: 265 }, (_, i) => `t${i + 2}`)],
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
