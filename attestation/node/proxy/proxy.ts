// A local door for clients that cannot verify: plain HTTP on loopback in, attested TLS out. The
// upstream is verified before the proxy listens, and again on every connection it opens. Bodies stream
// both ways with back-pressure. Refused: listening beyond loopback without being told to, and what
// proxy/guard.ts does not let in. When attestation fails the answer is a 502; every answer of the
// proxy's own is in the error envelope of the API that was asked (proxy/answer.ts).

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, isIP, type Socket } from 'node:net';
import { pipeline } from 'node:stream/promises';
import type { Verified } from '../../appraise/appraise.ts';
import { HeldBytes, type HeldShare } from '../../client/held-bytes.ts';
import { AttestationError, malformed, refused } from '../../transcript/errors.ts';
import { parsePolicy } from '../../appraise/policy.ts';
import type { AttestedFetchOptions } from '../pool.ts';
import { attestedUpstream } from './attested-upstream.ts';
import { brokenRequest, failureAnswer, rawAnswer, refusalAnswer, send, type Answer } from './answer.ts';
import { type Client, Clients, MAX_PIPELINED } from './clients.ts';
import { corsFields, isCorsField, isPreflight, preflightFields } from './cors.ts';
import { isSandboxField, ProxyConsole, type ProxyConsoleOptions } from './console.ts';
import { canonicalOrigin, type Door, isLoopbackHost, type Refusal, refusalOf } from './guard.ts';
import { endToEnd, withoutFields } from './headers.ts';
import { gatheredBody } from './gathered.ts';
import { type ProxyReceiptOptions, ProxyReceipts, type ReceiptedRequest } from './receipts.ts';
import { sealedUpstream, type Upstream } from './upstream.ts';

/** Settings of {@link startProxy}. */
export interface ProxyOptions extends Omit<AttestedFetchOptions, 'model' | 'receipts'> {
  /** Ask for receipts, check them and keep them. Default: clients ask for themselves. */
  readonly receipts?: ProxyReceiptOptions | undefined;
  /** Serve the console, and forward `/v1/` alone. Default: everything is forwarded. */
  readonly console?: ProxyConsoleOptions | undefined;
  /** https origin of the appliance. */
  readonly upstream: string | URL;
  readonly host: string;
  /** 0 picks a free one. */
  readonly port: number;
  /** `sealed`: requests are sealed to the proven key, for networks that end TLS; the policy says so, too. */
  readonly channel?: 'exporter' | 'sealed' | undefined;
  /** Let other machines reach the proxy: what they send crosses the network unencrypted. */
  readonly allowNonLoopback?: boolean | undefined;
  /**
   * Origins of web pages that may use the proxy (`http://localhost:3000`). Default none:
   * programs send no Origin.
   */
  readonly allowOrigins?: readonly string[] | undefined;
  /** Called when a request has ended, and for bytes that never became one. It carries no content. */
  readonly onRequest?: ((entry: ProxyLogEntry) => void) | undefined;
}

/** One request at the proxy, without its content: no header, no query, no body. */
export interface ProxyLogEntry {
  /** Undefined when what came in is no HTTP. */
  readonly method?: string | undefined;
  /** Path without the query. */
  readonly path?: string | undefined;
  /** Undefined when the client left before there was an answer. */
  readonly status?: number | undefined;
  /** Why the proxy itself answered, or ended the answer. */
  readonly code?: string | undefined;
  /** The answer was sent to its end. */
  readonly complete: boolean;
  readonly durationMs: number;
}

/** A proxy that listens. `close` ends it after the requests in flight. */
export interface RunningProxy {
  /** `http://127.0.0.1:8080` */
  readonly url: string;
  /** The newest verified connection's evidence. */
  readonly result: () => Verified;
  /** Requests that are not over. */
  readonly inFlight: () => number;
  readonly close: () => Promise<void>;
}

/**
 * As long as the server keeps its own: pools that do not read `Keep-Alive` would send into a closing socket.
 */
const KEEP_ALIVE_MS = 75_000;

/**
 * Verifies the upstream, then listens. Throws the AttestationError when the upstream is refused, and Node's
 * error when the address cannot be had. Times in its options are milliseconds.
 *
 * @example
 * const proxy = await startProxy({ upstream: 'https://host:8443', policy, host: '127.0.0.1', port: 8080 });
 * process.once('SIGTERM', () => void proxy.close());
 */
