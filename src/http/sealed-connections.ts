// The connections in memory that sealed requests have (src/sealed): an HTTP server that does not listen hands
// their requests to the same fastify as all others. What is known of each is kept by its socket.

import { createHash } from 'node:crypto';
import { createServer, type RequestListener } from 'node:http';
import type { SealedConnection, SealedHost } from '../sealed/gateway.ts';
import { ANY_MODEL, type ConnectionPins } from './connection-pins.ts';
import type { ServerConfig } from './deps.ts';
import { errorBody, errorHeaders } from './errors.ts';

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

export function createSealedHost(
  config: ServerConfig,
  connectionPins: ConnectionPins,
  handler: RequestListener,
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
