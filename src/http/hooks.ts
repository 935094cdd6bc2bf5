// Every request before its handler and after its answer, one function for each concern, in this order: begin,
// refuse what no route can answer, authenticate, admit, boundBody, deadline; and finish, once, when the
// response is over. The log line of a request is picked field by field: no URL, header, body or address.

import type { ServerResponse } from 'node:http';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { toHex } from '@assay/attestation';
import { ApiError, shuttingDown } from '../base/errors.ts';
import { peerOf } from './address.ts';
import type { Auth, Caller, Principal } from './admission/auth.ts';
import { type BodyBudget, hasBody } from './admission/bodies.ts';
import type { Limiter } from './admission/limits.ts';
import type { Permits } from './admission/permits.ts';
import { corsHeaders, preflight } from './cors.ts';
import type { ServerDeps } from './deps.ts';
import { credentialsOf, isOfAnthropic } from './dialect.ts';
import { bodyTooLarge, toApiError, unknownUrl } from './errors.ts';
import { clientClosed, type Exchange, openExchange, timedOut } from './exchange.ts';
import { freshRequestId, unmetExpectation } from './listener.ts';
import type { ServerMetrics } from './metrics/server.ts';
import type { OpenRequests } from './open-requests.ts';
import { openAnswerReceipt } from './receipt-requests.ts';
import type { ConnectionPins } from './connection-pins.ts';
import type { Route } from './route.ts';
import { sealedConnectionOf, sealedPeer } from './sealed-connections.ts';

export interface HookContext {
  readonly deps: Pick<ServerDeps, 'config' | 'log' | 'onRequest' | 'receipts'>;
  readonly connectionPins: Pick<ConnectionPins, 'evidenceOf'>;
  readonly auth: Auth;
  readonly limiter: Limiter;
  /** Places of requests, and those of attestations. */
  readonly permits: { readonly work: Permits; readonly attestations: Permits; readonly sealed: Permits };
  readonly bodies: BodyBudget;
  readonly open: OpenRequests<Exchange>;
  readonly drain: { readonly on: boolean };
  /** The methods of a served path. */
  readonly allowed: (url: string) => string | undefined;
  readonly metrics: Pick<ServerMetrics, 'authFailures' | 'requestEnded'>;
}

/**
 * The hook of every request. Answers a preflight itself; every other request goes on, or fails with an
 * ApiError.
 */
export function onRequest(
  context: HookContext,
  request: FastifyRequest,
  reply: FastifyReply,
  next: (error?: Error) => void,
): void {
  begin(context, request, reply);
  // A socket that is not read does not report its close.
  if (!hasBody(request.raw)) request.raw.resume();
  try {
    const { config } = context.deps;
    const { origin } = request.headers;
    if (origin !== undefined) reply.headers(corsHeaders(config, origin));
    const route = request.routeOptions.config.assay;
    refuseOnConnection(context, request, route);
    if (request.method === 'OPTIONS' && request.headers['access-control-request-method'] !== undefined) {
      request.raw.resume();
      preflight(config, request, reply);
      return;
    }
    refuseHead(request);
    const early = enterSealed(context, request, reply, route);
    refuseUnrouted(context, request, reply);
    if (route === undefined) return next();
    const principal = early ?? authenticate(context, request, route);
    refuseEncoded(request);
    admit(context, { request, reply, route, principal });
    boundBody(context, request, route, principal);
    deadline(context, request, route);
    const { receipts = null } = context.deps;
    const { connectionPins } = context;
    request.exchange.receipt = openAnswerReceipt({ receipts, connectionPins }, request, route);
    next();
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) context.metrics.authFailures.add([]);
    next(toApiError(error));
  }
}

/** Every request begins here, also one that fastify refuses before any hook. */
export function begin(context: HookContext, request: FastifyRequest, reply: FastifyReply): void {
  const id = request.headers['x-request-id'];
  const exchange = openExchange({
    given: typeof id === 'string' ? id : undefined,
    freshId: freshRequestId,
    startedAt: performance.now(),
  });
  exchange.route = request.routeOptions.config.assay?.path ?? '(none)';
  request.exchange = exchange;
  // Responses must not be cached.
  reply.headers({
    'x-request-id': exchange.id,
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
  });
  if (isOfAnthropic(request)) reply.header('request-id', exchange.id);
  context.open.begin({ request: request.raw, response: reply.raw, exchange }, (complete) =>
    finish(context, { request, response: reply.raw, exchange, complete }),
  );
}