export async function startProxy(options: ProxyOptions): Promise<RunningProxy> {
  if (!isLoopbackHost(options.host) && options.allowNonLoopback !== true) {
    throw malformed(
      'wrong_usage',
      `${options.host} is not a loopback address: prompts would cross the network unencrypted`,
    );
  }
  const upstream = new URL(options.upstream);
  const sealed = options.channel === 'sealed';
  if (upstream.protocol !== 'https:' && !sealed)
    throw refused('plain_http', `${upstream.protocol}// cannot be attested, expected https://`);
  const door = { listen: options.host, origins: new Set((options.allowOrigins ?? []).map(canonicalOrigin)) };
  const pool = sealed ? sealedUpstreamOf(options, upstream) : attestedUpstream(options, upstream);
  const held = new HeldBytes();
  const receipts =
    options.receipts === undefined
      ? undefined
      : new ProxyReceipts({
          ...options.receipts,
          policy: parsePolicy(options.policy),
          origin: upstream.origin,
          held,
        });
  const first = await pool.attest();
  const clients = new Clients();
  const log = options.onRequest ?? (() => undefined);
  const page = options.console === undefined ? undefined : new ProxyConsole(options.console, upstream.origin);
  const route: Route = { pool, door, clients, receipts, held, page, log };
  const server = createProxyServer(route);
  await listen(server, options.host, options.port).catch(async (error: unknown) => {
    await pool.destroy();
    throw error;
  });
  const { address, port } = server.address() as AddressInfo;
  for (const own of page?.listensOn(port) ?? []) door.origins.add(own);
  return {
    url: `http://${isIP(address) === 6 ? `[${address}]` : address}:${port}`,
    result: () => pool.result ?? first,
    inFlight: () => clients.inFlight,
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

function sealedUpstreamOf(options: ProxyOptions, { origin }: URL): Upstream {
  const { policy, memory, endorsements, vtpm, gpu, now, connectTimeoutMs = 10_000 } = options;
  const { attestTimeoutMs: evidenceTimeout } = options;
  return sealedUpstream(origin, {
    policy,
    memory,
    endorsements,
    vtpm,
    gpu,
    now,
    connectTimeoutMs,
    evidenceTimeout,
  });
}

interface Route {
  readonly pool: Upstream;
  readonly door: Door;
  readonly clients: Clients;
  readonly receipts: ProxyReceipts | undefined;
  readonly page: ProxyConsole | undefined;
  /** Bytes held of requests and answers of all clients. */
  readonly held: HeldBytes;
  readonly log: (entry: ProxyLogEntry) => void;
}

function createProxyServer(route: Route): Server {
  const server = createServer(
    // A missing Host is answered with the envelope, like every other refusal.
    { requestTimeout: 0, keepAliveTimeout: KEEP_ALIVE_MS, requireHostHeader: false },
    (request, response) => void forward(request, response, route),
  );
  server.on('checkExpectation', (request: IncomingMessage, response: ServerResponse) => {
    void forward(request, response, route, {
      status: 417,
      code: 'expectation_failed',
      message: 'the only expectation met is 100-continue',
    });
  });
  server.on('clientError', (error, socket) => dismiss(socket as Socket, brokenRequest(error), route));
  server.on('connect', ({ method }, socket) => {
    const message = 'CONNECT is not served here: this proxy has one upstream';
    const answer = refusalAnswer({ status: 501, code: 'connect_not_supported', message });
    dismiss(socket as Socket, answer, route, method);
  });
  return server;
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

/**
 * Node reads these sockets no longer, not even their end. An answer under way must not get
 * another one into its middle.
 */
function dismiss(socket: Socket, answer: Answer, { clients, log, page }: Route, method?: string): void {
  const open = [...clients.of(socket).open];
  const complete = open.length <= 1 && !open.some((response) => response.headersSent) && socket.writable;
  if (complete) socket.end(rawAnswer(answer, page?.fields), () => socket.destroy());
  else socket.destroy();
  const { status, code } = answer;
  log({ method, status: complete ? status : undefined, code, complete, durationMs: 0 });
}

const TOO_MANY: Refusal = {
  status: 429,
  code: 'too_many_pipelined_requests',
  message: `more than ${MAX_PIPELINED} requests wait on this connection`,
};

/** One request and its answer; `refusal` is what was wrong with it before it came here. */
async function forward(
  request: IncomingMessage,
  response: ServerResponse,
  route: Route,
  refusal?: Refusal,
): Promise<void> {
  const { socket } = request;
  const client = route.clients.begin(socket, response);
  const { origin } = request.headers;
  const page = origin !== undefined && route.door.origins.has(origin) ? origin : undefined;
  const exchange = new Exchange(request, response, client, {
    origin: page,
    fields: route.page?.fields ?? [],
  });
  response.once('close', () => route.log(exchange.entry()));
  // It ends when the connection does.
  if (socket.destroyed || client.last) return;
  const objection =
    client.open.size > MAX_PIPELINED
      ? TOO_MANY
      : (refusal ?? refusalOf(request, route.door) ?? route.page?.refusalOf(request));
  if (objection !== undefined) exchange.answer(refusalAnswer(objection));
  else if (isPreflight(request)) exchange.preflight(route);
  else if (route.page?.answers(request, response) === true) request.resume();
  else await exchange.pass(route);
}

/** Fields of the client that the proxy sets itself. */
function isReplaced(name: string, receipted: ReceiptedRequest | undefined): boolean {
  return (
    isCorsField(name) || (receipted !== undefined && (name === 'content-length' || name in receipted.headers))
  );
}

function fieldOf(raw: readonly string[], name: string): string | null {
  const at = raw.findIndex((each, i) => i % 2 === 0 && each.toLowerCase() === name);
  return at < 0 ? null : (raw[at + 1] ?? null);
}

/** Waits for the first bytes that may pass, so that a refusal before them has a status of its own. */
async function begun(pieces: AsyncIterable<Uint8Array>): Promise<AsyncIterable<Uint8Array>> {
  const iterator = pieces[Symbol.asyncIterator]();
  const first = await iterator.next();
  return (async function* rest() {
    for (let next = first; next.done !== true; next = await iterator.next()) yield next.value;
  })();
}

/** A request, its response and the connection they are on. */
class Exchange {
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #client: Client;
  /** Raw fields of every answer: for a web page that was let in, which alone may read it. */
  readonly #fields: readonly string[];
  readonly #started = performance.now();
  #code: string | undefined;

  constructor(
    request: IncomingMessage,
    response: ServerResponse,
    client: Client,
    { origin, fields }: { readonly origin: string | undefined; readonly fields: readonly string[] },
  ) {
    this.#request = request;
    this.#response = response;
    this.#client = client;
    this.#fields = [...corsFields(origin), ...fields];
  }

  entry(): ProxyLogEntry {
    const { method, url } = this.#request;
    return {
      method,
      path: url?.split('?', 1)[0],
      status: this.#response.headersSent ? this.#response.statusCode : undefined,
      code: this.#code,
      complete: this.#response.writableFinished,
      durationMs: performance.now() - this.#started,
    };
  }

  /** An answer of the proxy's own; it is the last on its connection. */
  answer(answer: Answer): void {
    this.#code = answer.code;
    this.#client.last = true;
    // A socket that is not read does not tell that it was closed.
    this.#request.resume();
    send(this.#request, this.#response, answer, this.#fields);
  }

  preflight({ page }: Route): void {
    this.#request.resume();
    this.#response.writeHead(204, [...preflightFields(this.#request), ...(page?.fields ?? [])]);
    this.#response.end();
  }

  async pass({ pool, receipts, held, page }: Route): Promise<void> {
    const request = this.#request;
    const response = this.#response;
    const gone = new AbortController();
    // `close` comes after every response; only one that was not finished means that the client went away.
    response.once('close', () => {
      if (!response.writableFinished) gone.abort();
    });
    const hasBody =
      request.headers['content-length'] !== undefined || request.headers['transfer-encoding'] !== undefined;
    const share = held.share();
    try {
      const asks = receipts?.asks(request) === true;
      const whole = hasBody && (asks || pool.whole);
      const content = whole ? await this.#gathered(share) : null;
      if (content === undefined) return;
      const receipted = asks ? receipts?.open(request, content ?? Buffer.alloc(0)) : undefined;
      const fieldsSent = withoutFields(endToEnd(request.rawHeaders), (name) => isReplaced(name, receipted));
      const answer = await pool.send({
        path: request.url ?? '/',
        // Node has parsed it; undici refuses what is not a token.
        method: request.method ?? 'GET',
        headers: [...fieldsSent, ...Object.entries(receipted?.headers ?? {}).flat()],
        body: content ?? (hasBody ? request : null),
        signal: gone.signal,
      });
      const fields = endToEnd(answer.headers);
      const { statusCode: status, body } = answer;
      const header = (name: string): string | null => fieldOf(fields, name);
      const checked = receipted?.check({ status, header, body }, answer.evidence());
      const dropped = (name: string): boolean =>
        isCorsField(name) ||
        (page !== undefined && isSandboxField(name)) ||
        (checked !== undefined && name === 'content-length');
      const kept = [...withoutFields(fields, dropped), ...this.#fields];
      if (checked === undefined) {
        response.writeHead(status, kept);
        response.flushHeaders();
        await pipeline(body, response);
        return;
      }
      const pieces = await begun(checked);
      response.writeHead(status, kept);
      await pipeline(pieces, response);
    } catch (error) {
      this.#fail(error, gone.signal.aborted);
    } finally {
      share.release();
    }
  }

  /** Undefined: it is too much to hold, and that is answered. No byte of it was sent. */
  async #gathered(share: HeldShare): Promise<Buffer<ArrayBuffer> | undefined> {
    try {
      return await gatheredBody(this.#request, share);
    } catch (error) {
      if (!(error instanceof AttestationError)) throw error;
      const { code, message } = error;
      const status = code === 'input_too_large' ? 413 : 503;
      this.answer({ ...refusalAnswer({ status, code, message }), retry: status === 503 });
      return undefined;
    }
  }

  #fail(error: unknown, clientGone: boolean): void {
    const answer = failureAnswer(error);
    if (!clientGone && !this.#response.headersSent) {
      this.answer(answer);
      return;
    }
    this.#code = clientGone ? 'client_left' : answer.code;
    this.#client.last = true;
    this.#request.resume();
    // Half a response must not look like a whole one.
    this.#response.destroy();
  }
}
