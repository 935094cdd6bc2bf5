// Cross-origin requests (WHATWG Fetch §3.3): answered for listed origins alone. Other origins get no CORS
// header at all, and their preflight a 403.

import type { FastifyReply, FastifyRequest } from 'fastify';
import { ApiError } from '../base/errors.ts';
import type { ServerConfig } from './deps.ts';
import { errorBodyFor } from './dialect.ts';

const EXPOSED = [
  'x-request-id',
  'request-id',
  'openai-processing-ms',
  'retry-after',
  'x-should-retry',
  'x-assay-loosened',
  'assay-receipt',
  'assay-receipt-id',
  ...['limit', 'remaining', 'reset'].flatMap((what) => [
    `x-ratelimit-${what}-requests`,
    `x-ratelimit-${what}-tokens`,
  ]),
].join(', ');

function isListed(config: ServerConfig, origin: string): boolean {
  return config.corsOrigins.includes(origin) || config.corsOrigins.includes('*');
}

export function corsHeaders(config: ServerConfig, origin: string): Record<string, string> {
  if (config.corsOrigins.length === 0) return {};
  // The answer depends on the origin in both cases; a cache must not mix them up.
  if (!isListed(config, origin)) return { vary: 'Origin' };
  return { vary: 'Origin', 'access-control-allow-origin': origin, 'access-control-expose-headers': EXPOSED };
}

export function preflight(config: ServerConfig, request: FastifyRequest, reply: FastifyReply): void {
  const origin = request.headers.origin;
  if (origin === undefined || !isListed(config, origin)) {
    const error = new ApiError('origin_not_allowed', 'this origin may not call this server from a browser');
    request.exchange.errorCode = error.code;
    void reply.code(403).send(errorBodyFor(request, error));
    return;
  }
  // SDKs send x-stainless-* headers of their own; every header is allowed, since no header grants anything
  // here.
  const asked = request.headers['access-control-request-headers'];
  void reply
    .code(204)
    .headers({
      'access-control-allow-methods': 'GET, POST, DELETE, OPTIONS',
      'access-control-allow-headers':
        asked === undefined || asked.length > 2048 ? 'authorization, content-type' : asked,
      'access-control-max-age': '600',
    })
    .send();
}
