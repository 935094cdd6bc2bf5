// From routes to fastify and back: every path with its methods, 405 with Allow for the others (RFC 9110
// §15.5.6), and one request through its route's shapes and handler.

import { Readable } from 'node:stream';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { ApiError } from '../base/errors.ts';
import { isRecord } from '../base/shape.ts';
import { bodyTooLarge, notAForm, notSealed, unknownUrl } from './errors.ts';
import type { Exchange } from './exchange.ts';
import { receiptHeaders } from './receipt-requests.ts';
import type { Call, Route } from './route.ts';
import { sealedConnectionOf } from './sealed-connections.ts';

declare module 'fastify' {
  interface FastifyContextConfig {
    assay?: Route | undefined;
    /** The methods of a path, kept on its routes for the 405 of all others. */
    allow?: string | undefined;
    /** Errors of the path are problems (RFC 9457). */
    problems?: boolean | undefined;
  }
}

/** Shared by all calls, beside the request. */
export type Shared = Pick<Call, 'deps' | 'connectionPins' | 'modelPermits' | 'watchEngine' | 'sealedHost'>;

/** Methods that clients send; HEAD is declared by fastify with every GET. All others: `allowedMethods`. */
const METHODS = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'] as const;

/** The paths that are served, aliases too, each with its own methods. */
function methodsByPath(routes: readonly Route[]): ReadonlyMap<string, readonly string[]> {
  const served = new Map<string, string[]>();
  for (const { path, aliases = [], method } of routes)
    for (const url of [path, ...aliases]) served.set(url, [...(served.get(url) ?? []), method]);
  return served;
}

function allowOf(methods: readonly string[]): string {
  return methods.flatMap((method) => (method === 'GET' ? ['GET', 'HEAD'] : [method])).join(', ');
}

/**
 * The Allow of a path for methods that are not declared (TRACE, PROPFIND …); undefined: the
 * path is not served at all.
 */
export function allowedMethods(routes: readonly Route[]): (url: string) => string | undefined {
  const isPattern = (path: string): number => Number(/[:*]/.test(path));
  const served = [...methodsByPath(routes)]
    .toSorted(([one], [other]) => isPattern(one) - isPattern(other))
    .map(([path, methods]) => ({
      matches: new RegExp(
        `^${path.replaceAll('.', '\\.').replaceAll(/:\w+/g, '[^/]+').replaceAll('*', '.+')}$`,
      ),
      allow: allowOf(methods),
    }));
  return (url) => {
    const path = url.replace(/\?.*$/, '');
    return served.find(({ matches }) => matches.test(path))?.allow;
  };
}

export function registerRoutes(app: FastifyInstance, routes: readonly Route[], shared: Shared): void {
  for (const route of routes) {
    for (const url of [route.path, ...(route.aliases ?? [])]) {
      app.route({
        method: route.method,
        url,
        config: { assay: route, problems: route.sealed },
        handler: (request, reply) => answer(route, shared, request, reply),
      });
    }
  }
  for (const [url, own] of methodsByPath(routes)) {
    // Refused by the onRequest hook, before a body is looked at.
    app.route({
      method: METHODS.filter((method) => !own.includes(method)),
      url,
      config: { allow: allowOf(own), problems: routes.some(({ path, sealed }) => path === url && sealed) },
      handler: refuseUnknown,
    });
  }
  // CORS preflights of any path reach the hook.
  app.options('/*', refuseUnknown);
}

async function refuseUnknown(): Promise<never> {
  throw unknownUrl();
}

async function answer(
  route: Route,
  shared: Shared,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<unknown> {
  const exchange = request.exchange;
  // The client may have left while its body was read.
  exchange.throwIfOver();
  if (route.body !== undefined && request.body === undefined)
    throw new ApiError('invalid_json', 'the request body is empty, expected a JSON object');
  if (route.form !== undefined && !isStream(request.body)) throw notAForm();
  if (route.sealed === true && !isStream(request.body)) throw notSealed();
  const upload = isStream(request.body) ? request.body : null;
  const body = route.body?.read(request.body, '');
  // Ignored fields are not kept while the answer is made.
  request.body = undefined;
  const query = route.query?.read(request.query, '');
  sealedConnectionOf(request.raw.socket)?.begun();
  const result = await route.handle({
    ...shared,
    exchange,
    body,
    query,
    upload: boundedUpload(upload, exchange, route.form?.maxBytes(shared.deps.config)),
    params: paramsOf(request.params),
    request,
    reply,
  });
  // A stream that a client left before its last read has its head sent, and is not over for Fastify.
  if (reply.sent || reply.raw.headersSent) return reply;
  reply.header('openai-processing-ms', processingMs(exchange));
  exchange.settle();
  if (exchange.admission !== null) reply.headers(exchange.admission.headers());
  if (route.status !== undefined) reply.code(route.status);
  return reply.send(receipted(exchange, reply, result));
}

/** The answer as it is sent, its receipt in the headers. */
function receipted(exchange: Exchange, reply: FastifyReply, result: unknown): unknown {
  const { receipt } = exchange;
  if (receipt?.begun !== true) return result;
  const body = typeof result === 'string' ? result : JSON.stringify(result);
  if (typeof result !== 'string') reply.type('application/json; charset=utf-8');
  receipt.seal({ status: reply.statusCode, end: 'complete', body, usage: exchange.usage });
  reply.headers(receiptHeaders(receipt));
  return body;
}

function isStream(value: unknown): value is Readable {
  return value instanceof Readable;
}

function boundedUpload(
  upload: Readable | null,
  exchange: Exchange,
  maxBytes: number | undefined,
): AsyncIterable<Buffer> | null {
  // A sealed request counts where it is opened.
  return upload === null || maxBytes === undefined ? upload : bounded(upload, exchange, maxBytes);
}

/** The bytes of a form, counted: a chunked body does not announce its length. */
async function* bounded(body: Readable, exchange: Exchange, maxBytes: number): AsyncGenerator<Buffer, void> {
  // Left open by a refusal: the client is to read it, so the rest of the body is read and dropped.
  const pieces = body.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>;
  for await (const piece of pieces) {
    exchange.throwIfOver();
    exchange.bodyBytes += piece.length;
    exchange.receipt?.received(piece);
    if (exchange.bodyBytes > maxBytes) throw bodyTooLarge();
    yield piece;
  }
}

const NO_PARAMS: Readonly<Record<string, string>> = Object.freeze({});

function paramsOf(params: unknown): Readonly<Record<string, string>> {
  if (!isRecord(params)) return NO_PARAMS;
  let texts: Record<string, string> | undefined;
  for (const [name, value] of Object.entries(params))
    if (typeof value === 'string') (texts ??= {})[name] = value;
  return texts ?? NO_PARAMS;
}

export function processingMs(exchange: Exchange): string {
  return String(Math.round(performance.now() - exchange.startedAt));
}
