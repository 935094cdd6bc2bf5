// Events of one pull for any number of listeners. A listener that comes late hears first where the pull stands; one that is
// slow gets the newest progress only, so that nothing queues up; one that leaves harms nobody.

/** What a client is told while a pull runs. At most ten `downloading` a second. */
export type PullEvent =
  | { readonly type: 'resuming'; readonly offset: number; readonly total: number }
  | {
      readonly type: 'downloading';
      readonly completed: number;
      readonly total: number;
      readonly bytesPerSecond: number;
    }
  | { readonly type: 'verifying' }
  | { readonly type: 'success'; readonly id: string; readonly sha256: string; readonly size: number }
  | { readonly type: 'already_exists'; readonly id: string; readonly sha256: string }
  | { readonly type: 'error'; readonly code: string; readonly message: string };

export interface EventHub {
  emit(event: PullEvent): void;
  /** Ends after a terminal event. */
  listen(): AsyncIterable<PullEvent>;
}

function isTerminal({ type }: PullEvent): boolean {
  return type === 'success' || type === 'already_exists' || type === 'error';
}

interface Listener {
  readonly queue: PullEvent[];
  wake: () => void;
}

export function createEventHub(): EventHub {
  const listeners = new Set<Listener>();
  let latest: PullEvent | undefined;
  return {
    emit: (event) => {
      latest = event;
      for (const listener of listeners) {
        // At most one waiting progress report; the other kinds occur once or a few times.
        if (event.type === 'downloading' && listener.queue.at(-1)?.type === 'downloading')
          listener.queue.pop();
        listener.queue.push(event);
        listener.wake();
      }
    },
    listen: () => {
      const listener: Listener = { queue: latest === undefined ? [] : [latest], wake: () => undefined };
      listeners.add(listener);
      return iterate(listener, () => listeners.delete(listener));
    },
  };
}

async function* iterate(listener: Listener, leave: () => void): AsyncGenerator<PullEvent, void, undefined> {
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
