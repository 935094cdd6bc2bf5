// Sampling parameters shared by chat and text completions (OpenAI API reference, plus top_k, min_p,
// repeat_penalty and keep_alive as local servers know them), and the engine's parameters they become.

import type { Sampling } from '../../engine/seam/engine.ts';
import {
  anyObject,
  choice,
  decimal,
  either,
  flag,
  integer,
  list,
  map,
  object,
  optional,
  optionalOrEmpty,
  refuse,
  text,
} from '../../base/shape.ts';
import type { Infer, Shape } from '../../base/shape.ts';
import type { ModelDefaults } from '../../models/model.ts';
import { inert, supportedAs, unsupportedParameter } from '../unsupported.ts';

/** Completions of one request; they share a prefill but each takes a slot. */
const MAX_CHOICES = 8;
const MAX_STOPS = 16;
const MAX_TOKENS = 16_777_216;
const MAX_BIASES = 1024;

/** Absent: no limit was given. `null`: as long as the context allows, which local servers write as -1. */
export function maxTokens(about: string): Shape<number | null> {
  return map(integer({ min: -1, max: MAX_TOKENS, about }), (value) => (value === -1 ? null : value));
}

export const modelId = text({ min: 1, max: 1024, about: 'Id of a registered model.' });

export const keepAlive = optionalOrEmpty(
  either(
    {
      string: text({
        max: 20,
        pattern: /^(-1|\d{1,9}(\.\d{1,3})?(ms|s|m|h)?)$/,
        form: 'a duration such as "30s", "5m", "1h", "0" or "-1"',
      }),
      number: decimal({ min: -1, max: 1e9 }),
    },
    'a duration',
    'How long the model stays loaded after this request: seconds, or "30s", "5m", "1h", "0" (unload when idle), "-1" (for ever).',
  ),
);

const stops = map(
  either(
    { string: text({ max: 1024 }), array: list(text({ max: 1024 }), { max: MAX_STOPS }) },
    'a string or an array of strings',
    `Up to ${MAX_STOPS} strings that end the answer; they are not part of it. Empty ones end nothing.`,
  ),
  (value): readonly string[] => (typeof value === 'string' ? [value] : value).filter((each) => each !== ''),
);

const logitBias = map(
  anyObject('Token id → number from -100 to 100 added to its logit; -100 bans the token.'),
  (value, path): ReadonlyMap<number, number> => {
    const entries = Object.entries(value);
    if (entries.length > MAX_BIASES)
      throw refuse(
        'invalid_value',
        path,
        `${path} has ${entries.length} entries, expected at most ${MAX_BIASES}`,
      );
    return new Map(
      entries.map(([key, bias]) => {
        if (!/^\d{1,9}$/.test(key))
          throw refuse('invalid_value', path, `${path} has a key that is not a token id`);
        if (typeof bias !== 'number' || !(bias >= -100 && bias <= 100))
          throw refuse('invalid_value', `${path}.${key}`, `${path}.${key} is not a number from -100 to 100`);
        return [Number(key), bias];
      }),
    );
  },
  {
    type: 'object',
    additionalProperties: { type: 'number', minimum: -100, maximum: 100 },
    description: 'Token id → number from -100 to 100 added to its logit; -100 bans the token.',
  },
);

export const samplingFields = {
  temperature: optional(decimal({ min: 0, max: 2, about: "0 is greedy. Default: the model's, else 1." })),
  top_p: optional(decimal({ min: 0, max: 1, about: "Default: the model's, else 1." })),
  top_k: optional(
    map(
      integer({
        min: -1,
        max: 1_000_000,
        about: "Only the k likeliest tokens; 0 or -1: no limit. Default: the model's, else 0.",
      }),
      (value) => Math.max(0, value),
    ),
  ),
  min_p: optional(
    decimal({
      min: 0,
      max: 1,
      about: "Only tokens at least this likely relative to the likeliest. Default: the model's, else 0.",
    }),
  ),
  presence_penalty: optional(decimal({ min: -2, max: 2, about: 'Default 0.' })),
  frequency_penalty: optional(decimal({ min: -2, max: 2, about: 'Default 0.' })),
  repeat_penalty: optional(
    decimal({
      min: 0.01,
      max: 10,
      about: "Divides the logits of tokens seen lately; 1 is off. Default: the model's, else 1.",
    }),
  ),
  repetition_penalty: optional(
    decimal({ min: 0.01, max: 10, about: 'The same as repeat_penalty, by its other name.' }),
  ),
  seed: optional(
    integer({
      min: Number.MIN_SAFE_INTEGER,
      max: Number.MAX_SAFE_INTEGER,
      about: 'Same seed, model and request: same answer.',
    }),
  ),
  logit_bias: optionalOrEmpty(logitBias),
  n: optional(integer({ min: 1, max: MAX_CHOICES, about: 'Answers to give; default 1.' })),
  stop: optional(stops),
  stream: optional(flag('Answer as server-sent events.')),
  stream_options: optionalOrEmpty(
    object({
      include_usage: optional(flag('One more chunk with `choices: []` and the usage, before [DONE].')),
      include_obfuscation: optional(
        flag('Pad events to a fixed size. Default: as the server is configured (on).'),
      ),
    }),
  ),
  keep_alive: keepAlive,
  user: inert(text({ max: 1024 }), 'nothing is kept per end user.'),
} as const;

