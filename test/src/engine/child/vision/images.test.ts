// Requests with images on their way: one at a time, the callers in turn, within a budget of which one caller
// has half; equal pixels have equal ids, others never.

import { describe, expect, test } from 'vitest';
import { ImageRoom, type Pictured } from '../../../../../src/engine/child/vision/images.ts';
import { WEBP_TABLE_BYTES } from '../../../../../src/engine/child/vision/webp.ts';
import type { MessageImage } from '../../../../../src/engine/seam/engine.ts';
import { deferred, type Deferred } from '../../../../fixtures/deferred.ts';

const SIDE = 10;
/** Of one image: its decoded pixels, and those of three vectors as they are prepared. */
const BYTES = SIDE * SIDE * 12 + 3 * 100 * 15;

function image(key: string): MessageImage {
  return { at: 0, kind: 'png', width: SIDE, height: SIDE, bytes: Buffer.from(key), param: key };
}

/** A room whose images are ready when the test says so, each of two marks and three vectors. */
function roomFor(images: number, maxWaiting = 64) {
  const asked: string[] = [];
  const freed: string[] = [];
  const gates = new Map<string, Deferred>();
  const room = new ImageRoom(
    {
      layout: () => [
        { kind: 'text', tokens: [7] },
        { kind: 'image', length: 3 },
        { kind: 'text', tokens: [8] },
      ],
      ready: async ({ bytes }) => {
        const key = Buffer.from(bytes).toString();
        asked.push(key);
        const gate = gates.get(key);
        await gate?.promise;
        if (key === 'damaged') throw new Error('damaged');
        return { key, encode: async () => new Float32Array(3), free: () => void freed.push(key) };
      },
    },
    { budget: images * BYTES, maxWaiting, vectorPixels: 100 },
  );
  const prepare = (scope: string, keys: readonly string[], signal = new AbortController().signal) =>
    room.prepare(scope, room.lay([1, ...keys.map((_, i) => -1 - i), 2], keys.map(image)), signal);
  const hold = (key: string): Deferred => {
    const gate = deferred();
    gates.set(key, gate);
    return gate;
  };
  return { room, asked, freed, prepare, hold };
}

function idsOf({ prompt }: Pictured): number[] {
  return prompt.filter((token) => token < 0);
}

describe('images on their way', () => {
  test('tables of WebP count once in a request, beside its pixels', async () => {
    const reader = {
      layout: () => [{ kind: 'image', length: 1 }] as const,
      ready: async () => ({ key: 'a', encode: async () => new Float32Array(1), free: () => undefined }),
    };
    const each = SIDE * SIDE * 12 + 100 * 15;
    const prepare = async (budget: number) => {
      const room = new ImageRoom(reader, { budget, maxWaiting: 4, vectorPixels: 100 });
      const images = ['a', 'b'].map((key) => ({ ...image(key), kind: 'webp' as const }));
      return room.prepare('s', room.lay([-1, -2], images), new AbortController().signal);
    };
    const needed = 2 * (WEBP_TABLE_BYTES + 2 * each);
    expect((await prepare(needed)).prompt).toHaveLength(2);
    await expect(prepare(needed - 1)).rejects.toMatchObject({ code: 'invalid_image' });
  });

  test('have their places, their length and the ids of their pixels', async () => {
    const { prepare, room } = roomFor(8);
    expect(room.lay([1, -1, 2], [image('a')]).length).toBe(7);
    const [one, two] = [await prepare('s', ['a', 'b']), await prepare('s', ['b', 'a'])];
    const [a, b] = [idsOf(one)[0], idsOf(one)[3]];
    expect(one.prompt).toEqual([1, 7, a, a, a, 8, 7, b, b, b, 8, 2]);
    expect(two.prompt).toEqual([1, 7, b, b, b, 8, 7, a, a, a, 8, 2]);
    expect(a).not.toBe(b);
    expect(one.media.map(({ start, length }) => [start, length])).toEqual([
      [2, 3],
      [7, 3],
    ]);
  });

  test('are prepared one at a time, the callers in turn', async () => {
    const { prepare, asked, hold } = roomFor(100);
    const gate = hold('a1');
    const all = [prepare('a', ['a1']), prepare('a', ['a2']), prepare('a', ['a3']), prepare('b', ['b1'])];
    expect(asked).toEqual(['a1']);
    gate.resolve();
    await Promise.all(all);
    expect(asked).toEqual(['a1', 'a2', 'b1', 'a3']);
  });

  test('of one caller take half of the memory at most, and the rest is for others', async () => {
    const { prepare, asked, freed } = roomFor(4);
    const first = await prepare('a', ['a1', 'a2']);
    const waits = prepare('a', ['a3']);
    await prepare('b', ['b1']);
    expect(asked).toEqual(['a1', 'a2', 'b1']);
    first.release();
    await waits;
    expect(asked).toEqual(['a1', 'a2', 'b1', 'a3']);
    expect(freed).toEqual(['a1', 'a2']);
  });

  test('that can never be held are refused at once, and so is one that finds the queue full', async () => {
    const { prepare, hold } = roomFor(4, 1);
    await expect(prepare('a', ['x', 'y', 'z'])).rejects.toMatchObject({ code: 'invalid_image', param: 'x' });
    const gate = hold('a1');
    const under = [prepare('a', ['a1']), prepare('b', ['b1'])];
    await expect(prepare('c', ['c1'])).rejects.toMatchObject({ code: 'engine_overloaded', status: 429 });
    gate.resolve();
    await Promise.all(under);
  });

  test('that are damaged or cancelled give back their room', async () => {
    const { prepare, hold, freed, asked } = roomFor(2);
    await expect(prepare('a', ['damaged'])).rejects.toThrow('damaged');
    const controller = new AbortController();
    const gate = hold('a1');
    const reading = prepare('a', ['a1'], controller.signal);
    const waiting = prepare('b', ['b1'], controller.signal);
    controller.abort(new Error('gone'));
    await expect(reading).rejects.toThrow('gone');
    await expect(waiting).rejects.toThrow('gone');
    gate.resolve();
    await prepare('a', ['a2']);
    expect(asked).toEqual(['damaged', 'a1', 'a2']);
    expect(freed).toEqual(['a1']);
  });
});
