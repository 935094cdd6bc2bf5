// Progress of one pull for any number of listeners. A listener that comes late hears first where the pull stands; a slow one
// gets the newest progress only, so that its queue stays short; one that leaves does not affect the others.

/** What listeners are told while a pull runs. At most ten `downloading` a second. */
export type PullProgress =
  | { readonly kind: 'resuming'; readonly offset: number; readonly total: number }
  | {
      readonly kind: 'downloading';
      readonly completed: number;
      readonly total: number;
      readonly bytesPerSecond: number;
    }
  | { readonly kind: 'verifying' }
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
