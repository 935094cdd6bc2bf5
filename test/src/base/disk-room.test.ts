// Room on a disk is promised once, whichever caller asks and whenever it writes.

import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { DiskRoom, NoRoom, type Reservation } from '../../../src/base/disk-room.ts';

test('of several that ask at once, as many get room as there is, less what is kept', async () => {
  const room = new DiskRoom({ freeBytes: async () => 24, keep: 2 });
  const asked = await Promise.allSettled([10, 10, 10, 10].map((bytes) => room.reserve(bytes)));
  expect(asked.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'rejected', 'rejected']);
  expect((asked[2] as PromiseRejectedResult).reason).toMatchObject({ name: 'NoRoom', available: 2 });
});

test('what is written is not counted twice, and what is released is free again', async () => {
  let free = 20;
  const room = new DiskRoom({ freeBytes: async () => free, keep: 0 });
  const first = await room.reserve(10);
  await expect(room.reserve(11)).rejects.toThrow(NoRoom);
  free = 14;
  first.update(4);
  const second = await room.reserve(10);
  free = 10;
  first.release();
  first.update(100);
  await expect(room.reserve(1)).rejects.toThrow(NoRoom);
  second.release();
  await room.reserve(10);
});

test('asks for what is dispensable only when it must, for as much as is missing, and looks again', async () => {
  let free = 10;
  const asked: number[] = [];
  const giveBack = async (missing: number): Promise<void> => {
    asked.push(missing);
    free += 5;
  };
  const room = new DiskRoom({ freeBytes: async () => free, keep: 1, giveBack });
  (await room.reserve(9)).release();
  expect(asked).toEqual([]);
  (await room.reserve(12)).release();
  expect(asked).toEqual([3]);
  await expect(room.reserve(100)).rejects.toThrow(NoRoom);
  expect([await room.isKept(), (free = 0), await room.isKept()]).toEqual([true, 0, false]);
});

test('property: nobody who was promised room ever meets a full disk, and what is kept stays', async () => {
  const step = fc.record({
    who: fc.nat(4),
    act: fc.constantFrom('reserve', 'write', 'release'),
    size: fc.nat(40),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      let free = 100;
      const room = new DiskRoom({ freeBytes: async () => free, keep: 7 });
      const held = new Map<number, { reservation: Reservation; remaining: number }>();
      for (const { who, act, size } of steps) {
        const mine = held.get(who);
        if (act === 'reserve' && mine === undefined) {
          const reservation = await room.reserve(size).catch(() => undefined);
          if (reservation !== undefined) held.set(who, { reservation, remaining: size });
        } else if (act === 'write' && mine !== undefined) {
          const written = Math.min(size, mine.remaining);
          free -= written;
          mine.remaining -= written;
          mine.reservation.update(mine.remaining);
          expect(free).toBeGreaterThanOrEqual(7);
        } else if (act === 'release' && mine !== undefined) {
          mine.reservation.release();
          held.delete(who);
        }
      }
    }),
  );
});
