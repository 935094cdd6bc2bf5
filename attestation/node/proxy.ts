// A local door for clients that cannot verify: plain HTTP on loopback in, attested TLS out. The upstream is verified before
// the proxy listens, and again on every connection it opens. Bodies stream both ways with back-pressure.
// Refused: listening beyond loopback without being told to, requests with another Host (DNS rebinding) or from a web page of
// another origin, absolute-form and CONNECT requests. When attestation fails the answer is a 502 in the OpenAI envelope.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, isIP, type Socket } from 'node:net';
import { pipeline } from 'node:stream/promises';
import type { AttestationResult } from '../appraise/appraise.ts';
import { AttestationError, malformed, refused } from '../transcript/errors.ts';
import { parsePolicy } from '../appraise/policy.ts';
import { AttestedPool, type AttestedFetchOptions, poolOptions } from './pool.ts';

export interface ProxyOptions extends Omit<AttestedFetchOptions, 'model'> {
  /** https origin of the appliance. */
  readonly upstream: string | URL;
  readonly host: string;
  /** 0 picks a free one. */
  readonly port: number;
  /** Let other machines reach the proxy: what they send crosses the network unencrypted. */
  readonly allowNonLoopback?: boolean | undefined;
}

export interface RunningProxy {
  /** `http://127.0.0.1:8080` */
  readonly url: string;
  /** The newest verified connection's evidence. */
  readonly result: () => AttestationResult;
  /** Requests that are not over. */
  readonly inFlight: () => number;
  readonly close: () => Promise<void>;
}

/** Verifies the upstream, then listens. Throws the AttestationError when the upstream is refused. */
export async function startProxy(options: ProxyOptions): Promise<RunningProxy> {
  if (!isLoopback(options.host) && options.allowNonLoopback !== true) {
    throw malformed(
      'wrong_usage',
      `${options.host} is not a loopback address: prompts would cross the network unencrypted`,
    );
  }
  const upstream = new URL(options.upstream);
  if (upstream.protocol !== 'https:')
    throw refused('plain_http', `${upstream.protocol}// cannot be attested, expected https://`);
  const pool = new AttestedPool(
    upstream.origin,
    poolOptions(options, parsePolicy(options.policy), upstream.origin),
  );
  const first = await pool.attest();
  const clients = createClients();
  const server = createServer({ requestTimeout: 0 }, (request, response) => {
    void forward(request, response, { pool, upstream, listen: options.host, clients });
  });
  // Nobody reads these sockets any more: not even their end. An answer under way must not get another one into its middle.
  const dismiss = (socket: Socket, status: string): void => {
    const open = [...clients.of(socket).open];
    if (open.length > 1 || open.some((response) => response.headersSent)) socket.destroy();
    else socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\n\r\n`, () => socket.destroy());
  };
  server.on('clientError', (_error, socket) => dismiss(socket as Socket, '400 Bad Request'));
  server.on('connect', (_request, socket) => dismiss(socket as Socket, '501 Not Implemented'));
  await listen(server, options.host, options.port).catch(async (error: unknown) => {
    await pool.destroy();
    throw error;
  });
  const { address, port } = server.address() as AddressInfo;
  return {
    url: `http://${isIP(address) === 6 ? `[${address}]` : address}:${port}`,
    result: () => pool.result ?? first,
    inFlight: clients.inFlight,
    close: async () => {
      const ended = new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
      server.closeAllConnections();
      await pool.destroy();
      await ended;
      await clients.idle();
    },
  };
}

