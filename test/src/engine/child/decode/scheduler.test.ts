// The scheduler on a context that remembers every call: what is decoded together, in which order, and what a cancel, a pause
// or a full memory does — by the step, without clocks.

import { describe, expect, test } from 'vitest';
import type { DecodeContext, Job } from '../../../../../src/engine/child/decode/batch.ts';
import type { GenerateEvent } from '../../../../../src/engine/seam/engine.ts';
import { createSampler } from '../../../../../src/engine/child/decode/sampler.ts';
import { Scheduler, type SchedulerOptions } from '../../../../../src/engine/child/decode/scheduler.ts';
import { GREEDY } from '../../../../fixtures/engine/demo-engine.ts';

const VOCABULARY = 16;
interface Entry {
  readonly token: number;
  readonly position: number;
  readonly sequence: number;
  readonly output: boolean;
}

/** A model that writes (sum of all tokens before) mod 16, and a memory that checks it is used rightly. */
function fakeContext(cells = Infinity): DecodeContext & {
  readonly steps: Entry[][];
  aborted: number;
  onDecode: (step: Entry[]) => void;
  decode: () => Promise<number>;
} {
  const memory = new Map<number, number[]>();
  const sequence = (id: number): number[] => {
    const found = memory.get(id) ?? [];
    memory.set(id, found);
    return found;
  };
  let batch: Entry[] = [];
  const outputs = new Map<number, Float32Array>();
  const context = {
    batchTokens: 32,
    maxOutputs: 8,
    steps: [] as Entry[][],
    aborted: 0,
    onDecode: (() => {}) as (step: Entry[]) => void,
    get batchLength() {
      return batch.length;
    },
    clearBatch() {
      batch = [];
    },
    add(token: number, position: number, id: number, output: boolean) {
      batch.push({ token, position, sequence: id, output });
      return batch.length - 1;
    },
    decodeSync() {
      const used = [...memory.values()].reduce((sum, tokens) => sum + tokens.length, 0);
      if (used + batch.length > cells) return 1;
      outputs.clear();
      batch.forEach((entry, index) => {
        const tokens = sequence(entry.sequence);
        if (entry.position !== tokens.length)
          throw new Error(`position ${entry.position} after ${tokens.length}`);
        tokens.push(entry.token);
        if (!entry.output) return;
        const logits = new Float32Array(VOCABULARY);
        logits[tokens.reduce((sum, each) => sum + each, 0) % VOCABULARY] = 1;
        outputs.set(index, logits);
      });
      context.steps.push(batch);
      context.onDecode(batch);
      return 0;
    },
    decode: async () => context.decodeSync(),
    abort() {
      context.aborted += 1;
    },
    logits(index: number) {
      const found = outputs.get(index);
      if (found === undefined) throw new Error('no output was asked for there');
      return found;
    },
    removeTail(id: number, from: number) {
      memory.set(id, sequence(id).slice(0, from));
      return true;
    },
    copySequence(from: number, to: number, end: number) {
      if (sequence(to).length > 0) throw new Error('copied over a sequence in use');
      memory.set(to, sequence(from).slice(0, end));
    },
  };
  return context;
}

interface Running {
  readonly scheduler: Scheduler;
  readonly context: ReturnType<typeof fakeContext>;
  /** Submits; the promise gives the tokens of each choice. */
  readonly ask: (over: Partial<Job> & { readonly id: number }) => Promise<number[][]>;
  readonly events: (readonly [number, GenerateEvent])[];
}

