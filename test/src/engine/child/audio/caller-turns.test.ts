// Turns: within a scope first come, first served; between scopes one each.

import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { CallerTurns } from '../../../../../src/engine/child/audio/caller-turns.ts';

function filled(...scopes: readonly string[]) {
  const turns = new CallerTurns<{ readonly id: number; readonly scope: string }>();
  for (const [id, scope] of scopes.entries()) turns.add({ id, scope });
  return turns;
}

function order(turns: ReturnType<typeof filled>): string {
  let text = '';
  for (let job = turns.next(); job !== undefined; job = turns.next()) text += job.scope;
  return text;
}

test('a caller with many waits for one of another', () => {
  expect(order(filled(...'aaaabbc'))).toBe('abcabaa');
});

test('one that comes while another is served goes before the next of that one', () => {
  const turns = filled(...'aaa');
  expect(turns.next()?.scope).toBe('a');
  turns.add({ id: 9, scope: 'b' });
  expect(order(turns)).toBe('baa');
});

test('one that sends again and again does not hold up the others', () => {
  const turns = filled(...'abb');
  expect(turns.next()?.scope).toBe('a');
  turns.add({ id: 9, scope: 'a' });
  expect(order(turns)).toBe('bab');
});

test('what is removed is not served, and is counted no more', () => {
  const turns = filled(...'aab');
  turns.remove(0);
  turns.remove(2);
  turns.remove(77);
  expect(turns.count).toBe(1);
  expect(turns.next()?.id).toBe(1);
  expect(turns.next()).toBeUndefined();
  expect(turns.count).toBe(0);
});

test('property: every job once, in order within its scope, and at most one of another between two', () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom('a', 'b', 'c'), { maxLength: 30 }), (scopes) => {
      const turns = filled(...scopes);
      const served: { readonly id: number; readonly scope: string }[] = [];
      for (let job = turns.next(); job !== undefined; job = turns.next()) served.push(job);
      expect(served.map(({ id }) => id).toSorted((a, b) => a - b)).toEqual(scopes.map((_, i) => i));
      for (const scope of ['a', 'b', 'c']) {
        const ids = served.filter((job) => job.scope === scope).map(({ id }) => id);
        expect(ids).toEqual(ids.toSorted((a, b) => a - b));
        const places = served.flatMap((job, i) => (job.scope === scope ? [i] : []));
        for (const [i, place] of places.entries()) {
          const between = served.slice(i === 0 ? 0 : places[i - 1]! + 1, place).map((job) => job.scope);
          expect(new Set(between).size).toBe(between.length);
        }
      }
    }),
  );
});
