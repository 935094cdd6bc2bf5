// The HTTP server: fastify over TLS 1.3 (HTTP/1.1 only, no resumption), or plain HTTP on loopback. It owns everything that
// is the same for all routes: request ids, keys, limits, CORS, body checks, the error envelope, metrics, the request log,
// deadlines and the drain. What the log says of a request is picked field by field: no URL, header, body or address.

import { randomBytes } from 'node:crypto';
import type { ServerResponse } from 'node:http';
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { ApiError, ConfigError } from '../base/errors.ts';
import { framesOf } from '../base/log.ts';
import { isRecord } from '../base/shape.ts';
import { type Caller, createAuth } from './admission/auth.ts';
import { createBodyBudget, hasBody, hasUnreadBody, readBody, scannedAsItComes } from './admission/bodies.ts';
import { corsHeaders, preflight } from './cors.ts';
import type { ServerDeps } from './deps.ts';
import { errorBody, errorHeaders, toApiError, unsupportedMediaType } from './errors.ts';
import { isLoopback, peerOf } from './address.ts';
import { clientClosed, type Exchange, openExchange, shuttingDown, timedOut } from './exchange.ts';
import { createLimiter } from './admission/limits.ts';
import {
  answerBrokenRequest,
  createListener,
  freshRequestId,
  type Listener,
  tlsOptions,
  unmetExpectation,
} from './listener.ts';
import { CONNECTION_ENDING, createOpenRequests, PIPELINED } from './open-requests.ts';
import { createProven, STALE } from './connection-pins.ts';
import { ModelPermits } from './admission/model-permits.ts';
import { attestationsFull, createPermits, serverFull, shareOf } from './admission/permits.ts';
import { createServerMetrics } from './metrics/server.ts';
import type { Call, Route, RouteContext } from './route.ts';

export interface HttpServer {
  listen(): Promise<{ readonly host: string; readonly port: number; readonly url: string }>;
  /** Null before listen(). */
  readonly address: { readonly host: string; readonly port: number; readonly url: string } | null;
  /** Requests that are not over. */
  readonly inFlight: number;
  /** New connections get this certificate; connections that exist keep theirs. */
  setTls(tls: { readonly key: string; readonly cert: string }): void;
  /**
   * Refuses new work with 503, lets answers under way finish within `drainMs` (default from config), ends what is left with
   * an error, and closes. A second call with 0 does not wait.
   */
  close(options?: { readonly drainMs?: number | undefined }): Promise<void>;
}

declare module 'fastify' {
  interface FastifyRequest {
    exchange: Exchange;
  }
}

