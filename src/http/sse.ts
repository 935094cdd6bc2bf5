// Server-sent events on a raw response (WHATWG HTML §9.2), as the OpenAI SDKs read them: `data: …` lines, one
// blank line between events. Events written in one turn of the loop leave in one write. A reader that is slow
// makes `flush` wait; a stream that is silent gets a comment line; exactly one terminal event is written.

import type { ServerResponse } from 'node:http';
import { ApiError } from '../base/errors.ts';

export interface EventStream {
  /** Queues one event; `data` is one line of text, `name` its `event:` line. Ignored after the end. */
  send(data: string, name?: string): void;
  /**
   * Resolves once the sent bytes fit the socket's buffer again; rejects with the signal's reason when it
   * aborts.
   */
  flush(): Promise<void>;
  /** Queues a comment of one line, in its order among the events. Ignored after the end. */
  comment(text: string): void;
  /** The terminal event, if there is one, then the end of the response. Only the first call counts. */
  end(data?: string, name?: string): void;
  readonly ended: boolean;
}

/** Characters queued before they are written without waiting for the turn of the loop to end. */
const MAX_PENDING = 64 * 1024;

export interface EventStreamOptions {
  readonly headers: Readonly<Record<string, string | number | readonly string[] | undefined>>;
  readonly heartbeatMs: number;
  /** A reader that takes no byte for this time is cut off, because its stream holds a slot. */
  readonly stallMs: number;
  readonly signal: AbortSignal;
}

/** Writes the 200 header at once: from here on errors are events. */
export function openEventStream(response: ServerResponse, options: EventStreamOptions): EventStream {
  let pending = '';
  let scheduled = false;
  let ended = false;
  let full = false;
  let wroteSinceBeat = true;

  for (const [name, value] of Object.entries(options.headers))
    if (value !== undefined) response.setHeader(name, value);
  response.setHeader('content-type', 'text/event-stream; charset=utf-8');
  response.setHeader('cache-control', 'no-store, no-transform');
  // Proxies that buffer would turn a stream into one late answer.
  response.setHeader('x-accel-buffering', 'no');
  response.writeHead(200);
  response.flushHeaders();

  const drain = (): void => {
    scheduled = false;
    if (pending === '' || response.destroyed) return;
    const chunk = pending;
    pending = '';
    wroteSinceBeat = true;
    if (!response.write(chunk)) full = true;
  };

  const beat = setInterval(() => {
    if (!wroteSinceBeat && !full && !ended && !response.destroyed) response.write(': keep-alive\n\n');
    wroteSinceBeat = false;
  }, options.heartbeatMs);
  beat.unref();
  response.on('drain', () => (full = false));
  response.once('close', () => clearInterval(beat));
  // A response that was closed before this stream opened emits no further event.
  if (response.destroyed) clearInterval(beat);

  const queue = (text: string): void => {
    if (ended) return;
    pending += text;
    if (scheduled) return;
    scheduled = true;
    setImmediate(drain);
  };

  return {
    get ended() {
      return ended;
    },
    send: (data, name) => queue(eventText(data, name)),
    comment: (text) => queue(`: ${text}\n\n`),
    async flush() {
      // A source that never yields to the event loop must not pile up its events.
      if (pending.length > MAX_PENDING) drain();
      if (!full || response.destroyed) return;
      await new Promise<void>((resolve, reject) => {
        const settle = (outcome: () => void): void => {
          clearTimeout(timer);
          response.off('drain', done);
          response.off('close', done);
          options.signal.removeEventListener('abort', aborted);
          outcome();
        };
        const done = (): void => settle(resolve);
        const aborted = (): void => settle(() => reject(options.signal.reason));
        const timer = setTimeout(() => {
          settle(() => reject(new ApiError('client_too_slow', 'the client reads too slowly')));
          response.destroy();
        }, options.stallMs);
        response.once('drain', done);
        response.once('close', done);
        options.signal.addEventListener('abort', aborted, { once: true });
      });
    },
    end(data, name) {
      if (ended) return;
      ended = true;
      clearInterval(beat);
      if (response.destroyed) return;
      response.end(data === undefined ? pending : pending + eventText(data, name));
      pending = '';
    },
  };
}

function eventText(data: string, name: string | undefined): string {
  return name === undefined ? `data: ${data}\n\n` : `event: ${name}\ndata: ${data}\n\n`;
}