function start(options: Partial<SchedulerOptions> = {}, cells?: number): Running {
  const context = fakeContext(cells);
  const scheduler = new Scheduler(context, {
    slots: 4,
    contextLength: 1000,
    maxQueued: 100,
    reusePrefixes: true,
    stallMs: 10,
    now: () => context.steps.length,
    turn: () => new Promise((resolve) => setImmediate(resolve)),
    ...options,
  });
  const events: (readonly [number, GenerateEvent])[] = [];
  scheduler.run().catch((error: unknown) => {
    throw error;
  });
  const ask: Running['ask'] = (over) =>
    new Promise((resolve, reject) => {
      const n = over.n ?? 1;
      const tokens: number[][] = Array.from({ length: n }, () => []);
      let finished = 0;
      const accepted = scheduler.submit({
        scope: 'a',
        prompt: [1, 2, 3],
        n,
        echo: false,
        maxTokens: 5,
        choice: (index) => ({
          sampler: createSampler(GREEDY, () => 0),
          constraint: null,
          stop: [],
          logprobs: undefined,
          piece: (token) => (tokens[index]?.push(token), new Uint8Array([65 + token])),
          rawPiece: (token) => new Uint8Array([65 + token]),
          isEnd: () => false,
        }),
        fail: reject,
        ...over,
        emit: (event) => {
          events.push([over.id, event]);
          over.emit?.(event);
          if (event.type === 'finish') finished += 1;
          if (finished === n) resolve(tokens);
        },
      });
      if (!accepted) reject(new Error('full'));
    });
  return { scheduler, context, ask, events };
}

/** What the model must write after `prompt`. */
function expected(prompt: readonly number[], count: number): number[] {
  const all = [...prompt];
  for (let i = 0; i < count; i += 1) all.push(all.reduce((sum, each) => sum + each, 0) % VOCABULARY);
  return all.slice(prompt.length);
}

describe('batching', () => {
  test('all live sequences decode in one batch, one token each', async () => {
    const { ask, context } = start();
    const results = await Promise.all(
      [0, 1, 2, 3].map((id) => ask({ id, scope: `s${id}`, prompt: [id + 1, 2, 3], maxTokens: 10 })),
    );
    results.forEach((tokens, id) => expect(tokens[0]).toEqual(expected([id + 1, 2, 3], 10)));
    // One step reads all four prompts and gives each its first token, nine more write the rest.
    expect(context.steps).toHaveLength(10);
    for (const step of context.steps.slice(1))
      expect(step.map((entry) => entry.sequence).toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3]);
  });

  test('a long prompt is read in chunks while others go on writing in every step', async () => {
    const { ask, context, events } = start({ maxChunk: 8 });
    let late: Promise<number[][]> | undefined;
    const prompt = Array.from({ length: 100 }, (_, i) => i % 7);
    const first = ask({
      id: 1,
      maxTokens: 40,
      emit: (event) =>
        void (
          event.type === 'delta' &&
          late === undefined &&
          (late = ask({ id: 2, scope: 'b', prompt, maxTokens: 3 }))
        ),
    });
    expect(await first).toEqual([expected([1, 2, 3], 40)]);
    expect(await late).toEqual([expected(prompt, 3)]);
    const reading = context.steps.filter(
      (step) => step.some((entry) => entry.sequence === 1) && step.length > 2,
    );
    expect(reading.length).toBe(13);
    for (const step of reading) {
      expect(step.filter((entry) => entry.sequence === 0)).toHaveLength(1);
      expect(step.length).toBeLessThanOrEqual(1 + 8);
    }
    expect(events.filter(([id, event]) => id === 2 && event.type === 'start')).toHaveLength(1);
  });

  test.each([
    ['in one step when they are short: together from then on', 9, [28]],
    ['in polite chunks while they are long', 60, [17]],
  ])('more who read than write are read %s', async (_, length, sizes) => {
    // A token takes a millisecond.
    let clock = 0;
    const { ask, context } = start({ stallMs: 16, now: () => clock });
    context.onDecode = (step) => (clock += step.length);
    const late: Promise<number[][]>[] = [];
    const first = ask({
      id: 1,
      maxTokens: 12,
      emit: (event) => {
        if (event.type === 'delta' && late.length === 0)
          for (const id of [2, 3, 4])
            late.push(ask({ id, scope: `s${id}`, prompt: Array.from({ length }, () => id), maxTokens: 1 }));
      },
    });
    expect(await first).toEqual([expected([1, 2, 3], 12)]);
    await Promise.all(late);
    // The first step reads the first prompt.
    const steps = context.steps.slice(1).filter((step) => step.length > 1);
    expect(steps.slice(0, sizes.length).map((step) => step.length)).toEqual(sizes);
  });

  test('a short prompt does not wait for a long one that came first', async () => {
    const { ask, context } = start({ maxChunk: 8 });
    const long = ask({ id: 1, prompt: Array.from({ length: 400 }, () => 1), maxTokens: 1 });
    const short = ask({ id: 2, scope: 'b', prompt: [1, 2, 3, 4], maxTokens: 1 });
    await short;
    expect(context.steps.length).toBeLessThan(4);
    await long;
  });

  test.each([
    ['take turns where two together take longer than two alone', 5, true],
    ['share a batch where that is faster', 1.2, false],
  ])('writers %s', async (_, together, turns) => {
    let clock = 0;
    const { ask, context } = start({ pacing: true, now: () => clock });
    context.onDecode = (step) => {
      clock += step.length === 1 ? 1 : together;
    };
    const results = await Promise.all(
      [0, 1].map((id) => ask({ id, scope: `s${id}`, prompt: [id + 1, 2], maxTokens: 200 })),
    );
    results.forEach((tokens, id) => expect(tokens[0]).toEqual(expected([id + 1, 2], 200)));
    const late = context.steps.slice(-100);
    const single = late.filter((step) => step.length === 1);
    expect(single.length > 90).toBe(turns);
    // In turns means in turns: nobody is two tokens ahead.
    const twice = single.slice(1, 90).filter((step, i) => step[0]?.sequence === single[i]?.[0]?.sequence);
    expect(turns ? twice : []).toEqual([]);
  });

  test('never more tokens or outputs than the context takes', async () => {
    const { ask, context } = start({ slots: 12 });
    await Promise.all(
      Array.from({ length: 12 }, (_, id) =>
        ask({ id, scope: `s${id}`, prompt: Array.from({ length: 5 + id * 3 }, () => id), maxTokens: 6 }),
      ),
    );
    for (const step of context.steps) {
      expect(step.length).toBeLessThanOrEqual(32);
      expect(step.filter((entry) => entry.output).length).toBeLessThanOrEqual(8);
    }
  });
});