/** 127.0.0.0/8, ::1 and localhost. */
export function isLoopback(host: string): boolean {
  return (
    host === 'localhost' ||
    host === '::1' ||
    host === '[::1]' ||
    (isIP(host) === 4 && host.startsWith('127.'))
  );
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

interface Route {
  readonly pool: AttestedPool;
  readonly upstream: URL;
  readonly listen: string;
  readonly clients: Clients;
}

/** Requests of one connection at once: no client we know of sends one before it has the answer to the last. */
const MAX_PIPELINED = 16;

/** Refused ones wait for their turn as well; where so many do, the connection is cut. */
const MAX_WAITING = 4 * MAX_PIPELINED;

interface Client {
  readonly open: Set<ServerResponse>;
  /** An answer that ends the connection is on its way: nothing that comes after it is forwarded (RFC 9112 §9.6). */
  last: boolean;
}

interface Clients {
  of(socket: Socket): Client;
  /** Counts a request until its response is closed. */
  begin(socket: Socket, response: ServerResponse): Client;
  inFlight(): number;
  /** Resolves once no request is open. */
  idle(): Promise<void>;
}

/**
 * Node tells a response of its connection's end only while it has the socket; pipelined ones (RFC 9112 §9.3.2) wait for it and would
 * never hear. Here the close of a socket is the close of every response that is still to be sent on it.
 */
function createClients(): Clients {
  const known = new WeakMap<Socket, Client>();
  const waiting: (() => void)[] = [];
  let inFlight = 0;
  const of = (socket: Socket): Client => {
    const client = known.get(socket) ?? { open: new Set(), last: false };
    if (known.has(socket)) return client;
    known.set(socket, client);
    socket.once('close', () => {
      for (const response of client.open) {
        // Node closes these itself: the one that has the socket, and one that was sent to its end a moment ago.
        if (
          response.socket === socket ||
          response.closed ||
          (response.writableFinished && !response.destroyed)
        )
          continue;
        response.destroy();
        response.emit('close');
      }
    });
    return client;
  };
  return {
    of,
    begin(socket, response) {
      const client = of(socket);
      client.open.add(response);
      inFlight += 1;
      response.once('close', () => {
        client.open.delete(response);
        inFlight -= 1;
        if (inFlight === 0) for (const wake of waiting.splice(0)) wake();
      });
      // So many answers wait that Node has stopped reading, and would not see the client leave.
      if (client.open.size > MAX_WAITING || (socket.isPaused() && !socket.writableNeedDrain))
        socket.destroy();
      return client;
    },
    inFlight: () => inFlight,
    async idle() {
      if (inFlight > 0) await new Promise<void>((resolve) => waiting.push(resolve));
    },
  };
}

async function forward(request: IncomingMessage, response: ServerResponse, route: Route): Promise<void> {
  const { socket } = request;
  const client = route.clients.begin(socket, response);
  // It ends when the connection does.
  if (socket.destroyed || client.last) return;
  const objection = client.open.size > MAX_PIPELINED ? TOO_MANY : objectionTo(request, route.listen);
  if (objection !== undefined) {
    client.last = true;
    // A socket that is not read does not tell that it was closed.
    request.resume();
    answer(response, objection.status, objection.code, objection.message);
    return;
  }
  const gone = new AbortController();
  // `close` comes after every response; only one that was not finished means that the client went away.
  response.once('close', () => {
    if (!response.writableFinished) gone.abort();
  });
  try {
    const hasBody =
      request.headers['content-length'] !== undefined || request.headers['transfer-encoding'] !== undefined;
    const upstream = await route.pool.request({
      origin: route.pool.origin,
      path: request.url ?? '/',
      // Node has parsed it; undici refuses what is not a token.
      method: request.method ?? 'GET',
      headers: ['host', route.upstream.host, ...endToEnd(request.rawHeaders)],
      body: hasBody ? request : null,
      signal: gone.signal,
      responseHeaders: 'raw',
    });
    response.writeHead(upstream.statusCode, endToEnd(upstream.headers as unknown as (string | Buffer)[]));
    response.flushHeaders();
    await pipeline(upstream.body, response);
  } catch (error) {
    client.last = true;
    request.resume();
    fail(response, error, gone.signal.aborted);
  }
}

interface Objection {
  readonly status: number;
  readonly code: string;
  readonly message: string;
}

const TOO_MANY: Objection = {
  status: 429,
  code: 'too_many_pipelined_requests',
  message: `more than ${MAX_PIPELINED} requests wait on this connection`,
};

/** Why a request is not forwarded: it was not meant for us, or comes from a web page that has no business here. */
function objectionTo(request: IncomingMessage, listen: string): Objection | undefined {
  if (request.url?.startsWith('/') !== true)
    return { status: 400, code: 'bad_request_target', message: 'request target must be a path' };
  if (request.headers.upgrade !== undefined)
    return { status: 501, code: 'upgrade_not_supported', message: 'connections are not upgraded' };
  const host = hostOf(`http://${request.headers.host ?? ''}`);
  // A page that points its own name at 127.0.0.1 sends that name as Host.
  if (
    host === undefined ||
    !(isLoopback(host) || host === listen || listen === '0.0.0.0' || listen === '::')
  ) {
    return { status: 403, code: 'host_not_allowed', message: 'the Host header does not name this proxy' };
  }
  const { origin } = request.headers;
  if (origin !== undefined && !isLoopback(hostOf(origin) ?? '')) {
    return {
      status: 403,
      code: 'origin_not_allowed',
      message: 'requests from web pages of other origins are not forwarded',
    };
  }
  return undefined;
}

function hostOf(url: string): string | undefined {
  return URL.canParse(url) ? new URL(url).hostname : undefined;
}

/** RFC 9110 §7.6.1: fields of this hop, and those Connection names, stop here. Host is set to the upstream's. */
const HOP_BY_HOP: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'host',
  'expect',
]);

/** Raw name, value, name, value … without the hop's own. */
export function endToEnd(raw: readonly (string | Buffer)[]): string[] {
  const pairs: (readonly [string, string])[] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) pairs.push([text(raw[i]), text(raw[i + 1])]);
  const named = pairs
    .filter(([name]) => name.toLowerCase() === 'connection')
    .flatMap(([, value]) => value.split(',').map((token) => token.trim().toLowerCase()));
  return pairs
    .filter(([name]) => !HOP_BY_HOP.has(name.toLowerCase()) && !named.includes(name.toLowerCase()))
    .flat();
}

function text(value: string | Buffer | undefined): string {
  return typeof value === 'string' ? value : (value?.toString('latin1') ?? '');
}

function fail(response: ServerResponse, error: unknown, clientGone: boolean): void {
  if (clientGone || response.headersSent) {
    // Half a response must not look like a whole one.
    response.destroy();
    return;
  }
  if (error instanceof AttestationError) {
    answer(
      response,
      502,
      error.code,
      error.code === 'connection_failed' ? error.message : `attestation refused: ${error.message}`,
      error,
    );
    return;
  }
  const code: unknown = error instanceof Error && 'code' in error ? error.code : undefined;
  answer(
    response,
    502,
    'upstream_failed',
    `upstream connection failed${typeof code === 'string' ? ` (${code})` : ''}`,
  );
}

/** The OpenAI error envelope. `x-should-retry: false` because trying again cannot change a refusal. */
function answer(
  response: ServerResponse,
  status: number,
  code: string,
  message: string,
  error?: AttestationError,
): void {
  const type =
    error === undefined ? (status < 500 ? 'invalid_request_error' : 'server_error') : 'attestation_error';
  const retry =
    error !== undefined && error.code !== 'connection_failed' ? { 'x-should-retry': 'false' } : {};
  const body = JSON.stringify({ error: { message, type, param: null, code } });
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    connection: 'close',
    ...retry,
  });
  response.end(body);
}
