// The set each sealed request runs once by (docs/sealed.md §5): its window, its bounds, freed entries.

import { expect, test } from 'vitest';
import { Entries, WINDOW_SECONDS } from '../../../src/sealed/entries.ts';
import { createSealedTime } from '../../../src/sealed/time.ts';
import { ApiError } from '../../../src/base/errors.ts';

function setUp(maxEntries?: number, maxPast?: number) {
  let now = 10_000;
  const entries = new Entries({ seconds: () => now, maxEntries, maxPast });
  const enter = (name: string, at = now, caller = 'a'): unknown => {
    try {
      entries.enter([{ entry: name, at }], caller);
      return 'entered';
    } catch (error) {
      return error instanceof ApiError ? error.code : error;
    }
  };
  return { entries, enter, pass: (seconds: number) => void (now += seconds) };
}

test('an entry stays as long as its own time is in the window, and leaves after it [B12]', () => {
  const { entries, enter, pass } = setUp();
  expect(enter('early', 9_700)).toBe('entered');
  expect(enter('now')).toBe('entered');
  expect(enter('late', 10_300)).toBe('entered');
  pass(1);
  expect(['early', 'now', 'late'].map((name) => entries.has(name))).toEqual([true, true, true]);
  expect([entries.takes(9_700), entries.size]).toEqual([false, 2]);
  pass(WINDOW_SECONDS - 1);
  expect(enter('now', 10_000)).toBe('sealed_replayed');
  pass(1);
  expect([entries.has('now'), entries.size]).toEqual([true, 1]);
  pass(WINDOW_SECONDS);
  expect([entries.has('late'), entries.size]).toEqual([true, 0]);
});

test('those that left are known up to a number; of what was forgotten, the time is known [B12]', () => {
  const { entries, enter, pass } = setUp(undefined, 2);
  for (const [name, at] of [
    ['a', 10_000],
    ['b', 10_001],
    ['c', 10_002],
  ] as const)
    expect(enter(name, at)).toBe('entered');
  pass(WINDOW_SECONDS + 3);
  expect(['a', 'b', 'c'].map((name) => entries.has(name))).toEqual([false, true, true]);
  expect([10_000, 10_001].map((at) => entries.hasForgotten(at))).toEqual([true, false]);
});

test('the window may close between the judgement of a request and its entry [B12]', () => {
  const { entries, enter, pass } = setUp();
  expect(entries.takes(10_000)).toBe(true);
  pass(WINDOW_SECONDS + 1);
  expect([enter('late', 10_000), entries.size]).toEqual(['sealed_replayed', 0]);
});

test('a caller has an eighth, all have the whole, and both are given back [B12]', () => {
  const { entries, enter, pass } = setUp(64);
  for (let caller = 0; caller < 8; caller++) {
    for (let i = 0; i < 8; i++) expect(enter(`${caller} ${i}`, undefined, `key ${caller}`)).toBe('entered');
    expect(enter(`${caller} more`, undefined, `key ${caller}`)).toBe('server_overloaded');
  }
  expect(enter('another', undefined, 'key 9')).toBe('server_overloaded');
  pass(WINDOW_SECONDS + 1);
  expect(enter('another', undefined, 'key 0')).toBe('entered');
  expect(entries.size).toBe(1);
});

test('a cut request is free again twice, and its entry does not count twice [B13]', () => {
  const { entries, enter } = setUp(64);
  for (let i = 0; i < 2; i++) {
    expect(enter('cut')).toBe('entered');
    entries.free('cut');
    expect(entries.has('cut')).toBe(false);
  }
  expect(enter('cut')).toBe('entered');
  entries.free('cut');
  expect(enter('cut')).toBe('sealed_replayed');
  expect(entries.size).toBe(1);
});

test('of two entries one that is there refuses both [B12]', () => {
  const { entries, enter } = setUp();
  expect(enter('before')).toBe('entered');
  expect(() =>
    entries.enter(
      [
        { entry: 'anew', at: 10_000 },
        { entry: 'before', at: 10_000 },
      ],
      'a',
    ),
  ).toThrow(ApiError);
  expect(entries.has('anew')).toBe(false);
});

test('sealed time never falls, and the wall clock is read once [B12]', () => {
  let wall = 1_000_000;
  let monotonic = 5;
  const time = createSealedTime(
    () => wall,
    () => monotonic,
  );
  expect(time.seconds()).toBe(1000);
  wall -= 86_400_000;
  monotonic += 2000;
  expect(time.seconds()).toBe(1002);
  wall += 5 * 86_400_000;
  monotonic -= 1000;
  expect(time.seconds()).toBe(1002);
});
