// Answers on the wire, declared like requests: openapi.json is generated from them, and tests check
// real answers against them.

import { jobOriginAnswer } from '../base/job-proof.ts';
import {
  anything,
  choice,
  decimal,
  either,
  flag,
  integer,
  list,
  literal,
  nullable,
  object,
  optional,
  text,
} from '../base/shape.ts';
import type { Shape } from '../base/shape.ts';

const MANY = 1_000_000;
const words = text({ max: 1_000_000_000 });
const count = integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const real = decimal({ min: -Number.MAX_VALUE, max: Number.MAX_VALUE });
const record: Shape<unknown> = {
  schema: { type: 'object', additionalProperties: true },
  read: (value) => value,
};

const tokenLogprob = object({
  token: words,
  logprob: real,
  bytes: nullable(list(integer({ min: 0, max: 255 }), { max: 1024 })),
  top_logprobs: list(
    object({
      token: words,
      logprob: real,
      bytes: nullable(list(integer({ min: 0, max: 255 }), { max: 1024 })),
    }),
    { max: 20 },
  ),
});

const usage = object({
  prompt_tokens: count,
  completion_tokens: count,
  total_tokens: count,
  prompt_tokens_details: object({ cached_tokens: count }),
  completion_tokens_details: object({ reasoning_tokens: count }),
});

const inputUsage = object({ prompt_tokens: count, total_tokens: count });

export const chatAnswer = object({
  id: words,
  object: literal('chat.completion'),
  created: count,
  model: words,
  choices: list(
    object({
      index: count,
      message: object({
        role: literal('assistant'),
        content: nullable(words),
        reasoning_content: optional(words),
        refusal: nullable(words),
        tool_calls: optional(
          list(
            object({
              id: words,
              type: literal('function'),
              function: object({ name: words, arguments: words }),
            }),
            {
              min: 1,
              max: MANY,
            },
          ),
        ),
      }),
      logprobs: nullable(object({ content: list(tokenLogprob, { max: MANY }), refusal: nullable(anything) })),
      finish_reason: choice(['stop', 'length', 'tool_calls']),
    }),
    { min: 1, max: 1024 },
  ),
  usage,
  system_fingerprint: words,
});

export const chatChunk = object({
  id: words,
  object: literal('chat.completion.chunk'),
  created: count,
  model: words,
  system_fingerprint: words,
  choices: list(
    object({
      index: count,
      delta: object({
        role: optional(literal('assistant')),
        content: optional(words),
        reasoning_content: optional(words),
        refusal: optional(words),
        tool_calls: optional(
          list(
            object({
              index: count,
              id: optional(words),
              type: optional(literal('function')),
              function: object({ name: optional(words), arguments: words }),
            }),
            { max: 1 },
          ),
        ),
      }),
      logprobs: nullable(object({ content: list(tokenLogprob, { max: MANY }), refusal: nullable(anything) })),
      finish_reason: nullable(choice(['stop', 'length', 'tool_calls'])),
    }),
    { max: 1 },
  ),
  usage: optional(nullable(usage)),
  obfuscation: optional(words),
});

export const completionAnswer = object({
  id: words,
  object: literal('text_completion'),
  created: count,
  model: words,
  choices: list(
    object({
      index: count,
      text: words,
      logprobs: nullable(
        object({
          tokens: list(words, { max: MANY }),
          token_logprobs: list(nullable(real), { max: MANY }),
          top_logprobs: nullable(list(nullable(record), { max: MANY })),
          text_offset: list(count, { max: MANY }),
        }),
      ),
      finish_reason: nullable(choice(['stop', 'length'])),
    }),
    { max: 1024 },
  ),
  usage: optional(nullable(usage)),
  system_fingerprint: words,
  obfuscation: optional(words),
});

export const embeddingAnswer = object({
  object: literal('list'),
  data: list(
    object({
      object: literal('embedding'),
      index: count,
      embedding: either(
        { string: words, array: list(real, { max: 1_000_000 }) },
        'numbers, or base64 of little-endian float32',
      ),
    }),
    { max: MANY },
  ),
  model: words,
  usage: inputUsage,
});

export const rerankAnswer = object({
  id: words,
  object: literal('list'),
  model: words,
  results: list(
    object({
      index: count,
      relevance_score: decimal({ min: 0, max: 1 }),
      document: optional(object({ text: words })),
    }),
    {
      max: MANY,
    },
  ),
  usage: inputUsage,
});

