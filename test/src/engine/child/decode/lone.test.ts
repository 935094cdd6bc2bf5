// Requests that run alone, on contexts that remember every decode: what a lane holds, whose turn it is, what
// waits, and that lanes are overwritten and given back.

import { describe, expect, test } from 'vitest';
import type { Job } from '../../../../../src/engine/child/decode/batch.ts';
import { DecodeTurns } from '../../../../../src/engine/child/decode/decode-turns.ts';
import { LoneRequests } from '../../../../../src/engine/child/decode/lone.ts';
import { createSampler } from '../../../../../src/engine/child/decode/sampler.ts';
import { GREEDY } from '../../../../fixtures/engine/demo-engine.ts';
import { fakeContext, VOCABULARY } from '../../../../fixtures/engine/fake-context.ts';

interface Lane {
  readonly context: ReturnType<typeof fakeContext>;
  wipes: number;
  freed: boolean;
}

interface Opened {
  readonly lone: LoneRequests;
  readonly lanes: Lane[];
  readonly order: number[];
  readonly begun: number[];
  ask(id: number, over?: Partial<Job>): Promise<number>;
}

function opened({ lanes: most = 2, maxQueued = 8, room = Infinity } = {}): Opened {
  const lanes: Lane[] = [];
  const order: number[] = [];
  const begun: number[] = [];
  const lone = new LoneRequests({
    lanes: most,
    maxQueued,
    open() {
      if (lanes.filter(({ freed }) => !freed).length >= room) throw new Error('no memory');
      const lane: Lane = { context: fakeContext(), wipes: 0, freed: false };
      lanes.push(lane);
      const number = lanes.length;
      const base = lane.context;
      base.onDecode = () => void order.push(number);
      // The fake is an object of getters, which a spread would read once.
      return Object.assign(base, {
        wipe() {
          lane.wipes += 1;
          base.removeTail(0, 0);
        },
        free() {
          lane.freed = true;
        },
      });
    },
    scheduler: {
      contextLength: 1000,
      decodes: new DecodeTurns(),
      now: () => 0,
      turn: () => new Promise((resolve) => setImmediate(resolve)),
    },
    fatal: (error) => {
      throw error;
    },
  });
  const ask = (id: number, over: Partial<Job> = {}): Promise<number> =>
    new Promise((resolve, reject) => {
      let finished = 0;
      const n = over.n ?? 1;
      const accepted = lone.submit({
        id,
        scope: 'a',
        prompt: Array.from({ length: 70 }, (_, i) => i % VOCABULARY),
        n,
        echo: false,
        maxTokens: 5,
        choice: () => ({
          sampler: createSampler(GREEDY, () => 0),
          constraint: null,
          stop: [],
          logprobs: undefined,
          piece: () => Uint8Array.of(97),
          rawPiece: () => Uint8Array.of(97),
          isEnd: () => false,
        }),
        emit(event) {
          if (event.kind === 'start') begun.push(id);
          if (event.kind === 'finish') finished += 1;
          if (finished === n && event.kind === 'finish') resolve(id);
        },
        fail: reject,
        ...over,
      });
      if (!accepted) reject(new Error('full'));
    });
  return { lone, lanes, order, begun, ask };
}

/** Until the lanes are given back. */
async function idle({ lanes }: Opened): Promise<void> {
  while (lanes.some(({ freed }) => !freed)) await new Promise((resolve) => setImmediate(resolve));
}

describe('lanes', () => {
  test('a decode holds one sequence; the prompt is read from 0 in chunks of one size', async () => {
    const all = opened();
    await Promise.all([all.ask(1, { n: 2 }), all.ask(2, { scope: 'b' }), all.ask(3, { scope: 'b' })]);
    await idle(all);
    const steps = all.lanes.flatMap(({ context }) => context.steps);
    for (const step of steps) expect(new Set(step.map(({ sequence }) => sequence)).size).toBe(1);
    // Of each choice: 32, 32 and 6 of the prompt, then a token at a time.
    const [first] = all.lanes;
    const sizes = first?.context.steps.map((step) => step.length);
    expect(sizes?.slice(0, 3)).toEqual([32, 32, 6]);
    expect(sizes?.filter((size) => size === 32)).toHaveLength(4);
    expect(first?.context.steps[0]?.[0]?.position).toBe(0);
  });

  test('of one scope one runs at a time, scopes in turn, and lanes take turns by decodes', async () => {
    const all = opened();
    const done = [all.ask(1), all.ask(2), all.ask(3, { scope: 'b' }), all.ask(4, { scope: 'c' })];
    expect(all.lanes).toHaveLength(2);
    // Two in the queue, and two whose lane has not begun.
    expect(all.lone.stats()).toMatchObject({ queued: 4 });
    await Promise.all(done);
    await idle(all);
    expect(all.begun.slice(0, 2)).toEqual([1, 3]);
    expect(all.begun.toSorted((a, b) => a - b)).toEqual([1, 2, 3, 4]);
    // Neither lane had two decodes while the other waited for one.
    const both = all.order.slice(0, 14).join('');
    expect(both).toMatch(/^(12)+$/);
    expect(all.lone.stats()).toMatchObject({ queued: 0, active: 0, completionTokens: 20 });
  });

  test('are overwritten before each request and given back after the last', async () => {
    const all = opened({ lanes: 1 });
    await Promise.all([all.ask(1), all.ask(2), all.ask(3)]);
    await idle(all);
    expect(all.lanes).toHaveLength(1);
    expect(all.lanes[0]).toMatchObject({ wipes: 3, freed: true });
    await all.ask(4);
    await idle(all);
    expect(all.lanes).toHaveLength(2);
  });

  test('a request that waits can leave, and one that runs', async () => {
    const all = opened({ lanes: 1 });
    let released = 0;
    const release = (): void => void (released += 1);
    void all.ask(1, { maxTokens: 900, release });
    void all.ask(2, { release });
    const third = all.ask(3);
    expect([all.lone.holds(1), all.lone.holds(2), all.lone.holds(9)]).toEqual([true, true, false]);
    all.lone.cancel(2);
    expect([all.lone.holds(2), released]).toEqual([false, 1]);
    all.lone.cancel(1);
    expect(await third).toBe(3);
    await idle(all);
    expect(released).toBe(2);
    expect(all.begun).not.toContain(2);
  });

  test('the queue is bounded, and without memory a request is refused and leaves nothing', async () => {
    const small = opened({ lanes: 1, maxQueued: 1 });
    const [first, second] = [small.ask(1), small.ask(2)];
    await expect(small.ask(3)).rejects.toThrow('full');
    await Promise.all([first, second]);
    const none = opened({ room: 0 });
    await expect(none.ask(1)).rejects.toThrow('no memory');
    expect(none.lone.stats()).toMatchObject({ queued: 0, active: 0 });
    expect(none.lone.holds(1)).toBe(false);
    // One lane is open and a second cannot be: the other scope waits for it.
    const one = opened({ room: 1 });
    expect(await Promise.all([one.ask(1), one.ask(2, { scope: 'b' })])).toEqual([1, 2]);
    expect(one.lanes.filter(({ wipes }) => wipes === 2)).toHaveLength(1);
  });
});
