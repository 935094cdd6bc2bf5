// Progress of one pull for any number of listeners. A late listener first gets the current state; a slow one
// gets only the newest progress, so that its queue stays short; one that leaves does not affect the others.

import { ApiError } from '../../base/errors.ts';

/** Events that listeners get while a pull runs. At most ten `downloading` a second. */
export type PullProgress =
  | { readonly kind: 'resuming'; readonly offset: number; readonly total: number }
  | {
      readonly kind: 'downloading';
      readonly completed: number;
      readonly total: number;
      readonly bytesPerSecond: number;
    }
  | { readonly kind: 'verifying' }
  /** `sha256` of its file, or of the first of its parts; `size` of all. */
  | { readonly kind: 'success'; readonly id: string; readonly sha256: string; readonly size: number }
  | { readonly kind: 'already_exists'; readonly id: string; readonly sha256: string }
  /** `status` is the HTTP status this error would have as an answer. */
  | { readonly kind: 'error'; readonly code: string; readonly message: string; readonly status: number };

function isTerminal({ kind }: PullProgress): boolean {
  return kind === 'success' || kind === 'already_exists' || kind === 'error';
}

interface Listener {
  readonly queue: PullProgress[];
  wake: () => void;
}

export class ProgressFeed {
  readonly #listeners = new Set<Listener>();
  #latest: PullProgress | undefined;

  emit(event: PullProgress): void {
    this.#latest = event;
    for (const listener of this.#listeners) {
      // At most one waiting progress report; the other kinds occur once or a few times.
      if (event.kind === 'downloading' && listener.queue.at(-1)?.kind === 'downloading') listener.queue.pop();
      listener.queue.push(event);
      listener.wake();
    }
  }

  /** Ends after a terminal event. */
  listen(): AsyncIterable<PullProgress> {
    const queue = this.#latest === undefined ? [] : [this.#latest];
    const listener: Listener = { queue, wake: () => undefined };
    this.#listeners.add(listener);
    return iterate(listener, () => this.#listeners.delete(listener));
  }
}

async function* iterate(
  listener: Listener,
  leave: () => void,
): AsyncGenerator<PullProgress, void, undefined> {
  try {
    for (;;) {
      const event = listener.queue.shift();
      if (event === undefined) {
        await new Promise<void>((resolve) => (listener.wake = resolve));
        continue;
      }
      yield event;
      if (isTerminal(event)) return;
    }
  } finally {
    leave();
  }
}

/** Bytes per second over about the last five seconds of reports. */
export function movingRate(): (now: number, completed: number) => number {
  const samples: { readonly now: number; readonly completed: number }[] = [];
  return (now, completed) => {
    samples.push({ now, completed });
    while (samples.length > 2 && now - samples[0]!.now > 5000) samples.shift();
    const [first] = samples;
    const elapsed = now - first!.now;
    return elapsed <= 0 ? 0 : Math.max(0, Math.round(((completed - first!.completed) * 1000) / elapsed));
  };
}

/**
 * The last event of a pull that failed. Other errors than our own may hold addresses with signatures, so
 * only their kind is reported.
 */
export function failureOf(thrown: unknown): Extract<PullProgress, { readonly kind: 'error' }> {
  if (thrown instanceof ApiError)
    return { kind: 'error', code: thrown.code, message: thrown.message, status: thrown.status };
  const name = thrown instanceof Error ? thrown.name : 'unknown error';
  return { kind: 'error', code: 'pull_failed', message: `the pull failed (${name})`, status: 500 };
}
