// POST /v1/chat/completions on the wire: the shape of a request (OpenAI API reference, "Create chat
// completion"), and the engine request it becomes.

import type { EngineInfo, GenerateRequest } from '../../engine/seam/engine.ts';
import { formatGrammar, requestGrammar, responseFormat } from './response-format.ts';
import type { Loosenings } from '../../grammar/compile.ts';
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
import type { ToolReader } from './calls/events.ts';
import { createToolReader } from './calls/reader.ts';
import { callMarks, toolChoice, tools, toToolUse } from './tools.ts';
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

/** A request after every check that needs no model. */
export interface ChatPlan {
  readonly n: number;
  readonly maxTokens: number | undefined;
  /** Whether the answer has log probabilities. */
  readonly logprobs: boolean;
  readonly parallel: boolean;
  /** Null: the answer is not read for tool calls. */
  reader(info: EngineInfo): (() => ToolReader) | null;
  /** `tell` gets the keywords of the schemas that are not enforced. */
  request(info: EngineInfo, tell?: (loosened: Loosenings) => void): GenerateRequest;
}

export function planChat(body: ChatRequest, defaults: ModelDefaults, cacheScope: string): ChatPlan {
  checkStreamOptions(body);
  if ((body.top_logprobs ?? 0) > 0 && body.logprobs !== true)
    throw refuse('invalid_value', 'top_logprobs', 'top_logprobs is only allowed when logprobs is true');
  const use = toToolUse(body);
  const content = formatGrammar(body.response_format);
  const limit = answerLimit(body, defaults);
  const sampling = toSampling(body, defaults);
  const chat = toChatMessages(body.messages);
  const variables = templateVariables(body);
  return {
    n: body.n ?? 1,
    maxTokens: limit,
    logprobs: body.logprobs === true,
    parallel: use?.parallel ?? true,
    reader(info) {
      if (use === null) return null;
      return () => createToolReader(info.toolFormat, use.tools);
    },
    request(info, tell) {
      assertReasons(info, body);
      const { grammar, loosened } = requestGrammar(content, use, info.toolFormat);
      tell?.(loosened);
      return {
        prompt: {
          kind: 'chat',
          messages: chat,
          tools: use?.tools,
          templateVariables: variables,
        },
        sampling,
        n: body.n ?? 1,
        maxTokens: limit,
        stop: body.stop ?? [],
        calls: use === null ? undefined : callMarks(use, content !== undefined, info.toolFormat),
        grammar,
        reasoningBudget: budgetOf(body),
        logprobs: body.logprobs === true ? (body.top_logprobs ?? 0) : undefined,
        cacheScope,
      };
    },
  };
}

/** An effort asks for reasoning, which a model without it cannot give. */
function assertReasons(info: EngineInfo, body: ChatRequest): void {
  const effort = effortOf(body);
  if (effort === undefined || effort === 'none' || info.reasoning !== null) return;
  const param = body.reasoning_effort === undefined ? 'reasoning.effort' : 'reasoning_effort';
  throw refuse('unsupported_parameter', param, `this model has no reasoning: ${param} may only be 'none'`);
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
