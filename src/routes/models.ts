// /v1/models: what is registered, and the admin routes that change it. Ids may contain ':' and '/', encoded or not; `pull`,
// `load`, `unload` and `status` are reserved.

import type { ModelStatus } from '../models/lifecycle.ts';
import { route } from '../http/route.ts';
import { modelNotFound } from './lease.ts';

/** A model as the OpenAI API lists it, and what a relying party wants to know besides. */
export function wireModel(model: ModelStatus): object {
  return {
    id: model.id,
    object: 'model',
    created: model.created,
    owned_by: 'local',
    type: model.type,
    format: model.format,
    sha256: model.sha256,
    kind: model.kind,
    size_bytes: model.sizeBytes,
    context_length: model.contextLength,
    residency: model.residency,
    loaded: model.loaded,
    ...(model.loading !== undefined && { loading: { progress: model.loading.fraction } }),
    ...(model.details !== undefined && {
      details: {
        architecture: model.details.architecture,
        parameters: model.details.parameters,
        quantization: model.details.quantization,
        has_chat_template: model.details.hasChatTemplate,
        tokenizer: model.details.tokenizer,
      },
    }),
  };
}

export const listModels = route({
  method: 'GET',
  path: '/v1/models',
  access: 'key',
  limited: true,
  summary: 'List the registered models this key may use.',
  tag: 'Models',
  async handle({ deps, exchange }) {
    const allowed = exchange.principal?.models ?? null;
    return {
      object: 'list',
      data: deps.models
        .list()
        .filter((model) => allowed === null || allowed.has(model.id))
        .map(wireModel),
    };
  },
});

export const getModel = route({
  method: 'GET',
  path: '/v1/models/:id',
  access: 'key',
  limited: true,
  summary: 'One model.',
  tag: 'Models',
  errors: ['model_not_found'],
  async handle({ deps, exchange, params }) {
    const id = params['id'] ?? '';
    const allowed = exchange.principal?.models ?? null;
    const model = allowed === null || allowed.has(id) ? deps.models.get(id) : undefined;
    if (model === undefined) throw modelNotFound();
    return wireModel(model);
  },
});
