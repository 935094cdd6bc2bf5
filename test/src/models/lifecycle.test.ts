// Which model is loaded when: coalescing, keep_alive, room, fairness, swaps under load, crashes, shutdown.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseKeepAlive } from '../../../src/models/keep-alive.ts';
import { ApiError } from '../../../src/base/errors.ts';
import { GENERIC_TOOL_FORMAT } from '../../../src/engine/seam/tool-format.ts';
import type { Lease } from '../../../src/models/seam.ts';
import { model, type FakeEngine, setUp, settled } from '../../fixtures/models/fake-lifecycle.ts';

describe('load on first request', () => {
  test('waiters share one load', async () => {
    const { acquire, opening, opened } = setUp({ auto: false });
    const waiting = [acquire('a'), acquire('a'), acquire('a')];
    expect(opening.map((o) => o.id)).toEqual(['a']);
    opening[0]!.finish();
    const leases = await Promise.all(waiting);
    expect(new Set(leases.map((l) => l.engine))).toEqual(new Set(opened));
  });

  test('progress and state are visible while loading', async () => {
    const { acquire, opening, lifecycle } = setUp({ auto: false });
    const waiting = acquire('a');
    opening[0]!.progress(0.42);
    expect(lifecycle.status('a')).toEqual({ loaded: false, inFlight: 0, loading: { fraction: 0.42 } });
    opening[0]!.finish();
    const lease = await waiting;
    expect(lifecycle.status('a')).toMatchObject({ loaded: true, inFlight: 1, expiresAt: null });
    lease.release();
    expect(lifecycle.status('a')).toMatchObject({ inFlight: 0, expiresAt: 300_000 });
  });

  test.each([
    ['chat', 'generic'],
    ['completion', 'generic'],
    ['embedding', undefined],
  ] as const)('a loaded %s model says how it writes tool calls, if it does', async (type, expected) => {
    const { acquire, lifecycle } = setUp({ info: { type, toolFormat: GENERIC_TOOL_FORMAT } });
    expect(lifecycle.status('a').toolFormat).toBeUndefined();
    (await acquire('a')).release();
    expect(lifecycle.status('a').toolFormat).toBe(expected);
    await lifecycle.unload('a');
    expect(lifecycle.status('a').toolFormat).toBeUndefined();
  });

  test('a failed load fails its waiters, and the next request tries again', async () => {
    const { acquire, opening } = setUp({ auto: false });
    const first = acquire('a');
    opening[0]!.finish(new ApiError('model_load_failed', 'no'));
    await expect(first).rejects.toMatchObject({ code: 'model_load_failed' });
    const second = acquire('a');
    opening[1]!.finish();
    await expect(second).resolves.toMatchObject({ model: { id: 'a' } });
  });

  test('a load that takes too long is aborted', async () => {
    const { acquire, clock } = setUp({ auto: false });
    const waiting = acquire('a');
    clock.advance(60_000);
    await expect(waiting).rejects.toMatchObject({
      code: 'model_load_failed',
      message: expect.stringContaining('longer than 60000 ms') as string,
    });
  });

  test('more waiters than allowed are told to come back', async () => {
    const { acquire } = setUp({ auto: false, maxWaiting: 2 });
    const held = [acquire('a'), acquire('a')];
    await expect(acquire('a')).rejects.toMatchObject({
      status: 429,
      code: 'engine_overloaded',
      retryAfterSeconds: 5,
    });
    void held;
  });

  test('a waiter that leaves is gone; a load that has begun goes on, one that has not is dropped', async () => {
    const { acquire, opening, lifecycle } = setUp({ auto: false, maxLoaded: 1 });
    const a = new AbortController();
    const first = acquire('a', undefined, a.signal);
    const b = new AbortController();
    const second = acquire('b', undefined, b.signal);
    b.abort(new Error('left'));
    await expect(second).rejects.toThrow('left');
    a.abort(new Error('left'));
    await expect(first).rejects.toThrow('left');
    opening[0]!.finish();
    await settled();
    expect(lifecycle.status('a')).toMatchObject({ loaded: true, inFlight: 0 });
    expect(opening.map((o) => o.id)).toEqual(['a']);
  });

  test('a waiter that leaves while its model is swapped out does not make it load again', async () => {
    const { acquire, opening, lifecycle } = setUp({ maxLoaded: 1 });
    const a1 = await acquire('a');
    const b = acquire('b');
    const gone = new AbortController();
    const a2 = acquire('a', undefined, gone.signal);
    a1.release();
    const lease = await b;
    await settled();
    gone.abort(new Error('left'));
    await expect(a2).rejects.toThrow('left');
    lease.release();
    await settled();
    expect(opening.map((o) => o.id)).toEqual(['a', 'b']);
    expect(lifecycle.isLoaded('b')).toBe(true);
  });
});

