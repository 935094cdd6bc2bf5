// GET /health: is it up, what is loaded, and whether evidence can be had. Open, and therefore without names of models.

import { healthAnswer } from './response-schemas.ts';
import { route, type RouteContext } from '../http/route.ts';

/** As long as requests that a draining server refuses are told to wait. */
const RETRY_AFTER_SECONDS = '5';

export function health({ startedAt, isDraining }: RouteContext) {
  return route({
    method: 'GET',
    path: '/health',
    access: 'open',
    summary: 'Liveness, loaded models, state of the TEE.',
    tag: 'Operation',
    answer: healthAnswer,
    async handle({ deps, reply }) {
      const models = deps.models.list();
      const loaded = models.filter((model) => model.loaded);
      const tee = deps.attester?.status() ?? null;
      if (isDraining()) reply.code(503).header('retry-after', RETRY_AFTER_SECONDS);
      return {
        status: isDraining() ? 'draining' : 'ok',
        version: deps.version,
        uptime_seconds: Math.floor((deps.now() - startedAt) / 1000),
        loaded_models: loaded.length,
        tee: {
          enabled: tee !== null,
          type: tee?.teeType ?? null,
          // Bytes hashed while they were staged, or on a measured device. "disk" models were not checked in that sense.
          models_verified: loaded.length > 0 && loaded.every((model) => model.residency !== 'disk'),
          attestation_available: tee?.available ?? false,
        },
      };
    },
  });
}