/** Refuses a request that its connection has no room for; its record still names the caller. */
function refuseOnConnection(context: HookContext, request: FastifyRequest, route: Route | undefined): void {
  const refusal = context.open.refusal(request.raw.socket);
  if (refusal === undefined) return;
  if (route !== undefined) identify(context, request, route);
  throw refusal;
}

/** Requests no route can answer: RFC 9112 §3.2, RFC 9110 §10.1.1. */
function refuseHead(request: FastifyRequest): void {
  const hosts = request.raw.rawHeaders.filter((text, i) => i % 2 === 0 && text.toLowerCase() === 'host');
  if (hosts.length === 0 && request.raw.httpVersion === '1.1')
    throw new ApiError('invalid_request', 'the Host header is missing');
  if (hosts.length > 1) throw new ApiError('invalid_request', 'there is more than one Host header');
  if (unmetExpectation(request.headers))
    throw new ApiError('expectation_failed', 'the only expectation met is 100-continue');
}

function refuseUnrouted(context: HookContext, request: FastifyRequest, reply: FastifyReply): void {
  const { assay: route, allow = context.allowed(request.url) } = request.routeOptions.config;
  if (route !== undefined) {
    if (context.drain.on && route.path !== '/health') throw shuttingDown();
    return;
  }
  if (allow === undefined) throw unknownUrl();
  reply.header('allow', allow);
  throw new ApiError(
    'method_not_allowed',
    request.method === 'OPTIONS'
      ? `OPTIONS is only answered as a CORS preflight; this route is for ${allow}`
      : `this route is for ${allow}`,
  );
}

/** Identifies the caller before checking its rights, so that the record also names a refused key. */
function identify({ auth }: HookContext, request: FastifyRequest, route: Route): Caller {
  const credentials = credentialsOf(request);
  const sealed = sealedConnectionOf(request.raw.socket) !== undefined;
  const caller = auth.identify(credentials, sealed ? sealedPeer(credentials) : request.ip, route.access);
  if (caller.known) request.exchange.principal = caller.principal;
  return caller;
}

function authenticate(context: HookContext, request: FastifyRequest, route: Route): Principal {
  const caller = identify(context, request, route);
  context.auth.authorise(caller, route.access);
  request.exchange.principal = caller.principal;
  return caller.principal;
}

/**
 * A sealed request: refused by its envelope, else named and entered in the set of those that run once, before
 * anything else of the server speaks: limits, a drain, models (docs/sealed.md §5).
 */
function enterSealed(
  context: HookContext,
  request: FastifyRequest,
  reply: FastifyReply,
  route: Route | undefined,
): Principal | undefined {
  const sealed = sealedConnectionOf(request.raw.socket);
  if (sealed === undefined) return undefined;
  if (sealed.refusal !== null) {
    reply.headers(sealed.refusal.headers);
    throw sealed.refusal.error;
  }
  if (route === undefined) return undefined;
  if (route.sealed === true || route.unsealedOnly === true)
    throw new ApiError(
      'invalid_request',
      'this route is about the connection itself, and takes no sealed request',
    );
  const caller = identify(context, request, route);
  context.auth.authorise(caller, route.access);
  // It may have come through a proxy on loopback: what loopback alone may do, it may not.
  if (route.access === 'admin' && !caller.known)
    throw new ApiError('admin_key_required', 'this route takes an admin key', { status: 401 });
  request.exchange.principal = caller.principal;
  sealed.enter(caller.principal.bucket);
  return caller.principal;
}

function refuseEncoded({ headers }: FastifyRequest): void {
  const encoding = headers['content-encoding'];
  if (encoding !== undefined && encoding !== 'identity')
    throw new ApiError(
      'unsupported_content_encoding',
      'the request body is compressed, expected it as it is',
    );
}

const FORM_BYTES = 256 * 1024;
const SEALED_BYTES = 16 * 1024;

interface Arrival {
  readonly request: FastifyRequest;
  readonly reply: FastifyReply;
  readonly route: Route;
  readonly principal: Principal;
}

/** Takes one of the places of all requests at once, and one of the caller's. */
function admit({ permits, limiter }: HookContext, { request, reply, route, principal }: Arrival): void {
  const { exchange } = request;
  if (route.sealed === true) exchange.leave = permits.sealed.enter(peerOf(request.ip));
  if (route.limited !== true) return;
  exchange.leave =
    route.apart === true
      ? permits.attestations.enter(peerOf(request.ip))
      : permits.work.enter(principal.bucket);
  try {
    exchange.admission = limiter.admit(principal);
  } catch (error) {
    reply.headers(limiter.headers(principal));
    throw error;
  }
}

