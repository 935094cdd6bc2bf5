// The sockets under fastify: node:https on TLS 1.3 (RFC 8446), HTTP/1.1 only, no resumption; or
// node:http on loopback. Time and size limits before a request is complete, and error envelopes for
// bytes that never become a request.

import { constants, randomUUID } from 'node:crypto';
import {
  createServer as createHttp,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type RequestListener,
  type Server,
} from 'node:http';
import {
  createServer as createHttps,
  type Server as SecureServer,
  type ServerOptions as SecureOptions,
} from 'node:https';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { ApiError } from '../base/errors.ts';
import { peerOf } from './address.ts';
import type { ServerDeps } from './deps.ts';
import { rawErrorResponse } from './errors.ts';
import { refusePlainHttp } from './scheme.ts';

export function freshRequestId(): string {
  return `req_${randomUUID().replaceAll('-', '')}`;
}

/** TLS 1.3 alone, no tickets; a reused session is refused (protocol.md §5). */
export function tlsOptions(tls: { readonly key: string; readonly cert: string }) {
  return {
    key: tls.key,
    cert: tls.cert,
    minVersion: 'TLSv1.3',
    maxVersion: 'TLSv1.3',
    secureOptions: constants.SSL_OP_NO_TICKET,
    ALPNProtocols: ['http/1.1'],
    handshakeTimeout: 10_000,
  } as const;
}

export interface Listener {
  readonly server: Server | SecureServer;
  /**
   * Ends every connection, also those that Node's closeAllConnections misses: in the TLS
   * handshake, or left after CONNECT.
   */
  destroyConnections(): void;
}

export function createListener(
  deps: Pick<ServerDeps, 'config' | 'tls'>,
  handler: RequestListener,
  told: {
    readonly onResumption: () => void;
    /** Called after an answer to bytes that never became a request. */
    readonly onBroken: () => void;
    readonly isAnswering: (socket: Socket) => boolean;
  },
): Listener {
  const { timeouts, limits } = deps.config;
  const options = {
    // Header plus body; fastify's handlers never see a request whose header did not come in time.
    headersTimeout: timeouts.headersMs,
    requestTimeout: timeouts.headersMs + timeouts.bodyMs,
    keepAliveTimeout: timeouts.keepAliveMs,
    connectionsCheckingInterval: Math.max(100, Math.min(1000, timeouts.headersMs / 4)),
    maxHeaderSize: 16 * 1024,
    insecureHTTPParser: false,
    // We answer a missing Host with the envelope.
    requireHostHeader: false,
    noDelay: true,
  };
  const server =
    deps.tls === null
      ? createHttp(options, handler)
      : createSecure({ ...options, ...tlsOptions(deps.tls) }, handler, told.onBroken);
  server.maxConnections = limits.maxConnections;
  server.maxHeadersCount = 100;
  const connections = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    connections.add(socket);
    socket.once('close', () => connections.delete(socket));
  });
  if (limits.maxConnectionsPerPeer > 0) limitPeers(server, limits.maxConnectionsPerPeer);
  server.on('secureConnection', (socket: TLSSocket) => {
    if (socket.isSessionReused()) {
      told.onResumption();
      socket.destroy();
    }
  });
  // Refused by the hooks like any other request, so that it is counted and recorded.
  server.on('checkExpectation', handler);
  server.on('connect', (_request: IncomingMessage, socket: Socket) =>
    answerConnect(socket, told.isAnswering(socket)),
  );
  return {
    server,
    destroyConnections() {
      server.closeAllConnections();
      for (const socket of connections) socket.destroy();
    },
  };
}

function createSecure(options: SecureOptions, handler: RequestListener, onBroken: () => void): SecureServer {
  const server = createHttps(options, handler);
  refusePlainHttp(server, () => {
    onBroken();
    return freshRequestId();
  });
  return server;
}

/** An Expect header other than the one Node itself fulfils, by Node's own test. */
export function unmetExpectation({ expect }: IncomingHttpHeaders): boolean {
  return expect !== undefined && !/(?:^|\W)100-continue(?:$|\W)/i.test(expect);
}

/** Closes a peer's connections beyond its number without an answer, like those beyond maxConnections. */
function limitPeers(server: Server | SecureServer, perPeer: number): void {
  const open = new Map<string, number>();
  server.on('connection', (socket: Socket) => {
    const peer = peerOf(socket.remoteAddress ?? '');
    const before = open.get(peer) ?? 0;
    if (before >= perPeer) {
      socket.destroy();
      return;
    }
    open.set(peer, before + 1);
    socket.once('close', () => {
      const left = (open.get(peer) ?? 1) - 1;
      if (left > 0) open.set(peer, left);
      else open.delete(peer);
    });
  });
}

export function answerConnect(socket: Duplex, answering: boolean): void {
  const error = new ApiError('invalid_request', 'CONNECT is not served here');
  // Node no longer reads this socket, so its end would not be seen.
  if (answering) socket.destroy();
  else socket.end(rawErrorResponse(error, freshRequestId()), () => socket.destroy());
}

/** Node could not parse a request: bad HTTP, a header too long, or too slow. */
export function answerBrokenRequest(
  error: Error & { code?: string | undefined },
  socket: Duplex,
  answering: boolean,
): void {
  if (error.code === 'ECONNRESET' || !socket.writable || answering) {
    socket.destroy();
    return;
  }
  const id = freshRequestId();
  socket.end(rawErrorResponse(brokenRequest(error.code), id), () => socket.destroy());
}

function brokenRequest(code: string | undefined): ApiError {
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT')
    return new ApiError('request_timeout', 'the request did not arrive in time');
  if (code === 'HPE_HEADER_OVERFLOW')
    return new ApiError('headers_too_large', 'the request header is larger than 16384 bytes');
  return new ApiError('invalid_request', 'the request is not valid HTTP/1.1');
}
