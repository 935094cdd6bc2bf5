// The open requests by connection. Node reports a connection's end to a response only while the response has
// the socket: pipelined responses (RFC 9112 §9.3.2) wait for the socket, and would never get the event. So
// each socket has one listener here, and its close closes every response that is still to be sent on it.

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { ApiError } from '../base/errors.ts';
import { clientClosed } from './exchange.ts';

/**
 * Requests of one connection at once. No client we know of sends a request before the answer to the last one,
 * and each waiting request holds its permits.
 */
const MAX_PIPELINED = 16;

/** Refused requests wait for their turn as well; with this many the connection is cut. */
const MAX_WAITING = 4 * MAX_PIPELINED;

interface OpenRequest<T> {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly exchange: T;
}

interface Connection<T> {
  readonly open: Map<ServerResponse, OpenRequest<T>>;
  /** An answer that ends the connection is on its way: later requests on it are not begun (RFC 9112 §9.6). */
  last: boolean;
}

export interface OpenRequests<T> {
  readonly size: number;
  exchanges(): Iterable<T>;
  /**
   * `end` is called once: when the last byte was sent (`complete`), or when the client or the connection is
   * gone.
   */
  begin(opened: OpenRequest<T>, end: (complete: boolean) => void): void;
  /** Why the newest request on this connection must not run; undefined when it may. */
  refusal(socket: Socket): ApiError | undefined;
  /** Marks the current answer as the connection's last. */
  endsConnection(socket: Socket): void;
  /** Whether bytes written to the socket now would land in an answer, or in that of another request. */
  isAnswering(socket: object): boolean;
  /** Resolves when none is open, or after so many milliseconds. */
  ended(withinMs: number): Promise<void>;
}

export function createOpenRequests<T>(): OpenRequests<T> {
  const all = new Map<ServerResponse, OpenRequest<T>>();
  const connections = new WeakMap<object, Connection<T>>();
  const waiting = new Set<() => void>();

  const connectionOf = (socket: Socket): Connection<T> => {
    const known = connections.get(socket);
    if (known !== undefined) return known;
    const connection: Connection<T> = { open: new Map(), last: false };
    connections.set(socket, connection);
    socket.once('close', () => {
      for (const response of Array.from(connection.open.keys())) closed(response, socket);
    });
    return connection;
  };

  return {
    get size() {
      return all.size;
    },
    exchanges: () => [...all.values()].map(({ exchange }) => exchange),
    begin(opened, end) {
      const { request, response } = opened;
      const { socket } = request;
      const connection = connectionOf(socket);
      all.set(response, opened);
      connection.open.set(response, opened);
      let complete = false;
      // Node emits `finish` also for answers it could not send any more, and before it ends the
      // connection of a last answer.
      response.prependOnceListener('finish', () => (complete = !socket.destroyed));
      response.once('close', () => {
        all.delete(response);
        connection.open.delete(response);
        end(complete);
        if (all.size === 0) for (const wake of Array.from(waiting)) wake();
      });
      // With this many waiting answers Node stops reading, and would not see the client leave. A slow reader,
      // which Node waits for as well, is found out by what is written to it.
      const unread = socket.isPaused() && !socket.writableNeedDrain;
      if (connection.open.size > MAX_WAITING || unread) socket.destroy();
      // The listener above may have run already.
      if (socket.closed) setImmediate(() => closed(response, socket));
    },
    refusal(socket) {
      if (socket.destroyed) return clientClosed();
      const connection = connectionOf(socket);
      if (connection.last) return ending();
      return connection.open.size > MAX_PIPELINED ? tooMany() : undefined;
    },
    endsConnection(socket) {
      connectionOf(socket).last = true;
    },
    isAnswering(socket) {
      const here = [...(connections.get(socket)?.open.keys() ?? [])];
      return here.length > 1 || here.some((response) => response.headersSent);
    },
    async ended(withinMs) {
      if (all.size === 0 || withinMs <= 0) return;
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          clearTimeout(timer);
          waiting.delete(wake);
          resolve();
        };
        const timer = setTimeout(wake, withinMs);
        waiting.add(wake);
      });
    },
  };
}

/**
 * Node emits `close` for the response that has the socket; this emits it for one that waits for the socket.
 */
function closed(response: ServerResponse, socket: Socket): void {
  // Node itself closes the response that has the socket, and one that was just sent to its end.
  if (response.socket === socket || response.closed || (response.writableFinished && !response.destroyed))
    return;
  response.destroy();
  response.emit('close');
}

export const PIPELINED = 'too_many_pipelined_requests';
function tooMany(): ApiError {
  return new ApiError(PIPELINED, `more than ${MAX_PIPELINED} requests wait on this connection`, {
    retryAfterSeconds: 1,
  });
}

/** Only in logs and metrics: the connection ends before the answer can be sent. */
export const CONNECTION_ENDING = 'connection_ending';
function ending(): ApiError {
  return new ApiError(CONNECTION_ENDING, 'the connection ends with the answer to an earlier request', {
    retryAfterSeconds: 1,
  });
}