/** Counts the body before reading it; refuses a body that is too long by its length. */
function boundBody(
  { deps, bodies }: HookContext,
  request: FastifyRequest,
  route: Route,
  principal: Principal,
): void {
  // Without a body, too: an answer may bring what was stored.
  request.exchange.held = bodies.open(principal.bucket);
  if (!hasBody(request.raw)) return;
  const announced = Number(request.headers['content-length'] ?? 0);
  if (route.sealed === true) {
    // Until its head is opened; the request inside counts for its own caller.
    request.exchange.held.add(SEALED_BYTES);
    return;
  }
  if (route.form !== undefined) {
    if (announced > route.form.maxBytes(deps.config)) throw bodyTooLarge();
    // A form is read as it comes; it holds its fields, a piece of its file and one in the making.
    request.exchange.held.add(FORM_BYTES);
    return;
  }
  if (announced <= deps.config.limits.maxBodyBytes) request.exchange.held.add(announced);
}

/**
 * Aborts the request at its deadline; a client that does not read the error is cut off after
 * the stall time of streams.
 */
function deadline({ deps }: HookContext, { exchange, raw }: FastifyRequest, route: Route): void {
  const { requestMs, stallMs = 60_000 } = deps.config.timeouts;
  if (requestMs === 0 || route.untimed === true) return;
  exchange.timer = setTimeout(() => {
    exchange.abort(timedOut);
    exchange.timer = setTimeout(() => raw.socket.destroy(), stallMs).unref();
  }, requestMs).unref();
}

interface Ended {
  readonly request: FastifyRequest;
  readonly response: ServerResponse;
  readonly exchange: Exchange;
  readonly complete: boolean;
}

/**
 * The only place where a request ends, once: after the last byte, or when the client or the connection is
 * gone.
 */
function finish({ deps, metrics }: HookContext, { request, response, exchange, complete }: Ended): void {
  exchange.abort(clientClosed);
  if (!complete) exchange.errorCode ??= 'client_closed_request';
  const status = response.headersSent ? response.statusCode : 499;
  const admitted = request.routeOptions.config.assay?.access !== 'open';
  recordEnd({ deps, metrics }, { exchange, method: request.method, status, admitted, complete });
}

interface Over {
  readonly exchange: Exchange;
  readonly method: string;
  readonly status: number;
  /** Its route takes a key. */
  readonly admitted: boolean;
  readonly complete: boolean;
}

/** An answer that has not come to its end was broken off. Its failure must not end the server. */
function sealBroken({ log }: HookContext['deps'], { receipt, usage }: Exchange, status: number): void {
  if (receipt?.begun !== true) return;
  try {
    receipt.seal({ status: Math.max(200, status), end: 'aborted', usage });
  } catch {
    log.error('no receipt could be made of an answer that was broken off');
  }
}

/** Gives back everything the exchange holds, and tells log, metrics and audit that it is over. */
export function recordEnd(
  { deps, metrics }: Pick<HookContext, 'deps' | 'metrics'>,
  { exchange, method, status, admitted, complete }: Over,
): void {
  exchange.release();
  const { receipt } = exchange;
  sealBroken(deps, exchange, status);
  const milliseconds = performance.now() - exchange.startedAt;
  const { promptTokens, completionTokens } = exchange.usage;
  metrics.requestEnded({ exchange, method, status, milliseconds, complete });
  deps.log.info(
    {
      requestId: exchange.id,
      method,
      route: exchange.route,
      status,
      ms: Math.round(milliseconds * 10) / 10,
      ...(exchange.errorCode !== null && { code: exchange.errorCode }),
      ...(exchange.usedTokens > 0 && { promptTokens, completionTokens }),
      ...(!complete && { aborted: true }),
      batch: exchange.background ? true : undefined,
    },
    'request',
  );
  deps.onRequest?.({
    requestId: exchange.id,
    key: exchange.principal?.name ?? null,
    admitted: exchange.principal !== null && admitted,
    method,
    route: exchange.route,
    status,
    modelSha256: exchange.modelSha256,
    promptTokens,
    completionTokens,
    evidenceSha256: exchange.evidenceSha256,
    receiptSha256: receipt?.sealed === undefined ? null : toHex(receipt.sealed.digest),
    milliseconds,
    aborted: !complete || (exchange.errorCode !== null && status === 200),
  });
}
