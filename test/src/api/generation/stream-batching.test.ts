// Streamed text that leaves at intervals: no text is lost or reordered, waiting text comes before a failure,
// and a client that leaves stops the clock and the source. The clock is the test's.

import { array, assert, asyncProperty, constantFrom, integer, record, string } from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import type { GenerateEvent } from '../../../../src/engine/seam/engine.ts';
import { gathered, type Interval } from '../../../../src/api/generation/stream-batching.ts';
import { type ApiServer, events, post, startApi } from '../../../fixtures/http/api-server.ts';

function delta(index: number, text: string): GenerateEvent {
  return { kind: 'delta', index, text };
}
function finish(index: number): GenerateEvent {
  return { kind: 'finish', index, reason: 'stop', completionTokens: 1 };
}
const BEGIN: GenerateEvent = { kind: 'start', promptTokens: 1, cachedTokens: 0 };

/** A source that is fed and ended by hand, and knows whether somebody reads it still. */
function source(): {
  readonly events: AsyncIterable<GenerateEvent>;
  give(event: GenerateEvent): void;
  fail(error: Error): void;
  left: boolean;
} {
  const ready: (GenerateEvent | Error)[] = [];
  let wake: (() => void) | null = null;
  const self = {
    left: false,
    give(event: GenerateEvent | Error) {
      ready.push(event);
      wake?.();
    },
    fail: (error: Error) => self.give(error),
    events: {
      async *[Symbol.asyncIterator]() {
        try {
          for (;;) {
            while (ready.length === 0) await new Promise<void>((resolve) => (wake = resolve));
            const next = ready.shift();
            if (next instanceof Error) throw next;
            if (next === undefined) return;
            yield next;
          }
        } finally {
          self.left = true;
        }
      },
    } as AsyncIterable<GenerateEvent>,
  };
  return self;
}

/** An interval that is over when the test says so. */
function clock(): { readonly wait: Interval; tick(): void; running: number } {
  const self = {
    running: 0,
    end: (): void => undefined,
    tick: () => self.end(),
    wait: (): ReturnType<Interval> => {
      self.running += 1;
      return {
        over: new Promise<void>((resolve) => (self.end = () => ((self.running -= 1), resolve()))),
        stop: () => (self.running -= 1),
      };
    },
  };
  return self;
}

describe('gathering', () => {
  test('what comes within an interval leaves together when it is over, what ends leaves at once', async () => {
    const time = clock();
    const from = source();
    const stream = gathered(from.events, 1000, time.wait);
    const next = async (): Promise<unknown> => (await stream.next()).value;
    from.give(BEGIN);
    expect(await next()).toEqual(BEGIN);
    const first = next();
    for (const text of ['a', 'b', 'c']) from.give(delta(0, text));
    from.give(delta(1, 'x'));
    // Five events are read one by one; only then is the interval over.
    for (let i = 0; i < 20; i += 1) await Promise.resolve();
    time.tick();
    expect(await first).toEqual(delta(0, 'abc'));
    expect(await next()).toEqual(delta(1, 'x'));
    from.give(delta(0, 'd'));
    from.give(delta(1, 'y'));
    from.give(finish(0));
    expect(await next()).toEqual(delta(0, 'd'));
    expect(await next()).toEqual(finish(0));
    from.give(finish(1));
    expect(await next()).toEqual(delta(1, 'y'));
    expect(await next()).toEqual(finish(1));
  });

  test('each choice says what it said, with its log-probabilities, before it ends', async () => {
    const piece = record({
      index: integer({ min: 0, max: 2 }),
      text: string(),
      probable: constantFrom(true, false),
    });
    await assert(
      asyncProperty(array(piece, { maxLength: 30 }), integer({ min: 0, max: 5 }), async (pieces, pace) => {
        const input = pieces.map(({ index, text, probable }, i): GenerateEvent =>
          probable
            ? { kind: 'delta', index, text, logprobs: [{ token: text, bytes: [], logprob: -i, top: [] }] }
            : { kind: 'delta', index, text },
        );
        const all = [BEGIN, ...input, finish(2), finish(0), finish(1)];
        let count = 0;
        // oxlint-disable-next-line typescript/require-await -- an engine's events come as they do
        const feed = (async function* () {
          yield* all;
        })();
        const over: Interval = () => ({
          over: (count += 1) % 6 <= pace ? Promise.resolve() : new Promise(() => undefined),
          stop: () => undefined,
        });
        const told = { text: ['', '', ''], logprobs: [[], [], []] as number[][], ended: [] as number[] };
        for await (const event of gathered(feed, 10, over)) {
          if (event.kind === 'start') continue;
          expect(told.ended).not.toContain(event.index);
          if (event.kind === 'finish') told.ended.push(event.index);
          else {
            told.text[event.index] += event.text;
            for (const each of event.logprobs ?? []) told.logprobs[event.index]?.push(each.logprob);
          }
        }
        const of = <T>(take: (piece: (typeof pieces)[number], i: number) => T[]): T[][] =>
          [0, 1, 2].map((index) => pieces.flatMap((each, i) => (each.index === index ? take(each, i) : [])));
        expect(told.text).toEqual(of(({ text }) => [text]).map((texts) => texts.join('')));
        expect(told.logprobs).toEqual(of(({ probable }, i) => (probable ? [-i] : [])));
        expect(told.ended).toEqual([2, 0, 1]);
      }),
    );
  });

  test('what was written is told before a failure is', async () => {
    const time = clock();
    const from = source();
    const stream = gathered(from.events, 1000, time.wait);
    from.give(delta(0, 'a'));
    from.give(delta(0, 'b'));
    from.fail(new Error('the engine ended'));
    expect((await stream.next()).value).toEqual(delta(0, 'ab'));
    await expect(stream.next()).rejects.toThrow('the engine ended');
    expect(time.running).toBe(0);
  });

  test('a reader that leaves stops the clock and the source', async () => {
    const time = clock();
    const from = source();
    const stream = gathered(from.events, 1000, time.wait);
    from.give(BEGIN);
    await stream.next();
    from.give(delta(0, 'a'));
    from.give(finish(1));
    expect((await stream.next()).value).toEqual(finish(1));
    expect(time.running).toBe(1);
    await stream.return();
    expect(time.running).toBe(0);
    await expect.poll(() => from.left).toBe(true);
  });
});

describe('streams in intervals', () => {
  let api: ApiServer;
  afterEach(() => api.close());

  test.each(['/v1/chat/completions', '/v1/completions'])(
    '%s: one event of text, and the same text',
    async (path) => {
      const texts = async (streamBatchMs: number): Promise<string[]> => {
        api = await startApi({
          engine: { script: () => ['a', 'b', '', 'c', ' d'] },
          config: { streamBatchMs },
        });
        const body = path.includes('chat') ? { messages: [{ role: 'user', content: 'x' }] } : { prompt: 'x' };
        const data = await events(await post(api, path, { model: 'demo', stream: true, ...body }));
        expect(data.at(-1)).toBe('[DONE]');
        return data
          .slice(0, -1)
          .map(
            (each) =>
              (JSON.parse(each) as { choices: { text?: string; delta?: { content?: string } }[] }).choices[0],
          )
          .map((choice) => choice?.text ?? choice?.delta?.content ?? '')
          .filter((text) => text !== '');
      };
      // An interval that never ends by itself: the end of the text ends it.
      expect(await texts(3_600_000)).toEqual(['abc d']);
      await api.close();
      expect(await texts(0)).toEqual(['a', 'b', 'c', ' d']);
    },
  );
});
