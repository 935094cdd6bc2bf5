// POST /v1/completions on the wire (OpenAI API reference, "Create completion"): prompts as text or tokens,
// one or many; the choices of prompt i are those from i·n on.

import type { GenerateRequest, Prompt } from '../../engine/seam/engine.ts';
import { dialectFields } from '../generation/dialects.ts';
import { MAX_TEXT, textsOrTokens } from '../generation/inputs.ts';
import {
  checkStreamOptions,
  inertFields,
  maxTokens,
  modelId,
  samplingFields,
  toSampling,
} from '../generation/sampling.ts';
import {
  either,
  flag,
  integer,
  map,
  object,
  optional,
  optionalOrEmpty,
  refuse,
  text,
} from '../../base/shape.ts';
import type { Infer } from '../../base/shape.ts';
import type { ModelDefaults } from '../../models/model.ts';

const DEFAULT_MAX_TOKENS = 256;

export const completionRequest = object({
  model: modelId,
  prompt: textsOrTokens,
  ...samplingFields,
  max_tokens: optional(
    maxTokens(
      `Longest answer; -1: up to the end of the context. Default: the model's, else ${DEFAULT_MAX_TOKENS}.`,
    ),
  ),
  echo: optional(flag('Give the prompt back before the answer.')),
  suffix: optionalOrEmpty(
    text({ max: MAX_TEXT, about: 'Text after the gap; only for models with fill-in-the-middle tokens.' }),
  ),
  logprobs: optional(
    map(
      either(
        {
          number: integer({ min: 0, max: 5 }),
          boolean: map(flag(), (value, path) => {
            if (value) throw refuse('invalid_type', path, `${path} is true, expected an integer`);
          }),
        },
        'an integer',
        'Log probabilities, with this many alternatives per token; false: none.',
      ),
      (value) => value ?? undefined,
      {
        type: 'integer',
        minimum: 0,
        maximum: 5,
        description: 'Log probabilities, with this many alternatives per token.',
      },
    ),
  ),
  best_of: optional(integer({ min: 1, max: 128, about: 'Only the same as n.' })),
  ...inertFields,
  ...dialectFields,
});

export type CompletionRequest = Infer<typeof completionRequest>;

export interface CompletionPlan {
  readonly n: number;
  readonly prompts: readonly (string | readonly number[])[];
  readonly logprobs: boolean;
  /** The engine request for one prompt. */
  request(prompt: string | readonly number[]): GenerateRequest;
}

export function planCompletion(
  body: CompletionRequest,
  defaults: ModelDefaults,
  cacheScope: string,
): CompletionPlan {
  checkStreamOptions(body);
  const n = body.n ?? 1;
  if (body.best_of !== undefined && body.best_of !== n)
    throw refuse('unsupported_parameter', 'best_of', 'best_of is not supported unless it equals n');
  if (body.suffix !== undefined && (body.prompt.length > 1 || typeof body.prompt[0] !== 'string')) {
    throw refuse('invalid_value', 'suffix', 'suffix is only allowed with one prompt of text');
  }
  const asked = body.max_tokens === undefined ? (defaults.maxTokens ?? DEFAULT_MAX_TOKENS) : body.max_tokens;
  const limit = asked ?? undefined;
  const sampling = toSampling(body, defaults);
  return {
    n,
    prompts: body.prompt,
    logprobs: body.logprobs !== undefined,
    request: (prompt) => ({
      prompt: toPrompt(prompt, body.suffix),
      sampling,
      n,
      maxTokens: limit,
      stop: body.stop ?? [],
      logprobs: body.logprobs,
      echo: body.echo ?? false,
      cacheScope,
    }),
  };
}

function toPrompt(prompt: string | readonly number[], suffix: string | undefined): Prompt {
  if (typeof prompt !== 'string') return { kind: 'tokens', tokens: prompt };
  return { kind: 'text', text: prompt, suffix };
}
