// The HTTP server: fastify over TLS 1.3 (HTTP/1.1 only, no resumption), or plain HTTP on loopback. It
// combines the parts that all routes share: http/hooks (ids, keys, limits, deadlines, records),
// http/send-error (the envelope), http/routing, http/drain.

import { randomBytes, randomFillSync } from 'node:crypto';
import type { RequestListener } from 'node:http';
import fastify, { type FastifyInstance, type FastifyRequest } from 'fastify';
import { ANY_TYPE, REQUEST_TYPE } from '@assay/attestation/sealed-envelope';
import { ConfigError } from '../base/errors.ts';
import { isLoopback } from './address.ts';
import { createAuth } from './admission/auth.ts';
import { createBodyBudget, dropRest, readBody, scannedAsItComes } from './admission/bodies.ts';
import { createLimiter } from './admission/limits.ts';
import { ModelPermits } from './admission/model-permits.ts';
import { attestationsFull, createPermits, serverFull, shareOf } from './admission/permits.ts';
import { createConnectionPins } from './connection-pins.ts';
import type { ServerConfig, ServerDeps } from './deps.ts';
import { Drain } from './drain.ts';
import { notAForm, toApiError, unknownUrl, unsupportedMediaType } from './errors.ts';
import type { Exchange } from './exchange.ts';
import { begin, onRequest, type HookContext } from './hooks.ts';
import { answerBrokenRequest, createListener, type Listener, tlsOptions } from './listener.ts';
import { createServerMetrics, type ServerMetrics } from './metrics/server.ts';
import { createOpenRequests } from './open-requests.ts';
import type { Call, Replay, Route, RouteContext } from './route.ts';
import { createReplay } from './replay.ts';
import { allowedMethods, registerRoutes, type Shared } from './routing.ts';
import { createSealedHost } from './sealed-connections.ts';
import { sendError } from './send-error.ts';

const FORM = /^\s*(?:multipart\/form-data|application\/x-www-form-urlencoded)\b/i;

export interface HttpServer {
  listen(): Promise<{ readonly host: string; readonly port: number; readonly url: string }>;
  /** Null before listen(). */
  readonly address: { readonly host: string; readonly port: number; readonly url: string } | null;
  /** Requests that are not over. */
  readonly inFlight: number;
  /** New connections get this certificate; existing ones keep theirs. */
  setTls(tls: { readonly key: string; readonly cert: string }): void;
  /**
   * Refuses new work with 503, lets answers under way finish within `drainMs` (default from config), ends
   * what is left with an error, and closes. A second call with 0 does not wait.
   */
  close(options?: { readonly drainMs?: number | undefined }): Promise<void>;
}

declare module 'fastify' {
  interface FastifyRequest {
    exchange: Exchange;
  }
}

