// The events of one generation between the socket, which must never wait, and a reader, which may be slow.
// Over `high` buffered events the child is told to pause this one request, under `low` to go on; since a
// paused request adds at most the step in flight, the buffer is bounded and other requests go on. The
// iterable is for one reader.

import type { GenerateEvent } from './seam/engine.ts';

export interface EngineStream {
  push(event: GenerateEvent): void;
  fail(error: unknown): void;
  readonly buffered: number;
  events(): AsyncIterableIterator<GenerateEvent>;
}

export interface StreamOptions {
  readonly choices: number;
  readonly high: number;
  readonly low: number;
  readonly pause: () => void;
  readonly resume: () => void;
}

export function createStream(options: StreamOptions): EngineStream {
  const buffer: GenerateEvent[] = [];
  let failure: { readonly error: unknown } | null = null;
  let wake: (() => void) | null = null;
  let paused = false;

  const signal = (): void => {
    wake?.();
    wake = null;
  };

  return {
    get buffered() {
      return buffer.length;
    },
    push(event) {
      buffer.push(event);
      if (!paused && buffer.length >= options.high) {
        paused = true;
        options.pause();
      }
      signal();
    },
    fail(error) {
      failure ??= { error };
      signal();
    },
    events() {
      let finished = 0;
      return {
        [Symbol.asyncIterator]() {
          return this;
        },
        async next() {
          for (;;) {
            if (finished >= options.choices) return { done: true, value: undefined };
            // Events that already arrived are delivered before a failure is told.
            const event = buffer.shift();
            if (event !== undefined) {
              if (paused && buffer.length <= options.low) {
                paused = false;
                options.resume();
              }
              if (event.kind === 'finish') finished += 1;
              return { done: false, value: event };
            }
            if (failure !== null) throw failure.error;
            await new Promise<void>((resolve) => {
              wake = resolve;
            });
          }
        },
      };
    },
  };
}
