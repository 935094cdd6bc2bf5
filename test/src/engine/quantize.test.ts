// The process that quantises: every type it names, the tensors that do not fit theirs, the same bytes from
// any number of threads, logits near those of the source. Runs dist/.

import { createHash } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { LlamaContext } from '../../../src/engine/child/llama/context.ts';
import { libcSymbol, loadLlama } from '../../../src/engine/child/llama/library.ts';
import { loadLlamaModel, openModelFile } from '../../../src/engine/child/llama/model.ts';
import { openQuantizer } from '../../../src/engine/quantize.ts';
import type { QuantizeRequest } from '../../../src/engine/seam/converters.ts';
import { QUANTIZE_TYPES, type Fallback, type QuantizeName } from '../../../src/engine/seam/quantize.ts';
import { convertFolder } from '../../../src/models/convert/convert.ts';
import { readHeader, type GgufHeader } from '../../../src/models/gguf/header.ts';
import { fileSource, readGguf } from '../../../src/models/gguf/read.ts';
import { inMemory, mistral } from '../../fixtures/models/hf-folder.ts';

const dist = new URL('../../../dist/src/engine/child/', import.meta.url);
const launchEntry = fileURLToPath(new URL('quantize/launch.js', dist));
const quantize = openQuantizer({ launchEntry });
const work = mkdtempSync(join(tmpdir(), 'assay-quantize-'));
afterAll(() => rmSync(work, { recursive: true }));

const NAMES = Object.keys(QUANTIZE_TYPES) as QuantizeName[];
let outputs = 0;

function source(times: number, inner: number): string {
  const path = join(work, `${times}-${inner}.gguf`);
  const fd = openSync(path, 'w');
  convertFolder(
    inMemory(mistral(times, inner)),
    { write: (bytes) => void writeSync(fd, bytes) },
    { type: 'f32' },
  );
  closeSync(fd);
  return path;
}

interface Made {
  readonly path: string;
  readonly fallbacks: readonly Fallback[];
}

async function run(
  from: string,
  more: Partial<QuantizeRequest> & { readonly type: QuantizeName },
): Promise<Made> {
  const path = join(work, `out-${outputs++}.gguf`);
  const [sourceFd, outputFd] = [openSync(from, 'r'), openSync(path, 'wx')];
  try {
    return { path, ...(await quantize({ sourceFd, outputFd, ...more })) };
  } finally {
    closeSync(sourceFd);
    closeSync(outputFd);
  }
}