/** `routes`: what is served; the rooms of the API are above this one. */
export async function createServer(
  given: ServerDeps,
  routes: (context: RouteContext) => readonly Route[],
): Promise<HttpServer> {
  const deps: Call['deps'] = {
    ...given,
    now: given.now ?? Date.now,
    randomHex: given.randomHex ?? ((bytes) => randomBytes(bytes).toString('hex')),
  };
  const { config, log } = deps;
  if (deps.tls === null && !isLoopback(config.host)) {
    throw new ConfigError(`plain HTTP is served on loopback only, and ${config.host} is not`, 'api.address');
  }
  const started = deps.now();
  const auth = createAuth(config, randomBytes(32));
  const limiter = createLimiter(deps.now);
  // On loopback without keys every caller is the user of this machine: there is nobody to keep room for.
  const shared = config.auth.keys.length > 0 || !isLoopback(config.host);
  const work = createPermits({
    inAll: config.limits.maxConcurrentRequests,
    perCaller: shared ? shareOf(config.limits.maxConcurrentRequests) : 0,
    full: serverFull,
  });
  const modelPermits = new ModelPermits({
    shared,
    maxWaiting: config.limits.maxWaitingPerModel,
    maxQueue: config.limits.maxQueuePerModel,
  });
  const attestations = createPermits({
    inAll: config.limits.maxConcurrentAttestations,
    perCaller: config.limits.maxConcurrentAttestationsPerPeer,
    full: attestationsFull,
  });
  const bodies = createBodyBudget(config.limits.maxBodyBytesInFlight, config.limits.maxBodyBytes);
  const open = createOpenRequests<Exchange>();
  const proven = createProven();
  const drain = { on: false };
  const metrics = createServerMetrics({
    models: deps.models,
    attester: deps.attester,
    open: () => open.size,
    startedAt: started,
    sources: deps.metricSources ?? [],
  });

  let listener: Listener | undefined;
  const app = fastify({
    serverFactory(handler) {
      listener = createListener(deps, handler, {
        onResumption: () => metrics.resumptionsRefused.add([]),
        isAnswering: open.isAnswering,
      });
      return listener.server;
    },
    // No logger: fastify's lines print URLs and errors. Ours is in finish(), below.
    logger: false,
    bodyLimit: config.limits.maxBodyBytes,
    routerOptions: { maxParamLength: 1024 },
    frameworkErrors: (error, request, reply) => void sendError(request, reply, error),
    clientErrorHandler(error, socket) {
      metrics.brokenRequests.add([]);
      answerBrokenRequest(error, socket, open.isAnswering(socket));
    },
    return503OnClosing: false,
    exposeHeadRoutes: true,
  });

  app.removeAllContentTypeParsers();
  app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (request, bytes, done) => {
    try {
      const charset = /charset\s*=\s*"?([^";\s]+)/i.exec(request.headers['content-type'] ?? '')?.[1];
      if (charset !== undefined && !/^utf-?8$/i.test(charset)) throw unsupportedMediaType();
      request.exchange.bodyBytes = bytes.length;
      // Clients send the header out of habit; whether the route needs a body is for answer() to say.
      if (bytes.length === 0) return done(null, undefined);
      done(null, readBody(request.exchange, typeof bytes === 'string' ? Buffer.from(bytes) : bytes));
    } catch (error) {
      done(toApiError(error));
    }
  });

  app.decorateRequest('exchange');
  app.addHook('onRequest', (request, reply, next) => {
    begin(request, reply);
    // A socket that is not read does not tell that it was closed.
    if (!hasBody(request.raw)) request.raw.resume();
    try {
      const origin = request.headers.origin;
      if (origin !== undefined) reply.headers(corsHeaders(config, origin));
      const { assay: route, allow } = request.routeOptions.config;
      const refusal = open.refusal(request.raw.socket);
      if (refusal !== undefined) {
        if (route !== undefined) identify(request, route);
        throw refusal;
      }
      if (request.method === 'OPTIONS' && request.headers['access-control-request-method'] !== undefined) {
        request.raw.resume();
        preflight(config, request, reply);
        return;
      }
      if (request.headers.host === undefined && request.raw.httpVersion === '1.1') {
        throw new ApiError(400, 'invalid_request', 'the Host header is missing');
      }
      if (unmetExpectation(request.headers))
        throw new ApiError(417, 'expectation_failed', 'the only expectation met is 100-continue');
      if (allow !== undefined) {
        reply.header('allow', allow);
        throw new ApiError(405, 'method_not_allowed', `this route is for ${allow}`);
      }
      if (request.is404) throw unknownUrl();
      if (drain.on && route?.path !== '/health') throw shuttingDown();
      if (route === undefined) return next();
      const exchange = request.exchange;
      const caller = identify(request, route);
      auth.authorise(caller, route.access);
      exchange.principal = caller.principal;
      if (
        request.headers['content-encoding'] !== undefined &&
        request.headers['content-encoding'] !== 'identity'
      ) {
        throw new ApiError(
          415,
          'unsupported_content_encoding',
          'the request body is compressed, expected it as it is',
        );
      }
      if (route.limited === true) {
        exchange.leave =
          route.apart === true
            ? attestations.enter(peerOf(request.ip))
            : work.enter(exchange.principal.bucket);
        try {
          exchange.admission = limiter.admit(exchange.principal);
        } catch (error) {
          reply.headers(limiter.headers(exchange.principal));
          throw error;
        }
      }
      if (hasBody(request.raw)) {
        exchange.held = bodies.open(exchange.principal.bucket);
        const announced = Number(request.headers['content-length'] ?? 0);
        // One that is too long is refused by its length before any of it is read.
        if (announced <= config.limits.maxBodyBytes) exchange.held.add(announced);
      }
      if (config.timeouts.requestMs > 0 && route.untimed !== true) {
        exchange.timer = setTimeout(() => {
          exchange.abort(timedOut);
          // Made or not: nobody takes it.
          exchange.timer = setTimeout(
            () => request.raw.socket.destroy(),
            config.timeouts.stallMs ?? 60_000,
          ).unref();
        }, config.timeouts.requestMs).unref();
      }
      next();
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) metrics.authFailures.add([]);
      next(toApiError(error));
    }
  });

  app.addHook('preParsing', (request, _reply, body, next) => {
    next(
      null,
      scannedAsItComes(request.exchange, body, request.headers['content-length'], config.limits.maxBodyBytes),
    );
  });

  /** A known key that is refused is known all the same: the record of the request names it. */
  function identify(request: FastifyRequest, route: Route): Caller {
    const caller = auth.identify(request.headers.authorization, request.ip, route.access);
    if (caller.known) request.exchange.principal = caller.principal;
    return caller;
  }

  function begin(request: FastifyRequest, reply: FastifyReply): void {
    const id = request.headers['x-request-id'];
    const exchange = openExchange({
      given: typeof id === 'string' ? id : undefined,
      freshId: freshRequestId,
      startedAt: performance.now(),
    });
    exchange.route = request.routeOptions.config.assay?.path ?? '(none)';
    request.exchange = exchange;
    // Answers are for who asked, and never to be kept on the way.
    reply.headers({
      'x-request-id': exchange.id,
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
    });
    open.begin({ request: request.raw, response: reply.raw, exchange }, (complete) =>
      finish(request, reply.raw, exchange, complete),
    );
  }

  /** The only place where a request ends, once: after the last byte, or when the client or the connection is gone. */
  function finish(
    request: FastifyRequest,
    response: ServerResponse,
    exchange: Exchange,
    complete: boolean,
  ): void {
    exchange.abort(clientClosed);
    if (!complete) exchange.errorCode ??= 'client_closed_request';
    const used = exchange.usage.promptTokens + exchange.usage.completionTokens;
    exchange.admission?.settle(used);
    exchange.admission?.release();
    exchange.held?.release();
    exchange.leave?.();
    if (exchange.timer !== null) clearTimeout(exchange.timer);
    const milliseconds = performance.now() - exchange.startedAt;
    const status = response.headersSent ? response.statusCode : 499;
    metrics.requestEnded({ exchange, method: request.method, status, milliseconds, complete });
    log.info(
      {
        requestId: exchange.id,
        method: request.method,
        route: exchange.route,
        status,
        ms: Math.round(milliseconds * 10) / 10,
        ...(exchange.errorCode !== null && { code: exchange.errorCode }),
        ...(used > 0 && {
          promptTokens: exchange.usage.promptTokens,
          completionTokens: exchange.usage.completionTokens,
        }),
        ...(!complete && { aborted: true }),
      },
      'request',
    );
    deps.onRequest?.({
      requestId: exchange.id,
      key: exchange.principal?.name ?? null,
      admitted: exchange.principal !== null && request.routeOptions.config.assay?.access !== 'open',
      method: request.method,
      route: exchange.route,
      status,
      modelSha256: exchange.modelSha256,
      promptTokens: exchange.usage.promptTokens,
      completionTokens: exchange.usage.completionTokens,
      evidenceSha256: exchange.evidenceSha256,
      milliseconds,
      aborted: !complete || (exchange.errorCode !== null && status === 200),
    });
  }

  function sendError(request: FastifyRequest, reply: FastifyReply, thrown: unknown): FastifyReply {
    // frameworkErrors come before any hook.
    if (request.exchange === undefined) begin(request, reply);
    // A body that broke off is no fault of the server's.
    const error = request.raw.destroyed && !request.raw.complete ? clientClosed() : toApiError(thrown);
    // What is left of a refused body: see above. A scanner nobody reads would hold the stream still.
    if (!request.raw.complete) request.raw.unpipe().resume();
    const exchange = request.exchange;
    exchange.errorCode = error.code;
    if (error.code === 'internal_error') logCause(error);
    if (exchange.admission !== null) reply.headers(exchange.admission.headers());
    reply.headers(errorHeaders(error));
    if (
      ENDS_CONNECTION.has(error.code) ||
      ENDS_CONNECTION.has(error.status) ||
      drain.on ||
      hasUnreadBody(request.raw)
    ) {
      reply.header('connection', 'close');
      open.endsConnection(request.raw.socket);
    }
    return reply
      .code(error.status)
      .header('openai-processing-ms', processingMs(exchange))
      .header('content-type', 'application/json; charset=utf-8')
      .send(JSON.stringify(errorBody(error)));
  }

  /** An unforeseen error: where it came from, never its message, which may quote what was being worked on. */
  function logCause(error: ApiError): void {
    const cause = error.cause;
    if (!(cause instanceof Error)) return;
    log.error(
      {
        kind: cause.name,
        at: framesOf(cause).slice(0, 8),
      },
      'unexpected error',
    );
  }

  app.setErrorHandler((error, request, reply) => sendError(request, reply, error));
  app.setNotFoundHandler((request, reply) => sendError(request, reply, unknownUrl()));

  registerAll(app, routes({ config, metrics, startedAt: started, isDraining: () => drain.on }), {
    deps,
    proven,
    modelPermits,
    watchEngine: metrics.watch,
  });

  // CORS preflights of any path reach the hook above.
  app.options('/*', (request, reply) =>
    sendError(
      request,
      reply,
      new ApiError(405, 'method_not_allowed', 'OPTIONS is only answered as a CORS preflight'),
    ),
  );
  await app.ready();

  let address: HttpServer['address'] = null;
  return {
    get address() {
      return address;
    },
    get inFlight() {
      return open.size;
    },
    async listen() {
      await app.listen({ host: config.host, port: config.port });
      const bound = listener?.server.address();
      if (bound === undefined || bound === null || typeof bound === 'string')
        throw new TypeError('the server listens on no TCP port');
      const host = bound.family === 'IPv6' ? `[${bound.address}]` : bound.address;
      address = {
        host: bound.address,
        port: bound.port,
        url: `${deps.tls === null ? 'http' : 'https'}://${host}:${bound.port}`,
      };
      return address;
    },
    setTls(tls) {
      if (listener !== undefined && 'setSecureContext' in listener.server)
        listener.server.setSecureContext(tlsOptions(tls));
    },
    async close(options = {}) {
      drain.on = true;
      listener?.server.closeIdleConnections();
      await open.ended(options.drainMs ?? config.timeouts.drainMs);
      for (const exchange of open.exchanges()) exchange.abort(shuttingDown);
      // Handlers write their error events in answer to the abort; whatever is left then is cut.
      await open.ended(LAST_WORDS_MS);
      listener?.destroyConnections();
      await app.close();
      // Sockets say a moment later that they are closed, and whoever records requests must have heard of all of them.
      await open.ended(LAST_WORDS_MS);
    },
  };
}