describe('queue', () => {
  test('scopes are served in turn: one with many requests does not hold up the other', async () => {
    const { ask, events } = start({ slots: 1 });
    const many = Array.from({ length: 6 }, (_, i) => ask({ id: i, scope: 'greedy', maxTokens: 2 }));
    const few = [
      ask({ id: 100, scope: 'modest', maxTokens: 2 }),
      ask({ id: 101, scope: 'modest', maxTokens: 2 }),
    ];
    await Promise.all([...many, ...few]);
    const order = events.filter(([, event]) => event.type === 'start').map(([id]) => id);
    expect(order.indexOf(100)).toBeLessThanOrEqual(1);
    expect(order.indexOf(101)).toBeLessThanOrEqual(3);
    expect(order.filter((id) => id < 100)).toEqual([0, 1, 2, 3, 4, 5]);
  });

  test('is bounded', async () => {
    const { ask, scheduler } = start({ slots: 1, maxQueued: 3 });
    const results = await Promise.allSettled(Array.from({ length: 10 }, (_, id) => ask({ id })));
    // Three wait, and one takes the free slot.
    expect(results.filter((result) => result.status === 'rejected')).toHaveLength(6);
    expect(scheduler.stats()).toMatchObject({ queued: 0, active: 0 });
  });

  test('choices that find no slot wait, and write the same', async () => {
    const { ask, context } = start({ slots: 3 });
    const tokens = await ask({ id: 1, n: 7, maxTokens: 4 });
    for (const each of tokens) expect(each).toEqual(expected([1, 2, 3], 4));
    // The prompt was read once.
    expect(context.steps.flat().filter((entry) => entry.position < 2)).toHaveLength(2);
  });
});