describe('keep_alive', () => {
  test.each([
    ['5m', 300_000],
    ['30s', 30_000],
    ['1h', 3_600_000],
    ['250ms', 250],
    [10, 10_000],
    ['10', 10_000],
    ['0', 0],
    [0, 0],
    ['-1', Number.POSITIVE_INFINITY],
    [-1, Number.POSITIVE_INFINITY],
    ['100000h', Number.POSITIVE_INFINITY],
    ['1.5m', 90_000],
  ])('%j is %d ms', (given, ms) => expect(parseKeepAlive(given)).toBe(ms));

  test.each(['', 'm', '5 minutes', '1e9', 'NaN', '--1', '5m5s', '１m'])('%j is refused', (given) => {
    expect(() => parseKeepAlive(given)).toThrow(
      expect.objectContaining({ status: 400, param: 'keep_alive' }),
    );
  });

  test('an idle model is unloaded after it, a used one is not', async () => {
    const { acquire, clock, opened, lifecycle, events } = setUp();
    (await acquire('a')).release();
    clock.advance(299_999);
    expect(opened[0]!.isClosed).toBe(false);
    const lease = await acquire('a');
    clock.advance(1_000_000);
    await settled();
    expect(lifecycle.isLoaded('a')).toBe(true);
    lease.release();
    clock.advance(300_000);
    await settled();
    expect(opened[0]!.isClosed).toBe(true);
    expect(lifecycle.isLoaded('a')).toBe(false);
    expect(events.at(-1)).toEqual({ kind: 'unloaded', id: 'a', reason: 'idle' });
  });

  test('of those who share the model only ever lengthens, and up to a bound', async () => {
    const { lifecycle, clock } = setUp();
    const share = async (keepAlive: string | number): Promise<void> =>
      (
        await lifecycle.acquire(model('a'), {
          keepAlive,
          keepAliveUpToMs: 600_000,
          signal: new AbortController().signal,
        })
      ).release();
    const stays = (): number | null => {
      const { expiresAt } = lifecycle.status('a');
      return expiresAt == null ? null : expiresAt - clock.now();
    };
    await share(0);
    expect(stays()).toBe(300_000);
    await share('7m');
    expect(stays()).toBe(420_000);
    await share('1s');
    expect(stays()).toBe(420_000);
    await share(-1);
    expect(stays()).toBe(600_000);
    // An admin pins it, and only an admin takes the pin out.
    (await lifecycle.acquire(model('a'), { keepAlive: -1, signal: new AbortController().signal })).release();
    await share('5m');
    expect(stays()).toBeNull();
    expect(lifecycle.isLoaded('a')).toBe(true);
  });

  test('"0" unloads when the last work ends, "-1" never', async () => {
    const { acquire, clock, opened, lifecycle } = setUp();
    const first = await acquire('a', '0');
    const second = await acquire('a');
    first.release();
    expect(opened[0]!.isClosed).toBe(false);
    second.release();
    await settled();
    expect(opened[0]!.isClosed).toBe(true);
    (await acquire('b', -1)).release();
    clock.advance(2 ** 31);
    await settled();
    expect(lifecycle.isLoaded('b')).toBe(true);
  });

  test('a release counts once', async () => {
    const { acquire, lifecycle } = setUp();
    const first = await acquire('a');
    const second = await acquire('a');
    first.release();
    first.release();
    expect(lifecycle.status('a').inFlight).toBe(1);
    second.release();
  });
});

test('property: whatever comes and goes, every request is served once, no limit is passed, no busy engine is closed', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.record({
          id: fc.constantFrom('a', 'b', 'c', 'd'),
          hold: fc.nat(3),
          keepAlive: fc.constantFrom(undefined, '0', '1s'),
          leave: fc.boolean(),
        }),
        {
          maxLength: 40,
        },
      ),
      fc.integer({ min: 1, max: 3 }),
      async (requests, maxLoaded) => {
        const { acquire, opened, clock, lifecycle } = setUp({ maxLoaded, budget: 25 });
        const held = new Map<FakeEngine, number>();
        let served = 0;
        let left = 0;
        const check = (): void => {
          const alive = opened.filter((engine) => !engine.isClosed);
          expect(alive.length).toBeLessThanOrEqual(Math.min(maxLoaded, 2));
          for (const [engine, count] of held) if (count > 0) expect(engine.isClosed).toBe(false);
        };
        await Promise.all(
          requests.map(async ({ id, hold, keepAlive, leave }) => {
            const abort = new AbortController();
            const waiting = acquire(id, keepAlive, abort.signal);
            if (leave) setImmediate(() => abort.abort(new Error('left')));
            let lease: Lease<FakeEngine>;
            try {
              lease = await waiting;
            } catch (error) {
              expect(error).toMatchObject({ message: 'left' });
              left += 1;
              return;
            }
            expect(lease.engine.id).toBe(id);
            held.set(lease.engine, (held.get(lease.engine) ?? 0) + 1);
            for (let i = 0; i < hold; i++) {
              check();
              await settled();
            }
            clock.advance(10);
            check();
            held.set(lease.engine, held.get(lease.engine)! - 1);
            lease.release();
            served += 1;
          }),
        );
        expect(served + left).toBe(requests.length);
        await lifecycle.close(new AbortController().signal);
        expect(opened.every((engine) => engine.isClosed)).toBe(true);
      },
    ),
    { numRuns: 60 * Number(process.env['ASSAY_FUZZ'] ?? 1) },
  );
});