/** Refusals, by code or status, whose answer is the connection's last: its evidence is stale, or what follows is not worth reading. */
const ENDS_CONNECTION: ReadonlySet<string | number> = new Set([
  STALE,
  PIPELINED,
  CONNECTION_ENDING,
  413,
  415,
  417,
]);

/** Time for error events after the end was decided. */
const LAST_WORDS_MS = 500;

declare module 'fastify' {
  interface FastifyContextConfig {
    assay?: Route | undefined;
    /** The methods of a path, on its routes for all others. */
    allow?: string | undefined;
  }
}

const METHODS = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'] as const;

type Shared = Pick<Call, 'deps' | 'proven' | 'modelPermits' | 'watchEngine'>;

function registerAll(app: FastifyInstance, routes: readonly Route[], shared: Shared): void {
  const served = new Map<string, string[]>();
  for (const route of routes) {
    for (const url of [route.path, ...(route.aliases ?? [])]) {
      served.set(url, [...(served.get(url) ?? []), route.method]);
      app.route({
        method: route.method,
        url,
        config: { assay: route },
        handler: (request, reply) => answer(route, shared, request, reply),
      });
    }
  }
  for (const [url, methods] of served) {
    const others = METHODS.filter((method) => !methods.includes(method));
    // Answered by the onRequest hook, before a body is looked at.
    app.route({ method: others, url, config: { allow: methods.join(', ') }, handler: async () => undefined });
  }
}