describe('cancel and pause', () => {
  test('a cancelled request is in no batch after the step in flight, and its slot is free', async () => {
    const { ask, context, scheduler } = start({ slots: 1 });
    let cancelledAt = 0;
    void ask({
      id: 1,
      maxTokens: 1000,
      emit: (event) => {
        if (event.type === 'delta' && context.steps.length === 10) {
          scheduler.cancel(1);
          cancelledAt = context.steps.length;
        }
      },
    });
    expect(await ask({ id: 2, scope: 'b', prompt: [5], maxTokens: 3 })).toEqual([expected([5], 3)]);
    const first = context.steps.findIndex(
      (step, i) => i >= cancelledAt && step.some((entry) => entry.token === 5 && entry.position === 0),
    );
    expect(first - cancelledAt).toBeLessThanOrEqual(2);
    expect(scheduler.stats().active).toBe(0);
  });

  test('a prompt being read alone is cut off inside the decode, one with company is not', async () => {
    const { ask, context, scheduler } = start({ asyncAboveMs: 0 });
    // Each decode waits in `decodes` until the test lets it go with a code.
    const decodes: ((code: number) => void)[] = [];
    context.decode = () => new Promise((resolve) => void decodes.push(resolve));
    const started = async (count: number): Promise<void> => {
      while (decodes.length < count) await new Promise((resolve) => setImmediate(resolve));
    };
    void ask({ id: 1, prompt: Array.from({ length: 60 }, () => 1) });
    await started(1);
    scheduler.cancel(1);
    expect(context.aborted).toBe(1);
    void ask({ id: 2, scope: 'b', prompt: Array.from({ length: 60 }, () => 1) });
    const third = ask({ id: 3, scope: 'c', prompt: [7], maxTokens: 2 });
    decodes[0]?.(2);
    await started(2);
    // Both are in this step; one leaves, and the other's work is not thrown away.
    scheduler.cancel(2);
    expect(context.aborted).toBe(1);
    context.decode = async () => context.decodeSync();
    decodes[1]?.(context.decodeSync());
    expect(await third).toEqual([expected([7], 2)]);
    expect(scheduler.stats()).toMatchObject({ active: 0, queued: 0 });
  });

  test('cancelling while queued, and twice, and after the end', async () => {
    const { ask, scheduler, events } = start({ slots: 1 });
    const first = ask({ id: 1, maxTokens: 10 });
    void ask({ id: 2 });
    scheduler.cancel(2);
    scheduler.cancel(2);
    await first;
    scheduler.cancel(1);
    await ask({ id: 3 });
    expect(events.some(([id]) => id === 2)).toBe(false);
    expect(scheduler.stats()).toMatchObject({ queued: 0, active: 0 });
  });

  test.each([
    ['slots', 2, Infinity],
    ['memory', 4, 40],
  ])(
    'readers who are behind on all %s hold up nobody, and go on where they were',
    async (_, slots, cells) => {
      const { ask, scheduler } = start({ slots }, cells);
      const seen = [0, 0];
      const behind = [0, 1].map((id) =>
        ask({
          id,
          scope: `behind ${id}`,
          prompt: [id + 1, 2, 3],
          maxTokens: 25,
          emit: (event) => {
            if (event.type === 'delta' && (seen[id] = (seen[id] ?? 0) + 1) === 15) scheduler.pause(id);
          },
        }),
      );
      const others = [5, 6, 7].map((id) => ask({ id, scope: 'b', prompt: [id, id], maxTokens: 30 }));
      expect(await Promise.all(others)).toEqual([5, 6, 7].map((id) => [expected([id, id], 30)]));
      expect(seen).toEqual([15, 15]);
      // One is cancelled in the queue, the other goes on.
      scheduler.cancel(1);
      scheduler.resume(0);
      expect(await behind[0]).toEqual([expected([1, 2, 3], 25)]);
      expect(await ask({ id: 9, prompt: [9], maxTokens: 3 })).toEqual([expected([9], 3)]);
      expect(scheduler.stats()).toMatchObject({ queued: 0, active: 0 });
    },
  );

  test('a paused request is skipped, keeps its place and goes on where it was', async () => {
    const { ask, context, scheduler } = start();
    let seen = 0;
    const paused = ask({
      id: 1,
      maxTokens: 20,
      emit: (event) => {
        if (event.type === 'delta' && (seen += 1) === 5) scheduler.pause(1);
      },
    });
    expect(await ask({ id: 2, scope: 'b', prompt: [4, 4], maxTokens: 50 })).toEqual([expected([4, 4], 50)]);
    expect(seen).toBe(5);
    const steps = context.steps.length;
    scheduler.resume(1);
    expect(await paused).toEqual([expected([1, 2, 3], 20)]);
    expect(context.steps.length - steps).toBe(15);
  });
});

