// Server-sent events of a route: opened in one way, and ended by exactly one terminal event,
// whatever happens on the way.

import type { ApiError } from '../../base/errors.ts';
import type { GenerateEvent } from '../../engine/seam/engine.ts';
import { errorBody, toApiError } from '../../http/errors.ts';
import type { Call } from '../../http/route.ts';
import { type EventStream, openEventStream } from '../../http/sse.ts';
import { createPadding, WHOLE } from './padding.ts';
import { receiptedStream } from './receipted-stream.ts';
import { gathered } from './stream-batching.ts';

/** One event: its JSON (or `[DONE]`), and its `event:` line where the dialect has one. */
export interface StreamEvent {
  readonly data: string;
  readonly name?: string | undefined;
}

export interface ChunkSink {
  /** `unit`: see Padding. */
  send(event: StreamEvent, unit?: number): void;
  /** Waits for a slow reader. */
  flush(): Promise<void>;
}

/** How a dialect writes and ends its streams. */
export interface StreamForm {
  /** Whether the request asks for padding; absent: as the server is configured. */
  readonly padded: boolean | undefined;
  /** Length of an event with an empty text, its name included. */
  readonly baseBytes: number;
  write(events: AsyncIterable<GenerateEvent>, sink: ChunkSink): Promise<void>;
  /** The terminal event; default: `[DONE]`, or the error envelope. */
  readonly last?: ((error: ApiError | null) => StreamEvent) | undefined;
}

/** Takes the response over from the framework; from here on errors are events. */
export function openStream({ reply, exchange, deps }: Call): EventStream {
  if (exchange.admission !== null) reply.headers(exchange.admission.headers());
  const { receipt } = exchange;
  if (receipt?.begun === true) reply.header('assay-receipt-id', receipt.hexId);
  reply.hijack();
  const stream = openEventStream(reply.raw, {
    headers: reply.getHeaders(),
    heartbeatMs: deps.config.timeouts.heartbeatMs,
    stallMs: deps.config.timeouts.stallMs ?? 60_000,
    signal: exchange.signal,
  });
  return receipt?.begun === true ? receiptedStream(stream, receipt, exchange) : stream;
}

/** The error a failing stream ends with: the reason its request was ended for, or the one thrown. */
export function streamFailure({ exchange }: Pick<Call, 'exchange'>, thrown: unknown): ApiError {
  const error = toApiError(exchange.signal.aborted ? exchange.signal.reason : thrown);
  exchange.errorCode = error.code;
  return error;
}

/** The answer as a stream of events; padding, batching and exactly one terminal event are done here. */
export async function streamAnswer(
  call: Call,
  events: AsyncIterable<GenerateEvent>,
  { padded, baseBytes, write, last = chatLast }: StreamForm,
): Promise<void> {
  const { streamPadding, streamBatchMs } = call.deps.config;
  call.reply.header('openai-processing-ms', String(Math.round(performance.now() - call.exchange.startedAt)));
  const stream = openStream(call);
  const padder = (padded ?? streamPadding) ? createPadding(baseBytes) : null;
  const pad = ({ data, name }: StreamEvent, unit?: number): string =>
    padder === null ? data : padder.pad(data, unit, name?.length);
  const paced = streamBatchMs === 0 ? events : gathered(events, streamBatchMs);
  // A named event is one of the dialect's own, as long as the others; an unnamed one stands as it is.
  const end = (event: StreamEvent): void =>
    stream.end(event.name === undefined ? event.data : pad(event, WHOLE), event.name);
  try {
    await write(paced, {
      send: (event, unit) => stream.send(pad(event, unit), event.name),
      flush: () => stream.flush(),
    });
    end(last(null));
  } catch (thrown) {
    end(last(streamFailure(call, thrown)));
  }
}

function chatLast(error: ApiError | null): StreamEvent {
  return { data: error === null ? '[DONE]' : JSON.stringify(errorBody(error)) };
}
