// POST /v1/lora/load and /unload: LoRA adapters at run time. An adapter is a model of its own,
// with its base as `parent`; its digest is that of base, adapter and scale together. Loading one changes what
// the server attests, as registering a model does. An adapter that llama.cpp then refuses is taken back.

import { ApiError } from '../../base/errors.ts';
import { decimal, object, optional, text } from '../../base/shape.ts';
import { route } from '../../http/route.ts';
import type { Call } from '../../http/route.ts';
import type { RegisteredModel } from '../../models/model.ts';
import type { ModelStatus } from '../../models/seam.ts';
import { keepAlive, modelId } from '../generation/sampling.ts';
import { recordModel, whileWaiting } from '../model-access.ts';
import { loraAnswer, unloadAnswer } from '../response-schemas.ts';
import { JOB_FIELDS, jobProof } from './job-fields.ts';
import { newModelName } from './registry.ts';

const MAX_SCALE = 100;

export const loadLora = route({
  method: 'POST',
  path: '/v1/lora/load',
  access: 'admin',
  limited: true,
  untimed: true,
  summary: 'Load a LoRA adapter of a registered model, as a model of its own.',
  tag: 'Models',
  body: object({
    model: optional(
      text({ min: 1, max: 1024, about: 'Id of the base; may be absent where only one model can be it.' }),
    ),
    lora_name: newModelName,
    lora_path: text({
      min: 1,
      max: 4096,
      about: 'Absolute path on the server, below a model root, of a GGUF adapter or of a PEFT folder.',
    }),
    scale: optional(decimal({ min: 0, max: MAX_SCALE })),
    keep_alive: keepAlive,
    ...JOB_FIELDS,
  }),
  answer: loraAnswer,
  errors: [
    'file_not_found',
    'path_not_allowed',
    'invalid_gguf',
    'adapter_mismatch',
    'invalid_safetensors',
    'invalid_model_config',
    'unsupported_model_format',
    'wrong_model_type',
    'model_not_found',
    'model_already_exists',
    'too_many_adapters',
    'too_many_models',
    'job_record_required',
    'job_record_refused',
    'unsupported_parameter',
    'model_load_failed',
    'engine_overloaded',
  ],
  async handle(call) {
    const { deps, body, exchange } = call;
    const { model: base, lora_name: name, lora_path: path, scale = 1, keep_alive } = body;
    const adding = deps.models.addAdapter({ name, base, path, scale, job: jobProof(body) }, exchange.signal);
    const { model, added } = await adding.catch((error: unknown) => {
      throw asRequested(error);
    });
    recordModel(exchange, model);
    let loaded: ModelStatus | undefined;
    const loading = whileWaiting(call, model.parent ?? model.id, () =>
      deps.models.load(name, exchange.signal, {
        keepAlive: keep_alive,
        onLoaded: (status) => (loaded = status),
      }),
    );
    const status = await loading.catch(async (error: unknown) => {
      if (added) await takeBack(call, model, error);
      throw error;
    });
    return {
      status,
      model: name,
      parent: model.parent ?? '',
      sha256: model.sha256,
      loaded_at: loaded?.loadedAt === undefined ? null : Math.floor(loaded.loadedAt / 1000),
    };
  },
});

/** Codes that speak of the file or folder. */
const OF_THE_PATH: ReadonlySet<string> = new Set([
  'file_not_found',
  'path_not_allowed',
  'invalid_gguf',
  'adapter_mismatch',
  'invalid_safetensors',
  'invalid_model_config',
  'unsupported_model_format',
]);

/** Errors of the models name fields as a registration does. */
function asRequested(error: unknown): unknown {
  if (!(error instanceof ApiError)) return error;
  const param = error.param === 'name' ? 'lora_name' : 'lora_path';
  if (error.param !== 'name' && !OF_THE_PATH.has(error.code)) return error;
  return new ApiError(error.code, error.message, { param, cause: error });
}

/** An adapter its base cannot be loaded with must not stay in the way of the base. */
async function takeBack({ deps }: Pick<Call, 'deps'>, model: RegisteredModel, error: unknown): Promise<void> {
  const broken =
    error instanceof ApiError && (error.code === 'model_load_failed' || error.code === 'engine_crashed');
  if (broken && deps.models.get(model.id)?.sha256 === model.sha256) await deps.models.removeAdapter(model.id);
}

export const unloadLora = route({
  method: 'POST',
  path: '/v1/lora/unload',
  access: 'admin',
  limited: true,
  untimed: true,
  summary: 'Take a LoRA adapter back once its requests in flight are done.',
  tag: 'Models',
  body: object({ lora_name: modelId }),
  answer: unloadAnswer,
  errors: ['model_not_found', 'wrong_model_type'],
  async handle({ deps, body, exchange }) {
    const id = body.lora_name;
    recordModel(exchange, deps.models.get(id));
    await deps.models.removeAdapter(id).catch((error: unknown) => {
      if (!(error instanceof ApiError) || error.param !== 'model') throw error;
      throw new ApiError(error.code, error.message, { param: 'lora_name', cause: error });
    });
    return { status: 'unloaded', model: id };
  },
});
