// Slices of work over texts: in turn, with a turn of the loop before each, and none for what was cancelled.

import { expect, test } from 'vitest';
import { createTurns } from '../../../../src/engine/child/time-slices.ts';

function bench() {
  const due: (() => void)[] = [];
  const log: string[] = [];
  const failed: [number, unknown][] = [];
  const turns = createTurns(
    (then) => void due.push(then),
    (id, error) => void failed.push([id, error]),
  );
  const work = (name: string, slices: number): (() => boolean) => {
    let done = 0;
    return () => {
      done += 1;
      log.push(`${name}${done}`);
      return done < slices;
    };
  };
  /** One turn of the loop; at most one slice is due. */
  const turn = (): void => {
    const now = due.splice(0);
    expect(now.length).toBeLessThanOrEqual(1);
    for (const each of now) each();
  };
  return { turns, work, turn, log, failed, due };
}

test('a long request lets a short one through', () => {
  const { turns, work, turn, log, due } = bench();
  turns.add(1, work('long', 4));
  turns.add(2, work('short', 1));
  expect(log).toEqual([]);
  while (due.length > 0) turn();
  expect(log).toEqual(['long1', 'short1', 'long2', 'long3', 'long4']);
});

test('what is cancelled before its turn is never begun, and in its midst not gone on with', () => {
  const { turns, work, turn, log, due } = bench();
  turns.add(1, work('a', 9));
  for (let id = 2; id < 9; id += 1) turns.add(id, work('b', 1));
  turns.add(9, work('c', 1));
  turn();
  for (let id = 1; id < 9; id += 1) turns.cancel(id);
  turn();
  expect(log).toEqual(['a1', 'c1']);
  expect(due).toEqual([]);
  turns.add(10, work('d', 1));
  turns.cancel(10);
  turn();
  turns.add(11, work('e', 1));
  turn();
  expect(log).toEqual(['a1', 'c1', 'e1']);
});

test('a failure is told and ends that request only', () => {
  const { turns, work, turn, log, failed, due } = bench();
  const error = new Error('no');
  let slices = 0;
  turns.add(1, () => {
    slices += 1;
    if (slices === 2) throw error;
    return true;
  });
  turns.add(2, work('b', 2));
  while (due.length > 0) turn();
  expect(failed).toEqual([[1, error]]);
  expect(log).toEqual(['b1', 'b2']);
});
