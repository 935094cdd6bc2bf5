// With exact numerics a text that is guessed ahead is the same token by token, on real kernels: one scheduler
// that guesses and one that does not, over one context of a demo model.

import { describe, expect, test } from 'vitest';
import { ensureDemoModels } from '../../../../../scripts/demo-model/main.ts';
import { Scheduler } from '../../../../../src/engine/child/decode/scheduler.ts';
import type { Sampler } from '../../../../../src/engine/child/decode/sampler.ts';
import { LlamaContext } from '../../../../../src/engine/child/llama/context.ts';
import { libcSymbol, loadLlama } from '../../../../../src/engine/child/llama/library.ts';
import { loadLlamaModel, openModelFile } from '../../../../../src/engine/child/llama/model.ts';
import { tokensOf } from '../../../../fixtures/engine/demo-engine.ts';

interface Written {
  readonly tokens: readonly number[];
  readonly steps: number;
}

/** Greedy among a few tokens: such a text repeats itself for a while and then goes on otherwise. */
function likeliestOf(few: number): Sampler {
  const tokens = Array.from({ length: few }, (_, i) => 60 + i);
  return {
    pick: (logits) => tokens.reduce((best, token) => (logits[token]! > logits[best]! ? token : best)),
    accept: () => undefined,
  };
}

describe('a text guessed ahead', () => {
  const writer = async (): Promise<
    (prompt: readonly number[], few: number, drafting: boolean) => Promise<Written>
  > => {
    const { llama } = loadLlama();
    llama.llama_log_set(libcSymbol('abs'), null);
    const models = await ensureDemoModels(['demo-context']);
    const model = await loadLlamaModel(llama, openModelFile(models['demo-context'].path), () => {});
    const context = new LlamaContext(llama, model, {
      sequences: 1,
      cells: 1024,
      batchTokens: 128,
      threads: 1,
      threadpool: null,
      embeddings: 'none',
      exact: true,
      unified: true,
    });
    return (prompt, few, drafting) =>
      new Promise((resolve, reject) => {
        context.clearMemory();
        let steps = 0;
        // Every decode takes the same: a guess always pays.
        let clock = 0;
        const scheduler = new Scheduler(context, {
          slots: 1,
          contextLength: 1024,
          maxQueued: 1,
          reusePrefixes: false,
          stallMs: 60,
          drafting,
          now: () => (clock += 1),
          turn: () => new Promise((turned) => setImmediate(turned)),
          onStep: () => (steps += 1),
        });
        const tokens: number[] = [];
        scheduler.run().catch(reject);
        scheduler.submit({
          id: 1,
          scope: 'a',
          prompt,
          n: 1,
          echo: false,
          maxTokens: 300,
          choice: () => ({
            sampler: likeliestOf(few),
            constraint: null,
            stop: [],
            logprobs: undefined,
            piece: (token) => (tokens.push(token), new Uint8Array(0)),
            rawPiece: (token) => model.piece(token, true),
            isEnd: () => false,
          }),
          fail: reject,
          emit: (event) => {
            if (event.kind === 'finish') resolve({ tokens, steps });
          },
        });
      });
  };

  test('is what is written without, whether guesses are right or wrong', async () => {
    const write = await writer();
    let saved = 0;
    for (const [i, few] of [2, 2, 3, 4].entries()) {
      const prompt = tokensOf(i + 1, 40, 200);
      const plain = await write(prompt, few, false);
      const guessed = await write(prompt, few, true);
      expect(guessed.tokens).toEqual(plain.tokens);
      expect(plain.tokens).toHaveLength(300);
      // Not one token over and over.
      expect(new Set(plain.tokens).size).toBeGreaterThan(1);
      saved += plain.steps - guessed.steps;
    }
    expect(saved).toBeGreaterThan(100);
  });
});
