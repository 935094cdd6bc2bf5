// /v1/models: what is registered, and the admin routes that change it. Ids may contain ':' and '/', encoded
// or not; `pull`, `load`, `unload` and `status` are reserved.

import { ApiError } from '../../base/errors.ts';
import { deletedAnswer, modelAnswer, modelListAnswer } from '../response-schemas.ts';
import {
  choice,
  decimal,
  either,
  integer,
  list,
  map,
  object,
  optional,
  refuse,
  text,
} from '../../base/shape.ts';
import { modelNotFound, unknownUrl } from '../../http/errors.ts';
import { route } from '../../http/route.ts';
import { isOfAnthropic } from '../../http/dialect.ts';
import { recordModel } from '../model-access.ts';
import {
  isAnsweredByMessages,
  messagesModel,
  messagesModelAnswer,
  messagesModelPage,
  messagesModelQuery,
  ofEither,
  pageOfModels,
} from './anthropic.ts';
import { answerPullStatus, cancelPullOf } from './pull.ts';
import { JOB_FIELDS, jobProof } from './job-fields.ts';
import type {
  Derivation,
  JobOrigin,
  KvCacheType,
  ModelDefaults,
  RegisteredBlob,
} from '../../models/model.ts';
import type { ModelStatus } from '../../models/seam.ts';

/** By the words that clients of local servers look for. */
const CAPABILITIES: Readonly<Record<ModelStatus['type'], readonly string[]>> = {
  chat: ['completion', 'chat', 'tools', 'structured_output'],
  completion: ['completion', 'chat', 'tools', 'structured_output'],
  embedding: ['embedding'],
  rerank: ['rerank'],
  transcription: ['transcription'],
};

