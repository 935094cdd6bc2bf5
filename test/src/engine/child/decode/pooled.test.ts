// Which inputs share a decode: counted in steps of a context that only notes what it is given.

import { afterEach, describe, expect, test } from 'vitest';
import type { LlamaContext } from '../../../../../src/engine/child/llama/context.ts';
import { createPooler } from '../../../../../src/engine/child/decode/pooled.ts';
import { type ApiServer, post, startApi } from '../../../../fixtures/http/api-server.ts';

/** Decodes when told to; the pooled output of a sequence is its first token. */
function setUp(
  options: { readonly sequences?: number; readonly maxQueued?: number; readonly batchTokens?: number } = {},
) {
  let batch: { readonly token: number; readonly sequence: number }[] = [];
  let due: ((code: number) => void) | null = null;
  const decodes: number[][] = [];
  const first = (sequence: number): number => batch.find((each) => each.sequence === sequence)?.token ?? NaN;
  const context: Partial<LlamaContext> = {
    batchTokens: options.batchTokens ?? 512,
    get batchLength() {
      return batch.length;
    },
    clearBatch: () => void (batch = []),
    clearMemory: () => {},
    add: (token, _, sequence) => batch.push({ token, sequence }) - 1,
    decode: () => new Promise<number>((resolve) => (due = resolve)),
    pooled: (sequence) => Float32Array.of(first(sequence)),
  };
  const pooler = createPooler(context as LlamaContext, {
    sequences: options.sequences ?? 64,
    maxQueued: options.maxQueued ?? 64,
  });
  pooler.run().catch(() => {});
  const answers = new Map<number, number[]>();
  return {
    pooler,
    answers,
    decodes,
    /** A request of inputs of `length` tokens each, which have the numbers 1000·`id`, 1000·`id` + 1, … */
    submit: (id: number, scope: string, count: number, length = 64): boolean =>
      pooler.submit({
        id,
        scope,
        inputs: Array.from({ length: count }, (_, i) => Array.from({ length }, () => id * 1000 + i)),
        done: (outputs) => void answers.set(id, outputs.map((output) => output[0] ?? NaN)), // prettier-ignore
      }),
    async step(): Promise<void> {
      await new Promise((resolve) => setImmediate(resolve));
      if (due === null) throw new Error('nothing is being decoded');
      decodes.push([...new Set(batch.map((each) => each.sequence))].map(first));
      const resolve = due;
      due = null;
      resolve(0);
      await new Promise((done) => setImmediate(done));
    },
    get idle() {
      return due === null;
    },
  };
}

describe('scopes in turn', () => {
  test('thousands of inputs of one scope hold another up for two steps, not for hundreds', async () => {
    const { submit, step, answers, decodes } = setUp();
    submit(1, 'a', 2048);
    await step();
    await step();
    submit(2, 'b', 1); // while the third is being decoded
    await step();
    await step();
    expect(answers.get(2)).toEqual([2000]);
    expect(answers.has(1)).toBe(false);
    expect(decodes.map((each) => each.length)).toEqual([4, 4, 4, 4]);
    while (!answers.has(1)) await step();
    expect(answers.get(1)).toEqual(Array.from({ length: 2048 }, (_, i) => 1000 + i));
    // 2049 inputs of 64 tokens, four to a decode.
    expect(decodes).toHaveLength(513);
  });

  test('whoever has more requests has no more of the turns', async () => {
    const { submit, step, decodes } = setUp();
    for (let id = 1; id <= 10; id += 1) submit(id, 'many', 10);
    submit(11, 'one', 6);
    submit(12, 'other', 6);
    // The first four were taken when the first request came: only its own could be.
    await step();
    await step();
    await step();
    await step();
    const later = decodes.slice(1).flat();
    const of = (from: number, to: number): number => later.filter((name) => name >= from && name < to).length;
    expect([of(1000, 11_000), of(11_000, 12_000), of(12_000, 13_000)]).toEqual([4, 4, 4]);
  });

  test('within a scope first come, first served', async () => {
    const { submit, step, answers, decodes } = setUp();
    submit(1, 'a', 6);
    submit(2, 'a', 2);
    while (answers.size < 2) await step();
    expect(decodes.flat()).toEqual([1000, 1001, 1002, 1003, 1004, 1005, 2000, 2001]);
    expect([...answers.keys()]).toEqual([1, 2]);
  });

  test('an input that does not fit beside others keeps its turn', async () => {
    const { submit, step, decodes, answers } = setUp({ batchTokens: 256 });
    submit(1, 'a', 3, 100);
    submit(2, 'b', 1, 250);
    while (answers.size < 2) await step();
    expect(decodes.flat()).toHaveLength(4);
    expect(decodes.findIndex((each) => each.includes(2000))).toBeLessThanOrEqual(2);
    expect(answers.get(1)).toEqual([1000, 1001, 1002]);
  });
});

test('what is cancelled is decoded no further, waiting or in part, and its place is free', async () => {
  const harness = setUp({ maxQueued: 2 });
  const { submit, step, pooler, answers, decodes } = harness;
  expect([submit(1, 'a', 100), submit(2, 'b', 4), submit(3, 'c', 1)]).toEqual([true, true, false]);
  await step();
  pooler.cancel(1);
  expect(submit(3, 'c', 1)).toBe(true);
  pooler.cancel(3);
  pooler.cancel(3);
  while (!answers.has(2)) await step();
  await new Promise((resolve) => setImmediate(resolve));
  // At most what was being decoded when it was cancelled.
  expect(decodes.flat().filter((name) => name < 2000).length).toBeLessThanOrEqual(8);
  expect(decodes.flat()).not.toContain(3000);
  expect([...answers.keys()]).toEqual([2]);
  expect([pooler.queued, harness.idle]).toEqual([0, true]);
  // And it works on.
  submit(4, 'a', 1);
  await step();
  expect(answers.get(4)).toEqual([4000]);
});

describe('scopes come from keys', () => {
  let api: ApiServer;
  afterEach(() => api.close());

  test('of embeddings and of reranking', async () => {
    api = await startApi();
    const ask = async (path: string, body: object, key: string): Promise<void> => {
      const response = await post(api, path, body, { headers: { authorization: `Bearer ${key}` } });
      expect([response.status, await response.json()]).toEqual([200, expect.anything()]);
    };
    const scopesOf = (id: string): readonly (string | undefined)[] =>
      (api.models.engines.get(id) as typeof api.engine).scopes;
    for (const key of ['one', 'other', 'one']) {
      await ask('/v1/embeddings', { model: 'text-embed', input: 'x' }, key);
      await ask('/v1/rerank', { model: 'reranker', query: 'x', documents: ['y'] }, key);
    }
    for (const id of ['text-embed', 'reranker']) {
      const [a, b, c] = scopesOf(id);
      expect(a).toMatch(/./);
      expect([b === a, c === a]).toEqual([false, true]);
    }
  });
});
