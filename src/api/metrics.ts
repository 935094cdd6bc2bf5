// GET /metrics (also /v1/metrics): Prometheus text. A 404 unless it is switched on. Where keys
// are configured it needs an admin key: the token counters of a model, polled often, tell how
// long the requests of others are.

import { ApiError } from '../base/errors.ts';
import { isLoopback } from '../http/address.ts';
import { route, type RouteContext } from '../http/route.ts';

export function metricsRoute({ config, metrics }: RouteContext) {
  return route({
    method: 'GET',
    path: '/metrics',
    aliases: ['/v1/metrics'],
    access: config.metrics === 'on' ? 'operator' : 'open',
    summary: 'Numbers for Prometheus, when they are switched on.',
    tag: 'Operation',
    text: true,
    async handle({ request, reply }) {
      const loopback = isLoopback(request.raw.socket.remoteAddress ?? '');
      if (config.metrics === 'off' || (config.metrics === 'loopback' && !loopback))
        throw new ApiError('unknown_url', 'there is no such route');
      return reply.type('text/plain; version=0.0.4; charset=utf-8').send(metrics.text());
    },
  });
}
