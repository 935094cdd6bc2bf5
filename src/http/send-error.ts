// Answers a request with an error, for any thrown value: the envelope, its headers, and whether the
// connection goes on after it.

import type { FastifyReply, FastifyRequest } from 'fastify';
import type { ApiError } from '../base/errors.ts';
import { framesOf, type Log } from '../base/log.ts';
import { hasUnreadBody } from './admission/bodies.ts';
import { STALE } from './connection-pins.ts';
import { errorBodyFor } from './dialect.ts';
import { errorHeaders, notAForm, notSealed, problemOf, toApiError } from './errors.ts';
import { clientClosed, endOfExchange, type Exchange } from './exchange.ts';
import { CONNECTION_ENDING, PIPELINED, type OpenRequests } from './open-requests.ts';
import { receiptHeaders } from './receipt-requests.ts';
import { processingMs } from './routing.ts';

export interface ErrorContext {
  readonly log: Pick<Log, 'error'>;
  readonly open: Pick<OpenRequests<Exchange>, 'endsConnection'>;
  readonly drain: { readonly on: boolean };
}

/**
 * Refusals, by code or status, that end the connection: its evidence is stale, or its further
 * bytes are not worth reading.
 */
const ENDS_CONNECTION: ReadonlySet<string | number> = new Set([
  STALE,
  PIPELINED,
  CONNECTION_ENDING,
  413,
  415,
  417,
]);

export function sendError(
  { log, open, drain }: ErrorContext,
  request: FastifyRequest,
  reply: FastifyReply,
  thrown: unknown,
): FastifyReply {
  // A truncated body is not a fault of the server.
  const cut = request.raw.destroyed && !request.raw.complete;
  const error = cut ? clientClosed() : asRouted(request, toApiError(thrown));
  // The rest of a refused body is read and dropped. A scanner without a reader would hold the stream still.
  if (!request.raw.complete) request.raw.unpipe().resume();
  const exchange = request.exchange;
  exchange.errorCode = error.code;
  if (error.code === 'internal_error') logCause(log, error);
  if (exchange.admission !== null) reply.headers(exchange.admission.headers());
  reply.headers(errorHeaders(error));
  const last = ENDS_CONNECTION.has(error.code) || ENDS_CONNECTION.has(error.status);
  if (last || drain.on || hasUnreadBody(request.raw)) {
    reply.header('connection', 'close');
    open.endsConnection(request.raw.socket);
  }
  // An unsealed answer must not tell why a sealed request did not open, not even by its time.
  if (request.routeOptions.config.problems === true)
    return reply
      .code(error.status)
      .header('content-type', 'application/problem+json')
      .send(JSON.stringify(problemOf(error)));
  const body = JSON.stringify(errorBodyFor(request, error));
  const { receipt } = exchange;
  if (receipt?.begun === true) {
    receipt.seal({ status: error.status, ...endOfExchange(exchange), body, usage: exchange.usage });
    reply.headers(receiptHeaders(receipt));
  }
  return reply
    .code(error.status)
    .header('openai-processing-ms', processingMs(exchange))
    .header('content-type', 'application/json; charset=utf-8')
    .send(body);
}

/** Fastify refuses a content type without a look at what the route takes: that is what the sender needs. */
function asRouted({ routeOptions }: FastifyRequest, error: ApiError): ApiError {
  const { form, sealed } = routeOptions.config.assay ?? {};
  if (error.code !== 'unsupported_media_type') return error;
  if (sealed === true) return notSealed();
  return form === undefined ? error : notAForm();
}

/** Logs an unexpected error by its stack frames, never its message, which may quote content. */
function logCause(log: Pick<Log, 'error'>, { cause }: ApiError): void {
  if (!(cause instanceof Error)) return;
  log.error({ kind: cause.name, at: framesOf(cause).slice(0, 8) }, 'unexpected error');
}
