// POST /v1/chat/completions on the wire: the shape of a request (OpenAI API reference, "Create chat
// completion"), and the plan it becomes.

import { formatGrammar, responseFormat } from './response-format.ts';
import { messages, toChatMessages } from './messages.ts';
import { budgetOf, effortOf, templateFields, templateVariables } from './template-variables.ts';
import { chatDialectFields } from '../generation/dialects.ts';
import {
  checkStreamOptions,
  inertFields,
  maxTokens,
  modelId,
  samplingFields,
  toSampling,
  unsupportedChatFields,
} from '../generation/sampling.ts';
import { choice, flag, integer, list, object, optional, optionalOrEmpty, refuse } from '../../base/shape.ts';
import type { Infer } from '../../base/shape.ts';
import { type ChatPlan, planAnswer } from './plan.ts';
import { toolChoice, tools, toToolUse } from './tools.ts';
import type { ModelDefaults } from '../../models/model.ts';
import { inert } from '../unsupported.ts';

export const chatRequest = object({
  model: modelId,
  messages,
  ...samplingFields,
  max_tokens: optional(
    maxTokens("Longest answer; -1: up to the end of the context. Default: the model's, else the same."),
  ),
  max_completion_tokens: optional(maxTokens('The same as max_tokens, by its newer name.')),
  logprobs: optional(flag('Log probabilities of the tokens of the answer.')),
  top_logprobs: optional(
    integer({ min: 0, max: 20, about: 'Likeliest alternatives per token; needs logprobs.' }),
  ),
  response_format: optionalOrEmpty(responseFormat),
  tools: optional(tools),
  tool_choice: optionalOrEmpty(toolChoice),
  parallel_tool_calls: optional(flag('More than one call in an answer; default true.')),
  modalities: inert(list(choice(['text']), { max: 1 }), 'answers are text.'),
  ...inertFields,
  ...chatDialectFields,
  ...templateFields,
  ...unsupportedChatFields,
});

export type ChatRequest = Infer<typeof chatRequest>;

export function planChat(body: ChatRequest, defaults: ModelDefaults, cacheScope: string): ChatPlan {
  checkStreamOptions(body);
  if ((body.top_logprobs ?? 0) > 0 && body.logprobs !== true)
    throw refuse('invalid_value', 'top_logprobs', 'top_logprobs is only allowed when logprobs is true');
  return planAnswer({
    use: toToolUse(body),
    content: formatGrammar(body.response_format),
    maxTokens: answerLimit(body, defaults),
    sampling: toSampling(body, defaults),
    messages: toChatMessages(body.messages),
    prefill: prefillOf(body),
    variables: templateVariables(body),
    effort: {
      value: effortOf(body),
      param: body.reasoning_effort === undefined ? 'reasoning.effort' : 'reasoning_effort',
    },
    reasoningBudget: budgetOf(body),
    n: body.n ?? 1,
    stop: body.stop ?? [],
    logprobs: body.logprobs === true ? (body.top_logprobs ?? 0) : undefined,
    cacheScope,
  });
}

/** Undefined: as usual. */
function prefillOf(body: ChatRequest): boolean | undefined {
  const { continue_final_message: wanted, add_generation_prompt: fresh } = body;
  const continuable = body.messages.at(-1)?.role === 'assistant';
  if (wanted === true && !continuable) {
    const param = 'continue_final_message';
    throw refuse('invalid_value', param, `${param} needs a last message of the assistant`);
  }
  if (fresh === false && wanted !== true) {
    const param = 'add_generation_prompt';
    throw refuse('unsupported_parameter', param, `${param} is false without continue_final_message`);
  }
  return continuable ? wanted : undefined;
}

/**
 * Two names of one limit; a null one (no limit) gives way to the other. Undefined: up to the end of the
 * context.
 */
function answerLimit(
  body: Pick<ChatRequest, 'max_tokens' | 'max_completion_tokens'>,
  defaults: ModelDefaults,
): number | undefined {
  const { max_tokens: older, max_completion_tokens: newer } = body;
  if (typeof older === 'number' && typeof newer === 'number' && older !== newer)
    throw refuse('invalid_value', 'max_completion_tokens', 'max_tokens and max_completion_tokens differ');
  const asked = newer ?? older;
  return asked === undefined ? defaults.maxTokens : (asked ?? undefined);
}
