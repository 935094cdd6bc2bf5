// POST /v1/models/load and /unload, GET /v1/models/status.

import { loadAnswer, statusAnswer, unloadAnswer } from '../response-schemas.ts';
import { keepAlive, modelId } from '../generation/sampling.ts';
import { object, optional, refuse } from '../../base/shape.ts';
import type { Infer } from '../../base/shape.ts';
import { route } from '../../http/route.ts';
import type { ModelStatus } from '../../models/seam.ts';
import { recordModel, whileWaiting } from '../model-access.ts';

/** Three servers, three names of one field. */
const named = { name: optional(modelId), model: optional(modelId), path: optional(modelId) };
const loadRequest = object({ ...named, keep_alive: keepAlive });
const unloadRequest = object(named);

function nameOf(body: Infer<typeof unloadRequest>): string {
  const given = body.name ?? body.model ?? body.path;
  if (given === undefined) throw refuse('missing_required_parameter', 'name', 'name is missing');
  return given;
}

export const loadModel = route({
  method: 'POST',
  path: '/v1/models/load',
  access: 'admin',
  limited: true,
  untimed: true,
  summary: 'Load a model now.',
  tag: 'Models',
  body: loadRequest,
  answer: loadAnswer,
  errors: ['model_not_found', 'model_load_failed', 'engine_overloaded'],
  async handle(call) {
    const { deps, body, exchange } = call;
    const id = nameOf(body);
    recordModel(exchange, deps.models.get(id));
    let loaded: ModelStatus | undefined;
    const status = await whileWaiting(call, id, () =>
      deps.models.load(id, exchange.signal, {
        keepAlive: body.keep_alive,
        onLoaded: (model) => (loaded = model),
      }),
    );
    // The status at the time of loading: by now another request may have unloaded the model.
    const model = loaded ?? deps.models.get(id);
    // Replaced while the request waited: the record names the model that was loaded.
    if (model !== undefined) recordModel(exchange, model);
    return {
      status,
      model: id,
      type: model?.type ?? 'chat',
      loaded_at: model?.loadedAt === undefined ? null : Math.floor(model.loadedAt / 1000),
    };
  },
});

export const unloadModel = route({
  method: 'POST',
  path: '/v1/models/unload',
  access: 'admin',
  limited: true,
  untimed: true,
  summary: 'Unload a model once its work in flight is done; all its memory is returned.',
  tag: 'Models',
  body: unloadRequest,
  answer: unloadAnswer,
  errors: ['model_not_found', 'model_not_loaded'],
  async handle({ deps, body, exchange }) {
    const id = nameOf(body);
    recordModel(exchange, deps.models.get(id));
    await deps.models.unload(id);
    return { status: 'unloaded', model: id };
  },
});

export const modelStatus = route({
  method: 'GET',
  path: '/v1/models/status',
  access: 'key',
  limited: true,
  summary: 'The loaded models, and those being loaded.',
  tag: 'Models',
  answer: statusAnswer,
  async handle({ deps, exchange }) {
    const allowed = exchange.principal?.models ?? null;
    const models = deps.models.list().filter((model) => allowed === null || allowed.has(model.id));
    const loaded = models.filter((model) => model.loaded);
    return {
      loaded_count: loaded.length,
      models: loaded.map((model) => ({
        name: model.id,
        type: model.type,
        loaded_at: Math.floor((model.loadedAt ?? 0) / 1000),
        uptime_seconds: Math.max(0, Math.floor((deps.now() - (model.loadedAt ?? deps.now())) / 1000)),
        // GGUF files carry their own tokenizer.
        has_tokenizer: true,
        in_flight: model.inFlight,
        expires_at:
          model.expiresAt === undefined || model.expiresAt === null
            ? null
            : Math.floor(model.expiresAt / 1000),
      })),
      loading: models.flatMap((model) =>
        model.loading === undefined ? [] : [{ name: model.id, progress: model.loading.fraction }],
      ),
    };
  },
});
