// Places taken in turn by caller: who has many lines waiting gets no more places than who has one.

import { describe, expect, test } from 'vitest';
import { FairSlots } from '../../../../src/api/batches/fair-slots.ts';

const NEVER = new AbortController().signal;

async function drained(slots: FairSlots, order: readonly string[]): Promise<string[]> {
  const served: string[] = [];
  await Promise.all(
    order.map(async (caller) => {
      const release = await slots.take(caller, NEVER);
      served.push(caller);
      await Promise.resolve();
      release();
      release();
    }),
  );
  return served;
}

describe('places', () => {
  test('go to the callers in turn', async () => {
    expect(await drained(new FairSlots(1), ['a', 'a', 'a', 'a', 'b', 'c'])).toEqual([
      'a',
      'a',
      'b',
      'c',
      'a',
      'a',
    ]);
  });

  test('are never more than there are, and all come back', async () => {
    const slots = new FairSlots(3);
    let [held, most] = [0, 0];
    await Promise.all(
      Array.from({ length: 20 }, async (_, i) => {
        const release = await slots.take(`c${i % 4}`, NEVER);
        most = Math.max(most, (held += 1));
        await new Promise((resolve) => setImmediate(resolve));
        held -= 1;
        release();
      }),
    );
    expect([held, most]).toEqual([0, 3]);
  });

  test('a waiting caller that leaves takes none', async () => {
    const slots = new FairSlots(1);
    const release = await slots.take('a', NEVER);
    const leaving = new AbortController();
    const left = slots.take('b', leaving.signal);
    const next = slots.take('c', NEVER);
    leaving.abort(new Error('left'));
    await expect(left).rejects.toThrow('left');
    await expect(slots.take('d', leaving.signal)).rejects.toThrow('left');
    release();
    (await next)();
    expect(await drained(slots, ['e'])).toEqual(['e']);
  });
});
