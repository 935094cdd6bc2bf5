// A pull as the routes see it: its events and its state in the API's words, and a way to stop watching it.

import type { PullProgress, PullState } from './pull/pull.ts';
import type { PullEvent, PullStatus } from './seam.ts';

export function eventOfPull(event: PullProgress): PullEvent {
  switch (event.kind) {
    case 'resuming':
      return { status: 'resuming', offset: event.offset, total: event.total };
    case 'downloading':
      return { status: 'downloading', completed: event.completed, total: event.total };
    case 'verifying':
      return { status: 'verifying' };
    case 'success':
    case 'already_exists':
      return { status: event.kind, id: event.id, object: 'model' };
    case 'error':
      return { status: 'error', code: event.code, message: event.message, httpStatus: event.status };
  }
}

export function statusOfPull(name: string, state: PullState): PullStatus {
  const { status, completed, total, error, startedAt, finishedAt } = state;
  return {
    name,
    status,
    completed,
    total,
    error: error === null ? null : `${error.code}: ${error.message}`,
    started_at: startedAt,
    finished_at: finishedAt,
  };
}

/** Ends the iteration when the watcher leaves; the pull itself goes on. */
export async function* untilAborted<T>(events: AsyncIterable<T>, signal: AbortSignal): AsyncIterable<T> {
  const iterator = events[Symbol.asyncIterator]();
  const gone = new Promise<never>((_, reject) =>
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true }),
  );
  gone.catch(() => undefined);
  try {
    signal.throwIfAborted();
    for (;;) {
      const next = await Promise.race([iterator.next(), gone]);
      if (next.done === true) return;
      yield next.value;
    }
  } finally {
    void iterator.return?.();
  }
}
