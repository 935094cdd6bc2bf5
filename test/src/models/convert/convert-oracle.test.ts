// Against the official converter and `transformers`, on tiny random models with the real vocabularies of the
// llama.cpp sources: the file is the same byte for byte, and libllama computes from ours what PyTorch
// computes from the folder. Needs `make convert-oracle`.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { LlamaContext } from '../../../../src/engine/child/llama/context.ts';
import { libcSymbol, loadLlama } from '../../../../src/engine/child/llama/library.ts';
import { loadLlamaModel, openModelFile } from '../../../../src/engine/child/llama/model.ts';
import type { OutputType } from '../../../../src/models/convert/general.ts';
import { haveOracle, oracleCase } from '../../../fixtures/models/convert-oracle.ts';
import { convertTo, digestOf } from '../../../fixtures/models/converted.ts';

const work = mkdtempSync(join(tmpdir(), 'assay-oracle-'));
afterAll(() => rmSync(work, { recursive: true }));

interface Row {
  readonly types: readonly Exclude<OutputType, 'auto'>[];
  /**
   * Largest difference of a logit, in parts of the largest logit. GELU is a table of halves in ggml, so
   * BERT and Gemma have more.
   */
  readonly within: number;
}

const CASES: Readonly<Record<string, Row>> = {
  // Its vocabulary is slow to convert; of weights in BF16 the Qwen cases and gemma3 have the other two types.
  llama: { types: ['f16'], within: 5e-6 },
  'llama-spm': { types: ['f32', 'f16', 'bf16'], within: 5e-6 },
  mistral: { types: ['f32', 'f16', 'bf16'], within: 5e-6 },
  smollm: { types: ['bf16'], within: 5e-6 },
  qwen2: { types: ['f32', 'bf16'], within: 5e-6 },
  qwen3: { types: ['f32', 'f16'], within: 5e-6 },
  'qwen3-embedding': { types: ['f32'], within: 5e-6 },
  bert: { types: ['f32', 'f16'], within: 1e-3 },
  gemma3: { types: ['f32', 'bf16'], within: 1e-3 },
  phi3: { types: ['f32', 'f16'], within: 5e-6 },
};

const MINUTES = 60_000;

function pathOf(type: OutputType): string {
  return join(work, `${type}.gguf`);
}

function convert(folder: string, type: OutputType): string {
  const path = pathOf(type);
  convertTo(path, folder, { type, name: 'Tiny Model' });
  return path;
}

async function computed(path: string, tokens: readonly number[], embedding: boolean): Promise<Float32Array> {
  const { llama } = loadLlama();
  llama.llama_log_set(libcSymbol('abs'), null); // its log of a load is long
  const model = await loadLlamaModel(llama, openModelFile(path), () => {});
  const context = new LlamaContext(llama, model, {
    sequences: 1,
    cells: 64,
    batchTokens: 64,
    threads: 1,
    threadpool: null,
    embeddings: embedding ? 'pooled' : 'none',
    exact: true,
    unified: true,
  });
  let last = 0;
  for (const [i, token] of tokens.entries())
    last = context.add(token, i, 0, embedding || i === tokens.length - 1);
  expect(context.decodeSync()).toBe(0);
  return embedding ? context.pooled(0) : context.logits(last).slice();
}

describe.skipIf(!haveOracle)('the official converter', () => {
  test.each(Object.entries(CASES))(
    '%s',
    async (name, { types, within }) => {
      const oracle = await oracleCase(name, types);
      for (const type of types)
        expect([type, digestOf(convert(oracle.folder, type))]).toEqual([
          type,
          digestOf(oracle.results.get(type) ?? ''),
        ]);
      // The source's own values in the type that loses none of them; BF16 is multiplied in
      // BF16, so what can be is F32.
      const path = types.includes('f32') ? pathOf('f32') : convert(oracle.folder, 'f32');
      const ours = await computed(path, oracle.tokens, oracle.embedding);
      expect(ours.length).toBe(oracle.values.length);
      let scale = 0;
      let off = 0;
      for (const [i, value] of oracle.values.entries()) {
        scale = Math.max(scale, Math.abs(value));
        off = Math.max(off, Math.abs(value - ours[i]!));
      }
      expect(off / scale).toBeLessThan(within);
    },
    10 * MINUTES,
  );
});
