// How a request ends or pauses in the scheduler: cancelled, paused by a slow reader, or stuck in its grammar.

import { describe, expect, test } from 'vitest';
import type { Job } from '../../../../../src/engine/child/decode/batch.ts';
import { start, expected } from '../../../../fixtures/engine/fake-context.ts';

describe('cancel and pause', () => {
  test('a cancelled request is in no batch after the step in flight, and its slot is free', async () => {
    const { ask, context, scheduler } = start({ slots: 1 });
    let cancelledAt = 0;
    void ask({
      id: 1,
      maxTokens: 1000,
      emit: (event) => {
        if (event.kind === 'delta' && context.steps.length === 10) {
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
            if (event.kind === 'delta' && (seen[id] = (seen[id] ?? 0) + 1) === 15) scheduler.pause(id);
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
        if (event.kind === 'delta' && (seen += 1) === 5) scheduler.pause(1);
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
        emit: (event) => order.push(event.kind),
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
    expect(events.filter(([id, event]) => id === 2 && event.kind === 'delta').length).toBeGreaterThanOrEqual(
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
    expect(events.at(-1)).toEqual([1, { kind: 'finish', index: 0, reason: 'stop', completionTokens: 2 }]);
  });
});

test('a choice put out of a full memory before its first token begins when it is seated again', async () => {
  const { ask, scheduler } = start({ slots: 3 }, 40);
  const zeros = Array.from({ length: 10 }, () => 0);
  const jobs = [
    { prompt: zeros, n: 2, maxTokens: 7 },
    { prompt: [0, 0], n: 1, maxTokens: 11 },
    { prompt: [...zeros, 1], n: 3, maxTokens: 9 },
  ];
  const done = await Promise.all(jobs.map((job, id) => ask({ id, ...job })));
  for (const [i, { prompt, maxTokens, ...job }] of jobs.entries())
    expect(done[i]).toEqual(Array.from({ length: job.n }, () => expected(prompt, maxTokens)));
  expect(scheduler.stats()).toMatchObject({ queued: 0, active: 0 });
});
