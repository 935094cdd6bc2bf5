// Server-sent events of a route: opened in one way, and ended by exactly one terminal event,
// whatever happens on the way.

import type { ApiError } from '../../base/errors.ts';
import type { GenerateEvent } from '../../engine/seam/engine.ts';
import { errorBody, toApiError } from '../../http/errors.ts';
import type { Call } from '../../http/route.ts';
import { type EventStream, openEventStream } from '../../http/sse.ts';
import { createPadding } from './padding.ts';
import { gathered } from './stream-batching.ts';

export interface ChunkSink {
  /** One event's JSON. */
  send(json: string): void;
  /** Waits for a slow reader. */
  flush(): Promise<void>;
}

/** Takes the response over from the framework; from here on errors are events. */
export function openStream({ reply, exchange, deps }: Call): EventStream {
  if (exchange.admission !== null) reply.headers(exchange.admission.headers());
  reply.hijack();
  return openEventStream(reply.raw, {
    headers: reply.getHeaders(),
    heartbeatMs: deps.config.timeouts.heartbeatMs,
    stallMs: deps.config.timeouts.stallMs ?? 60_000,
    signal: exchange.signal,
  });
}

/** The error a failing stream ends with: the reason its request was ended for, or the one thrown. */
export function streamFailure({ exchange }: Pick<Call, 'exchange'>, thrown: unknown): ApiError {
  const error = toApiError(exchange.signal.aborted ? exchange.signal.reason : thrown);
  exchange.errorCode = error.code;
  return error;
}

/** `write` sends the chunks of the answer; padding, batching and the terminal event are done here. */
export async function streamAnswer(
  call: Call,
  events: AsyncIterable<GenerateEvent>,
  padding: { readonly wanted: boolean | undefined; readonly baseBytes: number },
  write: (events: AsyncIterable<GenerateEvent>, sink: ChunkSink) => Promise<void>,
): Promise<void> {
  const { streamPadding, streamBatchMs } = call.deps.config;
  call.reply.header('openai-processing-ms', String(Math.round(performance.now() - call.exchange.startedAt)));
  const stream = openStream(call);
  const padder = (padding.wanted ?? streamPadding) ? createPadding(padding.baseBytes) : null;
  const paced = streamBatchMs === 0 ? events : gathered(events, streamBatchMs);
  try {
    await write(paced, {
      send: (json) => stream.send(padder === null ? json : padder.pad(json)),
      flush: () => stream.flush(),
    });
    stream.end('[DONE]');
  } catch (thrown) {
    stream.end(JSON.stringify(errorBody(streamFailure(call, thrown))));
  }
}