function unknownUrl(): ApiError {
  return new ApiError(404, 'unknown_url', 'there is no such route');
}

async function answer(
  route: Route,
  shared: Shared,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<unknown> {
  const exchange = request.exchange;
  // While its body was read the client may have gone.
  exchange.throwIfOver();
  if (route.body !== undefined && request.body === undefined)
    throw new ApiError(400, 'invalid_json', 'the request body is empty, expected a JSON object');
  const body = route.body?.read(request.body, '');
  // What is read and ignored is not kept while the answer is made.
  request.body = undefined;
  const query = route.query?.read(request.query, '');
  const result = await route.handle({
    ...shared,
    exchange,
    body,
    query,
    params: paramsOf(request.params),
    request,
    reply,
  });
  if (reply.sent) return reply;
  reply.header('openai-processing-ms', processingMs(exchange));
  if (exchange.admission !== null) {
    exchange.admission.settle(exchange.usage.promptTokens + exchange.usage.completionTokens);
    reply.headers(exchange.admission.headers());
  }
  if (route.status !== undefined) reply.code(route.status);
  return reply.send(result);
}

function paramsOf(params: unknown): Readonly<Record<string, string>> {
  const texts = Object.entries(isRecord(params) ? params : {}).filter(
    (entry): entry is [string, string] => typeof entry[1] === 'string',
  );
  return Object.fromEntries(texts);
}

function processingMs(exchange: Exchange): string {
  return String(Math.round(performance.now() - exchange.startedAt));
}