export const tokenizeAnswer = object({
  tokens: either(
    {
      array: list(
        either(
          {
            number: integer({ min: -1, max: 0x7fff_ffff }),
            object: object({
              id: integer({ min: -1, max: 0x7fff_ffff }),
              piece: either(
                { string: words, array: list(integer({ min: 0, max: 255 }), { max: 1024 }) },
                'text, or bytes that are no text of their own',
              ),
            }),
          },
          'a token',
        ),
        { max: 100_000_000 },
      ),
    },
    'tokens',
  ),
  count,
  max_model_len: count,
});

const duration = object({ type: literal('duration'), seconds: count });

/** `json`; `verbose_json` has the rest. The other formats are text. */
export const transcriptionAnswer = object({
  text: words,
  usage: duration,
  task: optional(choice(['transcribe', 'translate'])),
  language: optional(words),
  duration: optional(real),
  words: optional(list(object({ word: words, start: real, end: real }), { max: MANY })),
  segments: optional(
    list(
      object({
        id: count,
        seek: count,
        start: real,
        end: real,
        text: words,
        tokens: list(count, { max: MANY }),
        temperature: real,
        avg_logprob: real,
        compression_ratio: real,
        no_speech_prob: real,
      }),
      { max: MANY },
    ),
  ),
});

export const detokenizeAnswer = object({ content: words, count });

export const modelAnswer = object({
  id: words,
  object: literal('model'),
  created: count,
  owned_by: literal('local'),
  type: choice(['chat', 'completion', 'embedding', 'rerank', 'transcription']),
  format: choice(['gguf', 'whisper']),
  sha256: words,
  kind: choice(['blob', 'manifest']),
  size_bytes: count,
  context_length: count,
  capabilities: list(
    choice([
      'completion',
      'chat',
      'tools',
      'structured_output',
      'vision',
      'embedding',
      'rerank',
      'transcription',
    ]),
    {
      max: 16,
    },
  ),
  residency: choice(['memory', 'verity', 'disk']),
  kv_type: optional(choice(['f16', 'q8_0'])),
  parent: optional(words),
  derived: optional(
    object({
      from: list(words, { max: 64 }),
      converter: words,
      type: words,
      sha256: words,
      other_types: count,
      projector: optional(object({ type: words, sha256: words })),
    }),
  ),
  job: optional(jobOriginAnswer),
  projector: optional(object({ sha256: words, size_bytes: count, used: flag() })),
  loaded: flag(),
  loading: optional(object({ progress: decimal({ min: 0, max: 1 }) })),
  tool_format: optional(
    object({
      kind: words,
      native: flag('False: the model is told of tools in a form of this server; `kind` is generic.'),
    }),
  ),
  details: optional(
    object({
      architecture: words,
      parameters: count,
      quantization: words,
      has_chat_template: flag(),
      tokenizer: words,
    }),
  ),
});

export const modelListAnswer = object({ object: literal('list'), data: list(modelAnswer, { max: MANY }) });

export const deletedAnswer = object({ id: words, object: literal('model'), deleted: flag() });
export const loadAnswer = object({
  status: choice(['loaded', 'already_loaded']),
  model: words,
  type: words,
  loaded_at: nullable(count),
});
export const loraAnswer = object({
  status: choice(['loaded', 'already_loaded']),
  model: words,
  parent: words,
  sha256: words,
  loaded_at: nullable(count),
});
export const unloadAnswer = object({ status: literal('unloaded'), model: words });

export const statusAnswer = object({
  loaded_count: count,
  models: list(
    object({
      name: words,
      type: words,
      loaded_at: count,
      uptime_seconds: count,
      has_tokenizer: flag(),
      in_flight: count,
      expires_at: nullable(count),
    }),
    { max: MANY },
  ),
  loading: list(object({ name: words, progress: decimal({ min: 0, max: 1 }) }), { max: MANY }),
});

export const pullEvent = object({
  status: choice(['resuming', 'downloading', 'verifying', 'success', 'already_exists', 'error']),
  offset: optional(count),
  completed: optional(count),
  total: optional(count),
  id: optional(words),
  object: optional(literal('model')),
  code: optional(words),
  message: optional(words),
  error: optional(record),
});

export const pullStatusAnswer = object({
  name: words,
  status: choice(['pulling', 'done', 'failed']),
  completed: count,
  total: count,
  error: nullable(words),
  started_at: words,
  finished_at: nullable(words),
});

export const pullCancelledAnswer = object({ name: words, cancelled: flag() });

export const healthAnswer = object({
  status: choice(['ok', 'draining']),
  version: words,
  uptime_seconds: count,
  loaded_models: count,
  tee: object({
    enabled: flag(),
    type: nullable(choice(['sev-snp', 'tdx', 'simulated'])),
    models_verified: flag(),
    attestation_available: flag(),
  }),
});

export const errorObject = object({ message: words, type: words, param: nullable(words), code: words });
export const errorAnswer = object({ error: errorObject });
