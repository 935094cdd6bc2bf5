// The binding to libllama itself, in this process: that it refuses a library it was not written for, that an
// abort really reaches a running decode, that the model's text functions are each other's inverse, and that
// its greedy choice is the one of node-llama-cpp, which drives the same library through its own C++ addon.

import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { ensureDemoModels } from '../../../../../scripts/demo-model/main.ts';
import { decodeThreads, pollLevel } from '../../../../../src/engine/child/llama/cores.ts';
import { LlamaContext } from '../../../../../src/engine/child/llama/context.ts';
import {
  assertDefaults,
  assertVersion,
  libcSymbol,
  loadLlama,
} from '../../../../../src/engine/child/llama/library.ts';
import { LlamaLibraryError } from '../../../../../src/engine/seam/library-folder.ts';
import { loadLlamaModel, openModelFile } from '../../../../../src/engine/child/llama/model.ts';
import { argmax } from '../../../../../src/engine/child/decode/sampler.ts';
import { tokensOf } from '../../../../fixtures/engine/demo-engine.ts';

const { llama } = loadLlama();
llama.llama_log_set(libcSymbol('abs'), null); // its log of a load is long
const path = (await ensureDemoModels(['demo-context']))['demo-context'].path;
const model = await loadLlamaModel(llama, openModelFile(path), () => {});
const OPTIONS = {
  sequences: 2,
  cells: 2048,
  batchTokens: 2048,
  threads: 1,
  threadpool: null,
  embeddings: 'none',
  exact: true,
  kvType: 'f16',
  unified: true,
} as const;

const oracle = fileURLToPath(new URL('../../../../fixtures/engine/llama-oracle.mjs', import.meta.url));

describe('compatibility', () => {
  test('another version or a shifted default is refused', () => {
    expect(() => assertVersion('0.5.0')).toThrow(LlamaLibraryError);
    expect(() => assertDefaults(llama)).not.toThrow(LlamaLibraryError);
    const context = llama.llama_context_default_params();
    const shifted = Object.assign(() => ({ ...context, kv_unified: true }), { async: () => {} });
    expect(() => assertDefaults({ ...llama, llama_context_default_params: shifted })).toThrow('kv_unified');
  });

  test('a folder without the library', () => {
    expect(() => loadLlama('/')).toThrow(LlamaLibraryError);
  });
});

test('abort ends a running decode early; what was not done can be done again', async () => {
  const context = new LlamaContext(llama, model, OPTIONS);
  const prompt = tokensOf(3, 2000, model.vocabSize);
  const fill = (): number => {
    context.clearBatch();
    let last = 0;
    prompt.forEach((token, i) => {
      last = context.add(token, i, 0, i === prompt.length - 1);
    });
    return last;
  };
  fill();
  const running = context.decode();
  context.abort();
  expect(await running).toBe(2);
  context.removeTail(0, 0);
  const last = fill();
  expect(await context.decode()).toBe(0);
  const again = argmax(context.logits(last));
  const fresh = new LlamaContext(llama, model, OPTIONS);
  fresh.clearBatch();
  let index = 0;
  prompt.forEach((token, i) => {
    index = fresh.add(token, i, 0, i === prompt.length - 1);
  });
  expect(fresh.decodeSync()).toBe(0);
  expect(argmax(fresh.logits(index))).toBe(again);
});

test('more tokens or outputs than agreed are refused here, not asserted there', () => {
  const context = new LlamaContext(llama, model, { ...OPTIONS, batchTokens: 128 });
  for (let i = 0; i < context.maxOutputs; i += 1) context.add(9, i, 0, true);
  expect(() => context.add(9, 64, 0, true)).toThrow('outputs');
  context.clearBatch();
  for (let i = 0; i < 128; i += 1) context.add(9, i, 0, false);
  expect(() => context.add(9, 128, 0, false)).toThrow('128 tokens');
});

test('greedy tokens are those of node-llama-cpp on the same file', async () => {
  const prompt = tokensOf(12, 50, model.vocabSize);
  const context = new LlamaContext(llama, model, OPTIONS);
  context.clearBatch();
  let index = 0;
  prompt.forEach((token, i) => {
    index = context.add(token, i, 0, i === prompt.length - 1);
  });
  const ours: number[] = [];
  for (let i = 0; i < 24; i += 1) {
    expect(context.decodeSync()).toBe(0);
    const token = argmax(context.logits(index));
    ours.push(token);
    context.clearBatch();
    index = context.add(token, prompt.length + i, 0, true);
  }
  // In a process of its own, ended by signal: two natives in one process do not always end together.
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [oracle, path, JSON.stringify(prompt), String(ours.length)],
    {
      timeout: 150_000,
      killSignal: 'SIGKILL',
    },
  ).catch((error: { stdout?: string }) => ({ stdout: error.stdout ?? '' }));
  const theirs: unknown = JSON.parse(stdout);
  expect(ours).toEqual(theirs);
});

/** A /sys and a cgroup with these sibling lists and this quota. */
function files(cores: readonly string[], quota: string, allowed?: string) {
  return (path: string) => {
    if (path === '/proc/self/status' && allowed !== undefined)
      return `Name:\tnode\nCpus_allowed_list:\t${allowed}\nx`;
    const cpu = /cpu(\d+)\/topology/.exec(path)?.[1];
    const siblings = cpu === undefined ? undefined : cores[Number(cpu)];
    if (siblings !== undefined) return siblings;
    if (path.endsWith('cpu.max')) return quota;
    throw new Error('no such file');
  };
}

test('threads: one per physical core of ours, within the quota, one for tiny models', () => {
  expect(decodeThreads(1e6, files(['0', '1'], 'max 100000'))).toBe(1);
  expect(decodeThreads(1e9, files(['0,1', '0,1'], 'max 100000'))).toBe(1);
  expect(decodeThreads(1e9, files(['0', '1', '2', '3'], '100000 100000'))).toBe(1);
});

test.each([
  ['0-7', 4],
  ['0-1,4-5', 2],
  ['0,2,4', 3],
  ['7', 1],
])(
  'threads: of a machine of four cores with two threads each, processors %s are %i cores',
  (allowed, expected) => {
    const siblings = ['0-1', '0-1', '2-3', '2-3', '4-5', '4-5', '6-7', '6-7'];
    expect(decodeThreads(1e9, files(siblings, 'max 100000', allowed))).toBe(expected);
  },
);

test('idle workers spin only where a core is to spare', () => {
  expect([pollLevel(2, 2), pollLevel(1, 2), pollLevel(8, 16)]).toEqual([0, 1, 1]);
});