/** A model as the OpenAI API lists it, with the fields that a relying party needs beyond that. */
function wireModel(model: ModelStatus): object {
  const projector = model.blobs.find(({ role }) => role === 'projector');
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
    capabilities: model.vision === true ? [...CAPABILITIES[model.type], 'vision'] : CAPABILITIES[model.type],
    residency: model.residency,
    kv_type: model.kvType,
    parent: model.parent,
    derived: model.derived === undefined ? undefined : wireDerivation(model.derived),
    job: model.job === undefined ? undefined : wireJob(model.job),
    projector: projector === undefined ? undefined : wireProjector(projector, model.vision === true),
    loaded: model.loaded,
    ...(model.loading !== undefined && { loading: { progress: model.loading.fraction } }),
    tool_format: toolFormatOf(model.toolFormat),
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

function toolFormatOf(kind: ModelStatus['toolFormat']): object | undefined {
  return kind === undefined ? undefined : { kind, native: kind !== 'generic' };
}

/** It is hashed and attested, whether the server can use it or not. */
function wireProjector({ sha256, size }: RegisteredBlob, used: boolean): object {
  return { sha256, size_bytes: size, used };
}

function wireJob({ id, kind, recordSha256, receiptKey, by }: JobOrigin): object {
  return { id, kind, record_sha256: recordSha256, receipt_key: receiptKey, by };
}

function wireDerivation({ sources, otherTypes, ...made }: Derivation): object {
  return { from: sources.map((source) => source.sha256), ...made, other_types: otherTypes };
}

export const listModels = route({
  method: 'GET',
  path: '/v1/models',
  aliases: ['/models'],
  access: 'key',
  limited: true,
  summary:
    "The registered models this key may use; with `anthropic-version`, in the form of Anthropic's API.",
  tag: 'Models',
  // Read by one of the APIs alone: the other ignores a query.
  query: { ...messagesModelQuery, read: (value) => value },
  answer: ofEither(modelListAnswer, messagesModelPage),
  async handle({ deps, exchange, query, request }) {
    const allowed = exchange.principal?.models ?? null;
    const visible = deps.models.list().filter((model) => allowed === null || allowed.has(model.id));
    if (isOfAnthropic(request)) return pageOfModels(visible, messagesModelQuery.read(query, ''));
    return { object: 'list', data: visible.map(wireModel) };
  },
});

export const getModel = route({
  method: 'GET',
  path: '/v1/models/:id',
  // An id whose slashes are not encoded.
  aliases: ['/v1/models/*', '/models/*'],
  access: 'key',
  limited: true,
  summary: "One model; with `anthropic-version`, in the form of Anthropic's API.",
  tag: 'Models',
  answer: ofEither(modelAnswer, messagesModelAnswer),
  errors: ['model_not_found'],
  async handle({ deps, exchange, params, request }) {
    const rest = params['*'];
    const pull = rest === undefined ? undefined : /^pull\/(.+)\/status$/.exec(rest)?.[1];
    if (pull !== undefined) {
      // This alias is open to every key; its twin is not.
      if (deps.config.auth.keys.length > 0 && exchange.principal?.admin !== true) {
        throw new ApiError('admin_key_required', 'this route takes an admin key');
      }
      return answerPullStatus(deps.models, pull);
    }
    const id = params['id'] ?? rest ?? '';
    // `/v1/models/` asks for the list, with a slash too many.
    if (id === '') throw unknownUrl();
    const allowed = exchange.principal?.models ?? null;
    const model = allowed === null || allowed.has(id) ? deps.models.get(id) : undefined;
    if (model === undefined) throw modelNotFound();
    if (!isOfAnthropic(request)) return wireModel(model);
    if (!isAnsweredByMessages(model)) throw modelNotFound();
    return messagesModel(model);
  },
});

const FORMATS = ['gguf', 'whisper', 'safetensors', 'huggingface', 'vision'] as const;
const RESERVED = new Set(['pull', 'load', 'unload', 'status']);

const format = choice(
  FORMATS,
  'gguf is what is assumed, or whisper where the file is such a model. safetensors and huggingface mean the same: the folder of a model as a hub has it, of which a GGUF file is made. vision: the folder of a model that sees, refused where the server cannot use it: a GGUF file and its projector, or as a hub has it, of which both are made (Idefics3ForConditionalGeneration, SmolVLMForConditionalGeneration).',
);

export const newModelName = map(
  text({
    min: 1,
    max: 256,
    pattern: /^[A-Za-z0-9][A-Za-z0-9._:@/+-]*$/,
    form: 'a name of letters, digits and . _ : @ / + - that begins with a letter or digit',
  }),
  (value, path) => {
    if (RESERVED.has(value) || value.startsWith('pull/'))
      throw refuse('invalid_value', path, `${path} is a reserved word`);
    return value;
  },
);

interface Given {
  readonly defaults: ModelDefaults;
  readonly kvType: KvCacheType | undefined;
  readonly isq: string | undefined;
}

const defaultParameters = map(
  object({
    temperature: optional(decimal({ min: 0, max: 2 })),
    top_p: optional(decimal({ min: 0, max: 1 })),
    top_k: optional(integer({ min: 0, max: 1_000_000 })),
    min_p: optional(decimal({ min: 0, max: 1 })),
    repeat_penalty: optional(decimal({ min: 0.01, max: 10 })),
    max_tokens: optional(integer({ min: 1, max: 16_777_216 })),
    dimensions: optional(integer({ min: 1, max: 65_536 })),
    kv_type: optional(
      choice(['f16', 'q8_0'], 'How keys and values are kept; q8_0 takes half the memory and rounds them.'),
    ),
    isq: optional(
      text({
        max: 32,
        about:
          'The type a folder is quantised to when it is registered: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K … Q6K, or as llama.cpp names it (Q4_K_M). Of a model that sees, the text model alone: its projector keeps BF16 or F16.',
      }),
    ),
  }),
  (given): Given => ({
    kvType: given.kv_type,
    isq: given.isq,
    defaults: {
      temperature: given.temperature,
      topP: given.top_p,
      topK: given.top_k,
      minP: given.min_p,
      repeatPenalty: given.repeat_penalty,
      maxTokens: given.max_tokens,
      dimensions: given.dimensions,
    },
  }),
);

/** Verifiers accept as many blobs of one model. */
const MAX_FILES = 64;
const filePath = text({ min: 1, max: 4096 });

export const registerModel = route({
  method: 'POST',
  path: '/v1/models',
  access: 'admin',
  limited: true,
  untimed: true,
  summary: 'Register a model under a configured model root: a GGUF file, or a folder that is converted.',
  tag: 'Models',
  status: 201,
  body: object({
    name: newModelName,
    path: either(
      { string: filePath, array: list(filePath, { min: 1, max: MAX_FILES }) },
      'a path, or a list of the paths of the parts of a split model',
      'Absolute path of the file on the server. Of a split model: that of the first part (`NAME-00001-of-00003.gguf`), or of all parts in order. Or of a folder: of one GGUF model and its projector, or as `format` says.',
    ),
    format: optional(format),
    default_parameters: optional(defaultParameters),
    ...JOB_FIELDS,
  }),
  answer: modelAnswer,
  errors: [
    'file_not_found',
    'invalid_gguf',
    'invalid_whisper_model',
    'invalid_safetensors',
    'invalid_model_config',
    'ambiguous_quantization',
    'unsupported_parameter',
    'storage_full',
    'path_not_allowed',
    'unsupported_model_format',
    'job_record_required',
    'job_record_refused',
    'invalid_value',
    'model_already_exists',
    'too_many_models',
  ],
  async handle({ deps, body, exchange }) {
    const given = body.default_parameters;
    const { name, path } = body;
    const registering = deps.models.register(
      {
        name,
        path,
        format: body.format,
        isq: given?.isq,
        defaultParameters: given?.defaults,
        kvType: given?.kvType,
        job: jobProof(body),
      },
      exchange.signal,
    );
    const registered = await registering.catch((error: unknown) => {
      throw asRequested(error);
    });
    recordModel(exchange, registered);
    return wireModel(deps.models.get(registered.id) ?? { ...registered, loaded: false, inFlight: 0 });
  },
});

/** Errors of the models name settings as the configuration does; this request has them one level down. */
function asRequested(error: unknown): unknown {
  if (!(error instanceof ApiError) || error.param !== 'kv_type') return error;
  return new ApiError(error.code, error.message, {
    param: `default_parameters.${error.param}`,
    cause: error,
  });
}

export const deleteModel = route({
  method: 'DELETE',
  path: '/v1/models/:id',
  aliases: ['/v1/models/*'],
  access: 'admin',
  limited: true,
  summary: 'Unload and deregister a model; blobs no other model needs are deleted.',
  tag: 'Models',
  answer: deletedAnswer,
  errors: ['model_not_found', 'model_has_adapters'],
  async handle({ deps, params, exchange }) {
    const rest = params['*'];
    const pull = rest === undefined ? undefined : /^pull\/(.+)$/.exec(rest)?.[1];
    if (pull !== undefined) return cancelPullOf(deps.models, pull);
    const id = params['id'] ?? rest ?? '';
    if (id === '') throw unknownUrl();
    recordModel(exchange, deps.models.get(id));
    await deps.models.remove(id);
    return { id, object: 'model', deleted: true };
  },
});