/** OpenAI parameters that this server takes without effect: they promise only what holds anyway. */
export const inertFields = {
  metadata: inert(anyObject('Up to 16 strings.'), 'nothing is stored.'),
  store: inert(
    map(flag(), (value, path) => {
      if (value)
        throw refuse('unsupported_parameter', path, `${path} is true: this server stores no answers`);
    }),
    'false is what happens; true is refused.',
  ),
  service_tier: inert(
    choice(['auto', 'default']),
    'there is one tier; flex, scale and priority are refused.',
  ),
  safety_identifier: inert(text({ max: 1024 }), 'nothing is kept per end user.'),
  prompt_cache_key: inert(text({ max: 1024 }), 'prompts are always cached, within one API key.'),
  prompt_cache_retention: inert(
    choice(['in-memory', 'in_memory']),
    'the cache lives in memory; 24h is refused.',
  ),
} as const;

export const unsupportedChatFields = {
  audio: unsupportedParameter('answers are text'),
  function_call: supportedAs(['none', 'auto'], 'Nothing to call without `functions`; see `tool_choice`.'),
  functions: unsupportedParameter('use tools'),
  moderation: unsupportedParameter('this server judges no texts'),
  prediction: unsupportedParameter(''),
  prompt_cache_options: unsupportedParameter('prompts are always cached, within one API key'),
  verbosity: supportedAs(['medium'], 'As the model writes anyway.'),
  web_search_options: unsupportedParameter('this server reaches no network'),
} as const;

type SamplingBody = { readonly [K in keyof typeof samplingFields]: Infer<(typeof samplingFields)[K]> };

/** Request parameters, then the model's defaults, then OpenAI's. */
export function toSampling(
  body: Omit<SamplingBody, 'n' | 'stop' | 'stream' | 'stream_options' | 'keep_alive' | 'user'>,
  defaults: ModelDefaults,
): Sampling {
  return {
    temperature: body.temperature ?? defaults.temperature ?? 1,
    topP: body.top_p ?? defaults.topP ?? 1,
    topK: body.top_k ?? defaults.topK ?? 0,
    minP: body.min_p ?? defaults.minP ?? 0,
    presencePenalty: body.presence_penalty ?? 0,
    frequencyPenalty: body.frequency_penalty ?? 0,
    repeatPenalty: repeatPenalty(body) ?? defaults.repeatPenalty ?? 1,
    seed: body.seed === undefined ? undefined : toSeed(body.seed),
    logitBias: body.logit_bias?.size === 0 ? undefined : body.logit_bias,
  };
}

/** Two names of one number. */
function repeatPenalty({
  repeat_penalty: one,
  repetition_penalty: other,
}: Pick<SamplingBody, 'repeat_penalty' | 'repetition_penalty'>): number | undefined {
  if (one !== undefined && other !== undefined && one !== other)
    throw refuse('invalid_value', 'repetition_penalty', 'repeat_penalty and repetition_penalty differ');
  return one ?? other;
}

/** 64-bit seeds folded to the engine's 32; all ones would mean "random" to llama.cpp. */
function toSeed(seed: number): number {
  const folded = Number(BigInt.asUintN(32, BigInt(seed)));
  return folded === 0xffff_ffff ? 0x7fff_ffff : folded;
}

/** `stream_options` that ask for something without `stream` are refused, as OpenAI does. */
export function checkStreamOptions(body: {
  readonly stream: boolean | undefined;
  readonly stream_options: Infer<typeof samplingFields.stream_options>;
}): void {
  const { include_usage: usage, include_obfuscation: padded } = body.stream_options ?? {};
  if ((usage === true || padded === true) && body.stream !== true) {
    throw refuse('invalid_value', 'stream_options', 'stream_options is only allowed when stream is true');
  }
}
