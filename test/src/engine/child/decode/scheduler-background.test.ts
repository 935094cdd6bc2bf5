// Background work (the lines of a batch) below live requests: it starts when none waits, gives its slots to those
// that come, and goes on afterwards with the same text.

import { expect, test } from 'vitest';
import { expected, start } from '../../../../fixtures/engine/fake-context.ts';

test('live requests are seated before background work that came first', async () => {
  const order: number[] = [];
  const { ask } = start({ slots: 1 });
  const asked = (id: number, background: boolean): Promise<unknown> =>
    ask({
      id,
      scope: `s${id}`,
      background,
      maxTokens: 2,
      emit: (event) => void (event.kind === 'finish' && order.push(id)),
    });
  await Promise.all([asked(1, true), asked(2, true), asked(3, false), asked(4, false)]);
  expect(order.slice(0, 2).toSorted()).toEqual([3, 4]);
});

test('background work under way gives its slot to a live request, and ends with its own text', async () => {
  const order: number[] = [];
  const { ask } = start({ slots: 2 });
  let live: Promise<number[][]> | undefined;
  const background = [1, 2].map((id) =>
    ask({
      id,
      scope: 'batch',
      prompt: [id, 2, 3],
      background: true,
      maxTokens: 30,
      emit: (event) => {
        if (event.kind === 'finish') order.push(id);
        if (event.kind !== 'delta' || live !== undefined) return;
        live = ask({
          id: 3,
          scope: 'live',
          prompt: [3, 3],
          maxTokens: 5,
          emit: (each) => void (each.kind === 'finish' && order.push(3)),
        });
      },
    }),
  );
  expect(await Promise.all(background)).toEqual([[expected([1, 2, 3], 30)], [expected([2, 2, 3], 30)]]);
  expect(await live).toEqual([expected([3, 3], 5)]);
  expect(order[0]).toBe(3);
});

test('takes no place in the queue from live requests', async () => {
  const { ask, scheduler } = start({ slots: 1, maxQueued: 1 });
  const work = [1, 2].map((id) => ask({ id, scope: 'batch', background: true, maxTokens: 3 }));
  const live = [3, 4].map((id) => ask({ id, scope: 'live', maxTokens: 3 }));
  expect(scheduler.stats().queued).toBe(4);
  expect((await Promise.all([...work, ...live])).flat()).toHaveLength(4);
});