/** `routes` come from the caller: the rooms of the API are above this one. */
export async function createServer(
  given: ServerDeps,
  routes: (context: RouteContext) => readonly Route[],
): Promise<HttpServer> {
  const deps: Call['deps'] = {
    ...given,
    now: given.now ?? Date.now,
    randomHex: given.randomHex ?? randomHexPool(),
  };
  const { config } = deps;
  if (deps.tls === null && !isLoopback(config.host))
    throw new ConfigError(`plain HTTP is served on loopback only, and ${config.host} is not`, 'api.address');
  const startedAt = deps.now();
  const connectionPins = createConnectionPins();
  const shared = isShared(config);
  const open = createOpenRequests<Exchange>();
  const drain = new Drain(open);
  const metrics = createServerMetrics({
    models: deps.models,
    attester: deps.attester,
    open: () => open.size,
    startedAt,
    sources: deps.metricSources ?? [],
  });
  const tasks: { start(): void; stop(): Promise<void> }[] = [];
  const admission = createAdmission(deps, shared);
  const replays: { send: Replay | null } = { send: null };
  const served = routes({
    config,
    metrics,
    startedAt,
    isDraining: () => drain.on,
    background: {
      deps,
      owned: admission.auth.owned,
      replay: (request) => replays.send?.(request) ?? Promise.reject(new TypeError('no server yet')),
      add: (task) => void tasks.push(task),
    },
  });
  const context = {
    ...admission,
    connectionPins,
    deps,
    open,
    drain,
    metrics,
    allowed: allowedMethods(served),
  };
  const { app, bound } = createApp(deps, context, metrics);
  const common: Shared = {
    deps,
    connectionPins,
    modelPermits: new ModelPermits({
      shared,
      maxWaiting: config.limits.maxWaitingPerModel,
      maxQueue: config.limits.maxQueuePerModel,
    }),
    watchEngine: metrics.watch,
    sealedHost: createSealedHost(config, connectionPins, {
      handler: (request, response) => bound.handler?.(request, response),
      onBroken: () => metrics.brokenRequests.add([]),
      isAnswering: open.isAnswering,
    }),
  };
  registerRoutes(app, served, common);
  replays.send = createReplay(context, common);
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
      for (const task of tasks) task.start();
      return (address = addressOf(bound.listener, deps.tls === null ? 'http' : 'https'));
    },
    setTls(tls) {
      const server = bound.listener?.server;
      if (server !== undefined && 'setSecureContext' in server) server.setSecureContext(tlsOptions(tls));
    },
    async close({ drainMs = config.timeouts.drainMs } = {}) {
      const stopped = Promise.all(tasks.map((task) => task.stop()));
      await drain.run(app, bound.listener, drainMs);
      await stopped;
    },
  };
}

/**
 * Ids from random bytes that are drawn a page at a time: a draw costs several times as much as the rest of an
 * id. Each byte is given once.
 */
function randomHexPool(): (bytes: number) => string {
  const pool = Buffer.alloc(4096);
  let next = pool.length;
  return (bytes) => {
    if (bytes > pool.length) return randomBytes(bytes).toString('hex');
    if (next + bytes > pool.length) {
      randomFillSync(pool);
      next = 0;
    }
    next += bytes;
    return pool.toString('hex', next - bytes, next);
  };
}

/**
 * On loopback without keys every caller is the user of this machine, so no share is kept free for another.
 */
function isShared({ auth, host }: ServerConfig): boolean {
  return auth.keys.length > 0 || !isLoopback(host);
}

/** Keys, limits and permits: the callers that are admitted, and the most each may hold. */
function createAdmission(
  { config, now }: Call['deps'],
  shared: boolean,
): Pick<HookContext, 'auth' | 'limiter' | 'permits' | 'bodies'> {
  const { limits } = config;
  return {
    auth: createAuth(config, randomBytes(32)),
    limiter: createLimiter(now),
    permits: {
      work: createPermits({
        inAll: limits.maxConcurrentRequests,
        perCaller: shared ? shareOf(limits.maxConcurrentRequests) : 0,
        full: serverFull,
      }),
      attestations: createPermits({
        inAll: limits.maxConcurrentAttestations,
        perCaller: limits.maxConcurrentAttestationsPerPeer,
        full: attestationsFull,
      }),
      sealed: createPermits({
        inAll: limits.maxSealedOpening,
        perCaller: limits.maxSealedOpeningPerPeer,
        full: serverFull,
      }),
    },
    bodies: createBodyBudget(limits.maxBodyBytesInFlight, limits.maxBodyBytes),
  };
}

interface Bound {
  listener: Listener | undefined;
  handler: RequestListener | undefined;
}

