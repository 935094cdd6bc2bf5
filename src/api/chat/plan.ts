// The wishes of a request in any dialect of a conversation, checked as far as that needs no model, and the
// engine request it becomes once the model is there. Refuses an effort of a model without reasoning.

import type {
  ChatMessage,
  Conversation,
  EngineInfo,
  GenerateRequest,
  Sampling,
} from '../../engine/seam/engine.ts';
import type { Loosenings } from '../../grammar/compile.ts';
import { refuse } from '../../base/shape.ts';
import type { ToolReader } from './calls/events.ts';
import { assertSees } from './images.ts';
import { createToolReader } from './calls/reader.ts';
import { type FormatGrammar, requestGrammar } from './response-format.ts';
import { callMarks, type ToolUse } from './tools.ts';

export interface Asked {
  readonly messages: readonly ChatMessage[];
  /** The field of the request they came by; undefined: `messages`. */
  readonly param?: string | undefined;
  /** Whether a last message of the assistant is continued; undefined: it is. */
  readonly prefill?: boolean | undefined;
  /** Null: no tool may be called. */
  readonly use: ToolUse | null;
  readonly content: FormatGrammar | undefined;
  readonly sampling: Sampling;
  readonly n: number;
  /** Undefined: up to the end of the context. */
  readonly maxTokens: number | undefined;
  readonly stop: readonly string[];
  readonly variables: Readonly<Record<string, unknown>> | undefined;
  /** `param`: the field of the request it came by. */
  readonly effort: { readonly value: string | undefined; readonly param: string };
  readonly reasoningBudget: number | undefined;
  /** Alternatives of each token; undefined: no log probabilities. */
  readonly logprobs: number | undefined;
  readonly cacheScope: string;
}

/** A request after every check that needs no model. */
export interface ChatPlan {
  readonly messages: readonly ChatMessage[];
  /** The same wishes of another conversation. */
  withMessages(messages: readonly ChatMessage[]): ChatPlan;
  readonly prompt: Conversation;
  readonly n: number;
  readonly maxTokens: number | undefined;
  readonly sampling: Sampling;
  /** Whether the answer has log probabilities. */
  readonly logprobs: boolean;
  readonly parallel: boolean;
  /** Null: the answer is not read for tool calls. */
  reader(info: EngineInfo): (() => ToolReader) | null;
  /** `tell` gets the keywords of the schemas that are not enforced. */
  request(info: EngineInfo, tell?: (loosened: Loosenings) => void): GenerateRequest;
}

export function planAnswer(asked: Asked): ChatPlan {
  const { use, content, messages, n, maxTokens, sampling } = asked;
  const prompt: Conversation = {
    kind: 'chat',
    messages,
    tools: use?.tools,
    templateVariables: asked.variables,
    prefill: asked.prefill,
    param: asked.param,
  };
  return {
    messages,
    withMessages: (others) => planAnswer({ ...asked, messages: others }),
    prompt,
    n,
    maxTokens,
    sampling,
    logprobs: asked.logprobs !== undefined,
    parallel: use?.parallel ?? true,
    reader(info) {
      if (use === null) return null;
      return () => createToolReader(info.toolFormat, use.tools);
    },
    request(info, tell) {
      assertReasons(info, asked.effort);
      assertSees(messages, info.vision);
      const { grammar, loosened } = requestGrammar(content, use, info.toolFormat);
      tell?.(loosened);
      return {
        prompt,
        sampling,
        n,
        maxTokens,
        stop: asked.stop,
        calls: use === null ? undefined : callMarks(use, content !== undefined, info.toolFormat),
        grammar,
        reasoningBudget: asked.reasoningBudget,
        logprobs: asked.logprobs,
        cacheScope: asked.cacheScope,
      };
    },
  };
}

/** An effort asks for reasoning, which a model without it cannot give. */
function assertReasons(info: EngineInfo, { value, param }: Asked['effort']): void {
  if (value === undefined || value === 'none' || info.reasoning !== null) return;
  throw refuse('unsupported_parameter', param, `this model has no reasoning: ${param} may only be 'none'`);
}
