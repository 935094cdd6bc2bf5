// The importance matrix: a mean square for every column of every matrix of the layers and the output, for the
// first layer equal to plain arithmetic over its input, and the same again.

import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import koffi from 'koffi';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { LlamaLibrary } from '../../../../../src/engine/child/llama/declarations.ts';
import {
  closeStream,
  libcSymbol,
  loadLlama,
  openFileStream,
} from '../../../../../src/engine/child/llama/library.ts';
import { llamaFolder } from '../../../../../src/engine/seam/library-folder.ts';
import { CALIBRATION_TEXT } from '../../../../../src/engine/child/quantize/calibration.ts';
import { collectMatrix, type ImportanceMatrix } from '../../../../../src/engine/child/quantize/matrix.ts';
import { convertFolder } from '../../../../../src/models/convert/convert.ts';
import { readHeader } from '../../../../../src/models/gguf/header.ts';
import { fileSource } from '../../../../../src/models/gguf/read.ts';
import { inMemory, mistral } from '../../../../fixtures/models/hf-folder.ts';

describe.skipIf(process.platform !== 'linux')('the importance matrix', () => {
  const work = mkdtempSync(join(tmpdir(), 'assay-matrix-'));
  const path = join(work, 'm.gguf');
  let llama: LlamaLibrary;
  let collect: () => ImportanceMatrix;
  afterAll(() => rmSync(work, { recursive: true }));

  beforeAll(() => {
    const fd = openSync(path, 'w');
    convertFolder(inMemory(mistral(4, 96)), { write: (bytes) => void writeSync(fd, bytes) }, { type: 'f32' });
    closeSync(fd);
    const folder = llamaFolder();
    ({ llama } = loadLlama(folder, { plain: true }));
    llama.llama_log_set(libcSymbol('abs'), null);
    const named = (start: string): ReturnType<typeof koffi.load> =>
      koffi.load(
        join(
          folder,
          readdirSync(folder).find((name) => name.startsWith(start))!,
        ),
      );
    const [library, ggml] = [named('libllama.'), named('libggml-base.')];
    collect = () => collectMatrix(llama, { path, library, ggml });
  });

  test('has every matrix of every layer, with a value for each column', () => {
    const matrix = collect();
    const parts = ['attn_q', 'attn_k', 'attn_v', 'attn_output', 'ffn_gate', 'ffn_up', 'ffn_down'];
    const names = [0, 1].flatMap((layer) => parts.map((part) => `blk.${layer}.${part}.weight`));
    expect([...matrix.keys()].toSorted()).toEqual([...names, 'output.weight'].toSorted());
    expect(matrix.get('blk.1.ffn_down.weight')).toHaveLength(96);
    expect(matrix.get('output.weight')).toHaveLength(64);
    for (const [name, values] of matrix)
      expect(values.filter((value) => !(value > 0 && value < Infinity)).length, name).toBe(0);
    expect(matrix.get('blk.0.attn_q.weight')).toEqual(matrix.get('blk.0.attn_v.weight'));
  });

  test('is the same again', () => {
    expect(collect()).toEqual(collect());
  });

  async function tensor(name: string): Promise<Float32Array> {
    const handle = await open(path);
    const header = await readHeader(await fileSource(handle));
    await handle.close();
    const entry = header.tensors.find((each) => each.name === name)!;
    const start = header.dataOffset + entry.offset;
    return new Float32Array(new Uint8Array(readFileSync(path).subarray(start, start + entry.bytes)).buffer);
  }

  function tokens(): Int32Array {
    const file = openFileStream(path)!;
    const model = llama.llama_model_load_from_file_ptr(file, llama.llama_model_default_params())!;
    closeStream(file);
    const text = Buffer.from(CALIBRATION_TEXT.trim());
    const found = new Int32Array(text.length + 2);
    const vocab = llama.llama_model_get_vocab(model);
    return found.subarray(
      0,
      llama.llama_tokenize(vocab, text, text.length, found, found.length, true, false),
    );
  }

  test('of the first layer is that of the normalised embeddings of the text', async () => {
    const [embeddings, norm] = [await tensor('token_embd.weight'), await tensor('blk.0.attn_norm.weight')];
    const width = norm.length;
    const read = tokens();
    expect(read.length).toBeGreaterThan(1000);
    const sums = new Float64Array(width);
    for (const token of read) {
      const row = embeddings.subarray(token * width, (token + 1) * width);
      const mean = row.reduce((sum, value) => sum + value * value, 0) / width;
      for (const [i, value] of row.entries()) sums[i]! += (value * norm[i]!) ** 2 / (mean + 1e-5);
    }
    const matrix = collect().get('blk.0.attn_q.weight')!;
    for (const [i, sum] of sums.entries()) expect(matrix[i]! / (sum / read.length)).toBeCloseTo(1, 4);
  });
});
