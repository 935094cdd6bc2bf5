// Room for models: eviction, budgets, fairness between models, unloading, crashes and shutdown.

import { describe, expect, test } from 'vitest';
import { setUp, settled } from '../../fixtures/models/fake-lifecycle.ts';

describe('room', () => {
  test('the least recently used idle model makes room', async () => {
    const { acquire, clock, lifecycle, events } = setUp();
    (await acquire('a')).release();
    clock.advance(1);
    (await acquire('b')).release();
    clock.advance(1);
    (await acquire('a')).release();
    (await acquire('c')).release();
    expect([lifecycle.isLoaded('a'), lifecycle.isLoaded('b'), lifecycle.isLoaded('c')]).toEqual([
      true,
      false,
      true,
    ]);
    expect(events).toContainEqual({ kind: 'unloaded', id: 'b', reason: 'evicted' });
  });

  test('a model with work in flight is never evicted, however old', async () => {
    const { acquire, clock, lifecycle } = setUp();
    const old = await acquire('a');
    clock.advance(10);
    (await acquire('b')).release();
    (await acquire('c')).release();
    expect([lifecycle.isLoaded('a'), lifecycle.isLoaded('b')]).toEqual([true, false]);
    old.release();
  });

  test('memory is estimated before loading, and enough is freed', async () => {
    const sizes: Record<string, number> = { a: 40, b: 40, big: 90 };
    const { acquire, lifecycle } = setUp({ maxLoaded: 10, budget: 100, bytes: (id) => sizes[id]! });
    (await acquire('a')).release();
    (await acquire('b')).release();
    expect([lifecycle.isLoaded('a'), lifecycle.isLoaded('b')]).toEqual([true, true]);
    (await acquire('big')).release();
    expect([lifecycle.isLoaded('a'), lifecycle.isLoaded('b'), lifecycle.isLoaded('big')]).toEqual([
      false,
      false,
      true,
    ]);
  });

  test('a model over the whole budget is refused at once, and a retry is no use', async () => {
    const { acquire, opening } = setUp({ budget: 100, bytes: () => 101 });
    await expect(acquire('a')).rejects.toMatchObject({
      status: 503,
      code: 'model_load_failed',
      shouldRetry: false,
    });
    expect(opening).toEqual([]);
  });

  test('a busy model is drained for one that waits, and gets its turn back: nobody starves', async () => {
    const { acquire, opening, lifecycle } = setUp({ maxLoaded: 1 });
    const first = await acquire('a');
    const other = acquire('b');
    // New work for the busy model queues behind the one that waits, else a stream of it would starve the
    // other.
    const again = acquire('a');
    await settled();
    expect(opening.map((o) => o.id)).toEqual(['a']);
    first.release();
    const b = await other;
    expect(lifecycle.isLoaded('a')).toBe(false);
    b.release();
    const a = await again;
    expect(opening.map((o) => o.id)).toEqual(['a', 'b', 'a']);
    a.release();
  });

  test('a drain that is no longer needed is called off, and who queued behind it is served', async () => {
    const { acquire, opening, opened } = setUp({ maxLoaded: 1 });
    const first = await acquire('a');
    const left = new AbortController();
    const other = acquire('b', undefined, left.signal);
    const behind = acquire('a');
    left.abort(new Error('left'));
    await expect(other).rejects.toThrow('left');
    expect((await behind).engine).toBe(first.engine);
    expect(opening).toHaveLength(1);
    expect(opened[0]!.isClosed).toBe(false);
  });

  test('loads that need room are served first come, first served', async () => {
    const { acquire, opening } = setUp({ maxLoaded: 1 });
    const order: string[] = [];
    const held = await acquire('a');
    const waiting = ['b', 'c', 'd'].map(async (id) => {
      const lease = await acquire(id);
      order.push(id);
      lease.release();
    });
    held.release();
    await Promise.all(waiting);
    expect(order).toEqual(['b', 'c', 'd']);
    expect(opening.map((o) => o.id)).toEqual(['a', 'b', 'c', 'd']);
  });
});

describe('unload', () => {
  test('waits for work in flight; work that comes meanwhile gets a fresh engine', async () => {
    const { acquire, lifecycle, opened } = setUp();
    const lease = await acquire('a');
    const unloading = lifecycle.unload('a');
    const next = acquire('a');
    await settled();
    expect(opened).toHaveLength(1);
    expect(opened[0]!.isClosed).toBe(false);
    lease.release();
    expect(await unloading).toBe(true);
    expect((await next).engine).toBe(opened[1]);
  });

  test('what is not loaded cannot be unloaded; what is loading is, once loaded', async () => {
    const { acquire, lifecycle, opening, opened } = setUp({ auto: false });
    expect(await lifecycle.unload('a')).toBe(false);
    const waiting = acquire('a');
    const unloading = lifecycle.unload('a');
    opening[0]!.finish();
    (await waiting).release();
    expect(await unloading).toBe(true);
    expect(opened[0]!.isClosed).toBe(true);
  });
});

describe('a crash', () => {
  test('is noticed, and the next request loads again', async () => {
    const { acquire, opened, lifecycle, events } = setUp();
    const lease = await acquire('a');
    opened[0]!.crash();
    await settled();
    expect(lifecycle.isLoaded('a')).toBe(false);
    expect(events.at(-1)).toMatchObject({ kind: 'crashed', id: 'a' });
    expect((await acquire('a')).engine).toBe(opened[1]);
    // The lease of the dead engine has no say about the new one.
    lease.release();
    expect(lifecycle.status('a')).toMatchObject({ loaded: true, inFlight: 1 });
  });
});

describe('shutdown', () => {
  test('refuses new work, lets leases end, then closes every engine', async () => {
    const { acquire, lifecycle, opened } = setUp();
    const busy = await acquire('a');
    (await acquire('b')).release();
    const closing = lifecycle.close(new AbortController().signal);
    await expect(acquire('a')).rejects.toMatchObject({
      status: 503,
      code: 'server_shutting_down',
      retryAfterSeconds: 5,
    });
    await settled();
    expect(opened.map((e) => e.isClosed)).toEqual([false, true]);
    busy.release();
    await closing;
    expect(opened.every((e) => e.isClosed)).toBe(true);
  });

  test('an aborted shutdown does not wait for leases; loads under way are ended', async () => {
    const { acquire, lifecycle, opened, opening } = setUp({ auto: false });
    const busy = acquire('a');
    opening[0]!.finish();
    await busy;
    const loading = acquire('b');
    const now = new AbortController();
    const closing = lifecycle.close(now.signal);
    await expect(loading).rejects.toMatchObject({ code: 'server_shutting_down' });
    now.abort();
    await closing;
    expect(opened.map((e) => e.isClosed)).toEqual([true]);
    expect(opening[1]!.signal.aborted).toBe(true);
  });
});