/** Fastify with all our parts except the routes. The listener exists once fastify has asked for it. */
function createApp(
  deps: Call['deps'],
  context: HookContext,
  metrics: ServerMetrics,
): { readonly app: FastifyInstance; readonly bound: Bound } {
  const { config, log } = deps;
  const { open, drain } = context;
  const bound: Bound = { listener: undefined, handler: undefined };
  const answerError = (
    request: FastifyRequest,
    reply: Parameters<typeof sendError>[2],
    error: unknown,
  ): ReturnType<typeof sendError> => sendError({ log, open, drain }, request, reply, error);
  const app = fastify({
    serverFactory(handler) {
      bound.handler = handler;
      bound.listener = createListener(deps, handler, {
        onResumption: () => metrics.resumptionsRefused.add([]),
        onBroken: () => metrics.brokenRequests.add([]),
        isAnswering: open.isAnswering,
      });
      return bound.listener.server;
    },
    // No logger: fastify's lines print URLs and errors. Ours is written when a request ends (http/hooks).
    logger: false,
    bodyLimit: config.limits.maxBodyBytes,
    routerOptions: { maxParamLength: 1024 },
    frameworkErrors(error, request, reply) {
      // These run before any hook.
      begin(context, request, reply);
      void answerError(request, reply, error);
    },
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
      if (request.routeOptions.config.assay?.form !== undefined) throw notAForm();
      done(null, parseBody(request, typeof bytes === 'string' ? Buffer.from(bytes) : bytes));
    } catch (error) {
      done(toApiError(error));
    }
  });
  // A form is read by its route, as it comes; small fields before it.
  app.addContentTypeParser(
    ['multipart/form-data', 'application/x-www-form-urlencoded'],
    (request, payload, done) => {
      const { form, fields, body } = request.routeOptions.config.assay ?? {};
      const type = request.headers['content-type'] ?? '';
      if (fields !== undefined && body !== undefined)
        // Left open by a refusal, so that its answer arrives.
        void fields(type, payload.iterator({ destroyOnReturn: false }), body.schema)
          .then((read) => [null, read] as const)
          .catch((error: unknown) => [toApiError(error), undefined] as const)
          .then((read) => dropRest(payload).then(() => read))
          // oxlint-disable-next-line promise/no-callback-in-promise -- fastify takes one or the other form
          .then(([error, read]) => done(error, read));
      else if (form === undefined || !/^multipart/i.test(type)) done(unsupportedMediaType());
      else done(null, payload);
    },
  );
  app.addContentTypeParser([REQUEST_TYPE, ANY_TYPE], (request, payload, done) => {
    if (request.routeOptions.config.assay?.sealed === true) done(null, payload);
    else done(unsupportedMediaType());
  });
  app.decorateRequest('exchange');
  app.addHook('onRequest', (request, reply, next) => onRequest(context, request, reply, next));
  app.addHook('preParsing', ({ exchange, headers, routeOptions }, _reply, body, next) => {
    const { form, sealed } = routeOptions.config.assay ?? {};
    // A form is bounded by what reads it, and is no JSON to scan; a sealed request where it is opened.
    const unscanned = form !== undefined || sealed === true || FORM.test(headers['content-type'] ?? '');
    next(
      null,
      unscanned
        ? body
        : scannedAsItComes(exchange, body, headers['content-length'], config.limits.maxBodyBytes),
    );
  });
  app.setErrorHandler((error, request, reply) => answerError(request, reply, error));
  app.setNotFoundHandler((request, reply) => answerError(request, reply, unknownUrl()));
  return { app, bound };
}

/**
 * JSON in UTF-8. Clients send the header out of habit; whether the route needs a body is
 * for http/routing to say.
 */
function parseBody({ exchange, headers }: FastifyRequest, bytes: Buffer): unknown {
  const charset = /charset\s*=\s*"?([^";\s]+)/i.exec(headers['content-type'] ?? '')?.[1];
  if (charset !== undefined && !/^utf-?8$/i.test(charset)) throw unsupportedMediaType();
  exchange.bodyBytes = bytes.length;
  exchange.receipt?.received(bytes);
  return bytes.length === 0 ? undefined : readBody(exchange, bytes);
}

function addressOf(
  listener: Listener | undefined,
  scheme: 'http' | 'https',
): NonNullable<HttpServer['address']> {
  const bound = listener?.server.address();
  if (bound === undefined || bound === null || typeof bound === 'string')
    throw new TypeError('the server listens on no TCP port');
  const host = bound.family === 'IPv6' ? `[${bound.address}]` : bound.address;
  return { host: bound.address, port: bound.port, url: `${scheme}://${host}:${bound.port}` };
}