describe('a choice that can go no further', () => {
  /** The grammar wants token 3 next, and the sampler may not give it. */
  const stuck = (
    freed: () => void,
    after: number,
    isEnd: (token: number) => boolean = () => false,
  ): Partial<Job> => ({
    choice: () => {
      let picked = 0;
      return {
        sampler: { pick: () => ((picked += 1) > after ? -1 : 1), accept: () => undefined },
        constraint: {
          active: true,
          filter: () => (tokens) => tokens.map((token) => token === 3),
          accept: () => undefined,
          free: freed,
        },
        stop: [],
        logprobs: undefined,
        piece: () => new Uint8Array([65]),
        rawPiece: () => new Uint8Array([65]),
        isEnd,
      };
    },
  });

  test.each([
    [1, 0],
    [3, 0],
    [1, 2],
    [9, 0],
    [9, 1],
  ])('fails its request once, after its events, and nobody else: %d choices, %d tokens', async (n, after) => {
    const { ask, scheduler, events } = start();
    const neighbour = ask({ id: 1, scope: 'b', prompt: [4], maxTokens: 20 });
    const order: string[] = [];
    let freed = 0;
    const failed = new Promise((resolve) => {
      void ask({
        id: 2,
        n,
        ...stuck(() => (freed += 1), after),
        emit: (event) => order.push(event.type),
        fail(error) {
          order.push('fail');
          resolve(error);
        },
      });
    });
    expect(await failed).toMatchObject({ status: 400, code: 'invalid_value', param: 'logit_bias' });
    expect(await neighbour).toEqual([expected([4], 20)]);
    expect(await ask({ id: 3, prompt: [9], maxTokens: 3 })).toEqual([expected([9], 3)]);
    expect([order.at(0), order.at(-1), order.filter((each) => each === 'fail').length]).toEqual([
      'start',
      'fail',
      1,
    ]);
    expect(order).not.toContain('finish');
    expect(freed).toBeGreaterThanOrEqual(1);
    expect(events.filter(([id, event]) => id === 2 && event.type === 'delta').length).toBeGreaterThanOrEqual(
      after,
    );
    expect(scheduler.stats()).toMatchObject({ queued: 0, active: 0 });
  });

  test('one whose grammar may end, ends', async () => {
    const { ask, events } = start();
    await ask({
      id: 1,
      ...stuck(
        () => undefined,
        2,
        (token) => token === 3,
      ),
    });
    expect(events.at(-1)).toEqual([1, { type: 'finish', index: 0, reason: 'stop', completionTokens: 2 }]);
  });
});

describe('memory', () => {
  test('a prefix is shared only inside its scope', async () => {
    const { ask, events } = start();
    const prompt = Array.from({ length: 20 }, (_, i) => i % 5);
    await ask({ id: 1, scope: 'a', prompt });
    await ask({ id: 2, scope: 'b', prompt });
    await ask({ id: 3, scope: 'a', prompt: [...prompt.slice(0, 12), 9, 9] });
    const cached = events.flatMap(([id, event]) =>
      event.type === 'start' ? [[id, event.cachedTokens]] : [],
    );
    expect(cached).toEqual([
      [1, 0],
      [2, 0],
      [3, 12],
    ]);
  });

  test('full: kept prefixes go first, then the youngest gives way and is read again; all finish, all right', async () => {
    const { ask, scheduler } = start({ slots: 4 }, 70);
    await ask({ id: 0, scope: 'old', prompt: Array.from({ length: 20 }, () => 3), maxTokens: 1 });
    const prompts = [1, 2, 3, 4].map((id) => Array.from({ length: 15 }, (_, i) => (i * id) % 11));
    const results = await Promise.all(
      prompts.map((prompt, id) => ask({ id: id + 1, scope: `s${id}`, prompt, maxTokens: 25 })),
    );
    results.forEach((tokens, i) => expect(tokens).toEqual([expected(prompts[i] ?? [], 25)]));
    expect(scheduler.stats()).toMatchObject({ queued: 0, active: 0 });
  });
});