function digest(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

async function headerOf(path: string): Promise<GgufHeader> {
  const handle = await open(path);
  try {
    return await readHeader(await fileSource(handle));
  } finally {
    await handle.close();
  }
}

async function logitsOf(path: string): Promise<Float32Array> {
  const { llama } = loadLlama();
  llama.llama_log_set(libcSymbol('abs'), null); // its log of a load is long
  const model = await loadLlamaModel(llama, openModelFile(path), () => {});
  const context = new LlamaContext(llama, model, {
    sequences: 1,
    cells: 64,
    batchTokens: 64,
    threads: 1,
    threadpool: null,
    embeddings: 'none',
    exact: true,
    unified: true,
  });
  let last = 0;
  for (const [i, token] of [1, 260, 262, 259].entries()) last = context.add(token, i, 0, i === 3);
  expect(context.decodeSync()).toBe(0);
  return context.logits(last).slice();
}

test('a run has the threads its quantiser was made with, else one, or those it asks for', async () => {
  const echo = join(work, 'echo.mjs');
  writeFileSync(
    echo,
    `import { Socket } from 'node:net';
    const socket = new Socket({ fd: 3 });
    socket.once('data', (line) => {
      const { threads } = JSON.parse(line);
      socket.end(JSON.stringify({ kind: 'failed', message: \`threads: \${threads}\` }) + '\\n');
    });`,
  );
  const request = { type: 'Q8_0', sourceFd: 0, outputFd: 1 } as const;
  for (const [made, asked, threads] of [
    [undefined, undefined, 1],
    [3, undefined, 3],
    [3, 2, 2],
  ])
    await expect(
      openQuantizer({ launchEntry: echo, threads: made })({ ...request, threads: asked }),
    ).rejects.toThrow(`threads: ${threads}`);
});

describe.skipIf(process.platform !== 'linux')('on Linux', () => {
  let wide: string;
  let narrow: string;
  let small: string;
  beforeAll(() => {
    wide = source(16, 512);
    narrow = source(1, 24);
    small = source(16, 256);
  });

  test.each(NAMES)('%s', async (type) => {
    // Types that need a matrix take ten times as long.
    const { path, fallbacks } = await run(QUANTIZE_TYPES[type].needsMatrix ? small : wide, { type });
    const handle = await open(path);
    const info = await readGguf(handle);
    await handle.close();
    expect(info.quantization).toBe(type);
    expect(fallbacks).toEqual([]);
    const used = new Set((await headerOf(path)).tensors.map((tensor) => tensor.type.name));
    expect([...used].some((name) => type.startsWith(name))).toBe(true);
  });

  test('tensors that do not fit are told, with the type they have', async () => {
    const { path, fallbacks } = await run(narrow, { type: 'Q4_K_M' });
    const types = new Map((await headerOf(path)).tensors.map(({ name, type }) => [name, type.name]));
    expect(fallbacks.length).toBeGreaterThan(10);
    for (const { tensor, wanted, used, columns } of fallbacks) {
      expect(types.get(tensor)).toBe(used);
      expect(wanted).toMatch(/^Q[4568]_[K0]$/);
      expect(columns % (wanted === 'Q8_0' ? 32 : 256)).not.toBe(0);
    }
  });

  test('the same bytes with any number of threads, and progress of every tensor', async () => {
    const seen: number[] = [];
    const first = await run(wide, { type: 'Q4_K_M', onProgress: (done, of) => void seen.push(done / of) });
    expect(seen.at(-1)).toBe(1);
    for (const threads of [2, 5])
      expect(digest((await run(wide, { type: 'Q4_K_M', threads })).path)).toBe(digest(first.path));
  });

  test('logits are near those of the source, nearer with more bits', async () => {
    const exact = await logitsOf(wide);
    const scale = exact.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
    const errors: number[] = [];
    for (const type of ['Q8_0', 'Q6_K', 'Q4_K_M', 'Q2_K'] as const) {
      const logits = await logitsOf((await run(wide, { type })).path);
      const squares = logits.reduce((sum, value, i) => sum + (value - exact[i]!) ** 2, 0);
      errors.push(Math.sqrt(squares / exact.length) / scale);
    }
    expect(errors[0]).toBeLessThan(0.02);
    expect(errors).toEqual(errors.toSorted((a, b) => a - b));
    expect(errors.at(-1)).toBeLessThan(0.5);
  });

  test('a model that is quantised already is refused, with a matrix and without', async () => {
    const { path } = await run(small, { type: 'Q8_0' });
    for (const type of ['Q4_K_M', 'IQ1_S'] as const)
      await expect(run(path, { type })).rejects.toMatchObject({
        code: 'unsupported_model_format',
        message: 'a tensor of the model is Q8_0 already: quantise the model in F32, F16 or BF16',
      });
  });

  test('a file that is none, an abort, a full disk', async () => {
    const none = join(work, 'none.gguf');
    writeFileSync(none, 'GGUF');
    await expect(run(none, { type: 'Q8_0' })).rejects.toMatchObject({
      code: 'unsupported_model_format',
      message: expect.stringContaining('llama.cpp did not quantise the model') as string,
    });
    const signal = AbortSignal.abort(new Error('no longer wanted'));
    await expect(run(wide, { type: 'Q8_0', signal })).rejects.toThrow('no longer wanted');
    const full = openSync('/dev/full', 'w');
    await expect(run(wide, { type: 'Q8_0', outputFd: full })).rejects.toMatchObject({
      code: 'storage_full',
    });
    closeSync(full);
  });
});
