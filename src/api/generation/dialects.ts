// Parameters that other servers and gateways define (vLLM, llama.cpp, OpenRouter,
// text-generation-inference) and their clients send with every request, mostly at their defaults. Values
// that ask for the usual are accepted; a value that would change the answer and cannot be honoured is
// refused by name, as everything else that is not known.

import { decimal, flag, integer, list, object, optional, text } from '../../base/shape.ts';
import { asUsual, inert, unsupportedParameter } from '../unsupported.ts';

const UNUSED = 'it tunes a sampler that is off.';
const FORM = 'use response_format';
const tuning = inert(decimal({ min: -1e9, max: 1e9 }), UNUSED);

export const dialectFields = {
  // Where an answer ends, and what of it is shown.
  ignore_eos: asUsual(false),
  min_tokens: asUsual(0),
  stop_token_ids: asUsual([]),
  include_stop_str_in_output: asUsual(false),
  skip_special_tokens: asUsual(true),
  spaces_between_special_tokens: asUsual(true),
  detokenize: asUsual(true),
  // Samplers that are off here.
  mirostat: asUsual(0),
  mirostat_tau: tuning,
  mirostat_eta: tuning,
  typical_p: asUsual(1),
  tfs_z: asUsual(1),
  top_a: asUsual(0),
  top_n_sigma: asUsual(-1, 0),
  dynatemp_range: asUsual(0),
  dynatemp_exponent: tuning,
  xtc_probability: asUsual(0),
  xtc_threshold: tuning,
  dry_multiplier: asUsual(0),
  dry_base: tuning,
  dry_allowed_length: inert(integer({ min: -1, max: 1_000_000 }), UNUSED),
  dry_penalty_last_n: inert(integer({ min: -1, max: 100_000_000 }), UNUSED),
  dry_sequence_breakers: inert(list(text({ max: 1024 }), { max: 64 }), UNUSED),
  use_beam_search: asUsual(false),
  length_penalty: asUsual(1),
  allowed_token_ids: asUsual([]),
  bad_words: asUsual([]),
  samplers: asUsual([]),
  random_seed: unsupportedParameter('use seed'),
  // The form of an answer, by the names of before response_format.
  guided_json: unsupportedParameter(FORM),
  guided_regex: unsupportedParameter(FORM),
  guided_choice: unsupportedParameter(FORM),
  guided_grammar: unsupportedParameter(FORM),
  grammar: unsupportedParameter(FORM),
  // Caches and extra output.
  cache_prompt: asUsual(true),
  n_keep: asUsual(0),
  n_predict: asUsual(-1),
  id_slot: asUsual(-1),
  priority: asUsual(0),
  truncate_prompt_tokens: unsupportedParameter('a prompt is never cut'),
  mm_processor_kwargs: unsupportedParameter(''),
  n_probs: asUsual(0),
  min_keep: asUsual(0),
  prompt_logprobs: asUsual(0, false),
  return_tokens: asUsual(false),
  timings_per_token: asUsual(false),
  // Gateways.
  transforms: asUsual([]),
  plugins: asUsual([]),
  models: asUsual([]),
  provider: asUsual({}),
  options: asUsual({}),
  safe_prompt: asUsual(false),
  usage: inert(object({ include: optional(flag('')) }), 'usage is always told.'),
} as const;

/** Those that only a chat does not know: a text completion has them with a meaning. */
export const chatDialectFields = {
  ...dialectFields,
  best_of: asUsual(1),
  echo: asUsual(false),
  add_generation_prompt: optional(flag('False only together with `continue_final_message`.')),
  continue_final_message: optional(
    flag('Whether the answer continues a last message of the assistant. Default: it does.'),
  ),
  include_reasoning: asUsual(true),
  reasoning_format: asUsual('auto', 'deepseek'),
  add_special_tokens: asUsual(false),
  documents: unsupportedParameter('put them into the messages'),
} as const;
