// The rotation of claim 7 (docs/sealed.md §2): only the last two keys open, their ids differ, and a key that
// could not be made leaves the present one.

import { expect, test, vi } from 'vitest';
import { keyIdOf } from '../../../attestation/sealed/request.ts';
import { createSealedKeys } from '../../../src/sealed/keys.ts';

interface Timer {
  readonly ms: number;
  readonly call: () => void;
}

function unexpected(error: unknown): never {
  throw error;
}

async function setUp(onError: (error: unknown) => void = unexpected) {
  const timers: Timer[] = [];
  const keys = await createSealedKeys({
    lifetimeMs: 3_600_000,
    after: (ms, call) => {
      const timer = { ms, call };
      timers.push(timer);
      return () => void timers.splice(timers.indexOf(timer), 1);
    },
    onError,
  });
  const elapse = async (): Promise<number> => {
    const { ms, call } = timers.shift()!;
    call();
    await expect.poll(() => timers.length).toBe(1);
    return ms;
  };
  return { keys, elapse, timers };
}

test('the key before opens, older ones never, and no two neighbours share an id [B16]', async () => {
  const { keys, elapse } = await setUp();
  const made = [keys.current()];
  for (let i = 0; i < 200; i++) {
    expect(await elapse()).toBe(3_600_000);
    made.push(keys.current());
    const [older, before, current] = [made.at(-3), made.at(-2)!, made.at(-1)!];
    expect(keyIdOf(before)).not.toBe(keyIdOf(current));
    expect(keys.of(keyIdOf(current))?.publicKey).toEqual(current);
    expect(keys.of(keyIdOf(before))?.publicKey).toEqual(before);
    if (older !== undefined)
      expect([undefined, before, current]).toContainEqual(keys.of(keyIdOf(older))?.publicKey);
  }
  keys.close();
});

test('a key that cannot be made is tried again soon, and the present one goes on [B16]', async () => {
  const errors: unknown[] = [];
  const { keys, elapse } = await setUp((error) => errors.push(error));
  const before = keys.current();
  const failing = vi.spyOn(crypto.subtle, 'generateKey').mockRejectedValueOnce(new Error('no entropy'));
  await elapse();
  expect([errors.length, keys.current()]).toEqual([1, before]);
  failing.mockRestore();
  expect(await elapse()).toBe(10_000);
  expect(keys.current()).not.toEqual(before);
});

test('closed while a key is made, it makes no further one', async () => {
  const { keys, timers } = await setUp();
  const { call } = timers.shift()!;
  const before = keys.current();
  call();
  keys.close();
  await expect.poll(() => keys.current() === before).toBe(false);
  expect(timers).toEqual([]);
});
