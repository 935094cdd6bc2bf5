// Gathers the text of a stream and sends it at intervals, so that neither the number of events nor
// the time between them tells tokens apart (`limits.stream_batch_ms`). Within a choice no text
// changes, is dropped or moves.

import type { GenerateEvent } from '../../engine/seam/engine.ts';

type Delta = Extract<GenerateEvent, { readonly kind: 'delta' }>;

/** A promise of the end of an interval, and how to stop waiting for it. */
export type Interval = (ms: number) => { readonly over: Promise<void>; readonly stop: () => void };

const interval: Interval = (ms) => {
  let stop = (): void => undefined;
  const over = new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, ms);
    stop = () => clearTimeout(timer);
  });
  return { over, stop };
};

/**
 * The same events with the deltas of a choice joined: deltas within `ms` milliseconds of the first one
 * leave together when the time is over; the end of a choice sends its deltas at once. While the reader is
 * busy `events` is not asked.
 */
export async function* gathered(
  events: AsyncIterable<GenerateEvent>,
  ms: number,
  wait: Interval = interval,
): AsyncGenerator<GenerateEvent, void, undefined> {
  const iterator = events[Symbol.asyncIterator]();
  const held = new Map<number, Delta>();
  let timer: ReturnType<Interval> | null = null;
  let next = iterator.next();
  // A failure while deltas wait for their time must not count as unhandled; it is thrown where it is awaited.
  next.catch(() => undefined);
  try {
    for (;;) {
      const result = await (timer === null ? next : Promise.race([next, timer.over]));
      if (result === undefined) {
        timer = null;
        const ready = [...held.values()];
        held.clear();
        yield* ready;
        continue;
      }
      if (result.done === true) break;
      const event = result.value;
      if (event.kind === 'delta') {
        const before = held.get(keyOf(event));
        held.set(keyOf(event), before === undefined ? event : joined(before, event));
        timer ??= wait(ms);
      } else {
        if (event.kind === 'finish') {
          for (const reasoning of [true, false]) {
            const last = held.get(keyOf({ index: event.index, reasoning }));
            held.delete(keyOf({ index: event.index, reasoning }));
            if (last !== undefined) yield last;
          }
        }
        yield event;
      }
      next = iterator.next();
      next.catch(() => undefined);
    }
    yield* held.values();
  } catch (error) {
    // Text written before the engine failed still goes to the reader.
    yield* held.values();
    throw error;
  } finally {
    timer?.stop();
    // Not waited for: it comes after the `next` that is under way, which ends when the request does.
    iterator.return?.().catch(() => undefined);
  }
}

/** Reasoning comes before the answer of its choice, and is not joined with it. */
function keyOf({ index, reasoning }: Pick<Delta, 'index' | 'reasoning'>): number {
  return index * 2 + (reasoning === true ? 0 : 1);
}

function joined(a: Delta, b: Delta): Delta {
  const text = a.text + b.text;
  const whole = { ...a, text };
  if (a.logprobs === undefined && b.logprobs === undefined) return whole;
  return { ...whole, logprobs: [...(a.logprobs ?? []), ...(b.logprobs ?? [])] };
}
