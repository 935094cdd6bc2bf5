// GET /health: whether the server is up, how many models are loaded, and whether it can attest.
// Open, so without model names.

import { healthAnswer } from './response-schemas.ts';
import { route, type RouteContext } from '../http/route.ts';

/** The same Retry-After as on requests that a draining server refuses. */
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
          // Bytes hashed while they were staged, or on a measured device. "disk" models
          // have no such protection.
          models_verified: loaded.length > 0 && loaded.every((model) => model.residency !== 'disk'),
          attestation_available: tee?.available ?? false,
        },
      };
    },
  });
}
