// The connections in memory that sealed requests have (src/sealed): an HTTP server that does not listen hands
// their requests to the same fastify as all others. What is known of each is kept by its socket.

import { createHash } from 'node:crypto';
import { createServer, type RequestListener } from 'node:http';
import type { SealedConnection, SealedHost } from '../sealed/gateway.ts';
import { ANY_MODEL, type ConnectionPins } from './connection-pins.ts';
import type { ServerConfig } from './deps.ts';
import { errorBody, errorHeaders } from './errors.ts';
import { answerBrokenRequest, answerConnect } from './listener.ts';

const CONNECTIONS = new WeakMap<object, SealedConnection>();

/** Undefined for a request that came on a connection of the network. */
export function sealedConnectionOf(socket: object): SealedConnection | undefined {
  return CONNECTIONS.get(socket);
}

/**
 * The peer that limits and memory of an anonymous sealed request count under: it has no address, so its
 * bearer key stands for it.
 */
export function sealedPeer(credentials: string | undefined): string {
  return `sealed ${createHash('sha256')
    .update(credentials ?? '')
    .digest('base64url')}`;
}

/** As those of the listener of the network. */
export interface SealedListeners {
  readonly handler: RequestListener;
  /** Called for bytes that never became a request. */
  readonly onBroken: () => void;
  readonly isAnswering: (socket: object) => boolean;
}

export function createSealedHost(
  config: ServerConfig,
  connectionPins: ConnectionPins,
  { handler, onBroken, isAnswering }: SealedListeners,
): SealedHost {
  const { headersMs, bodyMs } = config.timeouts;
  const server = createServer(
    {
      headersTimeout: headersMs,
      requestTimeout: headersMs + bodyMs,
      maxHeaderSize: 16 * 1024,
      requireHostHeader: false,
    },
    handler,
  );
  server.maxHeadersCount = 0;
  // Methods that HTTP/1.1 does not have, or not here, are answered as on any connection.
  server.on('clientError', (error, socket) => {
    onBroken();
    answerBrokenRequest(error, socket, isAnswering(socket));
  });
  server.on('connect', (_request, socket) => answerConnect(socket, isAnswering(socket)));
  return {
    connect(socket, about) {
      CONNECTIONS.set(socket, about);
      // Without a digest no model is the one the sender was shown.
      connectionPins.pin(socket, new Map(about.model === undefined ? [] : [[ANY_MODEL, about.model]]));
      server.emit('connection', socket);
    },
    errorAnswer(error) {
      const body = Buffer.from(JSON.stringify(errorBody(error)));
      const fields = Object.entries({
        'content-type': 'application/json; charset=utf-8',
        ...errorHeaders(error),
        'content-length': String(body.length),
      });
      return { status: error.status, fields, body };
    },
  };
}
